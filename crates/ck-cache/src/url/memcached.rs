use std::sync::Arc;

use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, Result};

use super::options::{BAD_ESCAPE, unescape};
use super::parse::StoreUrl;

pub(super) fn open(url: &StoreUrl<'_>) -> Result<Arc<dyn Backend>> {
    let (credentials, servers) = authority(url)?;
    let mut builder = MemcachedBackend::builder(servers);
    if let Some((user, password)) = credentials {
        builder = builder.credentials(user, password);
    }
    for option in url.each_option() {
        builder = match option.name {
            "key_prefix" => builder.key_prefix(option.text()?),
            "timeout" => builder.timeout(option.duration()?),
            "connect_timeout" => builder.connect_timeout(option.duration()?),
            "min_throughput" => builder.min_throughput(option.bytes()?),
            "connections" => builder.connections(option.number()?),
            "bulk_connections" => builder.bulk_connections(option.number()?),
            "chunking" => builder.chunking(option.flag()?),
            "chunk_bytes" => {
                builder.chunk_bytes(usize::try_from(option.bytes()?).unwrap_or(usize::MAX))
            }
            "single_value_bytes" => builder.single_value_bytes(option.bytes()?),
            _ => {
                return Err(option.unknown(
                    "key_prefix, timeout, connect_timeout, min_throughput, connections, bulk_connections, \
                     chunking, chunk_bytes, single_value_bytes",
                ));
            }
        };
    }
    Ok(Arc::new(builder.build()?))
}

type Credentials = Option<(String, String)>;

/// What stands in `//[USER:PASSWORD@]HOST[:PORT],...`.
fn authority(url: &StoreUrl<'_>) -> Result<(Credentials, Vec<String>)> {
    let Some(rest) = url.rest.strip_prefix("//") else {
        return Err(url.misuse("two slashes must follow the scheme"));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (secret, servers) = match rest.rsplit_once('@') {
        Some((secret, servers)) => (Some(secret), servers),
        None => (None, rest),
    };
    if servers.is_empty() {
        return Err(url.misuse("the URL names no server"));
    }
    let credentials = match secret {
        None => None,
        Some(secret) => {
            let Some((user, password)) = secret.split_once(':') else {
                return Err(url.misuse("what stands before '@' has the form USER:PASSWORD"));
            };
            Some((plain(url, user)?, plain(url, password)?))
        }
    };
    Ok((credentials, servers.split(',').map(str::to_owned).collect()))
}

fn plain(url: &StoreUrl<'_>, text: &str) -> Result<String> {
    let bytes = unescape(text).ok_or_else(|| url.misuse(BAD_ESCAPE))?;
    String::from_utf8(bytes).map_err(|_| url.misuse("name and password must be UTF-8"))
}

#[cfg(test)]
mod tests {
    use ck_core::ErrorKind;

    use super::*;
    use crate::open_store;

    #[test]
    fn a_url_names_servers_and_perhaps_a_user() {
        let parsed = |text: &str| {
            let url = StoreUrl::parse(text).unwrap();
            authority(&url).unwrap()
        };
        assert_eq!(
            parsed("memcached://a,b:2?timeout=1s"),
            (None, vec!["a".to_owned(), "b:2".to_owned()])
        );
        let secret = Some(("me".to_owned(), "s@:,t".to_owned()));
        assert_eq!(
            parsed("memcached://me:s%40:%2Ct@[::1]:9/"),
            (secret, vec!["[::1]:9".to_owned()])
        );
    }

    #[test]
    fn options_are_taken_and_wrong_ones_are_named() {
        open_store(
            "memcached://a,b:2?key_prefix=x&timeout=1s&connect_timeout=1s&min_throughput=10MB&connections=2\
             &bulk_connections=2&chunking=false&chunk_bytes=512KiB&single_value_bytes=1MiB",
        )
        .unwrap();
        for (url, said) in [
            ("memcached:a", "two slashes"),
            ("memcached://", "no server"),
            ("memcached://secret@a", "USER:PASSWORD"),
            ("memcached://u:secret@a:b", "host:port"),
            ("memcached://u:secret@a,a", "once"),
            ("memcached://u:secret@a?chunking=no", "true, false"),
            ("memcached://u:secret@a?chunk_bytes=1", "512"),
            ("memcached://u:secret@a?colour=red", "single_value_bytes"),
        ] {
            let error = open_store(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse, "{url}");
            let text = error.to_string();
            assert!(text.contains(said) && !text.contains("secret"), "{text}");
        }
    }
}
