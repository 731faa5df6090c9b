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
        Self {
            heap_bytes,
            mapped_bytes: 0,
        }
    }
}

/// What the tier itself allocates for an entry, apart from the value and the text of the key.
///
/// Asked of the allocator are 322 to 330 bytes, on 64-bit machines: moka's six blocks for an entry
/// and its share of the hash table (which doubles as it grows, hence the span), the slot, and the
/// counts and padding of the `Arc`s of value and key. The rest stands for what allocators add to nine
/// small blocks (under glibc about 110 bytes: a million entries that are next to nothing but overhead
/// have 1.2 times their charge in resident memory). `tests/overhead.rs` holds the charge within a
/// tenth of what is asked for.
pub(crate) const ENTRY_OVERHEAD: u64 = 356;

/// What the timer of an entry with a time to live allocates: one block of 40 bytes.
pub(crate) const TIMER_OVERHEAD: u64 = 40;

/// What an entry takes from the accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) heap: u64,
    pub(crate) mapped: u64,
}

impl Cost {
    pub(crate) fn of<V: Weigh>(key: &Key, value: &V, ttl: Option<Duration>) -> Self {
        let Weight {
            heap_bytes,
            mapped_bytes,
        } = value.weight();
        let heap = [
            size_of::<V>() as u64,
            key.as_str().len() as u64,
            ENTRY_OVERHEAD,
            if ttl.is_some() { TIMER_OVERHEAD } else { 0 },
        ]
        .into_iter()
        .fold(heap_bytes, u64::saturating_add);
        Self {
            heap,
            mapped: mapped_bytes,
        }
    }

    pub(crate) fn heap(heap: u64) -> Self {
        Self { heap, mapped: 0 }
    }
}
