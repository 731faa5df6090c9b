//! Tables of a given size, with values that repeat about as much as measurements do.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use ck_cache::Table;

use crate::Result;

/// Larger tables repeat a part of this size, so that a source of any size takes no more memory.
const PART: usize = 64 << 20;

/// A table of eight numeric columns with so many bytes, a multiple of 64, in all.
///
/// # Errors
///
/// None but those of a defect here.
pub fn of_bytes(bytes: usize) -> Result<Table> {
    let part = bytes.min(PART);
    let batch = batch(8, part / 64)?;
    Ok(Table::new(batch.schema(), vec![batch; bytes / part])?)
}

/// A table of so many numeric columns with so many rows.
///
/// # Errors
///
/// None but those of a defect here.
pub fn of_columns(columns: usize, rows: usize) -> Result<Table> {
    Ok(batch(columns, rows)?.into())
}

fn batch(columns: usize, rows: usize) -> Result<RecordBatch> {
    let column = |c: usize| -> (String, ArrayRef) {
        let mut state = c as u64 + 1;
        let mut next = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u32
        };
        let array: ArrayRef = if c.is_multiple_of(2) {
            let price = |_| f64::from(next() % 100_000) / 100.0;
            Arc::new(Float64Array::from_iter_values((0..rows).map(price)))
        } else {
            let id = |row| row as i64 * 10 + i64::from(next() % 10);
            Arc::new(Int64Array::from_iter_values((0..rows).map(id)))
        };
        (format!("c{c}"), array)
    };
    Ok(RecordBatch::try_from_iter((0..columns).map(column))?)
}
