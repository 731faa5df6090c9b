use std::sync::atomic::{AtomicU64, Ordering};

/// What a cache has counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Gets that found an entry.
    pub hits: u64,
    /// Gets that found none; damaged entries count here too.
    pub misses: u64,
    /// Entries that turned out to be damaged and were removed.
    pub corrupt: u64,
    /// Puts that stored an entry.
    pub stored: u64,
    /// Puts that the store did not take.
    pub rejected: u64,
    /// Bytes of the stored entries.
    pub stored_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) corrupt: Counter,
    pub(crate) stored: Counter,
    pub(crate) rejected: Counter,
    pub(crate) stored_bytes: Counter,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            corrupt: self.corrupt.get(),
            stored: self.stored.get(),
            rejected: self.rejected.get(),
            stored_bytes: self.stored_bytes.get(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
