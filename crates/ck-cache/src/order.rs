//! Which of two changes of a key is the newer one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ck_core::Key;
use tokio::sync::OwnedMutexGuard;

/// Orders the changes that this process makes under each key.
///
/// Whoever is about to store what it read or loaded notes the moment before it starts
/// ([`Order::now`]), and may publish only while no change was made since. A key takes memory only while
/// somebody holds a moment or a publication of it.
#[derive(Debug, Default)]
pub(crate) struct Order {
    keys: Arc<Mutex<Keys>>,
    /// How often changes of others may have gone untold. Held for reading by whoever keeps a value, and for
    /// writing by whoever is told of a change.
    losses: RwLock<u64>,
}

type Keys = HashMap<Key, Arc<Changes>>;

/// The changes of one key, as far back as anybody asks.
#[derive(Debug, Default)]
struct Changes {
    count: AtomicU64,
    /// One publication at a time.
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Order {
    pub(crate) fn now(&self, key: &Key) -> Moment {
        let watch = self.watch(key);
        let count = watch.changes.count.load(Ordering::Acquire);
        let losses = *self.losses.read().unwrap_or_else(PoisonError::into_inner);
        Moment {
            watch,
            count,
            losses,
        }
    }

    /// Has `keep` keep a value that was true at `moment`, unless it may be old by now.
    pub(crate) fn keep<T>(&self, moment: &Moment, keep: impl FnOnce() -> T) -> Option<T> {
        let losses = self.losses.read().unwrap_or_else(PoisonError::into_inner);
        let changes = &moment.watch.changes;
        let is_still =
            changes.count.load(Ordering::Acquire) == moment.count && *losses == moment.losses;
        is_still.then(keep)
    }

    /// Somebody else has changed the key: what others read before is old, and `forget` lets go of what is kept.
    pub(crate) fn told(&self, key: &Key, forget: impl FnOnce()) {
        let _nobody_keeps = self.losses.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(changes) = known(&self.keys).get(key) {
            changes.count.fetch_add(1, Ordering::AcqRel);
        }
        forget();
    }

    /// Somebody else may have changed any key.
    pub(crate) fn untold(&self, forget: impl FnOnce()) {
        let mut losses = self.losses.write().unwrap_or_else(PoisonError::into_inner);
        *losses += 1;
        forget();
    }

    /// Waits until nobody else publishes under `key`.
    pub(crate) async fn lock(&self, key: &Key) -> Publication {
        let watch = self.watch(key);
        Publication {
            has_changed: false,
            _lock: Arc::clone(&watch.changes.lock).lock_owned().await,
            watch,
        }
    }

    fn watch(&self, key: &Key) -> Watch {
        let changes = Arc::clone(known(&self.keys).entry(key.clone()).or_default());
        Watch {
            keys: Arc::clone(&self.keys),
            key: key.clone(),
            changes,
        }
    }
}

/// No code panics while it holds the lock, so a poisoned one still guards a sound state.
fn known(keys: &Mutex<Keys>) -> MutexGuard<'_, Keys> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the changes of a key known.
#[derive(Debug)]
struct Watch {
    keys: Arc<Mutex<Keys>>,
    key: Key,
    changes: Arc<Changes>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut keys = known(&self.keys);
        // The map's and this one: others come only under the lock.
        if Arc::strong_count(&self.changes) == 2 {
            keys.remove(&self.key);
        }
    }
}

/// A moment in the order of a key's changes.
#[derive(Debug)]
pub(crate) struct Moment {
    watch: Watch,
    count: u64,
    losses: u64,
}

/// The right to change what is stored under a key.
#[derive(Debug)]
pub(crate) struct Publication {
    has_changed: bool,
    _lock: OwnedMutexGuard<()>,
    watch: Watch,
}

impl Publication {
    /// Whether no change of the key was made since `moment`, which is one of the same key.
    pub(crate) fn is_still(&self, moment: &Moment) -> bool {
        debug_assert!(Arc::ptr_eq(&self.watch.changes, &moment.watch.changes));
        self.watch.changes.count.load(Ordering::Acquire) == moment.count
    }

    /// From here on, what others read or loaded before is old.
    pub(crate) fn change(&mut self) {
        self.has_changed = true;
        self.watch.changes.count.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        // Whoever began during the change may have seen what was before.
        if self.has_changed {
            self.watch.changes.count.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ck_core::block_on;

    #[test]
    fn a_change_counts_for_its_own_key_and_for_those_who_began_before_or_during_it() {
        let order = Order::default();
        let (a, b) = (Key::new("a"), Key::new("b"));
        let (before, other) = (order.now(&a), order.now(&b));
        let mut change = block_on(order.lock(&a));
        assert!(change.is_still(&before));
        change.change();
        let during = order.now(&a);
        assert!(!change.is_still(&before));
        drop(change);
        let (after, publication) = (order.now(&a), block_on(order.lock(&a)));
        assert!(!publication.is_still(&during));
        assert!(publication.is_still(&after));
        assert!(block_on(order.lock(&b)).is_still(&other));
    }

    #[test]
    fn nothing_is_kept_that_others_have_changed_or_may_have_changed_meanwhile() {
        let order = Order::default();
        let (a, b) = (Key::new("a"), Key::new("b"));
        let [before_a, before_b] = [&a, &b].map(|key| order.now(key));
        let mut has_forgotten = false;
        order.told(&a, || has_forgotten = true);
        assert!(has_forgotten);
        assert_eq!(order.keep(&before_a, || ()), None);
        assert_eq!(order.keep(&before_b, || 7), Some(7));
        order.untold(|| ());
        assert_eq!(order.keep(&before_b, || ()), None);
        assert_eq!(order.keep(&order.now(&a), || 7), Some(7));
    }

    #[test]
    fn a_key_is_forgotten_with_the_last_who_asks_for_it() {
        let order = Order::default();
        let key = Key::new("a");
        let (first, second) = (order.now(&key), block_on(order.lock(&key)));
        drop(first);
        assert_eq!(known(&order.keys).len(), 1);
        drop(second);
        assert_eq!(known(&order.keys).len(), 0);
    }
}
