use std::sync::Arc;

use ck_backend_redis::RedisBackend;
use ck_core::{Backend, Result};

use super::parse::StoreUrl;

/// What the Redis client itself finds in its URL; the rest are ours.
const OF_THE_CLIENT: [&str; 4] = ["protocol", "db", "user", "pass"];

pub(super) fn open(url: &StoreUrl<'_>) -> Result<Arc<dyn Backend>> {
    let mut builder = RedisBackend::builder(address(url));
    let (mut certificate, mut private_key) = (None, None);
    for option in url.each_option() {
        builder = match option.name {
            name if OF_THE_CLIENT.contains(&name) => builder,
            "key_prefix" => builder.key_prefix(option.text()?),
            "timeout" => builder.timeout(option.duration()?),
            "min_throughput" => builder.min_throughput(option.bytes()?),
            "bulk_connections" => builder.bulk_connections(option.number()?),
            "single_value_bytes" => builder.single_value_bytes(option.bytes()?),
            "chunk_bytes" => builder.chunk_bytes(option.bytes()?),
            "value_limit_bytes" => builder.value_limit_bytes(option.bytes()?),
            "temp_ttl" => builder.temp_ttl(option.duration()?),
            "tls_ca_cert_file" => builder.root_certificates(option.file()?),
            "tls_cert_file" => {
                certificate = Some(option.file()?);
                builder
            }
            "tls_key_file" => {
                private_key = Some(option.file()?);
                builder
            }
            _ => {
                return Err(option.unknown(
                    "key_prefix, timeout, min_throughput, bulk_connections, single_value_bytes, chunk_bytes, \
                     value_limit_bytes, temp_ttl, tls_ca_cert_file, tls_cert_file, tls_key_file, protocol; \
                     for redis+unix also user, pass, for that and sentinels db",
                ));
            }
        };
    }
    builder = match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => {
            builder.client_certificate(certificate, private_key)
        }
        (None, None) => builder,
        _ => return Err(url.misuse("tls_cert_file and tls_key_file belong together")),
    };
    Ok(Arc::new(builder.build()?))
}

/// The URL with the client's own options.
fn address(url: &StoreUrl<'_>) -> String {
    let mut address = format!("{}:{}", url.scheme, url.rest);
    let mut separator = '?';
    for (name, value) in &url.options {
        if OF_THE_CLIENT.contains(name) {
            address.push_str(&format!("{separator}{name}={value}"));
            separator = '&';
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use ck_core::ErrorKind;

    use super::*;
    use crate::open_store;

    #[test]
    fn options_go_to_the_store_or_to_its_client() {
        let url = "redis://me:s%40crt@h:1/2?key_prefix=a%26b&protocol=resp3&timeout=1s&min_throughput=10MB\
                   &bulk_connections=2&single_value_bytes=1MiB&chunk_bytes=1MiB&value_limit_bytes=1GiB\
                   &temp_ttl=10s";
        assert_eq!(
            address(&StoreUrl::parse(url).unwrap()),
            "redis://me:s%40crt@h:1/2?protocol=resp3"
        );
        let store = open_store(url).unwrap();
        assert_eq!(store.url(), "redis://h:1/2");
        assert!(format!("{store:?}").contains("a&b"));
    }

    #[test]
    fn wrong_options_are_named_without_the_password() {
        for (query, said) in [
            ("protocol=resp9", "protocol"),
            ("timeout=x", "timeout"),
            ("bulk_connections=0", "bulk_connections"),
            ("temp_ttl=1ms", "temp_ttl"),
            ("key_prefix=%zz", "key_prefix"),
            ("limit_bytes=1GiB", "value_limit_bytes"),
            ("tls_ca_cert_file=/nowhere/ca.pem", "/nowhere/ca.pem"),
            ("tls_cert_file=/dev/null", "tls_key_file"),
        ] {
            let error = open_store(&format!("redis://me:secret@h?{query}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse, "{query}");
            let text = error.to_string();
            assert!(text.contains(said) && !text.contains("secret"), "{text}");
        }
    }
}
