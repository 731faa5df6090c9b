//! Guards against reading more of an entry than was asked for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchReader};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, TableReader, Verification};
use ck_core::{ErrorKind, block_on};
use common::generate::{Rng, batch};
use common::{MockEntry, assert_same_rows, encode, encode_table, open, open_mock, types};
use futures_core::Stream;

const KIB: u64 = 1 << 10;

/// 200 columns of 4,000 rows: 6.4 MB.
fn wide() -> RecordBatch {
    let mut rng = Rng(1);
    let columns = (0..200).map(|i| {
        let values = (0..4000).map(|_| (rng.next() >> 11) as f64);
        (
            format!("c{i}"),
            Arc::new(Float64Array::from_iter_values(values)) as ArrayRef,
        )
    });
    RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).unwrap()
}

/// Two columns of 200,000 rows in many batches.
fn long() -> RecordBatch {
    let numbers = |factor: i64| {
        Arc::new(Int64Array::from_iter_values(
            (0..200_000).map(|i| i * factor),
        )) as ArrayRef
    };
    RecordBatch::try_from_iter([("a", numbers(1)), ("b", numbers(-3))]).unwrap()
}

fn total(reads: &[Range<u64>]) -> u64 {
    reads.iter().map(|read| read.end - read.start).sum()
}

#[test]
fn opening_reads_head_and_tail_and_nothing_else() {
    for codec in [Codec::None, Codec::Zstd(1)] {
        let entry = encode_table(
            &wide().schema(),
            &[wide()],
            EncodeOptions::new().with_codec(codec),
        )
        .unwrap();
        let (mock, table) = open_mock(&entry.bytes);
        assert_eq!((table.num_rows(), table.schema()), (4000, wide().schema()));
        let tail = entry.tail_len() as u64;
        let len = entry.bytes.len() as u64;
        let reads = mock.take_reads();
        for read in &reads {
            assert!(
                read.end <= 4096 || read.start >= len - tail,
                "{read:?} of {len} bytes"
            );
        }
        assert!(total(&reads) <= 4096 + 64 + tail, "{} bytes", total(&reads));
        assert!(reads.len() <= 3, "{reads:?}");
    }
}

#[test]
fn looking_at_schema_counts_and_layout_reads_nothing() {
    let (mock, table) = open_mock(&encode(
        &[long()],
        EncodeOptions::new().with_batch_bytes(256 << 10),
    ));
    mock.take_reads();
    let part = table.select(&["b"]).unwrap().rows(1000..150_000).unwrap();
    assert_eq!(part.num_rows(), 149_000);
    assert!(part.num_batches() > 5);
    assert_eq!(part.schema().field(0).name(), "b");
    assert!(table.layout().batches.len() > 5);
    assert_eq!(mock.take_bytes(), 0);
}

#[test]
fn three_of_two_hundred_columns_cost_three_columns() {
    for (codec, factor) in [(Codec::None, 1.1), (Codec::Zstd(1), 1.2)] {
        // Columns of 32 kB share a unit of integrity with a neighbour; 80 kB ones do not.
        let batch = wide();
        let (mock, table) = open_mock(&encode(
            std::slice::from_ref(&batch),
            EncodeOptions::new().with_codec(codec),
        ));
        mock.take_reads();
        let places = [150, 3, 77];
        let found = block_on(table.project(&places).unwrap().read_all()).unwrap();
        assert_same_rows(&found, &[batch.project(&places).unwrap()], "three columns");
        let read = mock.take_bytes();
        let columns = 3.0 * 8.0 * 4000.0;
        // Each column may bring its neighbour up to the size of a unit; the batch's metadata comes on top.
        assert!(
            read as f64 <= factor * columns + (4 * 64 * KIB) as f64,
            "{codec:?}: {read} bytes"
        );
    }

    // Columns larger than a unit cost themselves.
    let columns = (0..20).map(|i| {
        let values = Int64Array::from_iter_values((0..40_000).map(|row| row * i));
        (format!("c{i}"), Arc::new(values) as ArrayRef)
    });
    let batch = RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).unwrap();
    let (mock, table) = open_mock(&encode(&[batch], EncodeOptions::new()));
    mock.take_reads();
    block_on(table.project(&[2, 11, 19]).unwrap().read_all()).unwrap();
    let read = mock.take_bytes();
    let columns = 3 * 8 * 40_000;
    assert!(
        (columns..columns + columns / 100).contains(&read),
        "{read} bytes"
    );
}

#[test]
fn neighbouring_columns_are_read_in_one_piece() {
    let (mock, table) = open_mock(&encode(&[long()], EncodeOptions::new()));
    mock.take_reads();
    block_on(table.read_all()).unwrap();
    assert_eq!(mock.take_reads().len(), table.num_batches());
}

