use std::time::Duration;

use ck_core::{Error, ErrorKind, Result};

/// How an [`Encrypted`](crate::Encrypted) store encrypts, and what it does with entries that were tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptionOptions {
    chunk_bytes: u32,
    chunked_above: u64,
    tampering: Tampering,
    keep_evidence: bool,
    memory_bytes: u64,
    memory_age: Duration,
    whole_bytes: u64,
}

/// What a get is told of an entry that is not what a holder of the key has stored there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tampering {
    /// That there is none. It is counted and logged. One whose tag was tried and does not fit is removed, unless
    /// [`EncryptionOptions::with_evidence_kept`] says otherwise; others stay until they are replaced.
    #[default]
    Miss,
    /// An error of kind [`ErrorKind::Tampered`], also to a put that may replace nothing. It stays where it is.
    Error,
}

impl EncryptionOptions {
    /// The least and the most bytes of a chunk.
    const CHUNK_BYTES: std::ops::RangeInclusive<u32> = (4 << 10)..=(1 << 20);

    /// The longest entry that may be encrypted at once.
    const MOST_AT_ONCE: u64 = 1 << 30;

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // With its tag it is shorter than what the file store writes by a call of its own.
            chunk_bytes: (64 << 10) - 64,
            chunked_above: 1 << 20,
            tampering: Tampering::Miss,
            keep_evidence: false,
            memory_bytes: 0,
            memory_age: Duration::ZERO,
            whole_bytes: 1 << 30,
        }
    }

    /// Bytes of a chunk, of which reads of parts decrypt whole ones. A put holds 128 KiB of them, or one if that is
    /// more. Default: 64 KiB less 64 bytes. A multiple of 64, at least 4 KiB, at most 1 MiB.
    #[must_use]
    pub fn with_chunk_bytes(mut self, bytes: u32) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// Tables up to so many bytes are encrypted at once, which the Python client reads, and longer ones in chunks, which it
    /// does not. Values of its default serializer are always encrypted at once. Default: 1 MiB. 0: all are in chunks; at most 1 GiB.
    /// Always in chunks are a table that may be handed out stale ([`PutOptions::with_stale_for`](crate::PutOptions::with_stale_for)),
    /// because the client's form has no place for that, and one that [`with_whole_bytes`](Self::with_whole_bytes) has no room for.
    ///
    /// # Memory
    ///
    /// A put holds a table that is encrypted at once, as it is stored, twice.
    #[must_use]
    pub fn with_chunked_above(mut self, bytes: u64) -> Self {
        self.chunked_above = bytes;
        self
    }

    /// What gets are told of entries that were tampered with. Default: [`Tampering::Miss`].
    #[must_use]
    pub fn with_tampering(mut self, tampering: Tampering) -> Self {
        self.tampering = tampering;
        self
    }

    /// Entries that were tampered with, or that the store finds damaged while they are read, are never removed for that, so
    /// that they can be looked at; a put replaces them all the same. What the store itself cannot make sense of when it opens
    /// an entry (its own bytes around it) it removes as ever. Default: no.
    #[must_use]
    pub fn with_evidence_kept(mut self, keep: bool) -> Self {
        self.keep_evidence = keep;
        self
    }

    /// Keeps entries in the process as they are stored, up to so many bytes of them: a get decrypts them each time, and plain
    /// bytes are in memory only while they are used. Default: none. Meant in place of
    /// [`CacheBuilder::l1_bytes`](crate::CacheBuilder::l1_bytes), which keeps decoded values.
    ///
    /// An entry is kept when it is opened, which then reads all of it, if it has no more than a quarter of these bytes,
    /// and is read from the store again after `max_age`: for so long it may go unseen that another process has changed
    /// it. With [`Cache::watch`](crate::Cache::watch) that is seen at once.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64, max_age: Duration) -> Self {
        (self.memory_bytes, self.memory_age) = (bytes, max_age);
        self
    }

    /// The memory in which entries that were encrypted at once are decrypted, whole, each with twice its length; further
    /// ones wait. Default: 1 GiB.
    ///
    /// One that needs more than all of it cannot be proven. To a get it is what was tampered with, and never removed; a put
    /// of a value of the Python client's default serializer that would become one is refused with [`ErrorKind::TooLarge`].
    #[must_use]
    pub fn with_whole_bytes(mut self, bytes: u64) -> Self {
        self.whole_bytes = bytes;
        self
    }

    pub(super) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    pub(super) fn memory(&self) -> Option<(u64, Duration)> {
        (self.memory_bytes > 0 && !self.memory_age.is_zero())
            .then_some((self.memory_bytes, self.memory_age))
    }

    pub(super) fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    pub(super) fn chunked_above(&self) -> u64 {
        self.chunked_above
    }

    pub(super) fn tampering(&self) -> Tampering {
        self.tampering
    }

    pub(super) fn keeps_evidence(&self) -> bool {
        self.keep_evidence
    }

    pub(super) fn check(&self) -> Result<()> {
        let out_of_range = |name, value: u64, least: u64, most: u64| {
            Error::new(ErrorKind::Misuse, "an option of encryption is out of range")
                .with("option", name)
                .with("value", value)
                .with("least", least)
                .with("most", most)
        };
        let (least, most) = (*Self::CHUNK_BYTES.start(), *Self::CHUNK_BYTES.end());
        if !Self::allows_chunks_of(self.chunk_bytes.into()) {
            let (value, least, most) = (self.chunk_bytes.into(), least.into(), most.into());
            return Err(out_of_range("chunk_bytes", value, least, most));
        }
        if self.chunked_above > Self::MOST_AT_ONCE {
            return Err(out_of_range(
                "chunked_above",
                self.chunked_above,
                0,
                Self::MOST_AT_ONCE,
            ));
        }
        Ok(())
    }

    /// Whether an entry may say that its chunks have so many bytes.
    pub(super) fn allows_chunks_of(bytes: u64) -> bool {
        u32::try_from(bytes)
            .is_ok_and(|bytes| Self::CHUNK_BYTES.contains(&bytes) && bytes.is_multiple_of(64))
    }
}

impl Default for EncryptionOptions {
    fn default() -> Self {
        Self::new()
    }
}
