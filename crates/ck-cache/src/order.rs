//! Which of two changes of a key is the newer one.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ck_core::Key;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Keys that share a lock wait for each other's publications, which are short.
const STRIPES: usize = 256;

/// Orders the changes that this process makes under each key.
///
/// Whoever is about to store what it read or loaded notes the moment before it starts
/// ([`Order::now`]), and may publish only while no change was made since. A change of another key of
/// the same stripe counts too: then something is not stored that could have been.
#[derive(Debug)]
pub(crate) struct Order {
    hasher: RandomState,
    stripes: Vec<Stripe>,
}

#[derive(Debug, Default)]
struct Stripe {
    changes: Arc<AtomicU64>,
    lock: Arc<Mutex<()>>,
}

/// A moment in the order of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Order {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
        }
    }

    fn stripe(&self, key: &Key) -> &Stripe {
        let hash = self.hasher.hash_one(key);
        // Fewer than 2^32 stripes: the remainder fits.
        &self.stripes[usize::try_from(hash % STRIPES as u64).unwrap_or_default()]
    }

    pub(crate) fn now(&self, key: &Key) -> Moment {
        Moment(self.stripe(key).changes.load(Ordering::Acquire))
    }

    /// Waits until nobody else publishes under `key`.
    pub(crate) async fn lock(&self, key: &Key) -> Publication {
        let stripe = self.stripe(key);
        Publication {
            has_changed: false,
            changes: Arc::clone(&stripe.changes),
            _lock: Arc::clone(&stripe.lock).lock_owned().await,
        }
    }
}

/// The right to change what is stored under a key.
#[derive(Debug)]
pub(crate) struct Publication {
    has_changed: bool,
    changes: Arc<AtomicU64>,
    _lock: OwnedMutexGuard<()>,
}

impl Publication {
    /// Whether no change was made since `moment`.
    pub(crate) fn is_still(&self, moment: Moment) -> bool {
        self.changes.load(Ordering::Acquire) == moment.0
    }

    /// From here on, what others read or loaded before is old.
    pub(crate) fn change(&mut self) {
        self.has_changed = true;
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        // Whoever began during the change may have seen what was before.
        if self.has_changed {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }
}
