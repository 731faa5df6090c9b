//! The in-process tier.

use std::env;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use ck_cache::blocking::Cache;
use ck_cache::{Backend, CacheBuilder, Compression, LoadOptions, PutOptions, Table};

use super::{Setting, TABLE, ZSTD, cell};
use crate::matrix::Cell;
use crate::probe::{Figures, Probe};
use crate::{Result, digest, tables};

const MIB: u64 = 1 << 20;

/// Freed memory is given back in one go, in the background, and each time is followed by a rest of nine times as
/// long: cycles as short as those without compression can end within one.
const REST: Duration = Duration::from_secs(3);

/// Keeps one row each of large batches: 200 of 48 MiB at the smallest size, fewer of larger ones then.
pub(super) fn slices(setting: &Setting) -> Result<Figures> {
    let slices = 200 * 64 * MIB / setting.bytes;
    let cache = ck_cache::Cache::in_process(64 * MIB).blocking();
    let keep = |n: u64| -> Result<()> {
        let batch = tables::constant(setting.bytes * 3 / 4)?.remove(0);
        let row = Table::from(batch.slice(batch.num_rows() / 2, 1));
        cache
            .put_table(format!("row {n}"), &row, &PutOptions::new())?
            .stored()?;
        Ok(())
    };
    keep(slices)?;
    let probe = Probe::start()?;
    (0..slices).try_for_each(keep)?;
    let figures = probe.stop_later()?;
    for n in 0..slices {
        let found = cache.get_table(format!("row {n}"))?.ok_or("a miss")?;
        if found.num_rows() != 1 {
            return Err("not the row that was kept".into());
        }
    }
    Ok(figures)
}

/// Keeps empty results, each with an equal schema of its own: a million for 1 GiB.
pub(super) fn empty(setting: &Setting) -> Result<Figures> {
    let count = setting.bytes / MIB * 1_000_000 / 1024;
    let cache = ck_cache::Cache::in_process(64 << 30).blocking();
    let options = PutOptions::new();
    let probe = Probe::start()?;
    for n in 0..count {
        let result = Table::from(no_rows()?);
        cache
            .put_table(format!("query {n}"), &result, &options)?
            .stored()?;
    }
    let mut figures = probe.stop_later()?;
    let charged = cache.stats().l1.ok_or("no tier")?.bytes;
    figures.add_ratio("rss_ratio", figures.bytes("left")?, charged);
    if cache
        .get_table("query 1")?
        .is_none_or(|found| found.num_rows() != 0)
    {
        return Err("not the result that was kept".into());
    }
    Ok(figures)
}

/// Puts, gets and lets go of a table, a hundred times (25 times above 64 MiB).
pub(super) fn churn(setting: &Setting) -> Result<Figures> {
    // The next table makes the one before it go.
    let cache = ck_cache::Cache::in_process(setting.bytes * 3 / 2).blocking();
    let cycles = (100 * 64 * MIB / setting.bytes).clamp(25, 100);
    cycle(
        setting,
        &cache,
        cycles,
        tables::constant,
        &PutOptions::new(),
    )?
    .stop_later()
}

/// As [`churn`], with a store behind that has to decompress what is asked for, and tables of many sizes of
/// buffers. What is compressed takes a core a while: 2 GiB in all, in four tables or more.
pub(super) fn churn_of_store(setting: &Setting) -> Result<Figures> {
    let cycles = (2048 * MIB / setting.bytes).clamp(4, 20);
    cycle_of_store(setting, cycles, ZSTD)?.stop_later()
}

/// As [`churn_of_store`], with tables that are kept as they were read. A few leave as much as many.
pub(super) fn churn_of_store_uncompressed(setting: &Setting) -> Result<Figures> {
    cycle_of_store(setting, 4, Compression::None)?.stop_after(REST)
}

fn cycle_of_store(setting: &Setting, cycles: u64, compression: Compression) -> Result<Probe> {
    let cache = tiers(ck_cache::open_store(&setting.url())?, setting).build();
    let options = PutOptions::new().with_compression(compression);
    let cache = cache.blocking();
    cycle(setting, &cache, cycles, tables::strings, &options)
}

/// As [`churn_of_store`], of a cell's tables through its store. `beyond` and its like are what comes on top of two
/// tables: one that the process keeps, and one that is made, or read out of the store.
pub(super) fn churn_of_cell(cell: Cell, setting: &Setting) -> Result<Figures> {
    with_one_heap(|| churn_in_one_heap(cell, setting))
}

fn churn_in_one_heap(cell: Cell, setting: &Setting) -> Result<Figures> {
    // Enough for tables that come from the store while the process keeps another.
    const CYCLES: u64 = 3;
    let make = cell.source.make();
    let table = digest::bytes(&make(setting.bytes)?);
    let cache = tiers(cell::warm_store(cell, setting)?, setting).build();
    let probe = cycle(
        setting,
        &cache.blocking(),
        CYCLES,
        make,
        &cell::options(cell),
    )?;
    let mut figures = probe.stop_after(REST)?;
    figures.add_beyond(2 * table)?;
    Ok(figures)
}

/// A cache that keeps one table of the source's size in the process, and lets go of it for the next.
fn tiers(store: Arc<dyn Backend>, setting: &Setting) -> CacheBuilder {
    ck_cache::Cache::builder(store).l1_bytes(setting.bytes * 3 / 2)
}

