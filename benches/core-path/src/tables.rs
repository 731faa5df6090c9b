use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow_ipc::writer::FileWriter;
use arrow_schema::DataType;
use tpchgen::generators::LineItemGenerator;
use tpchgen_arrow::LineItemArrow;

use crate::Result;

/// Rows a batch of the generated tables has.
const ROWS: usize = 1 << 20;

/// Eight columns, c0 to c3 of f64 and c4 to c7 of i64, with values that repeat about as much as
/// measurements do.
pub(crate) fn numeric(bytes: usize) -> Vec<RecordBatch> {
    let batches = bytes.div_ceil(ROWS * 64);
    let batch = |batch: usize| {
        let column = |c: usize| -> (String, ArrayRef) {
            let mut state = (batch * 8 + c) as u64 + 1;
            let mut next = move || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state >> 40
            };
            let array: ArrayRef = if c < 4 {
                Arc::new(Float64Array::from_iter_values((0..ROWS).map(|_| (next() % 100_000) as f64 / 100.0)))
            } else {
                Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| (batch * ROWS + row) as i64 * 10 + (next() % 10) as i64)))
            };
            (format!("c{c}"), array)
        };
        RecordBatch::try_from_iter((0..8).map(column)).expect("columns of one length")
    };
    (0..batches).map(batch).collect()
}

/// TPC-H lineitem, with strings as offsets and values: what both sides can compress alike.
pub(crate) fn lineitem(bytes: usize) -> Result<Vec<RecordBatch>> {
    // 6,001,215 rows of some 160 bytes at scale factor 1.
    let scale = bytes as f64 / 960e6;
    let mut batches = Vec::new();
    for batch in LineItemArrow::new(LineItemGenerator::new(scale, 1, 1)).with_batch_size(65_536) {
        let batch = batch?;
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let plain = match column.data_type() {
                DataType::Utf8View => arrow_cast::cast(column, &DataType::Utf8)?,
                _ => Arc::clone(column),
            };
            Ok((field.name().clone(), plain))
        });
        let columns = columns.collect::<std::result::Result<Vec<_>, arrow_schema::ArrowError>>()?;
        batches.push(RecordBatch::try_from_iter(columns)?);
    }
    Ok(batches)
}

/// Numbers, texts and categories side by side.
pub(crate) fn mixed(bytes: usize) -> Vec<RecordBatch> {
    let rows = 256 * 1024;
    let batches = bytes.div_ceil(rows * 64);
    let categories: ArrayRef = Arc::new(StringArray::from_iter_values((0..500).map(|i| format!("category {i}"))));
    let batch = |batch: usize| {
        let at = move |row: usize| (batch * rows + row) as u64;
        let mix = |x: u64| x.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let text = StringArray::from_iter_values((0..rows).map(|row| format!("customer-{:08}", mix(at(row)) % 50_000)));
        let keys = Int32Array::from_iter_values((0..rows).map(|row| (mix(at(row)) % 500) as i32));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("price", Arc::new(Float64Array::from_iter_values((0..rows).map(|row| (mix(at(row)) % 10_000) as f64 / 4.0)))),
            ("noise", Arc::new(Float64Array::from_iter_values((0..rows).map(|row| f64::from_bits(mix(at(row)) << 20 | mix(at(row) ^ 7) | 0x3FF0_0000_0000_0000))))),
            ("id", Arc::new(Int64Array::from_iter_values((0..rows).map(|row| at(row) as i64)))),
            ("customer", Arc::new(text)),
            ("category", Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::clone(&categories)))),
        ];
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    };
    (0..batches).map(batch).collect()
}

/// The sum of a numeric column.
pub(crate) fn sum(column: &ArrayRef) -> f64 {
    match column.data_type() {
        DataType::Float64 => arrow_arith::aggregate::sum(column.as_primitive::<Float64Type>()).unwrap_or(0.0),
        _ => arrow_arith::aggregate::sum(column.as_primitive::<Int64Type>()).unwrap_or(0) as f64,
    }
}

/// An uncompressed Arrow file for the peer to load.
pub(crate) fn write_ipc(table: &[RecordBatch], path: &Path) -> Result<()> {
    let mut writer = FileWriter::try_new(BufWriter::new(File::create(path)?), &table[0].schema())?;
    for batch in table {
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(())
}

