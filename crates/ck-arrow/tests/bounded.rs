//! Guards against batches larger than they may be, and against memory that grows with the table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::sync::Arc;

use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, DictionaryArray, Float64Array, Int64Array, LargeListArray,
    ListArray, RecordBatch, RunArray, StringArray, StringViewArray, StructArray, UnionArray,
};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field, UnionFields};
use ck_arrow::{BlockLayout, Codec, EncodeOptions, Encoder, Verification};
use ck_core::block_on;
use common::generate::Rng;
use common::{assert_same_rows, encode, open, open_mock};
use testkit::heap::{CountingAllocator, alone, live, peak_of};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

const MIB: usize = 1 << 20;

/// What padding and rounded offsets may add to a batch of a few buffers.
const PADDING: u64 = 1024;

/// How many values each row has: one, and a hundred in the middle third.
fn widths(rows: usize) -> Vec<usize> {
    (0..rows)
        .map(|row| {
            if (rows / 3..rows / 2).contains(&row) {
                100
            } else {
                1
            }
        })
        .collect()
}

fn text(width: usize) -> String {
    "some text that is not so short.".repeat(width)
}

/// Frames with a run of rows a hundred times wider than the rest, one for each way to be wide.
fn skewed() -> Vec<(&'static str, ArrayRef)> {
    let widths = widths(3000);
    let texts = || widths.iter().map(|width| Some(text(*width)));
    let numbers = || {
        widths
            .iter()
            .map(|width| Some((0..*width as i64).map(Some).collect::<Vec<_>>()))
    };
    let strings: ArrayRef = Arc::new(texts().collect::<StringArray>());
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(numbers());
    let (_, offsets, values, _) = lists.clone().into_parts();
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let sizes: ScalarBuffer<i32> = widths.iter().map(|width| *width as i32).collect();
    let starts: ScalarBuffer<i32> = offsets.iter().take(widths.len()).copied().collect();
    let views = arrow_array::ListViewArray::new(item, starts, sizes, values, None);
    let fields = vec![
        (
            Arc::new(Field::new("s", DataType::Utf8, true)),
            Arc::clone(&strings),
        ),
        (
            Arc::new(Field::new("l", lists.data_type().clone(), true)),
            Arc::new(lists.clone()) as ArrayRef,
        ),
    ];
    let kinds: Vec<i8> = widths.iter().map(|width| i8::from(*width == 1)).collect();
    let wide = strings.slice(1000, 500);
    let narrow: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2500));
    let mut next = [0, 0];
    let places = kinds.iter().map(|kind| {
        next[*kind as usize] += 1;
        next[*kind as usize] - 1
    });
    let union_fields: UnionFields = [
        (0, Arc::new(Field::new("wide", DataType::Utf8, true))),
        (1, Arc::new(Field::new("narrow", DataType::Int64, true))),
    ]
    .into_iter()
    .collect();
    let places = places.collect();
    let union =
        UnionArray::try_new(union_fields, kinds.into(), Some(places), vec![wide, narrow]).unwrap();
    let ends = arrow_array::Int32Array::from_iter_values(1..=3000);
    let runs = RunArray::<Int32Type>::try_new(&ends, &strings).unwrap();
    vec![
        ("text", Arc::clone(&strings)),
        (
            "bytes",
            Arc::new(
                texts()
                    .map(|t| t.map(String::into_bytes))
                    .collect::<BinaryArray>(),
            ),
        ),
        ("views", Arc::new(texts().collect::<StringViewArray>())),
        ("lists", Arc::new(lists)),
        (
            "large lists",
            Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(
                numbers(),
            )),
        ),
        ("list views", Arc::new(views)),
        ("structs", Arc::new(StructArray::from(fields))),
        ("unions", Arc::new(union)),
        ("runs", Arc::new(runs)),
    ]
}

fn blocks(batches: &[RecordBatch], batch_bytes: usize) -> Vec<BlockLayout> {
    let bytes = encode(batches, EncodeOptions::new().with_batch_bytes(batch_bytes));
    let table = open(&bytes, Verification::OnTouch).unwrap();
    assert_same_rows(
        &block_on(table.read_all()).unwrap(),
        batches,
        "the cut table",
    );
    table.layout().batches
}

