use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a tier holds and what has happened to it, at one moment.
///
/// While others work on the tier, the figures are each exact and not taken in one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct L1Stats {
    /// Gets that found a value.
    pub hits: u64,
    /// Gets that found none.
    pub misses: u64,
    /// Inserts that were stored.
    pub inserted: u64,
    /// Entries that left, by cause.
    pub evicted: Evicted,
    /// Inserts that were refused, by cause.
    pub rejected: Rejected,
    /// Entries held.
    pub entries: u64,
    /// Bytes charged: entries, and what they share. Never more than `budget_bytes`.
    pub bytes: u64,
    /// Bytes that entries hold mapped from files.
    pub mapped_bytes: u64,
    /// The budget in bytes.
    pub budget_bytes: u64,
}

/// Entries that left a tier, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evicted {
    /// To make room.
    pub size: u64,
    /// Their time to live was over.
    pub expired: u64,
    /// Removed by a caller, alone or with all others.
    pub removed: u64,
    /// Made stale by an insert of their key, stored or refused.
    pub replaced: u64,
}

/// Inserts that a tier refused, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// See [`Refusal::TooLarge`](crate::Refusal::TooLarge).
    pub too_large: u64,
    /// See [`Refusal::MappedFull`](crate::Refusal::MappedFull).
    pub mapped_full: u64,
    /// See [`Refusal::NotAdmitted`](crate::Refusal::NotAdmitted).
    pub not_admitted: u64,
}

/// A counter that many threads bump at once.
///
/// One atomic would bounce between the cores on each hit; here threads spread over stripes.
#[derive(Default)]
pub(crate) struct Striped([Stripe; STRIPES]);

const STRIPES: usize = 16;

/// Two cache lines: neighbouring lines are fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl Striped {
    #[inline]
    pub(crate) fn bump(&self) {
        self.0[stripe()].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0
            .iter()
            .map(|stripe| stripe.0.load(Ordering::Relaxed))
            .sum()
    }
}

/// The stripe of this thread.
#[inline]
fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        stripe.get()
    })
}

#[cfg(test)]
mod tests {
    use super::Striped;

    #[test]
    fn no_count_is_lost_between_threads() {
        let counter = Striped::default();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..1000).for_each(|_| counter.bump()));
            }
        });
        assert_eq!(counter.sum(), 20_000);
    }
}
