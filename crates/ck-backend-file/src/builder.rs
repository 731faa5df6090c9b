use std::path::PathBuf;
use std::time::Duration;

use ck_core::Result;

use crate::FileBackend;
use crate::error::Fault;
use crate::layout::HEADER_LEN;

/// How entries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadMode {
    /// Large entries are mapped into memory and used where they lie. The default.
    ///
    /// A disk that fails while a mapped page is read kills the process with SIGBUS; so does another
    /// process that shortens the file in place, which no known writer does.
    #[default]
    Mapped,
    /// Entries are read with `pread` into fresh memory; an open entry holds a file descriptor.
    Pread,
}

/// What a stored entry survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A killed process. After a power failure an entry may be missing; a torn one is a miss when
    /// its first bytes are, and is for the caller's hashes to find otherwise. The default.
    #[default]
    Fast,
    /// A power failure: the file and then the directory are synced before a put returns.
    Synced,
}

/// Builds a [`FileBackend`]; see [`FileBackend::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `build`"]
pub struct FileBackendBuilder {
    dir: PathBuf,
    limit_bytes: u64,
    value_limit_bytes: Option<u64>,
    limit_entries: u64,
    read_mode: ReadMode,
    durability: Durability,
    record_mappable: bool,
    lock_timeout: Duration,
}

impl FileBackendBuilder {
    /// The smallest limit for a whole store: room for the ledger and a few small entries.
    const LEAST_BYTES: u64 = 64 * 1024;
    const MOST_ENTRIES: u64 = 1_000_000_000;

    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            limit_bytes: 10 << 30,
            value_limit_bytes: None,
            limit_entries: 1_000_000,
            read_mode: ReadMode::default(),
            durability: Durability::default(),
            record_mappable: false,
            lock_timeout: Duration::from_secs(10),
        }
    }

    /// The most bytes the store's files may have together: entries, entries being written and the
    /// store's ledger. Never exceeded by writers of this crate; the entries used longest ago make
    /// room. Default: 10 GiB. At least 64 KiB.
    pub fn limit_bytes(mut self, bytes: u64) -> Self {
        self.limit_bytes = bytes;
        self
    }

    /// The most bytes one entry may have. Default: half of [`limit_bytes`](Self::limit_bytes), which
    /// leaves room for an entry and the one that replaces it.
    pub fn value_limit_bytes(mut self, bytes: u64) -> Self {
        self.value_limit_bytes = Some(bytes);
        self
    }

    /// The most entries the store may hold; the ones used longest ago make room. Default: 1,000,000.
    /// At most 1,000,000,000.
    pub fn limit_entries(mut self, entries: u64) -> Self {
        self.limit_entries = entries;
        self
    }

    /// How entries are read. Default: [`ReadMode::Mapped`].
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// What a stored entry survives. Default: [`Durability::Fast`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets bit 0 of the flags of entries stored with
    /// [`WriteOptions::mappable`](ck_core::WriteOptions::mappable). Other clients read such an entry
    /// as a miss. Default: no.
    pub fn record_mappable(mut self, record: bool) -> Self {
        self.record_mappable = record;
        self
    }

    /// How long to wait for another process that holds the directory's lock. Default: 10 seconds.
    /// Not zero, at most an hour.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Opens the directory, and creates it with mode 0700 when it does not exist. Reads no more of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`](ck_core::ErrorKind::Misuse) for an option out of range;
    /// [`ErrorKind::Permanent`](ck_core::ErrorKind::Permanent) or
    /// [`ErrorKind::Transient`](ck_core::ErrorKind::Transient) when the directory can be neither
    /// opened nor created.
    pub fn build(self) -> Result<FileBackend> {
        let most = i64::MAX.unsigned_abs();
        check("limit_bytes", self.limit_bytes, Self::LEAST_BYTES, most)?;
        let value_limit_bytes = self.value_limit_bytes.unwrap_or(self.limit_bytes / 2);
        check("value_limit_bytes", value_limit_bytes, 1, self.limit_bytes)?;
        check("limit_entries", self.limit_entries, 1, Self::MOST_ENTRIES)?;
        let millis = u64::try_from(self.lock_timeout.as_millis()).unwrap_or(u64::MAX);
        check("lock_timeout_ms", millis, 1, 3_600_000)?;
        let settings = Settings {
            limit_bytes: self.limit_bytes,
            value_limit_bytes,
            limit_entries: self.limit_entries,
            read_mode: self.read_mode,
            durability: self.durability,
            record_mappable: self.record_mappable,
            lock_timeout: self.lock_timeout,
        };
        FileBackend::with_settings(&self.dir, settings)
    }
}

/// What a store was opened with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) limit_bytes: u64,
    pub(crate) value_limit_bytes: u64,
    pub(crate) limit_entries: u64,
    pub(crate) read_mode: ReadMode,
    pub(crate) durability: Durability,
    pub(crate) record_mappable: bool,
    pub(crate) lock_timeout: Duration,
}

impl Settings {
    /// The most bytes one file may have.
    pub(crate) fn file_limit(&self) -> u64 {
        self.value_limit_bytes.saturating_add(HEADER_LEN as u64)
    }

    /// What a writer that does not know its size reserves at a time.
    pub(crate) fn chunk(&self) -> u64 {
        (self.limit_bytes / 64).clamp(4096, 64 << 20)
    }
}

fn check(option: &'static str, value: u64, least: u64, most: u64) -> Result<(), Fault> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let bound = format!("it must lie between {least} and {most}");
    Err(Fault::Option {
        option,
        value: value.to_string(),
        bound,
    })
}
