use std::time::Duration;

use ck_core::Key;

/// Values that know what memory they retain.
///
/// # Examples
///
/// ```
/// use ck_l1::{Weigh, Weight};
///
/// struct Page(Vec<u8>);
///
/// impl Weigh for Page {
///     fn weight(&self) -> Weight {
///         Weight::heap(self.0.capacity() as u64)
///     }
/// }
/// ```
pub trait Weigh {
    /// What the value retains now, and will not exceed while it is cached.
    ///
    /// Asked once per insert. The value's own `size_of` is added by the tier, and so are the key and
    /// the tier's overhead; memory that several entries share is better charged once
    /// ([`L1::charge`](crate::L1::charge)).
    fn weight(&self) -> Weight;
}

/// The memory that a value retains, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// What it holds on the heap, each allocation once, whole buffers and not only what is seen of
    /// them. Charged against the budget.
    pub heap_bytes: u64,
    /// What it holds mapped from files: the kernel takes that back when it needs the memory, so it is
    /// not charged against the budget but has a limit of its own.
    pub mapped_bytes: u64,
}

impl Weight {
    /// A value that holds this on the heap, and nothing mapped.
    #[must_use]
    pub fn heap(heap_bytes: u64) -> Self {
        Self { heap_bytes, mapped_bytes: 0 }
    }
}

/// What the tier itself allocates for an entry, apart from the value and the text of the key.
pub(crate) const ENTRY_OVERHEAD: u64 = 400;

/// What the timer of an entry with a time to live allocates.
pub(crate) const TIMER_OVERHEAD: u64 = 64;

/// What an entry takes from the accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) heap: u64,
    pub(crate) mapped: u64,
}

impl Cost {
    pub(crate) fn of<V: Weigh>(key: &Key, value: &V, ttl: Option<Duration>) -> Self {
        let Weight { heap_bytes, mapped_bytes } = value.weight();
        let heap = [
            size_of::<V>() as u64,
            key.as_str().len() as u64,
            ENTRY_OVERHEAD,
            if ttl.is_some() { TIMER_OVERHEAD } else { 0 },
        ]
        .into_iter()
        .fold(heap_bytes, u64::saturating_add);
        Self { heap, mapped: mapped_bytes }
    }

    pub(crate) fn heap(heap: u64) -> Self {
        Self { heap, mapped: 0 }
    }
}
