use std::ops::Range;

use bytes::Bytes;

use crate::backend::{BoxFuture, EntryReader};
use crate::{Error, ErrorKind, Expiry, Result};

/// An entry that already lies in memory: a value handed in as bytes, or a test's.
///
/// # Examples
///
/// ```
/// use ck_core::{EntryReader, MemoryEntry};
///
/// let entry = MemoryEntry::new("hello");
/// assert_eq!(entry.len(), 5);
/// assert_eq!(&pollster::block_on(entry.read(1..3))?[..], b"el");
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MemoryEntry {
    bytes: Bytes,
}

impl MemoryEntry {
    /// An entry that consists of `bytes` and never expires.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
        }
    }
}

impl EntryReader for MemoryEntry {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn expiry(&self) -> Expiry {
        Expiry::NEVER
    }

    fn contiguous(&self) -> Option<&Bytes> {
        Some(&self.bytes)
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(std::future::ready(slice(&self.bytes, range)))
    }
}

/// `range` of `bytes`, or a [`ErrorKind::Corrupt`] error that names both.
pub(crate) fn slice(bytes: &Bytes, range: Range<u64>) -> Result<Bytes> {
    match (usize::try_from(range.start), usize::try_from(range.end)) {
        (Ok(start), Ok(end)) if start <= end && end <= bytes.len() => Ok(bytes.slice(start..end)),
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            "the entry ends before the bytes asked for",
        )
        .with("wanted", format_args!("{}..{}", range.start, range.end))
        .with("entry_bytes", bytes.len())),
    }
}
