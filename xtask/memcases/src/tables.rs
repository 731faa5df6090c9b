//! The tables that the cases store, made without leaving garbage behind.

use std::sync::Arc;

use arrow_array::builder::StringViewBuilder;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use crate::Result;

/// No batch is larger: offsets of strings have 32 bits.
const LARGEST_BATCH: u64 = 512 << 20;

/// Number of columns of [`numeric`].
const NUMERIC_COLUMNS: u64 = 8;

/// Number of columns of [`wide`].
const WIDE_COLUMNS: u64 = 200;

/// What makes a table of about so many bytes.
pub(crate) type Make = fn(u64) -> Result<Vec<RecordBatch>>;

/// Four columns of integers and four of floats, which compress somewhat.
pub(crate) fn numeric(bytes: u64) -> Result<Vec<RecordBatch>> {
    batches(bytes, |first, bytes| {
        let rows = first..first + bytes / (8 * NUMERIC_COLUMNS);
        let columns = (0..NUMERIC_COLUMNS).map(|column| {
            let name = format!("c{column}");
            let array: ArrayRef = if column % 2 == 0 {
                Arc::new(
                    rows.clone()
                        .map(|row| integer(column, row))
                        .collect::<Int64Array>(),
                )
            } else {
                Arc::new(
                    rows.clone()
                        .map(|row| price(column, row))
                        .collect::<Float64Array>(),
                )
            };
            (name, array)
        });
        Ok(RecordBatch::try_from_iter(columns)?)
    })
}

/// Two hundred columns of floats.
pub(crate) fn wide(bytes: u64) -> Result<Vec<RecordBatch>> {
    batches(bytes, |first, bytes| {
        let rows = first..first + bytes / (8 * WIDE_COLUMNS);
        let columns = (0..WIDE_COLUMNS).map(|column| {
            let values = rows.clone().map(|row| price(column, row));
            let array: ArrayRef = Arc::new(values.collect::<Float64Array>());
            (format!("c{column}"), array)
        });
        Ok(RecordBatch::try_from_iter(columns)?)
    })
}

/// An integer column and two of text.
pub(crate) fn strings(bytes: u64) -> Result<Vec<RecordBatch>> {
    batches(bytes, |first, bytes| {
        let rows = first..first + bytes / ROW_OF_STRINGS;
        let text = |column| -> Result<ArrayRef> {
            let mut offsets: Vec<i32> = Vec::with_capacity(length(rows.clone())? + 1);
            let mut text = Vec::with_capacity(length(rows.clone())? * MEAN_WORDS * WORD);
            offsets.push(0);
            for row in rows.clone() {
                for i in 0..words(column, row) {
                    text.extend_from_slice(word(column, row + i).as_bytes());
                }
                offsets.push(i32::try_from(text.len())?);
            }
            text.shrink_to_fit();
            let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
            Ok(Arc::new(StringArray::try_new(
                offsets,
                Buffer::from_vec(text),
                None,
            )?))
        };
        let ids: ArrayRef = Arc::new(
            rows.clone()
                .map(|row| integer(0, row))
                .collect::<Int64Array>(),
        );
        Ok(RecordBatch::try_from_iter([
            ("id", ids),
            ("comment", text(1)?),
            ("note", text(2)?),
        ])?)
    })
}

/// Like the line items of TPC-H: numbers beside short and long text in views.
pub(crate) fn views(bytes: u64) -> Result<Vec<RecordBatch>> {
    batches(bytes, |first, bytes| {
        let rows = first..first + bytes / ROW_OF_VIEWS;
        let text = |column, short: bool| -> ArrayRef {
            let mut builder = StringViewBuilder::new().with_fixed_block_size(1 << 20);
            let mut text = String::new();
            for row in rows.clone() {
                text.clear();
                for i in 0..if short { 1 } else { words(column, row) } {
                    text.push_str(word(column, row + i));
                }
                builder.append_value(&text);
            }
            Arc::new(builder.finish())
        };
        let ids: ArrayRef = Arc::new(
            rows.clone()
                .map(|row| integer(0, row))
                .collect::<Int64Array>(),
        );
        let prices: ArrayRef = Arc::new(
            rows.clone()
                .map(|row| price(1, row))
                .collect::<Float64Array>(),
        );
        let columns = [
            ("id", ids),
            ("price", prices),
            ("mode", text(2, true)),
            ("comment", text(3, false)),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    })
}

fn batches(bytes: u64, make: impl Fn(u64, u64) -> Result<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let starts = (0..bytes).step_by(usize::try_from(LARGEST_BATCH)?);
    starts
        .map(|start| make(start, LARGEST_BATCH.min(bytes - start)))
        .collect()
}

/// Characters of a [`word`].
const WORD: usize = 8;

/// What [`words`] is on average, rounded up.
const MEAN_WORDS: usize = 4;

/// Bytes of an id and two texts with their offsets.
const ROW_OF_STRINGS: u64 = 8 + 2 * (4 + 28);

/// Bytes of two numbers, a view, and a view with its text.
const ROW_OF_VIEWS: u64 = 8 + 8 + 16 + 16 + 28;

fn words(column: u64, row: u64) -> u64 {
    mix(column, row) % 8
}

fn word(column: u64, row: u64) -> &'static str {
    const WORDS: [&str; 16] = [
        "furious ", "deposit ", "request ", "theodol ", "package ", "account ", "instruc ",
        "foxes   ", "pending ", "quickly ", "regular ", "special ", "express ", "platele ",
        "carefu  ", "ironic  ",
    ];
    WORDS[(mix(column, row) >> 60) as usize]
}

fn length(rows: std::ops::Range<u64>) -> Result<usize> {
    Ok(usize::try_from(rows.end - rows.start)?)
}

/// A key that rises, with noise.
#[expect(clippy::cast_possible_wrap, reason = "row numbers are small")]
fn integer(column: u64, row: u64) -> i64 {
    (row * 16 + mix(column, row) % 16) as i64
}

/// An amount with two decimals.
#[expect(clippy::cast_precision_loss, reason = "seven digits")]
fn price(column: u64, row: u64) -> f64 {
    (mix(column, row) % 10_000_000) as f64 / 100.0
}

/// A number that looks random.
fn mix(column: u64, row: u64) -> u64 {
    let mut x = (row ^ (column << 48)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_about_the_size_that_was_asked_for() {
        for make in [numeric as Make, wide, strings, views] {
            let batches = make(8 << 20).unwrap();
            let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
            assert!((7 << 20..10 << 20).contains(&bytes), "{bytes}");
        }
    }

    #[test]
    fn large_tables_come_in_several_batches() {
        let made = batches(LARGEST_BATCH * 2 + 1, |first, bytes| {
            assert!(first < LARGEST_BATCH * 2 + 1 && bytes <= LARGEST_BATCH);
            numeric(64).map(|mut made| made.remove(0))
        });
        assert_eq!(made.unwrap().len(), 3);
    }
}
