//! Guards against payloads that other Arrow readers do not understand: behind its checksum an entry is a
//! complete Arrow IPC file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::io::Cursor;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, Verification};
use common::generate::{Rng, batch};
use common::{Entry, assert_same_rows, assert_same_schema, encode_table, open, types};

const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd(1)];

/// What stands behind the checksum.
fn ipc(entry: &Entry) -> Bytes {
    entry.bytes.slice(entry.encoded.head.len()..)
}

fn one_column(data_type: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("c", data_type.clone(), true)]))
}

#[track_caller]
fn assert_others_read(entry: &Entry, schema: &SchemaRef, batches: &[RecordBatch], what: &str) {
    let reader = FileReader::try_new(Cursor::new(ipc(entry)), None).unwrap();
    assert_same_schema(&reader.schema(), schema, what);
    assert_eq!(reader.num_batches() as u64, entry.encoded.batches, "{what}");
    let found: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_same_rows(&found, batches, what);

    // The same messages are a stream, from the schema to the end of the stream before the block index.
    let stream = ipc(entry).slice(8..);
    let reader = StreamReader::try_new(Cursor::new(stream), None).unwrap();
    assert_same_schema(&reader.schema(), schema, what);
    let found: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_same_rows(&found, batches, what);
}

#[test]
fn the_arrow_reader_gives_the_same_table_for_every_type_and_codec() {
    for data_type in types::all() {
        let schema = one_column(&data_type);
        let mut rng = Rng(1);
        let batches = [
            batch(&schema, 100, &mut rng),
            batch(&schema, 30, &mut rng).slice(3, 20),
        ];
        for codec in CODECS {
            let options = EncodeOptions::new()
                .with_codec(codec)
                .with_workers(1)
                .with_batch_bytes(1024);
            let entry = encode_table(&schema, &batches, options).unwrap();
            assert_others_read(
                &entry,
                &schema,
                &batches,
                &format!("{data_type}, {codec:?}"),
            );
        }
    }
}

#[test]
fn tables_without_rows_or_columns_are_complete_files_too() {
    let schema = one_column(&types::dictionary(DataType::Int32, DataType::Utf8));
    let entry = encode_table(&schema, &[], EncodeOptions::new()).unwrap();
    assert_others_read(&entry, &schema, &[], "no rows");
    let schema: SchemaRef = Arc::new(Schema::empty());
    let entry = encode_table(&schema, &[], EncodeOptions::new()).unwrap();
    assert_others_read(&entry, &schema, &[], "no columns");
}

#[test]
fn what_lies_between_the_last_batch_and_the_footer_does_not_disturb_others() {
    let schema = one_column(&DataType::Utf8);
    let batches = [batch(&schema, 1000, &mut Rng(2))];
    let options = EncodeOptions::new().with_batch_bytes(512);
    let entry = encode_table(&schema, &batches, options).unwrap();
    let file = ipc(&entry);
    let trailer = file.len() - 10;
    let footer = i32::from_le_bytes(file[trailer..trailer + 4].try_into().unwrap()) as usize;
    let layout = open(&entry.bytes, Verification::OnTouch).unwrap().layout();
    let last = layout.batches.last().unwrap();
    let end = (last.offset + last.metadata_bytes + last.body_bytes) as usize;
    assert_eq!(
        file[end..end + 8],
        [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        "the end of the stream"
    );
    let between = trailer - footer - end - 8;
    assert!(between > 1000, "a block index of {between} bytes");
    assert_others_read(&entry, &schema, &batches, "a gap");
}

#[test]
fn every_block_starts_at_a_multiple_of_64_in_the_outer_file() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("d", types::dictionary(DataType::Int8, DataType::Utf8), true),
        Field::new("b", DataType::Boolean, true),
        Field::new("s", DataType::Utf8View, true),
    ]));
    let batches = [batch(&schema, 777, &mut Rng(3))];
    for outer in [0, 14, 63, 100] {
        for codec in CODECS {
            let options = EncodeOptions::new()
                .with_codec(codec)
                .with_batch_bytes(1000)
                .with_outer_offset(outer);
            let entry = encode_table(&schema, &batches, options).unwrap();
            let start = outer + entry.encoded.head.len() as u64;
            let layout = open(&entry.bytes, Verification::OnTouch).unwrap().layout();
            for block in layout.dictionaries.iter().chain(&layout.batches) {
                assert_eq!((start + block.offset) % 64, 0);
                assert_eq!((start + block.offset + block.metadata_bytes) % 64, 0);
                assert!(
                    block.units.iter().all(
                        |unit| (start + unit.offset).is_multiple_of(64) && unit.bytes % 64 == 0
                    )
                );
            }
        }
    }
}

#[test]
fn columns_of_large_uncompressed_batches_share_no_window_of_64_kib() {
    let numbers = |factor: i64| {
        Arc::new(Int64Array::from_iter_values(
            (0..1_000_000).map(|i| i * factor),
        )) as ArrayRef
    };
    let batch =
        RecordBatch::try_from_iter([("a", numbers(1)), ("b", numbers(2)), ("c", numbers(3))])
            .unwrap();
    let options = EncodeOptions::new().with_outer_offset(14);
    let entry = encode_table(&batch.schema(), std::slice::from_ref(&batch), options).unwrap();
    let layout = open(&entry.bytes, Verification::OnTouch).unwrap().layout();
    let large: Vec<_> = layout
        .batches
        .iter()
        .filter(|block| block.body_bytes >= 4 << 20)
        .collect();
    assert!(large.len() >= 2);
    let last = layout.batches.len() - 1;
    for block in &layout.batches[..last] {
        for unit in &block.units {
            assert_eq!(
                (14 + entry.encoded.head.len() as u64 + unit.offset) % (64 << 10),
                0
            );
        }
    }
    // The alignment costs little.
    assert!(entry.bytes.len() < 24_000_000 + 24_000_000 / 100);
    assert_others_read(&entry, &batch.schema(), &[batch], "windows");
}
