use std::num::NonZero;
use std::thread;
use std::time::Duration;

use ck_arrow::Compression;
use ck_core::{Error, ErrorKind, Expiry, Result, WriteMode, WriteOptions};

use crate::held::Life;

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
    stale_for: Duration,
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
            stale_for: Duration::ZERO,
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

    /// How long the entry stays, stale, after its time to live has passed or it was told to
    /// [expire](crate::Cache::expire), in whole seconds rounded up. Plain gets do not see it any more;
    /// [`Cache::get_or_load`](crate::Cache::get_or_load) hands it out while a fresh one is made. Default:
    /// not at all.
    #[must_use]
    pub fn with_stale_for(mut self, time: Duration) -> Self {
        self.stale_for = time;
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

    /// The options with another time to live, for a value of another kind.
    pub(crate) fn with_life(&self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            stale_for: Duration::ZERO,
            ..self.clone()
        }
    }

    /// How a store is to keep the entry.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] for a time to live that cannot be stored.
    pub(crate) fn write_options(&self, mode: WriteMode) -> Result<WriteOptions> {
        let options = WriteOptions::new().with_mode(mode);
        let Some(ttl) = self.ttl else {
            return Ok(options);
        };
        if ttl.is_zero() {
            // With time to be stale it would be stored, and never found.
            return Err(Error::new(
                ErrorKind::Misuse,
                "a time to live of zero stores nothing; ask for no expiry instead",
            ));
        }
        Ok(options.with_expiry(Expiry::after(ttl.saturating_add(self.stale_for()))?))
    }

    /// How long the process may keep the value.
    pub(crate) fn life(&self) -> Life {
        Life {
            fresh: self.ttl,
            total: self.ttl.map(|ttl| ttl.saturating_add(self.stale_for())),
        }
    }

    /// In whole seconds.
    pub(crate) fn stale_for(&self) -> Duration {
        let seconds = self.stale_for.as_secs() + u64::from(self.stale_for.subsec_nanos() > 0);
        Duration::from_secs(seconds)
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
