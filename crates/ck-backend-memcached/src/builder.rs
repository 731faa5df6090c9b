use std::fmt;
use std::time::Duration;

use ck_core::Result;

use crate::MemcachedBackend;
use crate::error::Fault;
use crate::names;

/// Builds a [`MemcachedBackend`]; see [`MemcachedBackend::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `build`"]
pub struct MemcachedBuilder {
    servers: Vec<String>,
    settings: Settings,
}

impl MemcachedBuilder {
    pub(crate) fn new(servers: Vec<String>) -> Self {
        Self {
            servers,
            settings: Settings {
                prefix: String::new(),
                timeout: Duration::from_secs(5),
                min_throughput: 50_000_000,
                connect_timeout: Duration::from_secs(2),
                connections: 8,
                bulk_connections: 4,
                chunking: true,
                chunk_bytes: 1 << 20,
                single_value_bytes: 32 << 20,
                credentials: None,
            },
        }
    }

    /// What all names of items begin with: the Python client's `key_prefix`. Visible ASCII, at most 150
    /// bytes. Default: nothing.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// How long an operation may take, before its bytes are counted. Default: 5 seconds. At least a
    /// millisecond, at most an hour.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// The slowest transfer that is not given up: each byte adds its share to the timeout. Default:
    /// 50,000,000. At least 1,000.
    pub fn min_throughput(mut self, bytes_per_second: u64) -> Self {
        self.settings.min_throughput = bytes_per_second;
        self
    }

    /// How long connecting may take, within the timeout of the operation that needs the connection.
    /// Default: 2 seconds. At least a millisecond, at most an hour.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// The most connections to each server for operations on one item. Whoever finds all of them in use
    /// waits, at most for its timeout. Default: 8. At least 1, at most 1,000.
    pub fn connections(mut self, connections: usize) -> Self {
        self.settings.connections = connections;
        self
    }

    /// The most connections to each server for chunks. One transfer uses as many as half of the machine's
    /// processors. Default: 4. At least 1, at most 1,000.
    pub fn bulk_connections(mut self, connections: usize) -> Self {
        self.settings.bulk_connections = connections;
        self
    }

    /// Whether entries beyond the limit for one item are stored in chunks. Otherwise they are rejected, and
    /// the older entry of the key, which is stale, is removed. Other clients do not read chunks. Default:
    /// yes.
    pub fn chunking(mut self, chunking: bool) -> Self {
        self.settings.chunking = chunking;
        self
    }

    /// The most bytes of a chunk; less where a server's item size is smaller. Default: 1 MiB. At least
    /// 512 bytes, at most 64 MiB.
    pub fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.settings.chunk_bytes = bytes;
        self
    }

    /// The most bytes of an entry that is stored as one item; less where the server's item size is smaller.
    /// A writer holds so much in memory before it begins to send. Default: 32 MiB. At least 1.
    pub fn single_value_bytes(mut self, bytes: u64) -> Self {
        self.settings.single_value_bytes = bytes;
        self
    }

    /// Name and password, for servers started with an authentication file (`-Y`). They cross the network
    /// as they are. Default: none.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.settings.credentials = Some((user.into(), password.into()));
        self
    }

    /// Makes the store. Connects to nothing: servers that are down now are found later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`](ck_core::ErrorKind::Misuse) for an option out of range, a server address that
    /// is none, or no servers.
    pub fn build(self) -> Result<MemcachedBackend> {
        let settings = self.settings;
        let hour = Duration::from_secs(3_600);
        let fits = |time: Duration| (Duration::from_millis(1)..=hour).contains(&time);
        check(
            "key_prefix",
            "visible ASCII of at most 150 bytes",
            names::is_plain(&settings.prefix) && settings.prefix.len() <= names::LONGEST_PREFIX,
            &settings.prefix,
        )?;
        let times = "it must lie between 1 ms and an hour";
        let millis = |time: Duration| time.as_millis();
        check(
            "timeout_ms",
            times,
            fits(settings.timeout),
            millis(settings.timeout),
        )?;
        check(
            "connect_timeout_ms",
            times,
            fits(settings.connect_timeout),
            millis(settings.connect_timeout),
        )?;
        check(
            "min_throughput",
            "it must be at least 1,000",
            settings.min_throughput >= 1_000,
            settings.min_throughput,
        )?;
        let counts = "it must lie between 1 and 1,000";
        for (option, count) in [
            ("connections", settings.connections),
            ("bulk_connections", settings.bulk_connections),
        ] {
            check(option, counts, (1..=1_000).contains(&count), count)?;
        }
        check(
            "chunk_bytes",
            "it must lie between 512 bytes and 64 MiB",
            (512..=64 << 20).contains(&settings.chunk_bytes),
            settings.chunk_bytes,
        )?;
        check(
            "single_value_bytes",
            "it must be at least 1",
            settings.single_value_bytes > 0,
            settings.single_value_bytes,
        )?;
        if let Some((user, password)) = &settings.credentials {
            let plain = names::is_plain(user) && names::is_plain(password) && !user.is_empty();
            check(
                "credentials",
                "visible ASCII without spaces",
                plain,
                "(hidden)",
            )?;
        }
        let mut servers = Vec::with_capacity(self.servers.len());
        for server in &self.servers {
            match address(server) {
                Some(address) if !servers.contains(&address) => servers.push(address),
                Some(_) => check("server", "each server may be named once", false, server)?,
                None => check("server", "it must be `host` or `host:port`", false, server)?,
            }
        }
        let count = servers.len();
        check(
            "servers",
            "there must be 1 to 10,000",
            (1..=10_000).contains(&count),
            count,
        )?;
        Ok(MemcachedBackend::with_settings(servers, settings))
    }
}

