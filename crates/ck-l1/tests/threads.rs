//! Guards the budget against races: eight threads of mixed sizes, and one that looks at what is held.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use ck_l1::{Charge, Insertion, L1, Policy};
use common::{Blob, key, overhead, signed};

const THREADS: usize = 8;
const STEPS: usize = 15_000;
const KEYS: usize = 64;
const BUDGET: u64 = 1 << 20;

/// Bytes of the value of a key: from nothing to a third of the budget, and one larger than it.
fn size(at: usize) -> u64 {
    match at {
        0 => BUDGET,
        1..4 => BUDGET / 3,
        4..20 => BUDGET / 16 + at as u64 * 1000,
        _ => at as u64 * 50,
    }
}

fn total(charges: &[Charge]) -> i64 {
    charges.iter().map(|charge| signed(charge.bytes())).sum()
}

/// One thread's part. `held` counts what is charged for values that are alive and in no caller's hands;
/// while a value is being passed in or out it counts as in hand, so the tier holds this at least.
fn work(l1: &L1<Blob>, held: &Arc<AtomicI64>, thread: usize) {
    let overhead = overhead();
    let mut random = thread as u64 + 1;
    let mut charges = Vec::new();
    for _ in 0..STEPS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let at = (random >> 8) as usize % KEYS;
        let charge = size(at) + overhead;
        match random % 100 {
            0..45 => {
                let ttl = random.is_multiple_of(3).then_some(Duration::from_millis(5));
                let value = Blob::counted(at as u64, size(at), held, charge);
                let _ = l1.insert(key(at), value, ttl);
                // No longer in hand. If it was dropped, it has taken itself off already.
                held.fetch_add(signed(charge), SeqCst);
            }
            45..90 => {
                held.fetch_sub(signed(charge), SeqCst);
                if let Some(value) = l1.get(&key(at)) {
                    assert_eq!(value.id, at as u64);
                }
                held.fetch_add(signed(charge), SeqCst);
            }
            90..95 => drop(l1.remove(&key(at))),
            95..98 => {
                let charge = l1.charge(random % (BUDGET / 32));
                held.fetch_add(total(charge.as_slice()), SeqCst);
                charges.extend(charge);
            }
            98 => {
                held.fetch_sub(total(&charges), SeqCst);
                charges.clear();
            }
            _ => l1.settle(),
        }
        if random.is_multiple_of(4096) {
            l1.clear();
        }
    }
    held.fetch_sub(total(&charges), SeqCst);
}

fn hammer(policy: Policy) {
    let l1 = L1::builder(BUDGET).policy(policy).build();
    let held: Arc<AtomicI64> = Arc::default();
    let done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !done.load(SeqCst) {
                let bytes = l1.stats().bytes;
                assert!(bytes <= BUDGET, "{bytes} charged");
                most = most.max(held.load(SeqCst));
            }
            most
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let (l1, held) = (&l1, &held);
                    move || work(l1, held, thread)
                })
            })
            .collect();
        let failed = workers
            .into_iter()
            .map(|worker| worker.join())
            .filter(Result::is_err)
            .count();
        done.store(true, SeqCst);
        assert_eq!(failed, 0);
        sampler.join().unwrap_or(i64::MAX)
    });
    assert!(most <= signed(BUDGET), "{most} bytes held");
    // The tier was in use up to its limit, or the test has shown nothing.
    assert!(most > signed(BUDGET) / 2, "only {most} bytes held");

    l1.clear();
    let stats = l1.stats();
    assert_eq!((stats.entries, stats.bytes, held.load(SeqCst)), (0, 0, 0));
    let left = stats.evicted;
    assert_eq!(
        stats.inserted,
        left.size + left.expired + left.removed + left.replaced
    );
    assert!(
        stats.hits > 0 && left.size > 0 && stats.rejected.too_large > 0,
        "{stats:?}"
    );

    assert_eq!(
        l1.insert(key(9), Blob::new(9, BUDGET - overhead()), None),
        Insertion::Stored
    );
}

#[test]
fn eight_threads_never_exceed_the_budget_with_lru() {
    hammer(Policy::Lru);
}

#[test]
fn eight_threads_never_exceed_the_budget_with_tiny_lfu() {
    hammer(Policy::TinyLfu);
}
