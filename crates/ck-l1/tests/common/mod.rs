//! Values that weigh what a test says, and know how much of them is alive.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use ck_core::Key;
use ck_l1::{Insertion, L1, Refusal, Weigh, Weight};

/// Bytes as a counter that may go below zero for a moment has them.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A value of a claimed size, which nothing is allocated for.
pub(crate) struct Blob {
    pub(crate) id: u64,
    pub(crate) heap: u64,
    pub(crate) mapped: u64,
    alive: Option<(Arc<AtomicI64>, i64)>,
}

impl Blob {
    pub(crate) fn new(id: u64, heap: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            heap,
            mapped: 0,
            alive: None,
        })
    }

    pub(crate) fn mapped(heap: u64, mapped: u64) -> Arc<Self> {
        Arc::new(Self {
            id: 0,
            heap,
            mapped,
            alive: None,
        })
    }

    /// Takes `charge` off the counter when it is dropped; adding it is the caller's part.
    pub(crate) fn counted(id: u64, heap: u64, counter: &Arc<AtomicI64>, charge: u64) -> Arc<Self> {
        let alive = Some((Arc::clone(counter), signed(charge)));
        Arc::new(Self {
            id,
            heap,
            mapped: 0,
            alive,
        })
    }
}

impl Weigh for Blob {
    fn weight(&self) -> Weight {
        Weight {
            heap_bytes: self.heap,
            mapped_bytes: self.mapped,
        }
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        if let Some((counter, charge)) = &self.alive {
            counter.fetch_sub(*charge, SeqCst);
        }
    }
}

/// Keys of one length, so that all have the same overhead.
pub(crate) fn key(n: usize) -> Key {
    Key::new(format!("key {n:06}"))
}

/// What the tier charges for such a key and a value that retains nothing.
pub(crate) fn overhead() -> u64 {
    let probe = L1::builder(u64::MAX).build();
    assert_eq!(
        probe.insert(key(0), Blob::new(0, 0), None),
        Insertion::Stored
    );
    probe.stats().bytes
}

pub(crate) const TOO_LARGE: Insertion = Insertion::Rejected(Refusal::TooLarge);
pub(crate) const MAPPED_FULL: Insertion = Insertion::Rejected(Refusal::MappedFull);
pub(crate) const NOT_ADMITTED: Insertion = Insertion::Rejected(Refusal::NotAdmitted);
