//! Several puts or gets at once, each with a key of its own.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use ck_cache::blocking::Cache;
use ck_cache::{Compression, PutOptions, Table};
use own::stores::{Kind, Store};
use own::{Result, tables};

use crate::suite::{Suite, medians};

const TASKS: [usize; 3] = [1, 2, 4];

/// Bytes of each table.
const BYTES: usize = 16 << 20;

const HITS: usize = 200_000;

const SERIES: [(&str, Kind, Compression); 4] = [
    ("file", Kind::File, Compression::None),
    ("file, zstd", Kind::File, Compression::Zstd(3)),
    ("Redis", Kind::Redis, Compression::None),
    ("memcached", Kind::Memcached, Compression::None),
];

pub(crate) fn run(suite: &mut Suite) -> Result<()> {
    // Operations of each task.
    let (count, patience) = if suite.quick { (2, 1) } else { (6, 4) };
    let patience = Duration::from_secs(patience);
    let table = tables::of_bytes(BYTES)?;
    for (series, kind, compression) in SERIES {
        // Soon full, as caches are: what a server takes afresh from the system costs it several times as much.
        let store = Store::start(kind, 1 << 30)?;
        let cache = store.cache();
        let options = PutOptions::new().with_compression(compression);
        rustix::fs::sync();
        for tasks in TASKS {
            let [put, get] = medians(15, patience, || {
                for task in 0..tasks {
                    cache.remove(key(task))?;
                }
                Ok([
                    together(tasks, |task| put(&cache, task, count, &table, &options))?,
                    together(tasks, |task| get(&cache, task, count))?,
                ])
            })?;
            let work = (tasks * count * BYTES) as f64;
            suite.note("concurrent-puts", series, tasks as f64, work, put);
            suite.note("concurrent-gets", series, tasks as f64, work, get);
        }
    }
    let hits = ck_cache::Cache::in_process(1 << 30).blocking();
    for task in 0..TASKS.len() * 2 {
        hits.put_table(key(task), table.clone(), &PutOptions::new())?
            .stored()?;
    }
    for tasks in TASKS {
        let [time] = medians(15, patience, || {
            let hit = |task| {
                let key = ck_core::Key::from(key(task));
                for _ in 0..HITS {
                    black_box(hits.get_table(key.clone())?.ok_or("a miss")?);
                }
                Ok(())
            };
            Ok([together(tasks, hit)?])
        })?;
        suite.note(
            "concurrent-gets",
            "hits in the process",
            tasks as f64,
            (tasks * HITS) as f64,
            time,
        );
    }
    Ok(())
}

fn key(task: usize) -> String {
    format!("table {task}")
}

fn put(
    cache: &Cache,
    task: usize,
    count: usize,
    table: &Table,
    options: &PutOptions,
) -> Result<()> {
    for _ in 0..count {
        cache
            .put_table(key(task), table.clone(), options)?
            .stored()?;
    }
    Ok(())
}

fn get(cache: &Cache, task: usize, count: usize) -> Result<()> {
    for _ in 0..count {
        let table = cache.open_table(key(task))?.ok_or("the entry is gone")?;
        for batch in table.batches() {
            black_box(batch?);
        }
    }
    Ok(())
}

/// How long all tasks together take.
fn together(tasks: usize, task: impl Fn(usize) -> Result<()> + Sync) -> Result<Duration> {
    let (barrier, task) = (Barrier::new(tasks + 1), &task);
    thread::scope(|scope| {
        let start = |index| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                task(index)
            })
        };
        let running: Vec<_> = (0..tasks).map(start).collect();
        barrier.wait();
        let start = Instant::now();
        for one in running {
            one.join().map_err(|_| "a task panicked")??;
        }
        Ok(start.elapsed())
    })
}
