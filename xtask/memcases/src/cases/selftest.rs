//! A stage that passes every check, and one for each check that must fail it: they show that the checks
//! work.

use std::fs;

use ck_cache::blocking::Cache;

use super::{Setting, TABLE};
use crate::probe::{Figures, Probe};
use crate::{Result, tables};

const MIB: usize = 1 << 20;

/// Reads its source in small pieces.
pub(super) fn nothing(setting: &Setting) -> Result<Figures> {
    let source = source(setting)?;
    let probe = Probe::start()?;
    let sum: u64 = source.chunks(MIB).map(checksum).sum();
    std::hint::black_box(sum);
    probe.stop()
}

/// Copies its whole source before it uses it.
pub(super) fn buffering(setting: &Setting) -> Result<Figures> {
    let source = source(setting)?;
    let probe = Probe::start()?;
    let copy = source.clone();
    fs::write(setting.dir.join("copy"), &copy)?;
    drop(copy);
    probe.stop()
}

/// Takes a buffer that is too large, but no larger for larger sources.
pub(super) fn large_buffer(_: &Setting) -> Result<Figures> {
    let probe = Probe::start()?;
    std::hint::black_box(vec![1_u8; 8 * MIB]);
    probe.stop()
}

/// Forgets one byte in sixty-four: little at first.
pub(super) fn leaking(setting: &Setting) -> Result<Figures> {
    let source = source(setting)?;
    let probe = Probe::start()?;
    let mut leaked = Vec::new();
    for piece in source.chunks(MIB) {
        leaked.push(piece[..MIB / 64].to_vec());
    }
    std::hint::black_box(&leaked);
    let figures = probe.stop();
    drop(leaked);
    figures
}

/// Holds on to what it worked with.
pub(super) fn left(setting: &Setting) -> Result<Figures> {
    let probe = Probe::start()?;
    let held = source(setting)?;
    let figures = probe.stop_later();
    drop(held);
    figures
}

/// Gets a whole table, and makes a copy of what it got.
pub(super) fn copy(setting: &Setting) -> Result<Figures> {
    let table = super::cell::table(tables::numeric(setting.bytes)?)?;
    let cache = Cache::open(&format!("{}?read=pread", setting.directory()))?;
    cache
        .put_table(TABLE, &table, &ck_cache::PutOptions::new())?
        .stored()?;
    drop(table);
    let probe = Probe::start()?;
    let table = cache.get_table(TABLE)?.ok_or("a miss")?;
    let buffers = table
        .batches()
        .iter()
        .flat_map(|batch| batch.columns().to_vec());
    let copies: Vec<_> = buffers
        .map(|column| column.to_data().buffers()[0].to_vec())
        .collect();
    std::hint::black_box(&copies);
    let mut figures = probe.stop()?;
    figures.add_beyond(setting.bytes + setting.bytes / 20)?;
    Ok(figures)
}

/// Touches half of what it says that it touches.
pub(super) fn idle(setting: &Setting) -> Result<Figures> {
    touch(setting.bytes / 2, setting.bytes)
}

/// Touches twice what it says that it touches.
pub(super) fn busy(setting: &Setting) -> Result<Figures> {
    touch(setting.bytes * 2, setting.bytes)
}

fn touch(bytes: u64, said: u64) -> Result<Figures> {
    let probe = Probe::start()?;
    let touched = vec![1_u8; usize::try_from(bytes)?];
    std::hint::black_box(&touched);
    let mut figures = probe.stop()?;
    figures.add_ratio("rss_ratio", figures.bytes("rss")?, said);
    Ok(figures)
}

/// A child that holds all of its source at once, while its parent watches.
pub(super) fn hoard(setting: &Setting) -> Result<Figures> {
    let source = source(setting)?;
    std::hint::black_box(checksum(&source));
    Ok(Figures::default())
}

fn source(setting: &Setting) -> Result<Vec<u8>> {
    Ok(vec![1; usize::try_from(setting.bytes)?])
}

fn checksum(piece: &[u8]) -> u64 {
    piece.iter().map(|&byte| u64::from(byte)).sum()
}
