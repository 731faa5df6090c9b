//! Stages of the file store beside the matrix.

use std::sync::Arc;
use std::time::Instant;

use arrow_array::RecordBatchIterator;
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_schema::ArrowError;
use ck_cache::PutOptions;
use ck_cache::blocking::Cache;

use super::{Setting, TABLE, ZSTD, cell};
use crate::probe::{Figures, Probe};
use crate::{Result, rss, tables};

/// Opens the entry and touches nothing else; then how long that takes.
pub(super) fn open(setting: &Setting) -> Result<Figures> {
    const REPEAT: usize = 101;
    let cache = warm(setting)?;
    // The program's own pages for it are resident then; the entry is mapped anew.
    drop(cell::entry(&cache)?);
    let probe = Probe::start()?;
    let table = cell::entry(&cache)?;
    let mut figures = probe.stop()?;
    figures.add("resident", rss::mapped_under(&setting.dir)?);
    drop(table);

    let mut times = Vec::with_capacity(REPEAT);
    for _ in 0..REPEAT {
        let start = Instant::now();
        let table = cell::entry(&cache)?;
        times.push(start.elapsed());
        drop(table);
    }
    times.sort_unstable();
    figures.add("open_us", times[REPEAT / 2].as_secs_f64() * 1e6);
    Ok(figures)
}

/// Sums one of the columns; only its pages may become resident.
pub(super) fn sum_column(setting: &Setting) -> Result<Figures> {
    let cache = warm(setting)?;
    let probe = Probe::start()?;
    let table = cell::entry(&cache)?;
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
    let mut figures = probe.stop()?;
    let resident = rss::mapped_under(&setting.dir)?;
    std::hint::black_box(sum);
    figures.add("resident", resident);
    figures.add_ratio("resident_ratio", resident, column.num_rows() * 8);
    Ok(figures)
}

/// A source that makes one batch of 1 MiB at a time: the table is never in memory.
pub(super) fn put_reader(setting: &Setting) -> Result<Figures> {
    const PIECE: u64 = 1 << 20;
    let schema = Arc::clone(&tables::numeric(PIECE)?.remove(0).schema());
    let make = |_| match tables::numeric(PIECE) {
        Ok(mut batches) => Ok(batches.remove(0)),
        Err(error) => Err(ArrowError::ComputeError(error.to_string())),
    };
    let batches = RecordBatchIterator::new((0..setting.bytes / PIECE).map(make), schema);
    let options = PutOptions::new().with_compression(ZSTD).with_workers(2);
    let probe = Probe::start()?;
    let outcome = setting.store()?.put_reader(TABLE, batches, &options)?;
    let figures = probe.stop()?;
    outcome.stored()?;
    Ok(figures)
}

/// The store of the case, in a process that has read a small table out of another one.
fn warm(setting: &Setting) -> Result<Cache> {
    let dir = setting.dir.join("warm");
    let small = Cache::open(&format!("file:{}", dir.display()))?;
    cell::warm_up(&small, tables::numeric, &PutOptions::new())?;
    drop(small);
    std::fs::remove_dir_all(dir)?;
    setting.store()
}
