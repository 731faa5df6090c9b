use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::weigh::Cost;

/// What the map holds for a key: a value that can be taken out at once.
///
/// The map frees its own parts late (they wait in its channels and for its epochs), so it never
/// holds a value, only a slot. A slot is *empty* (a value may come), *filled*, or *gone*; the last
/// is for ever.
pub(crate) struct Slot<V> {
    value: ArcSwapOption<V>,
    gone: AtomicBool,
    /// The weight that the map's policy sees.
    pub(crate) units: u32,
    /// How often the map's entry has been written over, this slot included.
    pub(crate) rewrites: u16,
    /// What the account gets back when the value leaves.
    pub(crate) cost: Cost,
    /// In nanoseconds; an `Option<Duration>` takes twice the room. `NO_TTL` if there is none.
    ttl: u64,
}

/// 584 years.
const NO_TTL: u64 = u64::MAX;

impl<V> Slot<V> {
    pub(crate) fn empty(units: u32, cost: Cost, ttl: Option<Duration>) -> Self {
        Self {
            value: ArcSwapOption::empty(),
            gone: AtomicBool::new(false),
            units,
            rewrites: 0,
            cost,
            ttl: ttl.map_or(NO_TTL, |ttl| {
                u64::try_from(ttl.as_nanos()).unwrap_or(NO_TTL)
            }),
        }
    }

    pub(crate) fn ttl(&self) -> Option<Duration> {
        (self.ttl != NO_TTL).then(|| Duration::from_nanos(self.ttl))
    }

    pub(crate) fn value(&self) -> Option<Arc<V>> {
        self.value.load_full()
    }

    /// Puts the value in. Gives it back if the slot is gone and nobody else has taken it since.
    pub(crate) fn fill(&self, value: Arc<V>) -> Option<Arc<V>> {
        self.value.store(Some(value));
        // `take` raises the flag before it looks for a value: one of the two sees the other.
        if self.is_gone() {
            self.value.swap(None)
        } else {
            None
        }
    }

    /// Takes the value out, for ever. Only one caller gets it.
    pub(crate) fn take(&self) -> Option<Arc<V>> {
        self.gone.store(true, Ordering::SeqCst);
        self.value.swap(None)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_leaves_a_slot_once_and_none_enters_one_that_is_gone() {
        let slot = Slot::empty(1, Cost::default(), None);
        assert!(slot.value().is_none());
        assert!(slot.fill(Arc::new(7)).is_none());
        assert_eq!(slot.value().as_deref(), Some(&7));
        assert_eq!(slot.take().as_deref(), Some(&7));
        assert!(slot.take().is_none() && slot.is_gone());
        assert_eq!(slot.fill(Arc::new(8)).as_deref(), Some(&8));
        assert!(slot.value().is_none());
    }
}
