//! Guards the promise that what is charged is what is allocated, within a tenth, from tiny entries to
//! large ones: the constants in `weigh.rs` are what moka 0.12 really needs for an entry.
//!
//! One test, alone in its binary: the allocator counts for all threads.

use std::sync::Arc;
use std::time::Duration;

use ck_core::Key;
use ck_l1::{Insertion, L1, Policy, Weigh, Weight};
use testkit::heap::{CountingAllocator, live};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

struct Blob(Vec<u8>);

impl Weigh for Blob {
    fn weight(&self) -> Weight {
        Weight::heap(self.0.capacity() as u64)
    }
}

/// Charged bytes, as a share of those allocated, after this many inserts of empty or larger values.
fn share(l1: &L1<Blob>, inserts: usize, value_bytes: usize, ttl: Option<Duration>) -> f64 {
    let before = live();
    for n in 0..inserts {
        let key = Key::new(format!("{n:0width$}", width = 8 + n % 57));
        let value = Arc::new(Blob(Vec::with_capacity(value_bytes)));
        assert_eq!(l1.insert(key, value, ttl), Insertion::Stored);
    }
    l1.settle();
    let allocated = live() - before;
    l1.stats().bytes as f64 / allocated as f64
}

#[test]
fn what_is_charged_is_what_is_allocated_within_a_tenth() {
    let before = live();
    let empty = L1::<Blob>::builder(1 << 40).build();
    let empty_bytes = live() - before;
    assert!(empty_bytes < 50_000, "{empty_bytes}");
    drop(empty);

    let hour = Some(Duration::from_secs(3600));
    let mut wrong = Vec::new();
    let mut check = |case: (u64, Policy, usize, usize, Option<Duration>)| {
        let (budget, policy, inserts, bytes, ttl) = case;
        let share = share(
            &L1::builder(budget).policy(policy).build(),
            inserts,
            bytes,
            ttl,
        );
        if !(0.9..=1.1).contains(&share) {
            wrong.push((case, share));
        }
    };
    for ttl in [None, hour] {
        for inserts in [10_000, 70_000, 150_000] {
            check((1 << 40, Policy::TinyLfu, inserts, 0, ttl));
        }
        check((1 << 40, Policy::Lru, 100_000, 0, ttl));
        check((1 << 40, Policy::TinyLfu, 50_000, 40, ttl));
        check((1 << 40, Policy::TinyLfu, 10_000, 1000, ttl));
        check((1 << 40, Policy::TinyLfu, 16, 4 << 20, ttl));
        // Most of these have been evicted: what they leave behind counts as well.
        check((16 << 20, Policy::Lru, 200_000, 0, ttl));
        check((16 << 20, Policy::Lru, 20_000, 2000, ttl));
    }
    check((1 << 40, Policy::TinyLfu, 1_000_000, 0, None));
    assert!(wrong.is_empty(), "{wrong:?}");
}
