use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ck_arrow::{Interner, Verification};
use ck_core::{Backend, MemoryBudget};
use ck_l1::{L1, Policy};

use crate::Cache;
use crate::cache::{Shared, StoreFailure};
use crate::flight::Flights;
use crate::order::Order;
use crate::stats::Counters;

/// Room for several concurrent puts at their defaults (16 to 48 MiB each).
const DEFAULT_MEMORY_BUDGET: u64 = 256 << 20;

/// The options of a [`Cache`].
#[derive(Debug)]
pub struct CacheBuilder {
    backend: Option<Arc<dyn Backend>>,
    l1_bytes: u64,
    l1_mapped_limit: u64,
    l1_policy: Policy,
    l1_max_age: Option<Duration>,
    budget: MemoryBudget,
    verification: Verification,
    on_store_failure: StoreFailure,
}

impl CacheBuilder {
    pub(crate) fn new(backend: Option<Arc<dyn Backend>>) -> Self {
        Self {
            backend,
            l1_bytes: 0,
            l1_mapped_limit: u64::MAX,
            l1_policy: Policy::default(),
            l1_max_age: None,
            on_store_failure: StoreFailure::default(),
            budget: MemoryBudget::new(DEFAULT_MEMORY_BUDGET),
            verification: Verification::default(),
        }
    }

    /// How many bytes of values the process keeps, besides what is in flight. Whole tables, typed values and
    /// bytes that are put, got or loaded are kept; a hit copies nothing. Default: 0, none.
    ///
    /// What other processes store under a key is not seen while this process keeps an older value: see
    /// [`CacheBuilder::l1_max_age`] and [`Cache::watch`].
    #[must_use]
    pub fn l1_bytes(mut self, bytes: u64) -> Self {
        self.l1_bytes = bytes;
        self
    }

    /// How many bytes the values that the process keeps may hold mapped from files; they take address space
    /// and page cache, no memory of the process. Default: without limit.
    #[must_use]
    pub fn l1_mapped_limit_bytes(mut self, bytes: u64) -> Self {
        self.l1_mapped_limit = bytes;
        self
    }

    /// Which values the process lets go of first. Default: [`Policy::Lru`]. Under [`Policy::TinyLfu`] a put may
    /// find that what is kept is asked for more often, and a cache without a store then rejects it.
    #[must_use]
    pub fn l1_policy(mut self, policy: Policy) -> Self {
        self.l1_policy = policy;
        self
    }

    /// How long the process keeps a value at most before it looks into the store again. Default: as long as
    /// the value lives.
    #[must_use]
    pub fn l1_max_age(mut self, time: Duration) -> Self {
        self.l1_max_age = Some(time);
        self
    }

    /// What it means that the store fails. Default: [`StoreFailure::Error`]. For deadlines, retries and a
    /// circuit breaker wrap the store in a [`Guard`](crate::Guard).
    #[must_use]
    pub fn on_store_failure(mut self, meaning: StoreFailure) -> Self {
        self.on_store_failure = meaning;
        self
    }

    /// How many bytes all operations of the cache may hold at a time. Default: 256 MiB.
    ///
    /// One put holds up to `workers + 2` batches of `batch_bytes`, one read a batch, a read of a whole table
    /// one for each processor, at most 4, as far as the budget is free. An operation that needs more than the
    /// whole budget fails with [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge).
    #[must_use]
    pub fn memory_budget_bytes(self, bytes: u64) -> Self {
        self.memory_budget(MemoryBudget::new(bytes))
    }

    /// A budget to share with other caches or with the caller's own work.
    #[must_use]
    pub fn memory_budget(mut self, budget: MemoryBudget) -> Self {
        self.budget = budget;
        self
    }

    /// How tables are verified when they are read. Default: [`Verification::OnTouch`].
    #[must_use]
    pub fn verification(mut self, verification: Verification) -> Self {
        self.verification = verification;
        self
    }

    /// The cache.
    #[must_use]
    pub fn build(self) -> Cache {
        let l1 = (self.l1_bytes > 0).then(|| {
            L1::builder(self.l1_bytes)
                .policy(self.l1_policy)
                .mapped_limit_bytes(self.l1_mapped_limit)
                .build()
        });
        Cache {
            shared: Arc::new(Shared {
                backend: self.backend,
                l1,
                l1_max_age: self.l1_max_age,
                schemas: Interner::new(),
                lookups: Flights::new(),
                loads: Flights::new(),
                order: Order::default(),
                watch: OnceLock::new(),
                budget: self.budget,
                verification: self.verification,
                on_store_failure: self.on_store_failure,
                counters: Counters::default(),
            }),
            namespace: None,
        }
    }
}
