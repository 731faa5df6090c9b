//! Hits in the process: beside bare moka, and beside reading the store again.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use ck_cache::Verification;
use ck_core::Key;
use ck_l1::{Insertion, L1, Policy, Weigh, Weight};
use moka::sync::Cache;

use super::{READ, local, terms};
use crate::Result;
use crate::ipc::Codec;
use crate::row::{Group, Memory, Open, Row, Sample};
use crate::scene::Scene;
use crate::tables::Kind;

const ENTRIES: usize = 10_000;
const NONE: &str = "off";

pub(super) fn rows(scene: &Scene) -> Vec<Row> {
    let gets = if scene.quick { 20_000 } else { 100_000 };
    let mut rows = Vec::new();
    for threads in [1, 2, 8] {
        let work = match threads {
            1 => "hit, 1 thread".to_owned(),
            _ => format!("hit, {threads} threads"),
        };
        let row = |peer: &str, theirs| {
            Row::new(
                Group::Process,
                work.as_str(),
                peer,
                terms(READ, NONE),
                hits(threads, gets, tier),
                theirs,
            )
            .of_operations(gets as u64)
        };
        rows.push(row(
            "moka with its own hasher",
            hits(threads, gets, || bare(std::hash::RandomState::new())),
        ));
        rows.push(row(
            "moka with ahash",
            hits(threads, gets, || bare(ahash::RandomState::new())),
        ));
    }
    for (codec, name) in [
        (Codec::None, "mapped"),
        (Codec::Lz4, "lz4"),
        (Codec::Zstd(3), "zstd 3"),
    ] {
        let peer = format!("read from our store, {name}");
        let again = local::get(Kind::Lineitem, codec, Verification::OnTouch);
        rows.push(
            Row::new(
                Group::Process,
                "table kept, lineitem",
                peer,
                terms(READ, "xxh3 before it is kept / of all bytes"),
                kept(),
                again,
            )
            .with_memory(Memory::Nothing),
        );
    }
    rows
}

struct Value(#[allow(dead_code, reason = "it only takes room")] [u64; 4]);

impl Weigh for Value {
    fn weight(&self) -> Weight {
        Weight::default()
    }
}

type Get = Box<dyn Fn(&Key) -> Option<Arc<Value>> + Sync>;

fn keys() -> Vec<Key> {
    (0..ENTRIES)
        .map(|n| Key::new(format!("features/2026-11-20/part-{n:05}")))
        .collect()
}

fn tier() -> Get {
    let l1 = L1::builder(1 << 30).policy(Policy::TinyLfu).build();
    for key in keys() {
        assert_eq!(
            l1.insert(key, Arc::new(Value([0; 4])), None),
            Insertion::Stored
        );
    }
    l1.settle();
    Box::new(move |key| l1.get(key))
}

fn bare<S: BuildHasher + Clone + Send + Sync + 'static>(hasher: S) -> Get {
    let cache: Cache<Key, Arc<Value>, S> = Cache::builder()
        .max_capacity(1 << 30)
        .weigher(|_, _| 400)
        .build_with_hasher(hasher);
    for key in keys() {
        cache.insert(key, Arc::new(Value([0; 4])));
    }
    cache.run_pending_tasks();
    Box::new(move |key| cache.get(key))
}

fn hits(threads: usize, gets: usize, make: impl Fn() -> Get + 'static) -> Open {
    Box::new(move |_| {
        let (get, keys) = (make(), keys());
        Ok(Box::new(move || {
            Ok(Sample::of(longest(threads, gets, &keys, &get)))
        }))
    })
}

/// The time of the slowest thread, each of which does `gets`.
fn longest(threads: usize, gets: usize, keys: &[Key], get: &Get) -> Duration {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let run = |thread: usize| {
            let barrier = &barrier;
            move || {
                barrier.wait();
                let start = Instant::now();
                let mut at = thread * 7919;
                for _ in 0..gets {
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
            .unwrap_or_default()
    })
}

/// One alone is too short for the clock.
const KEPT_HITS: u32 = 10_000;

fn kept() -> Open {
    Box::new(|scene| {
        let cache = ck_cache::Cache::in_process(4 * scene.bytes() as u64).blocking();
        let table: Rc<Vec<_>> = scene.table(Kind::Lineitem)?;
        let source = ck_cache::Table::new(table[0].schema(), table.to_vec())?;
        cache
            .put_table("table", source, &local::options(Codec::None))?
            .stored()?;
        Ok(Box::new(move || {
            let start = Instant::now();
            for _ in 0..KEPT_HITS {
                black_box(cache.get_table("table")?.ok_or("a miss")?);
            }
            Ok::<_, Box<dyn std::error::Error>>(Sample::of(start.elapsed() / KEPT_HITS))
        }) as Box<dyn FnMut() -> Result<Sample>>)
    })
}