/// What a store was opened with.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) prefix: String,
    pub(crate) timeout: Duration,
    pub(crate) min_throughput: u64,
    pub(crate) connect_timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) bulk_connections: usize,
    pub(crate) chunking: bool,
    pub(crate) chunk_bytes: usize,
    pub(crate) single_value_bytes: u64,
    pub(crate) credentials: Option<(String, String)>,
}

impl fmt::Debug for Settings {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("connections", &self.connections)
            .field("bulk_connections", &self.bulk_connections)
            .field("chunking", &self.chunking)
            .finish_non_exhaustive()
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`; the port is 11211 unless given.
fn address(text: &str) -> Option<(String, u16)> {
    const PORT: u16 = 11211;
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        match port {
            "" => (host, PORT),
            _ => (host, port.strip_prefix(':')?.parse().ok()?),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, PORT),
        }
    };
    let plain = !host.is_empty() && names::is_plain(host) && !host.contains(['/', '@', ',', '?']);
    (plain && port != 0).then(|| (host.to_owned(), port))
}

fn check(
    option: &'static str,
    bound: &'static str,
    holds: bool,
    value: impl fmt::Display,
) -> Result<(), Fault> {
    if holds {
        return Ok(());
    }
    Err(Fault::Option {
        option,
        value: value.to_string(),
        bound,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_perhaps_a_port() {
        let host = |text: &str| address(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(host("cache").as_deref(), Some("cache 11211"));
        assert_eq!(host("10.0.0.1:11212").as_deref(), Some("10.0.0.1 11212"));
        assert_eq!(host("[::1]:9").as_deref(), Some("::1 9"));
        assert_eq!(host("[::1]").as_deref(), Some("::1 11211"));
        for text in [
            "", ":1", "a:", "a:0", "a:70000", "a:b", "::1", "[::1", "a/b", "u@h:1", "a b",
        ] {
            assert_eq!(host(text), None, "{text:?}");
        }
    }

    #[test]
    fn options_out_of_range_are_misuse() {
        let builder = || MemcachedBuilder::new(vec!["localhost".to_owned()]);
        let bad = [
            builder().key_prefix("a b"),
            builder().key_prefix("x".repeat(151)),
            builder().timeout(Duration::ZERO),
            builder().connect_timeout(Duration::from_secs(3_601)),
            builder().min_throughput(1),
            builder().connections(0),
            builder().bulk_connections(1_001),
            builder().chunk_bytes(511),
            builder().single_value_bytes(0),
            builder().credentials("a b", "c"),
            MemcachedBuilder::new(Vec::new()),
            MemcachedBuilder::new(vec!["a".to_owned(), "a:11211".to_owned()]),
            MemcachedBuilder::new(vec!["a:b".to_owned()]),
        ];
        for builder in bad {
            let error = builder.clone().build().unwrap_err();
            assert_eq!(error.kind(), ck_core::ErrorKind::Misuse, "{builder:?}");
        }
        assert!(builder().build().is_ok());
    }

    #[test]
    fn a_password_is_not_shown() {
        let builder = MemcachedBuilder::new(vec!["h".to_owned()]).credentials("user", "secret");
        assert!(!format!("{builder:?}").contains("secret"));
    }
}
