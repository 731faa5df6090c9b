use bytes::Bytes;
use ck_core::Version;
use twox_hash::XxHash3_128;

/// What tells two entries of one key apart: how long they are, how they begin and how they end.
///
/// Our own entries carry a random generation near their start. Entries of the Python client have a hash of
/// everything near their start (Arrow) or at their end (`ByteStorage`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) len: u64,
    pub(crate) first: Bytes,
    pub(crate) last: Bytes,
}

impl Identity {
    /// Bytes at either end that count.
    pub(crate) const REACH: usize = 1024;

    pub(crate) fn version(&self) -> Version {
        let mut all = Vec::with_capacity(8 + 2 * Self::REACH);
        all.extend_from_slice(&self.len.to_le_bytes());
        all.extend_from_slice(&self.first);
        all.extend_from_slice(&self.last);
        Version(XxHash3_128::oneshot(&all))
    }
}