#[test]
fn a_row_range_reads_only_the_batches_it_meets() {
    let source = long();
    let (mock, table) = open_mock(&encode(
        std::slice::from_ref(&source),
        EncodeOptions::new().with_batch_bytes(256 << 10),
    ));
    let batches = table.num_batches();
    assert!(batches >= 10, "{batches}");
    let starts: Vec<u64> = table
        .layout()
        .batches
        .iter()
        .scan(0, |at, batch| {
            *at += batch.rows;
            Some(*at - batch.rows)
        })
        .collect();
    mock.take_reads();
    let bounds = [
        0,
        1,
        starts[1] - 1,
        starts[1],
        starts[1] + 1,
        starts[3] + 17,
        starts[7],
        199_999,
        200_000,
    ];
    for (i, &start) in bounds.iter().enumerate() {
        for &end in &bounds[i..] {
            let part = table.rows(start..end).unwrap();
            let meets = (0..batches).filter(|i| {
                let ends = starts.get(i + 1).copied().unwrap_or(200_000);
                starts[*i] < end && start < ends && start < end
            });
            let meets: Vec<usize> = meets.collect();
            assert_eq!(part.num_batches(), meets.len(), "{start}..{end}");
            let found = block_on(part.read_all()).unwrap();
            assert_eq!(mock.take_reads().len(), meets.len(), "{start}..{end}");
            let expected = source.slice(start as usize, (end - start) as usize);
            assert_same_rows(&found, &[expected], &format!("{start}..{end}"));
        }
    }
}

#[test]
fn ranges_of_ranges_and_projections_of_projections_count_within_themselves() {
    let source = long();
    let table = open(
        &encode(
            std::slice::from_ref(&source),
            EncodeOptions::new().with_batch_bytes(256 << 10),
        ),
        Verification::OnTouch,
    );
    let table = table.unwrap();
    let part = table
        .rows(1000..100_000)
        .unwrap()
        .rows(500..90_000)
        .unwrap();
    assert_same_rows(
        &block_on(part.read_all()).unwrap(),
        &[source.slice(1500, 89_500)],
        "a range of a range",
    );
    let swapped = part.project(&[1, 0]).unwrap().project(&[1]).unwrap();
    assert_eq!(swapped.schema().field(0).name(), "a");
    let expected = source.slice(1500, 89_500).project(&[0]).unwrap();
    assert_same_rows(
        &block_on(swapped.read_all()).unwrap(),
        &[expected],
        "a projection of a projection",
    );
    let nothing = part.rows(7..7).unwrap();
    assert_eq!((nothing.num_rows(), nothing.num_batches()), (0, 0));
    assert!(block_on(nothing.read_all()).unwrap().is_empty());
}

#[test]
fn columns_may_be_asked_for_in_any_order_and_more_than_once() {
    let fields = vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Int32, true),
        Field::new("c", DataType::Utf8, false),
    ];
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let source = batch(&schema, 50, &mut Rng(2));
    for codec in [Codec::None, Codec::Lz4] {
        let bytes = encode(
            std::slice::from_ref(&source),
            EncodeOptions::new().with_codec(codec),
        );
        for places in [
            &[0, 0, 0][..],
            &[1, 1, 2],
            &[0, 0],
            &[2, 1, 0],
            &[2, 0, 2, 1, 0, 1],
            &[0, 1, 1],
            &[],
        ] {
            let expected = source.project(places).unwrap();
            let table = open(&bytes, Verification::OnTouch)
                .unwrap()
                .project(places)
                .unwrap();
            assert_eq!(table.schema(), expected.schema(), "{places:?}");
            let found = block_on(table.read_all()).unwrap();
            assert_eq!(found[0].schema(), expected.schema(), "{places:?}");
            assert_same_rows(&found, &[expected], &format!("{places:?}"));
        }
    }
}

#[test]
fn no_columns_still_have_their_rows_and_cost_nothing() {
    let (mock, table) = open_mock(&encode(
        &[long()],
        EncodeOptions::new().with_batch_bytes(256 << 10),
    ));
    mock.take_reads();
    let none = table.project(&[]).unwrap().rows(5..150_000).unwrap();
    let found = block_on(none.read_all()).unwrap();
    assert_eq!(common::rows(&found), 149_995);
    assert!(mock.take_bytes() < 64 * KIB);
}

