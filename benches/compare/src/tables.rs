use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float32Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray,
};
use arrow_schema::{ArrowError, DataType};
use tpchgen::generators::LineItemGenerator;
use tpchgen_arrow::LineItemArrow;

use crate::Result;

/// The tables that are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// TPC-H lineitem: numbers, dates and short texts.
    Lineitem,
    /// Eight columns, c0 to c3 of f64 and c4 to c7 of i64.
    Numeric,
    /// Features of a model: 64 columns of f64 and f32.
    Features,
    /// Six columns of texts of different lengths, and a number.
    Strings,
    /// Numbers, texts and a category.
    Mixed,
    /// 200 columns of numbers and texts.
    Wide,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lineitem => "lineitem",
            Self::Numeric => "numeric",
            Self::Features => "features",
            Self::Strings => "strings",
            Self::Mixed => "mixed",
            Self::Wide => "wide",
        }
    }
}

/// The columns that are read of [`Kind::Wide`].
pub(crate) const THREE: [usize; 3] = [7, 70, 179];

/// A table of about so many bytes, always the same.
pub(crate) fn make(kind: Kind, bytes: usize) -> Result<Vec<RecordBatch>> {
    match kind {
        Kind::Lineitem => lineitem(bytes),
        Kind::Numeric => batches(bytes, 64, 1 << 18, |first, rows| {
            let column = |c: usize| {
                let array: ArrayRef = match c {
                    0..4 => prices(first, rows, c as u64),
                    _ => Arc::new(Int64Array::from_iter_values((first..first + rows).map(
                        |row| row as i64 * 10 + (mix(row as u64 ^ (c as u64) << 40) % 10) as i64,
                    ))),
                };
                (format!("c{c}"), array)
            };
            (0..8).map(column).collect()
        }),
        Kind::Features => batches(bytes, 384, 1 << 15, |first, rows| {
            let column = |c: usize| {
                let array: ArrayRef = match c % 2 {
                    0 => prices(first, rows, c as u64),
                    _ => Arc::new(Float32Array::from_iter_values((first..first + rows).map(
                        |row| (mix(row as u64 ^ (c as u64) << 40) % 1000) as f32 / 999.0,
                    ))),
                };
                (format!("feature_{c}"), array)
            };
            (0..64).map(column).collect()
        }),
        Kind::Strings => batches(bytes, 160, 1 << 16, |first, rows| {
            let texts = |c: u64| -> ArrayRef {
                Arc::new(StringArray::from_iter_values((first..first + rows).map(
                    |row| {
                        let word = mix(row as u64 ^ c << 40);
                        match c {
                            0 => format!("customer-{:08}", word % 50_000),
                            1 => format!("https://shop.example/articles/{:x}", word % 1_000_000),
                            2 => ["new", "paid", "sent", "returned"][word as usize % 4].to_owned(),
                            3 => format!("{:x}", word),
                            _ => {
                                "an order of some length ".repeat(word as usize % 4)
                                    + ["blue", "red", "green"][word as usize % 3]
                            }
                        }
                    },
                )))
            };
            let mut columns: Vec<(String, ArrayRef)> =
                (0..6).map(|c| (format!("text_{c}"), texts(c))).collect();
            columns.push(("price".to_owned(), prices(first, rows, 9)));
            columns
        }),
        Kind::Mixed => {
            let categories: ArrayRef = Arc::new(StringArray::from_iter_values(
                (0..500).map(|i| format!("category {i}")),
            ));
            batches(bytes, 64, 1 << 18, |first, rows| {
                let words =
                    |seed: u64| (first..first + rows).map(move |row| mix(row as u64 ^ seed << 40));
                let noise = words(1)
                    .zip(words(2))
                    .map(|(a, b)| f64::from_bits(a << 20 | b | 0x3FF0_0000_0000_0000));
                let keys = Int32Array::from_iter_values(words(4).map(|word| (word % 500) as i32));
                vec![
                    ("price".to_owned(), prices(first, rows, 0)),
                    (
                        "noise".to_owned(),
                        Arc::new(Float64Array::from_iter_values(noise)),
                    ),
                    (
                        "id".to_owned(),
                        Arc::new(Int64Array::from_iter_values(
                            (first..first + rows).map(|row| row as i64),
                        )),
                    ),
                    (
                        "customer".to_owned(),
                        Arc::new(StringArray::from_iter_values(
                            words(3).map(|word| format!("customer-{:08}", word % 50_000)),
                        )),
                    ),
                    (
                        "category".to_owned(),
                        Arc::new(DictionaryArray::<Int32Type>::new(
                            keys,
                            Arc::clone(&categories),
                        )),
                    ),
                ]
            })
        }
        Kind::Wide => batches(bytes, 1620, 1 << 13, |first, rows| {
            let column = |c: usize| {
                let array: ArrayRef = match c % 10 {
                    9 => Arc::new(StringArray::from_iter_values(
                        (first..first + rows)
                            .map(|row| format!("{:05}", mix((row + c) as u64) % 10_000)),
                    )),
                    _ => prices(first, rows, c as u64),
                };
                (format!("c{c}"), array)
            };
            (0..200).map(column).collect()
        }),
    }
}

fn batches(
    bytes: usize,
    row_bytes: usize,
    rows: usize,
    columns: impl Fn(usize, usize) -> Vec<(String, ArrayRef)>,
) -> Result<Vec<RecordBatch>> {
    let count = bytes.div_ceil(rows * row_bytes);
    let batch = |index: usize| Ok(RecordBatch::try_from_iter(columns(index * rows, rows))?);
    (0..count).map(batch).collect()
}

/// Values that repeat about as much as measurements do.
fn prices(first: usize, rows: usize, seed: u64) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values((first..first + rows).map(
        |row| (mix(row as u64 ^ seed << 40) % 100_000) as f64 / 100.0,
    )))
}

fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB) >> 33
}

/// With strings as offsets and values: what all sides can compress alike.
fn lineitem(bytes: usize) -> Result<Vec<RecordBatch>> {
    // 6,001,215 rows of some 160 bytes at scale factor 1.
    let scale = bytes as f64 / 960e6;
    let mut batches = Vec::new();
    for batch in LineItemArrow::new(LineItemGenerator::new(scale, 1, 1)).with_batch_size(65_536) {
        let batch = batch?;
        let schema = batch.schema();
        let columns = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| {
                let plain = match column.data_type() {
                    DataType::Utf8View => arrow_cast::cast(column, &DataType::Utf8)?,
                    _ => Arc::clone(column),
                };
                Ok((field.name().clone(), plain))
            });
        let columns = columns.collect::<std::result::Result<Vec<_>, ArrowError>>()?;
        batches.push(RecordBatch::try_from_iter(columns)?);
    }
    Ok(batches)
}

/// The sum of a numeric column.
pub(crate) fn sum(column: &ArrayRef) -> f64 {
    match column.data_type() {
        DataType::Float64 => {
            arrow_arith::aggregate::sum(column.as_primitive::<Float64Type>()).unwrap_or(0.0)
        }
        _ => arrow_arith::aggregate::sum(column.as_primitive::<Int64Type>()).unwrap_or(0) as f64,
    }
}
