//! Tables out of the file store, in a process that has only just started.

use std::fs;
use std::time::Instant;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, RecordBatch};
use ck_cache::blocking::{Cache, CachedTable};
use ck_cache::{Compression, PutOptions};
use serde_json::Value;

use super::{Setting, TABLE, ZSTD};
use crate::probe::{Metrics, Probe};
use crate::{Result, rss, tables};

/// Opens the entry and touches nothing else; then how long that takes.
pub(super) fn open(setting: &Setting) -> Result<Metrics> {
    const REPEAT: usize = 101;
    let cache = warm(setting)?;
    let probe = Probe::start()?;
    let table = entry(&cache)?;
    let mut metrics = probe.stop()?;
    let resident = rss::mapped_under(&setting.dir)?;
    metrics.insert("resident".to_owned(), resident.into());
    drop(table);

    let mut times = Vec::with_capacity(REPEAT);
    for _ in 0..REPEAT {
        let start = Instant::now();
        let table = entry(&cache)?;
        times.push(start.elapsed());
        drop(table);
    }
    times.sort_unstable();
    let median = times[REPEAT / 2].as_secs_f64() * 1e6;
    metrics.insert("open_us".to_owned(), median.into());
    Ok(metrics)
}

/// Sums one of the columns; only its pages may become resident.
pub(super) fn sum_column(setting: &Setting) -> Result<Metrics> {
    let cache = warm(setting)?;
    let probe = Probe::start()?;
    let table = entry(&cache)?;
    let column = table.select(&["c1"])?;
    let mut sum = 0.0;
    for batch in column.batches() {
        sum += batch?
            .column(0)
            .as_primitive::<Float64Type>()
            .values()
            .iter()
            .sum::<f64>();
    }
    let mut metrics = probe.stop()?;
    let resident = rss::mapped_under(&setting.dir)?;
    std::hint::black_box(sum);
    add_resident(&mut metrics, resident, column.num_rows() * 8);
    Ok(metrics)
}

/// Reads every value of every column, batch by batch.
pub(super) fn scan(setting: &Setting) -> Result<Metrics> {
    let cache = warm(setting)?;
    let probe = Probe::start()?;
    let mut sum = 0;
    for batch in entry(&cache)?.batches() {
        sum += checksum(&batch?);
    }
    std::hint::black_box(sum);
    probe.stop()
}

/// Reads three of the columns.
pub(super) fn project(setting: &Setting) -> Result<Metrics> {
    let cache = warm(setting)?;
    let probe = Probe::start()?;
    let mut sum = 0;
    for batch in entry(&cache)?.select(&["c6", "c1", "c3"])?.batches() {
        sum += checksum(&batch?);
    }
    std::hint::black_box(sum);
    probe.stop()
}

/// Reads a thousand rows in the middle.
pub(super) fn rows(setting: &Setting) -> Result<Metrics> {
    const ROWS: u64 = 1000;
    let cache = warm(setting)?;
    let probe = Probe::start()?;
    let table = entry(&cache)?;
    let middle = table.num_rows() / 2;
    let batches = table.rows(middle..middle + ROWS)?.read_all()?;
    let mut metrics = probe.stop()?;
    let resident = rss::mapped_under(&setting.dir)?;
    if batches.iter().map(RecordBatch::num_rows).sum::<usize>() as u64 != ROWS {
        return Err("not the rows that were asked for".into());
    }
    metrics.insert("resident".to_owned(), resident.into());
    Ok(metrics)
}

/// Checks the whole entry.
pub(super) fn verify(setting: &Setting) -> Result<Metrics> {
    let cache = warm(setting)?;
    let probe = Probe::start()?;
    let found = cache.verify(TABLE)?;
    let metrics = probe.stop()?;
    if found {
        Ok(metrics)
    } else {
        Err("a miss".into())
    }
}

/// The store of the case, in a process that has done all of this once with a small table in another
/// store: code that is resident for good is no part of a stage.
pub(super) fn warm(setting: &Setting) -> Result<Cache> {
    let dir = setting.dir.join("warm");
    let small = Cache::open(&format!("file:{}", dir.display()))?;
    for (key, compression) in [
        ("none", Compression::None),
        ("lz4", Compression::Lz4),
        ("zstd", ZSTD),
    ] {
        let table = tables::numeric(256 << 10)?.remove(0);
        small
            .put_table(key, table, &PutOptions::new().with_compression(compression))?
            .stored()?;
        let table = small.open_table(key)?.ok_or("a miss")?;
        table.rows(10..20)?.select(&["c1"])?.read_all()?;
        for batch in table.batches() {
            checksum(&batch?);
        }
        small.verify(key)?;
    }
    drop(small);
    fs::remove_dir_all(dir)?;
    setting.store()
}

fn entry(cache: &Cache) -> Result<CachedTable> {
    Ok(cache.open_table(TABLE)?.ok_or("a miss")?)
}

/// Touches every byte.
pub(super) fn checksum(batch: &RecordBatch) -> u64 {
    let buffers = batch.columns().iter().flat_map(|column| {
        let data = column.to_data();
        data.buffers().to_vec()
    });
    buffers
        .map(|buffer| buffer.iter().map(|&byte| u64::from(byte)).sum::<u64>())
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "a ratio with three digits")]
fn add_resident(metrics: &mut Metrics, resident: u64, column: u64) {
    metrics.insert("resident".to_owned(), resident.into());
    metrics.insert(
        "resident_ratio".to_owned(),
        Value::from(resident as f64 / column as f64),
    );
}
