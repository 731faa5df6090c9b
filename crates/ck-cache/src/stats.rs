use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use ck_l1::L1Stats;

/// What a cache has counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Gets that found a value, in any tier.
    pub hits: u64,
    /// Gets that found none in any tier; damaged and stale entries count here too.
    pub misses: u64,
    /// Values read from the store; gets at the same time share one.
    pub store_reads: u64,
    /// Entries that turned out to be damaged and were removed.
    pub corrupt: u64,
    /// Values that were put or loaded and stored.
    pub stored: u64,
    /// Values that no tier took, or that were overtaken by newer ones.
    pub rejected: u64,
    /// Bytes of the stored entries.
    pub stored_bytes: u64,
    /// Operations that the store failed, and that were taken for misses or left undone.
    pub store_failures: u64,
    /// Loaders that made a value, or said that there is none.
    pub loads: u64,
    /// Loaders that failed.
    pub load_failures: u64,
    /// Calls that were given the result of another one's load.
    pub shared_loads: u64,
    /// Stale values that were handed out.
    pub stale_hits: u64,
    /// Loads that were started in the background, because a value was stale or about to be.
    pub refreshes: u64,
    /// The in-process tier, if the cache has one.
    pub l1: Option<L1Stats>,
}

macro_rules! counters {
    ($($name:ident),+ $(,)?) => {
        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        impl Default for Counters {
            fn default() -> Self {
                Self {
                    $($name: Counter::new(concat!("ck_cache_", stringify!($name), "_total")),)+
                }
            }
        }

        impl Counters {
            pub(crate) fn snapshot(&self, l1: Option<L1Stats>) -> Stats {
                Stats {
                    $($name: self.$name.get(),)+
                    l1,
                }
            }
        }
    };
}

counters! {
    hits,
    misses,
    store_reads,
    corrupt,
    stored,
    rejected,
    stored_bytes,
    store_failures,
    loads,
    load_failures,
    shared_loads,
    stale_hits,
    refreshes,
}

/// A figure of [`Stats`] or of a store around another one, and with the feature `metrics` a counter of the program's recorder.
pub(crate) struct Counter {
    count: AtomicU64,
    #[cfg(feature = "metrics")]
    recorded: metrics::Counter,
}

impl Counter {
    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, reason = "only recorders know names")
    )]
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            count: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            recorded: metrics::counter!(name),
        }
    }

    pub(crate) fn add(&self, n: u64) {
        self.count.fetch_add(n, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        self.recorded.increment(n);
    }

    pub(crate) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
