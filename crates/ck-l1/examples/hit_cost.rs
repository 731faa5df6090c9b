//! What a hit costs, beside a bare `moka::sync::Cache<Key, Arc<V>>`: the bound is 1.3 times.
//!
//! `cargo run --release -p ck-l1 --example hit_cost`
//!
//! Both are measured in turns within one run, so that what else the machine does hits both; the ratio
//! is the median of the rounds' ratios. The two hashers of moka are shown: its default, and the one
//! that the tier uses.
#![allow(clippy::print_stdout, reason = "an example shows what it finds")]

use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use ck_core::Key;
use ck_l1::{Insertion, L1, Policy, Weigh, Weight};
use moka::sync::Cache;

const ENTRIES: usize = 10_000;
const GETS: usize = 50_000;
const ROUNDS: usize = 81;

struct Value(#[allow(dead_code, reason = "it only takes room")] [u64; 4]);

impl Weigh for Value {
    fn weight(&self) -> Weight {
        Weight::default()
    }
}

/// Nanoseconds per get, with each of the threads doing `GETS` gets.
fn round(keys: &[Key], threads: usize, get: &(impl Fn(&Key) -> Option<Arc<Value>> + Sync)) -> f64 {
    let barrier = Barrier::new(threads);
    let longest = std::thread::scope(|scope| {
        let run = |thread: usize| {
            let barrier = &barrier;
            move || {
                barrier.wait();
                let start = Instant::now();
                let mut at = thread * 7919;
                for _ in 0..GETS {
                    at = (at + 6151) % keys.len();
                    assert!(black_box(get(&keys[at])).is_some());
                }
                start.elapsed()
            }
        };
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(run(thread)))
            .collect();
        running
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .max()
            .unwrap_or(Duration::ZERO)
    });
    longest.as_nanos() as f64 / GETS as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn bare<S: BuildHasher + Clone + Send + Sync + 'static>(
    keys: &[Key],
    hasher: S,
) -> impl Fn(&Key) -> Option<Arc<Value>> + Sync {
    let cache: Cache<Key, Arc<Value>, S> = Cache::builder()
        .max_capacity(1 << 30)
        .weigher(|_, _| 400)
        .build_with_hasher(hasher);
    for key in keys {
        cache.insert(key.clone(), Arc::new(Value([0; 4])));
    }
    cache.run_pending_tasks();
    move |key| cache.get(key)
}

fn main() {
    let keys: Vec<Key> = (0..ENTRIES)
        .map(|n| Key::new(format!("features/2026-11-20/part-{n:05}")))
        .collect();

    let l1 = L1::builder(1 << 30).policy(Policy::TinyLfu).build();
    for key in &keys {
        assert_eq!(
            l1.insert(key.clone(), Arc::new(Value([0; 4])), None),
            Insertion::Stored
        );
    }
    l1.settle();
    let tier = |key: &Key| l1.get(key);
    let default = bare(&keys, std::hash::RandomState::new());
    let same = bare(&keys, ahash::RandomState::new());

    println!("nanoseconds per hit, medians of {ROUNDS} rounds of {GETS} hits per thread");
    println!("threads      L1   moka, SipHash   ratio   moka, ahash   ratio");
    for threads in [1, 2, 8] {
        let mut figures: [Vec<f64>; 5] = Default::default();
        for _ in 0..ROUNDS {
            let own = round(&keys, threads, &tier);
            let sip = round(&keys, threads, &default);
            let fast = round(&keys, threads, &same);
            for (all, one) in figures
                .iter_mut()
                .zip([own, sip, own / sip, fast, own / fast])
            {
                all.push(one);
            }
        }
        let [own, sip, of_sip, fast, of_fast] = figures.map(median);
        println!(
            "{threads:7}  {own:6.0}   {sip:13.0}   {of_sip:5.2}   {fast:11.0}   {of_fast:5.2}"
        );
    }
}
