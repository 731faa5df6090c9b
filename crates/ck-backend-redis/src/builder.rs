use std::time::Duration;

use ck_core::Result;

use crate::RedisBackend;
use crate::address::{Address, Certificates, redacted};
use crate::error::Fault;

/// Builds a [`RedisBackend`]; see [`RedisBackend::builder`].
#[derive(Clone)]
#[must_use = "nothing is opened before `build`"]
pub struct RedisBackendBuilder {
    url: String,
    certificates: Certificates,
    prefix: String,
    timeout: Duration,
    min_throughput: u64,
    bulk_connections: usize,
    single_value_bytes: u64,
    chunk_bytes: u64,
    value_limit_bytes: Option<u64>,
    temp_ttl: Duration,
}

impl RedisBackendBuilder {
    /// What the server takes in one string with its default settings.
    const SERVER_LIMIT: u64 = 512 << 20;

    /// A little less than one of the sizes to which the server's allocator rounds up. From 8 MiB on it gives
    /// memory back to the system at once, which takes long, and fresh memory is slow.
    const CHUNK_BYTES: u64 = (7 << 20) - (4 << 10);

    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            certificates: Certificates::default(),
            prefix: String::new(),
            timeout: Duration::from_secs(5),
            min_throughput: 50_000_000,
            bulk_connections: 4,
            single_value_bytes: 256 << 20,
            chunk_bytes: Self::CHUNK_BYTES,
            value_limit_bytes: None,
            temp_ttl: Duration::from_secs(30),
        }
    }

    /// What the server's names of all keys of the store begin with, so that several stores share a
    /// server. Default: nothing, as in the Python client. No braces, at most 512 bytes.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long an operation may take, connecting included; transfers get more by their bytes
    /// ([`min_throughput`](Self::min_throughput)). Default: 5 seconds. At least a millisecond, at
    /// most an hour.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The bytes per second below which a transfer counts as stuck. Default: 50 MB/s. At least 1,000.
    pub fn min_throughput(mut self, bytes_per_second: u64) -> Self {
        self.min_throughput = bytes_per_second;
        self
    }

    /// The most connections for large transfers; further transfers wait. Default: 4. At most 1,000.
    pub fn bulk_connections(mut self, connections: usize) -> Self {
        self.bulk_connections = connections;
        self
    }

    /// Entries of up to so many bytes are one value, which the Python client reads; larger ones are
    /// chunks. Default: 256 MiB. At least 64 KiB, at most the 512 MiB of the server.
    pub fn single_value_bytes(mut self, bytes: u64) -> Self {
        self.single_value_bytes = bytes;
        self
    }

    /// Bytes of a chunk of an entry above [`single_value_bytes`](Self::single_value_bytes), and the most of a
    /// part of an entry of unknown length. Default: 7 MiB less 4 KiB. At least 64 KiB, at most the 512 MiB of
    /// the server.
    pub fn chunk_bytes(mut self, bytes: u64) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// The most bytes one entry may have. Default: no limit but the server's memory.
    pub fn value_limit_bytes(mut self, bytes: u64) -> Self {
        self.value_limit_bytes = Some(bytes);
        self
    }

    /// How long what a killed writer has written stays on the server. A writer that lives renews it.
    /// Default: 30 seconds. At least a second, at most an hour.
    pub fn temp_ttl(mut self, ttl: Duration) -> Self {
        self.temp_ttl = ttl;
        self
    }

    /// The authorities that sign the servers' certificates, as PEM. Default: those of the system.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.certificates.roots = Some(pem.into());
        self
    }

    /// The certificate, with its chain, that servers are shown when they ask for one, and its key, as PEM.
    /// Default: none.
    pub fn client_certificate(
        mut self,
        certificate_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificates.client = Some((certificate_pem.into(), key_pem.into()));
        self
    }

    /// Checks the options. Connects to nothing: the first operation does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`](ck_core::ErrorKind::Misuse) for a URL that is not one of a Redis store or
    /// needs a feature that is not built in, and for an option out of range.
    pub fn build(self) -> Result<RedisBackend> {
        const HOUR_MS: u64 = 3_600_000;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let most = i64::MAX.unsigned_abs();
        let prefix_len = self.prefix.len() as u64;
        check("key_prefix", prefix_len, 0, 512)?;
        if self.prefix.contains(['{', '}']) {
            return Err(Fault::Option {
                option: "key_prefix",
                value: self.prefix,
                bound: "it may not contain braces".to_owned(),
            }
            .into());
        }
        check("timeout_ms", millis(self.timeout), 1, HOUR_MS)?;
        check("min_throughput", self.min_throughput, 1_000, most)?;
        check("bulk_connections", self.bulk_connections as u64, 1, 1_000)?;
        let single = self.single_value_bytes;
        check("single_value_bytes", single, 64 << 10, Self::SERVER_LIMIT)?;
        check(
            "chunk_bytes",
            self.chunk_bytes,
            64 << 10,
            Self::SERVER_LIMIT,
        )?;
        let value_limit = self.value_limit_bytes.unwrap_or(most);
        check("value_limit_bytes", value_limit, 1, most)?;
        check("temp_ttl_ms", millis(self.temp_ttl), 1_000, HOUR_MS)?;
        let settings = Settings {
            url: redacted(&self.url),
            address: Address::parse(&self.url, &self.certificates)?,
            certificates: self.certificates,
            prefix: self.prefix,
            timeout: self.timeout,
            min_throughput: self.min_throughput,
            bulk_connections: self.bulk_connections,
            single_value_bytes: self.single_value_bytes,
            chunk_bytes: self.chunk_bytes,
            value_limit_bytes: value_limit,
            temp_ttl_ms: millis(self.temp_ttl),
        };
        RedisBackend::with_settings(settings)
    }
}

impl std::fmt::Debug for RedisBackendBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBackendBuilder")
            .field("url", &redacted(&self.url))
            .finish_non_exhaustive()
    }
}

/// What a store was opened with.
pub(crate) struct Settings {
    /// Without a password.
    pub(crate) url: String,
    pub(crate) address: Address,
    pub(crate) certificates: Certificates,
    pub(crate) prefix: String,
    timeout: Duration,
    min_throughput: u64,
    pub(crate) bulk_connections: usize,
    pub(crate) single_value_bytes: u64,
    pub(crate) chunk_bytes: u64,
    pub(crate) value_limit_bytes: u64,
    pub(crate) temp_ttl_ms: u64,
}

impl Settings {
    /// How long an operation that moves so many bytes may take.
    pub(crate) fn deadline(&self, bytes: u64) -> Duration {
        let millis = u128::from(bytes) * 1_000 / u128::from(self.min_throughput);
        self.timeout + Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// How long an operation that looks at every key may take.
    pub(crate) fn walk_deadline(&self) -> Duration {
        self.timeout.saturating_mul(60)
    }
}

fn check(option: &'static str, value: u64, least: u64, most: u64) -> Result<(), Fault> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Fault::Option {
        option,
        value: value.to_string(),
        bound: format!("it must lie between {least} and {most}"),
    })
}
