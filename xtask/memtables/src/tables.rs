//! The tables that the cases store, made without leaving garbage behind.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::StringViewBuilder;
use arrow_array::types::{ArrowDictionaryKeyType, Int8Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int64Array, ListArray, PrimitiveArray,
    RecordBatch, StringArray, StructArray,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::Field;

use crate::Result;

/// No batch is larger: offsets of strings have 32 bits.
const LARGEST_BATCH: u64 = 512 << 20;

/// Number of columns of [`numeric`].
const NUMERIC_COLUMNS: u64 = 8;

/// Number of columns of [`wide`].
const WIDE_COLUMNS: u64 = 200;

/// What makes a table of about so many bytes.
pub type Make = fn(u64) -> Result<Vec<RecordBatch>>;

/// Eight columns of integers, one number each: made as fast as memory is written.
pub fn constant(bytes: u64) -> Result<Vec<RecordBatch>> {
    let rows = usize::try_from(bytes / 64)?;
    let columns = (0..8).map(|c| {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![c; rows]));
        (format!("c{c}"), column)
    });
    Ok(vec![RecordBatch::try_from_iter(columns)?])
}

/// Four columns of integers and four of floats, which compress somewhat.
pub fn numeric(bytes: u64) -> Result<Vec<RecordBatch>> {
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
pub fn wide(bytes: u64) -> Result<Vec<RecordBatch>> {
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
pub fn strings(bytes: u64) -> Result<Vec<RecordBatch>> {
    batches(bytes, |first, bytes| {
        let rows = first..first + bytes / ROW_OF_STRINGS;
        Ok(RecordBatch::try_from_iter([
            ("id", ids(rows.clone())),
            ("comment", text(rows.clone(), |row| words(1, row))?),
            ("note", text(rows, |row| words(2, row))?),
        ])?)
    })
}

/// Lists of structs, some of them null, and a struct with text.
pub fn nested(bytes: u64) -> Result<Vec<RecordBatch>> {
    batches(bytes, |first, bytes| {
        let rows = first..first + bytes / ROW_OF_NESTED;
        let is_null = |row| mix(4, row).is_multiple_of(10);
        let items = rows.clone().map(|row| match is_null(row) {
            true => 0,
            false => length(0..mix(3, row) % 7),
        });
        let offsets = OffsetBuffer::<i32>::from_lengths(items);
        let last = u64::try_from(offsets.last())?;
        let items = fields([("sku", ids(0..last)), ("price", prices(5, 0..last))])?;
        let nulls: NullBuffer = rows.clone().map(|row| !is_null(row)).collect();
        let item = Arc::new(Field::new("item", items.data_type().clone(), false));
        let items = ListArray::try_new(item, offsets, Arc::new(items), Some(nulls))?;
        let place = fields([
            ("name", text(rows.clone(), |row| words(6, row))?),
            ("height", prices(7, rows.clone())),
        ])?;
        let columns: [(&str, ArrayRef); 3] = [
            ("id", ids(rows)),
            ("items", Arc::new(items)),
            ("place", Arc::new(place)),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    })
}

/// Two columns of categories beside numbers. All batches share their dictionaries.
pub fn dictionary(bytes: u64) -> Result<Vec<RecordBatch>> {
    let (cities, kinds) = (categories("city", CITIES), categories("kind", KINDS));
    batches(bytes, |first, bytes| {
        let rows = first..first + bytes / ROW_OF_DICTIONARY;
        Ok(RecordBatch::try_from_iter([
            ("id", ids(rows.clone())),
            ("price", prices(1, rows.clone())),
            ("city", category::<Int32Type>(2, rows.clone(), &cities)?),
            ("kind", category::<Int8Type>(3, rows, &kinds)?),
        ])?)
    })
}

/// Text of 0.5 to 1.5 KiB a row, and in the middle a run of rows, with half of all bytes, of a hundred times
/// that.
pub fn skewed(bytes: u64) -> Result<Vec<RecordBatch>> {
    batches(bytes, |first, bytes| {
        let narrow = bytes / 2 / ROW_OF_SKEWED;
        let rows = first..first + narrow + narrow / 100;
        let run = first + narrow / 2..first + narrow / 2 + narrow / 100;
        let width = |row| {
            let narrow = 64 + mix(1, row) % 128;
            if run.contains(&row) {
                narrow * 100
            } else {
                narrow
            }
        };
        Ok(RecordBatch::try_from_iter([
            ("id", ids(rows.clone())),
            ("text", text(rows, width)?),
        ])?)
    })
}

/// Numbers, text and categories, as data frames have them, in one batch.
pub fn mixed(bytes: u64) -> Result<Vec<RecordBatch>> {
    let (cities, kinds) = (categories("city", CITIES), categories("kind", KINDS));
    let rows = 0..bytes / ROW_OF_MIXED;
    Ok(vec![RecordBatch::try_from_iter([
        ("id", ids(rows.clone())),
        ("price", prices(1, rows.clone())),
        ("amount", prices(2, rows.clone())),
        ("quantity", ids(rows.clone())),
        ("comment", text(rows.clone(), |row| words(3, row))?),
        ("city", category::<Int32Type>(4, rows.clone(), &cities)?),
        ("kind", category::<Int8Type>(5, rows, &kinds)?),
    ])?])
}

/// Like the line items of TPC-H: numbers beside short and long text in views.
pub fn views(bytes: u64) -> Result<Vec<RecordBatch>> {
    batches(bytes, |first, bytes| {
        let rows = first..first + bytes / ROW_OF_VIEWS;
        let text = |column, short: bool| -> ArrayRef {
            let builder = StringViewBuilder::with_capacity(length(rows.clone()));
            let mut builder = builder.with_fixed_block_size(1 << 20);
            let mut text = String::new();
            for row in rows.clone() {
                text.clear();
                for i in 0..if short { 1 } else { words(column, row) } {
                    text.push_str(word(mix(column, row).wrapping_add(i)));
                }
                builder.append_value(&text);
            }
            Arc::new(builder.finish())
        };
        let columns = [
            ("id", ids(rows.clone())),
            ("price", prices(1, rows.clone())),
            ("mode", text(2, true)),
            ("comment", text(3, false)),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    })
}

/// Every maker of tables of any size.
#[cfg(test)]
pub const ALL: [Make; 8] = [
    numeric, wide, strings, nested, dictionary, skewed, views, mixed,
];

fn batches(bytes: u64, make: impl Fn(u64, u64) -> Result<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let starts = (0..bytes).step_by(usize::try_from(LARGEST_BATCH)?);
    starts
        .map(|start| make(start, LARGEST_BATCH.min(bytes - start)))
        .collect()
}

fn ids(rows: Range<u64>) -> ArrayRef {
    Arc::new(rows.map(|row| integer(0, row)).collect::<Int64Array>())
}

fn prices(column: u64, rows: Range<u64>) -> ArrayRef {
    Arc::new(rows.map(|row| price(column, row)).collect::<Float64Array>())
}

/// Text of so many words a row.
fn text(rows: Range<u64>, words: impl Fn(u64) -> u64) -> Result<ArrayRef> {
    let offsets =
        OffsetBuffer::<i32>::from_lengths(rows.clone().map(|row| length(0..words(row)) * WORD));
    let mut text = Vec::with_capacity(usize::try_from(offsets.last())?);
    for row in rows {
        let first = mix(0, row);
        for i in 0..words(row) {
            text.extend_from_slice(word(first.wrapping_add(i)).as_bytes());
        }
    }
    Ok(Arc::new(StringArray::try_new(
        offsets,
        Buffer::from_vec(text),
        None,
    )?))
}

/// A struct without nulls.
fn fields<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<StructArray> {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns
        .into_iter()
        .map(|(name, array)| (Field::new(name, array.data_type().clone(), false), array))
        .unzip();
    Ok(StructArray::try_new(fields.into(), arrays, None)?)
}

/// The values of a dictionary.
fn categories(name: &str, count: u64) -> ArrayRef {
    let values = (0..count).map(|n| Some(format!("{name} {n:016}")));
    Arc::new(values.collect::<StringArray>())
}

/// A value of `values` for each row.
fn category<K>(column: u64, rows: Range<u64>, values: &ArrayRef) -> Result<ArrayRef>
where
    K: ArrowDictionaryKeyType,
    K::Native: TryFrom<u64>,
{
    let count = values.len() as u64;
    let keys = rows.map(|row| K::Native::try_from(mix(column, row) % count).unwrap_or_default());
    let keys = PrimitiveArray::<K>::new(keys.collect(), None);
    Ok(Arc::new(DictionaryArray::try_new(
        keys,
        Arc::clone(values),
    )?))
}

/// Characters of a [`word`].
const WORD: usize = 8;

/// Values of the dictionaries of [`dictionary`]: 1.3 MiB, and a handful.
const CITIES: u64 = 50_000;
const KINDS: u64 = 5;

/// Bytes of an id and two texts with their offsets.
const ROW_OF_STRINGS: u64 = 8 + 2 * (4 + 28);

/// Bytes of an id, 2.7 items with an offset, and a place.
const ROW_OF_NESTED: u64 = 8 + 43 + 4 + 4 + 28 + 8;

/// Bytes of two numbers and two keys.
const ROW_OF_DICTIONARY: u64 = 8 + 8 + 4 + 1;

/// Bytes of a narrow row: 127.5 words, an id and an offset.
const ROW_OF_SKEWED: u64 = 1020 + 8 + 4;

/// Bytes of four numbers, a text and two keys.
const ROW_OF_MIXED: u64 = 4 * 8 + 4 + 28 + 4 + 1;

/// Bytes of two numbers, a view, and a view with its text.
const ROW_OF_VIEWS: u64 = 8 + 8 + 16 + 16 + 28;

fn words(column: u64, row: u64) -> u64 {
    mix(column, row) % 8
}

fn word(row: u64) -> &'static str {
    const WORDS: [&str; 16] = [
        "furious ", "deposit ", "request ", "theodol ", "package ", "account ", "instruc ",
        "foxes   ", "pending ", "quickly ", "regular ", "special ", "express ", "platele ",
        "carefu  ", "ironic  ",
    ];
    WORDS[(mix(1, row) >> 60) as usize]
}

fn length(range: Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
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
    use arrow_array::cast::AsArray;

    use super::*;

    #[test]
    fn every_table_has_about_the_size_that_was_asked_for() {
        for (i, make) in ALL.into_iter().enumerate() {
            let bytes = crate::digest::bytes(&make(32 << 20).unwrap());
            assert!((30 << 20..35 << 20).contains(&bytes), "{i}: {bytes}");
        }
    }

    #[test]
    fn a_run_of_rows_is_a_hundred_times_wider() {
        let batch = skewed(16 << 20).unwrap().remove(0);
        let text = batch.column(1).as_string::<i32>();
        let mut widths: Vec<_> = text
            .offsets()
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .collect();
        let first = widths.iter().position(|&width| width > 8192).unwrap();
        let last = widths.iter().rposition(|&width| width > 8192).unwrap();
        assert!(
            widths[first..=last]
                .iter()
                .all(|&width| (51_200..160_000).contains(&width))
        );
        widths.drain(first..=last);
        assert!(widths.iter().all(|&width| (512..1600).contains(&width)));
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
