use std::num::NonZero;
use std::thread;
use std::time::Duration;

use ck_arrow::Compression;
use ck_core::{Expiry, Result};

/// Beyond this many compressing threads the disk is the limit, and each one holds a batch.
const MAX_DEFAULT_WORKERS: usize = 4;

/// How to store a value.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ck_cache::{Compression, PutOptions};
///
/// let options = PutOptions::new()
///     .with_ttl(Duration::from_secs(3600))
///     .with_compression(Compression::Zstd(3));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOptions {
    ttl: Option<Duration>,
    compression: Compression,
    batch_bytes: usize,
    workers: usize,
}

impl PutOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ttl: None,
            compression: Compression::Auto,
            batch_bytes: 8 << 20,
            workers: thread::available_parallelism()
                .map_or(1, NonZero::get)
                .min(MAX_DEFAULT_WORKERS),
        }
    }

    /// How long the entry lives, counted from the call of the put, in whole seconds rounded up.
    /// Default: until it is removed or evicted.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How the columns of a table are compressed; bytes are stored as they are. Default:
    /// [`Compression::Auto`].
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The largest record batch of a stored table, in bytes before compression; a wider row stands
    /// alone. It is the unit of what puts and gets hold. Default: 8 MiB.
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How many threads compress one table. Default: one per processor, at most 4.
    #[must_use]
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    pub(crate) fn expiry(&self) -> Result<Expiry> {
        self.ttl.map_or(Ok(Expiry::NEVER), Expiry::after)
    }

    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    pub(crate) fn batch_bytes(&self) -> usize {
        self.batch_bytes
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }
}

impl Default for PutOptions {
    fn default() -> Self {
        Self::new()
    }
}
