//! Stages of the file store beside the matrix.

use std::sync::Arc;
use std::time::Instant;

use arrow_array::RecordBatchIterator;
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_schema::ArrowError;
use ck_cache::PutOptions;
use ck_cache::blocking::{Cache, CachedTable};

use super::{Setting, TABLE, ZSTD, cell};
use crate::probe::{Figures, Probe};
use crate::{Result, tables};

/// Opens the entry and touches nothing else; then how long that takes.
pub(super) fn open(setting: &Setting) -> Result<Figures> {
    let cache = warm(setting)?;
    // The program's own pages for it are resident then; the entry is mapped anew.
    drop(cell::entry(&cache)?);
    let probe = Probe::start()?;
    let table = cell::entry(&cache)?;
    let mut figures = probe.stop()?;
    figures.add_resident(&setting.dir)?;
    drop(table);
    add_open_time(&mut figures, || cell::entry(&cache))?;
    Ok(figures)
}

/// For every opening reads a column: what opening must not do.
pub(super) fn open_slowly(setting: &Setting) -> Result<Figures> {
    let cache = warm(setting)?;
    let mut figures = Figures::default();
    add_open_time(&mut figures, || {
        let table = cell::entry(&cache)?;
        sum(&table.select(&[COLUMN])?)?;
        Ok(table)
    })?;
    Ok(figures)
}

/// `open_us`: the median of many times.
fn add_open_time<T>(figures: &mut Figures, open: impl Fn() -> Result<T>) -> Result<()> {
    const REPEAT: usize = 101;
    let mut times = Vec::with_capacity(REPEAT);
    for _ in 0..REPEAT {
        let start = Instant::now();
        let table = open()?;
        times.push(start.elapsed());
        drop(table);
    }
    times.sort_unstable();
    figures.add("open_us", times[REPEAT / 2].as_secs_f64() * 1e6);
    Ok(())
}

/// One of eight columns, all of the same size.
const COLUMN: &str = "c1";

/// Sums one of the columns; only its pages may become resident.
pub(super) fn sum_column(setting: &Setting) -> Result<Figures> {
    resident(setting, |table| sum(&table.select(&[COLUMN])?))
}

/// Touches every column for the sake of one.
pub(super) fn sum_all(setting: &Setting) -> Result<Figures> {
    resident(setting, |table| {
        for batch in table.batches() {
            drop(batch?);
        }
        sum(&table.select(&[COLUMN])?)
    })
}

/// Touches half of the column.
pub(super) fn sum_half(setting: &Setting) -> Result<Figures> {
    resident(setting, |table| {
        let half = table.rows(0..table.num_rows() / 2)?;
        sum(&half.select(&[COLUMN])?)
    })
}

/// `resident` after the work, and `resident_ratio`, which is that to the bytes of one column.
fn resident(setting: &Setting, work: fn(&CachedTable) -> Result<f64>) -> Result<Figures> {
    let cache = warm(setting)?;
    let probe = Probe::start()?;
    let table = cell::entry(&cache)?;
    let sum = work(&table)?;
    let mut figures = probe.stop()?;
    let resident = figures.add_resident(&setting.dir)?;
    std::hint::black_box(sum);
    figures.add_ratio("resident_ratio", resident, table.num_rows() * 8);
    Ok(figures)
}

fn sum(column: &CachedTable) -> Result<f64> {
    let mut sum = 0.0;
    for batch in column.batches() {
        let batch = batch?;
        let values = batch.column(0).as_primitive::<Float64Type>();
        sum += values.values().iter().sum::<f64>();
    }
    Ok(sum)
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