fn cycle(
    setting: &Setting,
    cache: &Cache,
    cycles: u64,
    make: tables::Make,
    options: &PutOptions,
) -> Result<Probe> {
    let has_store = cache.backend().is_ok();
    let probe = Probe::start()?;
    for n in 0..cycles {
        let table = cell::table(make(setting.bytes)?)?;
        let rows = table.num_rows();
        cache
            .put_table(format!("table {n}"), &table, options)?
            .stored()?;
        drop(table);
        let found = cache.get_table(format!("table {n}"))?.ok_or("a miss")?;
        if found.num_rows() != rows {
            return Err("not the table that was put".into());
        }
        drop(found);
        if has_store && n > 0 {
            // Gone from the process, not from the store.
            let older = cache
                .get_table(format!("table {}", n - 1))?
                .ok_or("a miss")?;
            drop(older);
            cache.remove(format!("table {}", n - 1))?;
        }
    }
    for n in 0..cycles {
        cache.remove(format!("table {n}"))?;
    }
    Ok(probe)
}

/// Does the work in a process like this one all of whose threads share one heap: of each further one the C library
/// keeps the end, up to 64 MiB, which hides what the library under test would keep.
fn with_one_heap(work: impl FnOnce() -> Result<Figures>) -> Result<Figures> {
    const HEAPS: &str = "MALLOC_ARENA_MAX";
    if env::var_os(HEAPS).is_some_and(|heaps| heaps == "1") {
        return work();
    }
    let output = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(HEAPS, "1")
        .stderr(Stdio::inherit())
        .output()?;
    match output.status.success() {
        true => Figures::parse(&output.stdout),
        false => Err("the process with one heap failed".into()),
    }
}

/// Tasks of a server get tables and let go of them, each on its own and without a tier of the process.
pub(super) fn gets_of_tasks(setting: &Setting, compression: Compression) -> Result<Figures> {
    with_one_heap(|| gets_in_one_heap(setting, compression))
}

fn gets_in_one_heap(setting: &Setting, compression: Compression) -> Result<Figures> {
    const TASKS: usize = 4;
    const GETS: usize = 20;
    // What callers let go of is given back three seconds later, and it takes its time.
    const LATER: Duration = Duration::from_secs(5);
    let cache = ck_cache::Cache::new(ck_cache::open_store(&setting.url())?);
    let options = PutOptions::new().with_compression(compression);
    let mut rows = 0;
    for n in 0..TASKS {
        let table = cell::table(tables::strings(setting.bytes / TASKS as u64)?)?;
        rows = table.num_rows();
        cache
            .blocking()
            .put_table(format!("table {n}"), &table, &options)?
            .stored()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2 * TASKS)
        .build()?;
    let probe = Probe::start()?;
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let cache = cache.clone();
                tokio::spawn(async move {
                    let mut all = true;
                    for n in 0..GETS {
                        let key = format!("table {}", (task + n) % TASKS);
                        let found = cache.get_table(key).await?;
                        all &= found.is_some_and(|found| found.num_rows() == rows);
                        // Another thread may go on.
                        tokio::task::yield_now().await;
                    }
                    Ok::<_, ck_cache::Error>(all)
                })
            })
            .collect();
        for task in tasks {
            if !task.await?? {
                return Err("not the table that was put".into());
            }
        }
        Ok::<_, crate::Error>(())
    })?;
    probe.stop_after(LATER)
}

/// A thousand tasks ask for a table that nobody has yet.
pub(super) fn load(setting: &Setting) -> Result<Figures> {
    let store = ck_cache::open_store(&setting.url())?;
    let mut figures = load_once(setting, store, tables::numeric, LoadOptions::new())?;
    figures.add_beyond(setting.bytes)?;
    Ok(figures)
}

/// As [`load`], of a cell's table into its store.
pub(super) fn load_of_cell(cell: Cell, setting: &Setting) -> Result<Figures> {
    let make = cell.source.make();
    let table = digest::bytes(&make(setting.bytes)?);
    let store = cell::warm_store(cell, setting)?;
    let options = LoadOptions::new().with_put(cell::options(cell));
    let mut figures = load_once(setting, Arc::clone(&store), make, options)?;
    figures.add_beyond(table)?;
    if ck_cache::Cache::new(store)
        .blocking()
        .stat(TABLE)?
        .is_none()
    {
        return Err("it was not stored".into());
    }
    Ok(figures)
}

fn load_once(
    setting: &Setting,
    store: Arc<dyn Backend>,
    make: tables::Make,
    options: LoadOptions,
) -> Result<Figures> {
    const TASKS: usize = 1000;
    let cache = tiers(store, setting)
        .memory_budget_bytes(setting.bytes * 3)
        .build();
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let bytes = setting.bytes;
    let loads = Arc::new(AtomicU64::new(0));
    let probe = Probe::start()?;
    let rows = runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (cache, loads) = (cache.clone(), Arc::clone(&loads));
                let options = options.clone();
                tokio::spawn(async move {
                    let load = move || async move {
                        loads.fetch_add(1, SeqCst);
                        let table = make(bytes).and_then(cell::table);
                        table.map(Some).map_err(|error| error.to_string())
                    };
                    cache.get_or_load_table(TABLE, &options, load).await
                })
            })
            .collect();
        // Everybody holds on to what they got.
        let mut held = Vec::with_capacity(TASKS);
        for task in tasks {
            held.push(task.await??.ok_or("a miss")?);
        }
        Ok::<_, crate::Error>(held.iter().map(Table::num_rows).sum::<u64>())
    })?;
    let figures = probe.stop()?;
    let loads = loads.load(SeqCst);
    if loads != 1 || !rows.is_multiple_of(TASKS as u64) {
        return Err(format!("{loads} loads, {rows} rows").into());
    }
    Ok(figures)
}

/// A result of no rows, as a query gives it.
fn no_rows() -> Result<RecordBatch> {
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from(Vec::<i64>::new()))),
        ("name", Arc::new(StringArray::from(Vec::<&str>::new()))),
        ("price", Arc::new(Float64Array::from(Vec::<f64>::new()))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
