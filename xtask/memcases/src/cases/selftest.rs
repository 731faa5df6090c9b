//! A stage that passes every check and one that must fail them all: they show that the checks work.

use std::fs;

use crate::Result;
use crate::cases::Setting;
use crate::probe::{Metrics, Probe};

/// Reads its source in small pieces.
pub(super) fn nothing(setting: &Setting) -> Result<Metrics> {
    let source = source(setting)?;
    let probe = Probe::start()?;
    let sum: u64 = source.chunks(1 << 20).map(checksum).sum();
    std::hint::black_box(sum);
    probe.stop()
}

/// Copies its whole source before it uses it.
pub(super) fn buffering(setting: &Setting) -> Result<Metrics> {
    let source = source(setting)?;
    let probe = Probe::start()?;
    let copy = source.clone();
    fs::write(setting.dir.join("copy"), &copy)?;
    drop(copy);
    probe.stop()
}

fn source(setting: &Setting) -> Result<Vec<u8>> {
    Ok(vec![1; usize::try_from(setting.bytes)?])
}

fn checksum(piece: &[u8]) -> u64 {
    piece.iter().map(|&byte| u64::from(byte)).sum()
}