#[test]
fn batches_of_skewed_frames_have_at_most_the_bytes_they_may() {
    let _alone = alone();
    for (name, column) in skewed() {
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        for bound in [16 << 10, 64 << 10] {
            let blocks = blocks(std::slice::from_ref(&batch), bound);
            for block in &blocks {
                assert!(
                    block.body_bytes <= bound as u64 + PADDING,
                    "{name}: {} bytes",
                    block.body_bytes
                );
            }
            // The bound is made use of: not many small batches instead.
            let total: u64 = blocks.iter().map(|block| block.body_bytes).sum();
            let most = 2 * total / bound as u64 + 4;
            assert!(
                blocks.len() as u64 <= most,
                "{name}: {} batches of {total} bytes",
                blocks.len()
            );
            let rows: Vec<u64> = blocks.iter().map(|block| block.rows).collect();
            assert!(
                rows.iter().max() >= rows.iter().min().map(|rows| rows * 5).as_ref(),
                "{name}: {rows:?}"
            );
        }
    }
}

#[test]
fn slices_and_views_are_measured_by_what_they_show() {
    let _alone = alone();
    // Rows that drag along much more than they show.
    for (name, column) in skewed() {
        let slice = column.slice(100, 300);
        let batch = RecordBatch::try_from_iter([("c", slice)]).unwrap();
        let blocks = blocks(&[batch], 64 << 10);
        let total: u64 = blocks.iter().map(|block| block.body_bytes).sum();
        assert!(
            blocks.len() == 1 && total < 30_000,
            "{name}: {} batches, {total} bytes",
            blocks.len()
        );
    }
}

#[test]
fn a_row_wider_than_the_bound_stands_alone() {
    let _alone = alone();
    let widths = [1, 1, 2000, 1, 3000, 2000, 1];
    let columns: [ArrayRef; 3] = [
        Arc::new(
            widths
                .iter()
                .map(|width| Some(text(*width)))
                .collect::<StringArray>(),
        ),
        Arc::new(
            widths
                .iter()
                .map(|width| Some(text(*width)))
                .collect::<StringViewArray>(),
        ),
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
            widths.iter().map(|width| Some(vec![Some(7); *width * 4])),
        )),
    ];
    for column in columns {
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let rows: Vec<u64> = blocks(&[batch], 32 << 10)
            .iter()
            .map(|block| block.rows)
            .collect();
        assert_eq!(rows, [2, 1, 1, 1, 1, 1]);
    }
}

#[test]
fn dictionary_keys_are_cut_and_values_are_written_once() {
    let _alone = alone();
    let values: ArrayRef = Arc::new(
        (0..1000)
            .map(|i| Some(format!("value {i}")))
            .collect::<StringArray>(),
    );
    let keys = arrow_array::Int32Array::from_iter_values((0..100_000).map(|i| i % 1000));
    let column: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(keys, values));
    let batch = RecordBatch::try_from_iter([("d", column)]).unwrap();
    let bytes = encode(&[batch], EncodeOptions::new().with_batch_bytes(32 << 10));
    let layout = open(&bytes, Verification::OnTouch).unwrap().layout();
    assert_eq!(layout.dictionaries.len(), 1);
    assert!(layout.batches.len() >= 12);
    assert!(
        layout
            .batches
            .iter()
            .all(|block| block.body_bytes <= (32 << 10) + PADDING)
    );
}

/// Eight columns of numbers that compress by about a half.
fn numbers(bytes: usize) -> RecordBatch {
    let rows = bytes / 64;
    let mut rng = Rng(1);
    let columns = (0..8).map(|i| {
        let column: ArrayRef = if i % 2 == 0 {
            Arc::new(Int64Array::from_iter_values(
                (0..rows as i64).map(|row| row * i),
            ))
        } else {
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|_| (rng.next() >> 12) as f64),
            ))
        };
        (format!("c{i}"), column)
    });
    RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).unwrap()
}

/// Encodes and throws the segments away, as a fast store would.
fn encode_away(batch: &RecordBatch, options: EncodeOptions) -> u64 {
    let mut encoder = Encoder::new(batch.schema(), options).unwrap();
    encoder.push(batch.clone()).unwrap();
    encoder.end();
    while let Some(segment) = encoder.next_segment().unwrap() {
        drop(segment);
    }
    encoder.finish().unwrap().bytes
}

#[test]
fn encoding_256_mib_takes_a_few_batches_of_memory_and_none_without_compression() {
    let _alone = alone();
    let batch = numbers(256 * MIB);
    let (peak, bytes) = peak_of(|| encode_away(&batch, EncodeOptions::new()));
    assert!(bytes > 256 * MIB as u64);
    assert!(peak < 2 * MIB, "{peak} bytes");
    for codec in [Codec::Zstd(1), Codec::Lz4] {
        let options = EncodeOptions::new().with_codec(codec).with_workers(2);
        let (peak, bytes) = peak_of(|| encode_away(&batch, options));
        assert!(bytes < 240 * MIB as u64, "{codec:?}: {bytes} bytes");
        assert!(peak < 40 * MIB, "{codec:?}: {peak} bytes");
    }
}

