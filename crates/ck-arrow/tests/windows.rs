//! Guards against reading large batches of other writers whole, and against reading their parts wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, UnionMode};
use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, TableReader, Verification};
use ck_core::{Error, ErrorKind};
use common::generate::{Rng, batch};
use common::{assert_same_rows, encode, open_mock, types};

/// A bare Arrow file, written by arrow-rs with every batch as it is.
fn file_of(batches: &[RecordBatch], compression: Option<CompressionType>) -> Bytes {
    let options = IpcWriteOptions::default()
        .try_with_compression(compression)
        .unwrap();
    let schema = batches[0].schema();
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    Bytes::from(writer.into_inner().unwrap())
}

fn windows(table: &TableReader, bytes: u64) -> Vec<RecordBatch> {
    table.windows(bytes).collect::<Result<_, _>>().unwrap()
}

fn table_of(data_type: &DataType) -> SchemaRef {
    let id = Field::new("id", DataType::Int64, false);
    Arc::new(Schema::new(vec![
        id,
        Field::new("c", data_type.clone(), true),
    ]))
}

/// Whether parts of such columns can be read at all.
fn is_cut(data_type: &DataType) -> bool {
    match data_type {
        DataType::RunEndEncoded(_, _)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Union(_, UnionMode::Dense) => false,
        DataType::Union(fields, _) => fields.iter().all(|(_, field)| is_cut(field.data_type())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::Map(field, _)
        | DataType::FixedSizeList(field, _) => is_cut(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_cut(field.data_type())),
        _ => true,
    }
}

#[test]
fn the_parts_of_a_batch_of_any_type_are_its_rows() {
    let mut cut = 0;
    for (i, data_type) in types::all().iter().enumerate() {
        let schema = table_of(data_type);
        let source = batch(&schema, 403, &mut Rng(i as u64 + 1));
        let (_, table) = open_mock(&file_of(std::slice::from_ref(&source), None));
        for bytes in [1, 700, 3000] {
            let found = windows(&table, bytes);
            let what = format!("{data_type} in parts of {bytes}");
            if is_cut(data_type) {
                assert!(found.len() > 1, "{what}");
                cut += 1;
            }
            assert_same_rows(&found, std::slice::from_ref(&source), &what);
        }
        for rows in [0..403, 3..400, 8..16, 13..14, 401..403, 7..7] {
            let part = table.rows(rows.clone()).unwrap();
            let start = usize::try_from(rows.start).unwrap();
            let expected = source.slice(start, usize::try_from(rows.end).unwrap() - start);
            let what = format!("{data_type}, rows {rows:?}");
            assert_same_rows(&windows(&part, 500), &[expected], &what);
        }
        let column = table.select(&["c"]).unwrap();
        let expected = source.project(&[1]).unwrap();
        assert_same_rows(&windows(&column, 300), &[expected], &data_type.to_string());
    }
    assert!(cut > 100, "{cut}");
}

#[test]
fn rows_come_in_order_across_batches_of_every_size() {
    let schema = table_of(&DataType::Utf8View);
    let whole = batch(&schema, 3000, &mut Rng(5));
    let sizes = [0, 1, 900, 7, 0, 2000, 92];
    let mut at = 0;
    let batches: Vec<RecordBatch> = sizes
        .iter()
        .map(|rows| {
            at += rows;
            whole.slice(at - rows, *rows)
        })
        .collect();
    let (_, table) = open_mock(&file_of(&batches, None));
    for bytes in [1, 100, 5000, u64::MAX] {
        assert_same_rows(&windows(&table, bytes), std::slice::from_ref(&whole), "all");
        let part = table.rows(895..2950).unwrap();
        assert_same_rows(&windows(&part, bytes), &[whole.slice(895, 2055)], "a part");
    }
}

#[test]
fn no_part_reads_more_than_its_size_even_where_rows_are_wide() {
    const BYTES: u64 = 20_000;
    let text: Vec<String> = (0..20_000)
        .map(|row| {
            "x".repeat(if (5000..5400).contains(&row) {
                2000
            } else {
                10
            })
        })
        .collect();
    let text: ArrayRef = Arc::new(StringArray::from(text));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..20_000));
    let source = RecordBatch::try_from_iter([("text", text), ("n", numbers)]).unwrap();
    let bytes = file_of(std::slice::from_ref(&source), None);
    let (mock, table) = open_mock(&bytes);
    let mut found = Vec::new();
    mock.take_bytes();
    for part in table.windows(BYTES) {
        let part = part.unwrap();
        // Plans that turned out too large have read a few offsets each, and the batch's message.
        let read = mock.take_bytes();
        assert!(read <= BYTES + 2000, "{read}");
        assert!(part.num_rows() % 8 == 0 || found.is_empty());
        found.push(part);
    }
    assert!(found.len() as u64 >= bytes.len() as u64 / BYTES);
    assert_same_rows(&found, &[source], "skewed rows");
}

#[test]
fn what_cannot_be_read_in_parts_comes_whole() {
    let schema = table_of(&DataType::Utf8);
    let source = batch(&schema, 2000, &mut Rng(9));
    let one = std::slice::from_ref(&source);
    let sealed = encode(one, EncodeOptions::new().with_codec(Codec::None));
    let compressed = file_of(one, Some(CompressionType::ZSTD));
    for bytes in [sealed, compressed] {
        let (_, table) = open_mock(&bytes);
        let found = windows(&table, 100);
        assert_eq!(found.len(), 1);
        assert_same_rows(&found, one, "whole");
    }
    // In memory already: nothing would be gained.
    let bytes = common::aligned(&file_of(one, None));
    let table = common::open(&bytes, Verification::Off).unwrap();
    assert_eq!(windows(&table, 100).len(), 1);
}

#[test]
fn no_flipped_byte_makes_a_part_panic() {
    let children = vec![DataType::Utf8, DataType::Utf8View, DataType::Int32];
    let list = DataType::List(types::item(types::structure(children), true));
    let schema = table_of(&list);
    let bytes = file_of(&[batch(&schema, 60, &mut Rng(3))], None);
    let mut refused = 0;
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0xff;
        let entry = Arc::new(common::MockEntry::new(Bytes::from(damaged)));
        let opened = ck_core::block_on(TableReader::open(entry, Verification::Off));
        let Ok(table) = opened else { continue };
        for part in table.windows(300) {
            let Err(ArrowError::ExternalError(error)) = part else {
                continue;
            };
            let error = error.downcast::<Error>().unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}
