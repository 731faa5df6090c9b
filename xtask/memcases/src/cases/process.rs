//! The in-process tier.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use ck_cache::blocking::Cache;
use ck_cache::{LoadOptions, PutOptions, Table};

use super::{Setting, TABLE, ZSTD, cell};
use crate::probe::{Figures, Probe};
use crate::{Result, tables};

const MIB: u64 = 1 << 20;

/// Keeps one row each of large batches: 200 of 48 MiB at the smallest size, fewer of larger ones then.
pub(super) fn slices(setting: &Setting) -> Result<Figures> {
    let rows = usize::try_from(setting.bytes * 3 / 4 / (8 * 8))?;
    let slices = 200 * 64 * MIB / setting.bytes;
    let cache = ck_cache::Cache::in_process(64 * MIB).blocking();
    let keep = |n: u64| -> Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let columns = (0..8).map(|c| {
            let column: ArrayRef = Arc::new(Float64Array::from(vec![n as f64; rows]));
            (format!("c{c}"), column)
        });
        let batch = RecordBatch::try_from_iter(columns)?;
        let row = Table::from(batch.slice(rows / 2, 1));
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

/// Keeps empty results, each with an equal schema of its own: a million from 256 MiB on.
pub(super) fn empty(setting: &Setting) -> Result<Figures> {
    let count = (setting.bytes / MIB * 1_000_000 / 256).min(1_000_000);
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

/// Puts, gets and lets go of a table, a hundred times (less often above 256 MiB).
pub(super) fn churn(setting: &Setting) -> Result<Figures> {
    // The next table makes the one before it go.
    let cache = ck_cache::Cache::in_process(setting.bytes * 3 / 2).blocking();
    let cycles = (100 * 256 * MIB / setting.bytes).min(100);
    cycle(setting, &cache, cycles, |bytes| {
        let rows = usize::try_from(bytes / 64)?;
        let columns = (0..8).map(|c| {
            let column: ArrayRef = Arc::new(Int64Array::from(vec![c; rows]));
            (format!("c{c}"), column)
        });
        Ok(vec![RecordBatch::try_from_iter(columns)?])
    })
}

/// As [`churn`], with a store behind that has to decompress what is asked for, and tables of many sizes of
/// buffers. What is compressed takes a core a while: 2 GiB in all, in four tables or more.
pub(super) fn churn_of_store(setting: &Setting) -> Result<Figures> {
    let store = ck_cache::open_store(&setting.url())?;
    let cache = ck_cache::Cache::builder(store).l1_bytes(setting.bytes * 3 / 2);
    let cycles = (2048 * MIB / setting.bytes).clamp(4, 20);
    cycle(setting, &cache.build().blocking(), cycles, tables::strings)
}

fn cycle(setting: &Setting, cache: &Cache, cycles: u64, make: tables::Make) -> Result<Figures> {
    let has_store = cache.backend().is_ok();
    let options = PutOptions::new().with_compression(ZSTD);
    let probe = Probe::start()?;
    for n in 0..cycles {
        let table = cell::table(make(setting.bytes)?)?;
        let rows = table.num_rows();
        cache
            .put_table(format!("table {n}"), &table, &options)?
            .stored()?;
        drop(table);
        let found = cache.get_table(format!("table {n}"))?.ok_or("a miss")?;
        if found.num_rows() != rows {
            return Err("not the table that was put".into());
        }
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
    probe.stop_later()
}

/// A thousand tasks ask for a table that nobody has yet.
pub(super) fn load(setting: &Setting) -> Result<Figures> {
    const TASKS: usize = 1000;
    let store = ck_cache::open_store(&setting.url())?;
    let cache = ck_cache::Cache::builder(store)
        .l1_bytes(setting.bytes * 3 / 2)
        .memory_budget_bytes(setting.bytes * 3)
        .build();
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let bytes = setting.bytes;
    let loads = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let probe = Probe::start()?;
    let rows = runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (cache, loads) = (cache.clone(), Arc::clone(&loads));
                tokio::spawn(async move {
                    let options = LoadOptions::new();
                    let load = move || async move {
                        loads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        let batches = tables::numeric(bytes).map_err(|e| e.to_string())?;
                        let schema = batches[0].schema();
                        let table = Table::new(schema, batches).map_err(|e| e.to_string())?;
                        Ok::<_, String>(Some(table))
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
    let mut figures = probe.stop()?;
    let loads = loads.load(std::sync::atomic::Ordering::SeqCst);
    if loads != 1 || !rows.is_multiple_of(TASKS as u64) {
        return Err(format!("{loads} loads, {rows} rows").into());
    }
    figures.add_beyond(setting.bytes)?;
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
