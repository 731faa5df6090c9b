use std::time::Duration;

use ck_core::{Error, ErrorKind, Key, Result};

use crate::compression::Codec;

/// The size of the largest batch a decoder is made to hold; more than this is more than 32-bit offsets reach.
const MAX_BATCH_BYTES: usize = 1 << 30;
const MAX_WORKERS: usize = 64;

/// A header is read in one piece with what follows it; a longer key would make every open read more.
const MAX_RECORDED_KEY: usize = 1024;

/// How a table is encoded.
///
/// # Examples
///
/// ```
/// use ck_arrow::{Codec, EncodeOptions};
///
/// let options = EncodeOptions::new().with_codec(Codec::Zstd(3)).with_batch_bytes(1 << 20);
/// # drop(options);
/// ```
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    pub(crate) batch_bytes: usize,
    pub(crate) codec: Codec,
    pub(crate) workers: usize,
    pub(crate) outer_offset: u64,
    pub(crate) key: Option<Key>,
    pub(crate) stale_seconds: u64,
}

impl EncodeOptions {
    /// The defaults given at each setter.
    #[must_use]
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            batch_bytes: 8 << 20,
            codec: Codec::None,
            workers: cores.min(4),
            outer_offset: 0,
            key: None,
            stale_seconds: 0,
        }
    }

    /// The most bytes one record batch may have before compression, unless a single row has more.
    /// From 1 to 2³⁰; default 8 MiB.
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How column buffers are compressed. Default: not at all.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Threads that compress. From 1 to 64; default: one per core, at most 4.
    ///
    /// # Memory
    ///
    /// The encoder holds up to `workers + 2` batches beyond its input.
    #[must_use]
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How many bytes come before the entry in the file it will be mapped from; buffers are aligned
    /// relative to the start of that file. Default 0.
    #[must_use]
    pub fn with_outer_offset(mut self, bytes: u64) -> Self {
        self.outer_offset = bytes;
        self
    }

    /// Records the key in the entry's header, where listings find it. Keys of more than 1 KiB are left
    /// out. Default: not recorded.
    #[must_use]
    pub fn with_key(mut self, key: &Key) -> Self {
        self.key = (key.as_str().len() <= MAX_RECORDED_KEY).then(|| key.clone());
        self
    }

    /// Records how long before its expiry the entry is stale: still there, but due to be made anew.
    /// In whole seconds, rounded up. Default: never.
    #[must_use]
    pub fn with_stale_for(mut self, time: Duration) -> Self {
        self.stale_seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let range = |name: &'static str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            Err(
                Error::new(ErrorKind::Misuse, "an encoding option is out of range")
                    .with("option", name)
                    .with("value", value)
                    .with("valid", format_args!("1..={max}")),
            )
        };
        range("batch_bytes", self.batch_bytes, MAX_BATCH_BYTES)?;
        range("workers", self.workers, MAX_WORKERS)
    }
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self::new()
    }
}
