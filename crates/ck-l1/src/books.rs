use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::account::Account;
use crate::l1::Refusal;
use crate::slot::Slot;
use crate::stats::{Evicted, L1Stats, Rejected, Striped};
use crate::weigh::Cost;

/// What is held, exactly, and what has been counted.
pub(crate) struct Books {
    pub(crate) heap: Account,
    mapped: Account,
    /// The part of `heap` that entries share.
    shared: AtomicU64,
    entries: AtomicU64,
    hits: Striped,
    misses: Striped,
    inserted: AtomicU64,
    evicted: [AtomicU64; 4],
    rejected: [AtomicU64; 3],
    /// The [`Cause`] of removals that the map reports as explicit or by size.
    blame: AtomicU8,
}

/// Why an entry left.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Cause {
    Size,
    Expired,
    Removed,
    Replaced,
}

const CAUSES: [Cause; 4] = [Cause::Size, Cause::Expired, Cause::Removed, Cause::Replaced];

impl Books {
    pub(crate) fn new(budget_bytes: u64, mapped_limit_bytes: u64) -> Self {
        Self {
            heap: Account::new(budget_bytes),
            mapped: Account::new(mapped_limit_bytes),
            shared: AtomicU64::default(),
            entries: AtomicU64::default(),
            hits: Striped::default(),
            misses: Striped::default(),
            inserted: AtomicU64::default(),
            evicted: Default::default(),
            rejected: Default::default(),
            blame: AtomicU8::new(Cause::Size as u8),
        }
    }

    /// Whether the entry could be held if there were no other.
    pub(crate) fn can_hold(&self, cost: Cost) -> bool {
        cost.heap <= self.heap.limit().saturating_sub(self.shared())
            && cost.mapped <= self.mapped.limit()
    }

    /// Whether what the entry maps can be held now.
    pub(crate) fn can_map(&self, cost: Cost) -> bool {
        self.mapped.lacking(cost.mapped) == 0
    }

    /// Takes what an entry costs from both accounts, or nothing.
    pub(crate) fn reserve(&self, cost: Cost) -> bool {
        if !self.mapped.reserve(cost.mapped) {
            return false;
        }
        let reserved = self.heap.reserve(cost.heap);
        if !reserved {
            self.mapped.release(cost.mapped);
        }
        reserved
    }

    fn release(&self, cost: Cost) {
        self.heap.release(cost.heap);
        self.mapped.release(cost.mapped);
    }

    /// Puts the value into the slot; its cost has been reserved. False if the slot is gone.
    pub(crate) fn fill<V>(&self, slot: &Slot<V>, value: Arc<V>) -> bool {
        self.entries.fetch_add(1, Ordering::Relaxed);
        if let Some(value) = slot.fill(value) {
            self.let_go(value, slot.cost);
        }
        !slot.is_gone()
    }

    /// Empties a slot that the map has dropped.
    pub(crate) fn vacate<V>(&self, slot: &Slot<V>, cause: Cause) {
        if let Some(value) = slot.take() {
            self.evicted[cause as usize].fetch_add(1, Ordering::Relaxed);
            self.let_go(value, slot.cost);
        }
    }

    /// Frees the value, then gives back what it cost.
    fn let_go<V>(&self, value: Arc<V>, cost: Cost) {
        // The map stops reporting removals for ever when one report panics.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
        ck_core::note_freed(cost.heap);
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.release(cost);
    }

    /// Runs `work`, with this as the cause of what it removes.
    pub(crate) fn blaming<T>(&self, cause: Cause, work: impl FnOnce() -> T) -> T {
        self.blame.store(cause as u8, Ordering::Relaxed);
        let result = work();
        self.blame.store(Cause::Size as u8, Ordering::Relaxed);
        result
    }

    pub(crate) fn blamed(&self) -> Cause {
        CAUSES[usize::from(self.blame.load(Ordering::Relaxed)) % CAUSES.len()]
    }

    pub(crate) fn shared(&self) -> u64 {
        self.shared.load(Ordering::Acquire)
    }

    /// Notes that bytes, reserved before, are shared by entries.
    pub(crate) fn share(&self, bytes: u64) {
        self.shared.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn unshare(&self, bytes: u64) {
        self.shared.fetch_sub(bytes, Ordering::AcqRel);
        self.heap.release(bytes);
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn count_get(&self, hit: bool) {
        if hit {
            self.hits.bump()
        } else {
            self.misses.bump()
        }
    }

    pub(crate) fn count_insert(&self, result: Result<(), Refusal>) {
        let counter = match result {
            Ok(()) => &self.inserted,
            Err(refusal) => &self.rejected[refusal as usize],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> L1Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [size, expired, removed, replaced] = self.evicted.each_ref().map(read);
        let [too_large, mapped_full, not_admitted] = self.rejected.each_ref().map(read);
        L1Stats {
            hits: self.hits.sum(),
            misses: self.misses.sum(),
            inserted: read(&self.inserted),
            evicted: Evicted {
                size,
                expired,
                removed,
                replaced,
            },
            rejected: Rejected {
                too_large,
                mapped_full,
                not_admitted,
            },
            entries: self.entries(),
            bytes: self.heap.used(),
            mapped_bytes: self.mapped.used(),
            budget_bytes: self.heap.limit(),
        }
    }
}
