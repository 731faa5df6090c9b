use std::hash::Hasher;

/// xxh3-64 of `bytes`.
pub(crate) fn xxh3(bytes: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(bytes)
}

/// Two hashes over the same stream in one pass over memory: of everything, and of the unit at hand.
pub(crate) struct Hashes {
    whole: twox_hash::XxHash3_64,
    unit: twox_hash::XxHash3_64,
}

/// Small enough that the second hash finds the bytes in the cache.
const STEP: usize = 128 * 1024;

impl Hashes {
    pub(crate) fn new() -> Self {
        Self {
            whole: twox_hash::XxHash3_64::new(),
            unit: twox_hash::XxHash3_64::new(),
        }
    }

    /// Bytes outside of any unit.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.whole.write(bytes);
    }

    /// Bytes of the unit at hand.
    pub(crate) fn add_to_unit(&mut self, bytes: &[u8]) {
        for step in bytes.chunks(STEP) {
            self.whole.write(step);
            self.unit.write(step);
        }
    }

    /// Ends the unit and gives its hash.
    pub(crate) fn end_unit(&mut self) -> u64 {
        std::mem::replace(&mut self.unit, twox_hash::XxHash3_64::new()).finish()
    }

    /// The hash of everything so far.
    pub(crate) fn whole(&self) -> u64 {
        self.whole.finish()
    }
}

impl std::fmt::Debug for Hashes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashes")
    }
}