#[test]
fn all_ways_to_read_agree() {
    let fields = vec![
        Field::new("n", DataType::Int64, true),
        Field::new(
            "d",
            types::dictionary(DataType::Int32, DataType::Utf8),
            true,
        ),
    ];
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let source = batch(&schema, 5000, &mut Rng(3));
    let (_, table) = open_mock(&encode(
        std::slice::from_ref(&source),
        EncodeOptions::new().with_batch_bytes(4 << 10),
    ));
    let table = table.rows(100..4900).unwrap();
    let expected = [source.slice(100, 4800)];

    let all = block_on(table.read_all()).unwrap();
    assert_eq!(all.len(), table.num_batches());
    assert_same_rows(&all, &expected, "read_all");

    let batches = table.batches();
    assert_eq!(RecordBatchReader::schema(&batches), schema);
    assert_eq!(batches.size_hint().1, Some(all.len()));
    let batches: Vec<RecordBatch> = batches.map(Result::unwrap).collect();
    assert_eq!(batches, all);

    let mut stream = table.stream();
    let mut streamed = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let std::task::Poll::Ready(Some(batch)) = Pin::new(&mut stream).poll_next(&mut context) {
        streamed.push(batch.unwrap());
    }
    assert_eq!(streamed, all);
    assert!(Pin::new(&mut stream).poll_next(&mut context).is_ready());

    let one_by_one: Vec<RecordBatch> = (0..all.len())
        .map(|place| block_on(table.batch(place)).unwrap())
        .collect();
    assert_eq!(one_by_one, all);
}

#[test]
fn an_error_ends_the_batches_and_the_stream() {
    let source = long();
    let bytes = encode(&[source], EncodeOptions::new().with_batch_bytes(256 << 10));
    let entry = Arc::new(MockEntry::new(bytes.clone()));
    let table = block_on(TableReader::open(
        Arc::clone(&entry) as _,
        Verification::OnTouch,
    ))
    .unwrap();
    let mut batches = table.batches();
    let mut stream = table.stream();
    assert!(batches.next().unwrap().is_ok());
    entry.replace(Bytes::from(vec![0; bytes.len()]));
    let error = batches.next().unwrap().unwrap_err();
    let arrow_schema::ArrowError::ExternalError(cause) = error else {
        panic!("{error}")
    };
    assert_eq!(
        cause.downcast_ref::<ck_core::Error>().unwrap().kind(),
        ErrorKind::Corrupt
    );
    assert!(batches.next().is_none());
    let mut context = Context::from_waker(Waker::noop());
    let mut next = || match Pin::new(&mut stream).poll_next(&mut context) {
        std::task::Poll::Ready(next) => next,
        std::task::Poll::Pending => panic!("nothing to wait for"),
    };
    assert_eq!(next().unwrap().unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(next().is_none());
}

#[test]
fn a_dictionary_is_read_once_and_only_when_it_is_needed() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new(
            "d",
            types::dictionary(DataType::Int32, DataType::Utf8),
            true,
        ),
    ]));
    let source = batch(&schema, 5000, &mut Rng(4));
    let (mock, table) = open_mock(&encode(
        &[source],
        EncodeOptions::new().with_batch_bytes(8 << 10),
    ));
    let layout = table.layout();
    let dictionary = &layout.dictionaries[0];
    mock.take_reads();
    block_on(table.select(&["n"]).unwrap().read_all()).unwrap();
    let plain = mock.take_reads().len();
    block_on(table.select(&["d"]).unwrap().read_all()).unwrap();
    let first = mock.take_reads().len();
    block_on(table.select(&["d"]).unwrap().read_all()).unwrap();
    let second = mock.take_reads().len();
    assert_eq!((plain, second), (table.num_batches(), table.num_batches()));
    assert_eq!(
        first,
        second + 1,
        "the dictionary of {} values",
        dictionary.rows
    );
}

#[test]
fn columns_rows_and_batches_that_do_not_exist_are_misuse_and_named() {
    let table = open(
        &encode(&[long()], EncodeOptions::new()),
        Verification::OnTouch,
    )
    .unwrap();
    let misuse = |error: ck_core::Error, words: &[&str]| {
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error:?}");
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    misuse(
        table.select(&["a", "prize"]).unwrap_err(),
        &["prize", "a, b"],
    );
    misuse(table.project(&[0, 2]).unwrap_err(), &["2"]);
    misuse(table.project(&[usize::MAX]).unwrap_err(), &["columns"]);
    misuse(table.rows(0..200_001).unwrap_err(), &["200001", "200000"]);
    #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
    misuse(table.rows(5..4).unwrap_err(), &["5..4"]);
    misuse(table.rows(u64::MAX..u64::MAX).unwrap_err(), &["200000"]);
    for part in [
        table.clone(),
        table.rows(150_000..200_000).unwrap(),
        table.rows(9..9).unwrap(),
    ] {
        for place in [part.num_batches(), usize::MAX - 1, usize::MAX] {
            misuse(block_on(part.batch(place)).unwrap_err(), &["batches"]);
        }
    }
    // A column that a projection left out.
    misuse(
        table.select(&["b"]).unwrap().select(&["a"]).unwrap_err(),
        &["column: a", "columns: b"],
    );
}