#[test]
fn a_slow_store_lets_no_more_than_a_few_compressed_batches_pile_up() {
    let _alone = alone();
    let mut rng = Rng(2);
    // Numbers that shrink by some 15 %, so that compressed batches are nearly as large as plain ones.
    let values = (0..4 << 20).map(|_| (rng.next() >> 12) as f64);
    let column: ArrayRef = Arc::new(Float64Array::from_iter_values(values));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let before = live();
    let options = EncodeOptions::new()
        .with_codec(Codec::Zstd(1))
        .with_workers(2);
    let mut encoder = Encoder::new(batch.schema(), options.with_batch_bytes(MIB)).unwrap();
    encoder.push(batch.clone()).unwrap();
    encoder.end();
    let first = encoder.next_segment().unwrap().unwrap();
    assert!(first.iter().map(bytes::Bytes::len).sum::<usize>() > MIB / 2);
    // The store is busy for as long as the workers find anything to do.
    let mut held = live();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(50));
        if live() == held {
            break;
        }
        held = live();
    }
    assert!(held - before < 4 * MIB + MIB / 2, "{} bytes", held - before);
    // The rest comes all the same.
    let mut segments = 1;
    while encoder.next_segment().unwrap().is_some() {
        segments += 1;
    }
    assert_eq!(segments, 33, "32 batches and the tail");
}

#[test]
fn encoding_many_small_batches_takes_no_more() {
    let _alone = alone();
    let batch = numbers(32 * MIB);
    let rows = batch.num_rows();
    for (codec, most) in [(Codec::None, 2 * MIB), (Codec::Zstd(1), 40 * MIB)] {
        let (peak, ()) = peak_of(|| {
            let options = EncodeOptions::new().with_codec(codec).with_workers(2);
            let mut encoder = Encoder::new(batch.schema(), options).unwrap();
            for start in (0..rows).step_by(1000) {
                encoder
                    .push(batch.slice(start, 1000.min(rows - start)))
                    .unwrap();
                while encoder.next_segment().unwrap().is_some() {}
            }
            encoder.end();
            while encoder.next_segment().unwrap().is_some() {}
        });
        assert!(peak < most, "{codec:?}: {peak} bytes");
    }
}

#[test]
fn reading_by_batches_holds_one_batch_at_a_time() {
    let _alone = alone();
    let batch = numbers(64 * MIB);
    let rows = batch.num_rows();
    for codec in [Codec::None, Codec::Zstd(1), Codec::Lz4] {
        let options = EncodeOptions::new()
            .with_codec(codec)
            .with_batch_bytes(4 * MIB);
        let bytes = encode(std::slice::from_ref(&batch), options);
        let count = |table: ck_arrow::TableReader| {
            table
                .batches()
                .map(|batch| batch.unwrap().num_rows())
                .sum::<usize>()
        };

        // Mapped: nothing, or the plain bytes of a batch; decompression needs no buffers of its own.
        let most = if codec == Codec::None {
            MIB / 2
        } else {
            4 * MIB + 2 * MIB
        };
        let (peak, found) = peak_of(|| count(open(&bytes, Verification::OnTouch).unwrap()));
        assert_eq!(found, rows);
        assert!(peak < most, "{codec:?} in place: {peak} bytes");

        // Fetched: the stored bytes of a batch on top.
        let (peak, found) = peak_of(|| count(open_mock(&bytes).1));
        assert_eq!(found, rows);
        assert!(peak < most + 5 * MIB, "{codec:?} fetched: {peak} bytes");

        // Verifying as a whole holds a piece of it.
        let (peak, ()) = peak_of(|| block_on(open_mock(&bytes).1.verify()).unwrap());
        assert!(peak < 5 * MIB, "{codec:?} verified: {peak} bytes");
    }
}

#[test]
fn opening_costs_the_index_whatever_the_size_of_the_table() {
    let _alone = alone();
    let batch = numbers(64 * MIB);
    let bytes = encode(&[batch], EncodeOptions::new());
    let (peak, table) = peak_of(|| open(&bytes, Verification::OnTouch).unwrap());
    assert_eq!(table.num_batches(), 8);
    assert!(peak < MIB / 4, "{peak} bytes");
}
