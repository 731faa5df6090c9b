use redis::{Client, IntoConnectionInfo};

use crate::error::Fault;

/// Where a store is, as its URL says.
#[derive(Clone)]
pub(crate) enum Address {
    Single(Box<Client>),
    #[cfg(feature = "cluster")]
    Cluster {
        client: Box<redis::cluster::ClusterClient>,
        /// How the first of its nodes is reached.
        node: Box<redis::ConnectionInfo>,
    },
    #[cfg(feature = "sentinel")]
    Sentinel(Box<crate::sentinel::Sentinels>),
}

/// Whom to trust over TLS, and what to show: PEM.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    /// Without any, those of the system.
    pub(crate) roots: Option<Vec<u8>>,
    /// The client's own certificate and its key.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Address {
    pub(crate) fn parse(url: &str, certificates: &Certificates) -> Result<Self, Fault> {
        let (scheme, rest) = url
            .split_once(':')
            .ok_or_else(|| refuse("it has no scheme, such as `redis:`"))?;
        let (kind, over_tls) = match scheme {
            "redis" | "redis+unix" | "unix" => ("", false),
            "rediss" => ("", true),
            "redis-cluster" => ("cluster", false),
            "rediss-cluster" => ("cluster", true),
            "redis-sentinel" => ("sentinel", false),
            "rediss-sentinel" => ("sentinel", true),
            _ => {
                return Err(refuse(format!(
                    "the scheme is `{scheme}`, and not one of redis, rediss, redis+unix, redis-cluster, \
                     rediss-cluster, redis-sentinel, rediss-sentinel"
                )));
            }
        };
        if over_tls {
            tls()?;
        }
        match kind {
            "cluster" => cluster(over_tls, rest, certificates),
            "sentinel" => sentinel(over_tls, rest, certificates),
            _ => single(url, over_tls, certificates),
        }
    }
}

fn single(url: &str, over_tls: bool, certificates: &Certificates) -> Result<Address, Fault> {
    let info = url.into_connection_info().map_err(malformed)?;
    let client = if over_tls {
        open_tls(info, certificates)
    } else {
        Client::open(info)
    };
    Ok(Address::Single(Box::new(client.map_err(malformed)?)))
}

#[cfg(feature = "tls")]
fn open_tls(
    info: redis::ConnectionInfo,
    certificates: &Certificates,
) -> redis::RedisResult<Client> {
    Client::build_with_tls(info, certificates.clone().into())
}

#[cfg(not(feature = "tls"))]
fn open_tls(info: redis::ConnectionInfo, _: &Certificates) -> redis::RedisResult<Client> {
    Client::open(info)
}

#[cfg(feature = "tls")]
impl From<Certificates> for redis::TlsCertificates {
    fn from(certificates: Certificates) -> Self {
        let client_tls = certificates
            .client
            .map(|(certificate, key)| redis::ClientTlsConfig {
                client_cert: certificate,
                client_key: key,
            });
        Self {
            client_tls,
            root_cert: certificates.roots,
        }
    }
}

/// What follows the scheme in the URL of several servers: `//user:password@host1:port,host2:port/path?query`.
#[cfg(any(feature = "cluster", feature = "sentinel"))]
pub(crate) struct Fleet<'a> {
    /// With the `@`, if there is a user.
    pub(crate) user: &'a str,
    pub(crate) hosts: Vec<&'a str>,
    pub(crate) path: &'a str,
    /// With the `?`, if there are any options.
    pub(crate) query: &'a str,
}

#[cfg(any(feature = "cluster", feature = "sentinel"))]
impl<'a> Fleet<'a> {
    pub(crate) fn parse(rest: &'a str) -> Result<Self, Fault> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (place, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        if hosts.is_empty() {
            return Err(refuse("it names no host"));
        }
        Ok(Self {
            user,
            hosts: hosts.split(',').collect(),
            path: path.trim_matches('/'),
            query,
        })
    }
}

/// Every node is reached in the same way.
#[cfg(feature = "cluster")]
fn cluster(over_tls: bool, rest: &str, certificates: &Certificates) -> Result<Address, Fault> {
    let scheme = if over_tls { "rediss" } else { "redis" };
    let fleet = Fleet::parse(rest)?;
    if !fleet.path.is_empty() {
        return Err(refuse("it names a database, and a cluster has one"));
    }
    let Fleet {
        user, hosts, query, ..
    } = fleet;
    let mut nodes = Vec::with_capacity(hosts.len());
    for host in hosts {
        let url = format!("{scheme}://{user}{host}/{query}");
        nodes.push(url.into_connection_info().map_err(malformed)?);
    }
    let node = Box::new(nodes[0].clone());
    let builder = redis::cluster::ClusterClient::builder(nodes)
        .retries(3)
        .connection_timeout(std::time::Duration::from_secs(3600))
        .response_timeout(std::time::Duration::from_secs(3600));
    #[cfg(feature = "tls")]
    let builder = if over_tls {
        builder.certs(certificates.clone().into())
    } else {
        builder
    };
    #[cfg(not(feature = "tls"))]
    let _ = certificates;
    let client = Box::new(builder.build().map_err(malformed)?);
    Ok(Address::Cluster { client, node })
}

#[cfg(not(feature = "cluster"))]
fn cluster(_over_tls: bool, _rest: &str, _: &Certificates) -> Result<Address, Fault> {
    Err(refuse(
        "clusters are not built in (feature `cluster` of ck-backend-redis)",
    ))
}

#[cfg(feature = "sentinel")]
fn sentinel(over_tls: bool, rest: &str, certificates: &Certificates) -> Result<Address, Fault> {
    let sentinels = crate::sentinel::Sentinels::parse(over_tls, rest, certificates)?;
    Ok(Address::Sentinel(Box::new(sentinels)))
}

#[cfg(not(feature = "sentinel"))]
fn sentinel(_over_tls: bool, _rest: &str, _: &Certificates) -> Result<Address, Fault> {
    Err(refuse(
        "sentinels are not built in (feature `sentinel` of ck-backend-redis)",
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

pub(crate) fn refuse(reason: impl Into<String>) -> Fault {
    Fault::Url {
        reason: reason.into(),
    }
}

/// The crate's own words, which may quote no part of the URL.
pub(crate) fn malformed(error: redis::RedisError) -> Fault {
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
            "redis-cluster://h/1",
            "redis-sentinel://h:1",
            "redis-sentinel:///name",
            "redis-sentinel://h/name?x=1",
            "file:/x",
        ] {
            assert!(
                matches!(
                    Address::parse(url, &Certificates::default()),
                    Err(Fault::Url { .. })
                ),
                "{url}"
            );
        }
        for url in [
            "redis://h",
            "redis://u:p@h:1/2",
            "redis+unix:///run/r.sock",
            #[cfg(feature = "cluster")]
            "redis-cluster://u:p@h:1,i/?protocol=resp3",
            #[cfg(feature = "sentinel")]
            "redis-sentinel://u:p@h:1,i/name?db=2&protocol=resp3",
        ] {
            assert!(
                Address::parse(url, &Certificates::default()).is_ok(),
                "{url}"
            );
        }
    }
}
