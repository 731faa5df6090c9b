use std::sync::Arc;

use ck_arrow::Verification;
use ck_core::{Backend, MemoryBudget};

use crate::Cache;
use crate::cache::Shared;
use crate::stats::Counters;

/// Room for several concurrent puts at their defaults (16 to 48 MiB each).
const DEFAULT_MEMORY_BUDGET: u64 = 256 << 20;

/// The options of a [`Cache`].
#[derive(Debug)]
pub struct CacheBuilder {
    backend: Arc<dyn Backend>,
    budget: MemoryBudget,
    verification: Verification,
}

impl CacheBuilder {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            budget: MemoryBudget::new(DEFAULT_MEMORY_BUDGET),
            verification: Verification::default(),
        }
    }

    /// How many bytes all operations of the cache may hold at a time. Default: 256 MiB.
    ///
    /// One put holds up to `workers + 2` batches of `batch_bytes`, one read a batch. An operation that
    /// needs more than the whole budget fails with [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge).
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
        Cache {
            shared: Arc::new(Shared {
                backend: self.backend,
                budget: self.budget,
                verification: self.verification,
                counters: Counters::default(),
            }),
        }
    }
}
