use redis::{Client, IntoConnectionInfo};

use crate::error::Fault;

/// Where a store is, as its URL says.
#[derive(Clone)]
pub(crate) enum Address {
    Single(Box<Client>),
    #[cfg(feature = "cluster")]
    Cluster(Box<redis::cluster::ClusterClient>),
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, Fault> {
        let (scheme, rest) = url
            .split_once(':')
            .ok_or_else(|| refuse("it has no scheme, such as `redis:`"))?;
        match scheme {
            "redis" | "redis+unix" | "unix" => single(url),
            "rediss" => {
                tls()?;
                single(url)
            }
            "redis-cluster" => cluster("redis", rest),
            "rediss-cluster" => {
                tls()?;
                cluster("rediss", rest)
            }
            _ => Err(refuse(format!(
                "the scheme is `{scheme}`, and not one of redis, rediss, redis+unix, redis-cluster, rediss-cluster"
            ))),
        }
    }
}

fn single(url: &str) -> Result<Address, Fault> {
    let info = url.into_connection_info().map_err(malformed)?;
    let client = Client::open(info).map_err(malformed)?;
    Ok(Address::Single(Box::new(client)))
}

/// `//user:password@host1:port,host2:port?protocol=resp3`: every node is reached in the same way.
#[cfg(feature = "cluster")]
fn cluster(scheme: &str, rest: &str) -> Result<Address, Fault> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (authority, query) = match rest.split_once('?') {
        Some((authority, query)) => (authority, format!("?{query}")),
        None => (rest, String::new()),
    };
    let authority = authority.trim_end_matches('/');
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    if hosts.is_empty() {
        return Err(refuse("it names no host"));
    }
    let nodes = hosts
        .split(',')
        .map(|host| format!("{scheme}://{user}{host}/{query}"));
    let client = redis::cluster::ClusterClient::builder(nodes)
        .retries(3)
        .connection_timeout(std::time::Duration::from_secs(3600))
        .response_timeout(std::time::Duration::from_secs(3600))
        .build()
        .map_err(malformed)?;
    Ok(Address::Cluster(Box::new(client)))
}

#[cfg(not(feature = "cluster"))]
fn cluster(_scheme: &str, _rest: &str) -> Result<Address, Fault> {
    Err(refuse(
        "clusters are not built in (feature `cluster` of ck-backend-redis)",
    ))
}

/// Makes sure that rustls has something to compute with.
#[cfg(feature = "tls")]
fn tls() -> Result<(), Fault> {
    // Fails when the program has chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(())
}

#[cfg(not(feature = "tls"))]
fn tls() -> Result<(), Fault> {
    Err(refuse(
        "TLS is not built in (feature `tls` of ck-backend-redis)",
    ))
}

/// `url` without its password, for messages.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("//") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let rest = match rest[..end].rfind('@') {
        Some(at) => &rest[at + 1..],
        None => rest,
    };
    // A socket's password is an option: `redis+unix:///path?pass=...`.
    let rest = match rest.split_once('?') {
        Some((place, _)) => place,
        None => rest,
    };
    format!("{scheme}//{rest}")
}

fn refuse(reason: impl Into<String>) -> Fault {
    Fault::Url {
        reason: reason.into(),
    }
}

/// The crate's own words, which may quote no part of the URL.
fn malformed(error: redis::RedisError) -> Fault {
    refuse(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_appear_in_messages() {
        for (url, shown) in [
            ("redis://h:1/2", "redis://h:1/2"),
            ("redis://me:se@cret@h:1/2", "redis://h:1/2"),
            (
                "rediss-cluster://:x@a:1,b:2?protocol=resp3",
                "rediss-cluster://a:1,b:2",
            ),
            (
                "redis+unix:///run/r.sock?pass=x",
                "redis+unix:///run/r.sock",
            ),
            ("redis://h/?x=a@b", "redis://h/"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }

    #[test]
    fn urls_of_other_stores_are_refused() {
        for url in [
            "",
            "redis",
            "http://h",
            "redis://h:x",
            "redis-cluster://",
            "file:/x",
        ] {
            assert!(
                matches!(Address::parse(url), Err(Fault::Url { .. })),
                "{url}"
            );
        }
        for url in ["redis://h", "redis://u:p@h:1/2", "redis+unix:///run/r.sock"] {
            assert!(Address::parse(url).is_ok(), "{url}");
        }
    }
}
