use std::ops::Range;

use bytes::Bytes;

use crate::extent::Extent;
use crate::index::{Block, Unit};
use crate::message::{ALIGNMENT, Message, Span};

/// What was brought of one block.
pub(crate) struct Fetched<'a> {
    pub(crate) block: &'a Block,
    pub(crate) message: Message,
    pub(crate) runs: Vec<Run>,
    /// Of each run.
    pub(crate) bytes: Vec<Bytes>,
}

/// Neighbouring bytes of a body that are read together.
pub(crate) struct Run {
    /// Those of them that are wanted, in ascending order.
    pub(crate) columns: Vec<usize>,
    /// The units of integrity that make up the run; empty for entries of other writers.
    pub(crate) units: Range<usize>,
    pub(crate) span: Span,
}

/// What has to be read for the columns `wanted` of an entry of ours: whole units.
pub(crate) fn runs_of_units(all: &[Unit], wanted: &[usize]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let (mut unit, mut unit_end) = (0, all.first().map_or(0, |unit| unit.columns as usize));
    for column in ascending(wanted) {
        while column >= unit_end && unit + 1 < all.len() {
            unit += 1;
            unit_end += all[unit].columns as usize;
        }
        let span = all[unit].span;
        match runs.last_mut() {
            Some(last) if last.units.end > unit => last.columns.push(column),
            Some(last) if last.units.end == unit && last.span.end() == span.offset => {
                last.columns.push(column);
                last.units.end += 1;
                last.span.len += span.len;
            }
            _ => runs.push(Run {
                columns: vec![column],
                units: unit..unit + 1,
                span,
            }),
        }
    }
    runs
}

/// What has to be read for the columns `wanted` of an entry of another writer: their buffers.
pub(crate) fn runs_of_buffers(message: &Message, extents: &[Extent], wanted: &[usize]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for column in ascending(wanted) {
        let span = extents[column].span(message);
        match runs.last_mut() {
            // A column without buffers.
            Some(last) if span.len == 0 => last.columns.push(column),
            // Columns may be apart by their padding.
            Some(last)
                if span.offset >= last.span.end()
                    && span.offset - last.span.end() < ALIGNMENT as u64 =>
            {
                last.columns.push(column);
                last.span.len = span.end() - last.span.offset;
            }
            _ => runs.push(Run {
                columns: vec![column],
                units: 0..0,
                span,
            }),
        }
    }
    runs
}

fn ascending(wanted: &[usize]) -> Vec<usize> {
    let mut columns = wanted.to_vec();
    columns.sort_unstable();
    columns.dedup();
    columns
}
