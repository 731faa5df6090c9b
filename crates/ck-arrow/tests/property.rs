//! Guards against tables nobody thought of: generated schemas, slices, sizes, codecs, projections and
//! row ranges give what Arrow's own slicing and projection of the source give.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef, UnionMode};
use ck_arrow::{Codec, EncodeOptions, Verification, compact};
use ck_core::block_on;
use common::generate::{Rng, batch};
use common::{assert_same_rows, assert_same_schema, encode_table, open, open_mock, rows, types};
use proptest::prelude::*;
use proptest::sample::select;

/// Any type, with children up to three levels deep.
fn any_type() -> impl Strategy<Value = DataType> {
    let keys = select(vec![
        DataType::Int8,
        DataType::UInt16,
        DataType::Int32,
        DataType::UInt64,
    ]);
    let values = select(vec![
        DataType::Utf8,
        DataType::Int64,
        DataType::Utf8View,
        DataType::Boolean,
        DataType::FixedSizeBinary(5),
    ]);
    let dictionary = (keys, values).prop_map(|(key, value)| types::dictionary(key, value));
    let leaf = prop_oneof![4 => select(types::flat()), 1 => dictionary];
    leaf.prop_recursive(3, 24, 3, |child| {
        let item = (child.clone(), any::<bool>()).prop_map(|(child, nullable)| {
            let nullable = nullable || !types::can_be_required(&child);
            types::item(child, nullable)
        });
        let key = select(vec![
            DataType::Utf8,
            DataType::Int32,
            types::dictionary(DataType::Int8, DataType::Utf8),
        ]);
        let mode = select(vec![UnionMode::Sparse, UnionMode::Dense]);
        prop_oneof![
            item.clone().prop_map(DataType::List),
            item.clone().prop_map(DataType::LargeList),
            item.clone().prop_map(DataType::ListView),
            item.clone().prop_map(DataType::LargeListView),
            (item, 0..4).prop_map(|(item, size)| DataType::FixedSizeList(item, size)),
            prop::collection::vec(child.clone(), 0..4).prop_map(types::structure),
            (key, child.clone(), any::<bool>())
                .prop_map(|(key, value, sorted)| types::map(key, value, sorted)),
            (mode, prop::collection::vec(child.clone(), 1..4))
                .prop_map(|(mode, children)| types::union(mode, children)),
            (
                select(vec![DataType::Int16, DataType::Int32, DataType::Int64]),
                child
            )
                .prop_map(|(ends, values)| types::run_ends(ends, values)),
        ]
    })
}

fn any_schema() -> impl Strategy<Value = SchemaRef> {
    prop::collection::vec((any_type(), any::<bool>(), "[a-c]{0,2}"), 0..6).prop_map(|columns| {
        let field = |(data_type, nullable, name): (DataType, bool, String)| {
            let nullable = nullable || !types::can_be_required(&data_type);
            Field::new(name, data_type, nullable)
        };
        Arc::new(Schema::new(
            columns.into_iter().map(field).collect::<Vec<_>>(),
        ))
    })
}

/// Random slices of random batches.
fn source(schema: &SchemaRef, rng: &mut Rng) -> Vec<RecordBatch> {
    let slice = |_| {
        let len = [0, 1, 7, 64, 130][rng.below(5)];
        let whole = batch(schema, len, rng);
        let start = rng.below(len + 1);
        whole.slice(start, rng.below(len - start + 1))
    };
    (0..4).map(slice).collect()
}

/// Arrow's own slice of several batches.
fn sliced(batches: &[RecordBatch], mut start: usize, mut len: usize) -> Vec<RecordBatch> {
    let mut found = Vec::new();
    for batch in batches {
        let skip = start.min(batch.num_rows());
        let take = len.min(batch.num_rows() - skip);
        found.push(batch.slice(skip, take));
        (start, len) = (start - skip, len - take);
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_arrow_itself_makes_of_the_source(
        schema in any_schema(),
        seed in any::<u64>(),
        batch_bytes in select(vec![1_usize, 100, 1000, 8 << 20]),
        codec in select(vec![Codec::None, Codec::Lz4, Codec::Zstd(1)]),
        outer in select(vec![0_u64, 14]),
    ) {
        let mut rng = Rng(seed);
        let batches = source(&schema, &mut rng);
        let options = EncodeOptions::new().with_codec(codec).with_workers(1);
        let options = options.with_batch_bytes(batch_bytes).with_outer_offset(outer);
        let bytes = encode_table(&schema, &batches, options).unwrap().bytes;
        // Where the entry was made for, or somewhere else.
        let before = if rng.one_in(4) { rng.below(64) } else { outer as usize };
        let bytes = common::aligned(&[&vec![0; before][..], &bytes].concat()).slice(before..);

        let table = open(&bytes, Verification::OnTouch).unwrap();
        assert_same_schema(&table.schema(), &schema, "schema");
        let found = block_on(table.read_all()).unwrap();
        assert_same_rows(&found, &batches, "whole");
        for column in found.iter().flat_map(RecordBatch::columns) {
            arrow_array::Array::to_data(column).validate_full().unwrap();
        }

        let columns: Vec<usize> = match schema.fields().len() {
            0 => vec![],
            count => (0..rng.below(4)).map(|_| rng.below(count)).collect(),
        };
        let start = rng.below(rows(&batches) + 1);
        let len = rng.below(rows(&batches) - start + 1);
        let expected: Vec<RecordBatch> =
            sliced(&batches, start, len).iter().map(|batch| batch.project(&columns).unwrap()).collect();
        let range = start as u64..(start + len) as u64;
        let (_, apart) = open_mock(&bytes);
        for table in [table, apart] {
            let part = table.rows(range.clone()).unwrap().project(&columns).unwrap();
            let found = block_on(part.read_all()).unwrap();
            assert!(found.iter().all(|batch| batch.schema() == expected[0].schema()));
            assert_same_rows(&found, &expected, "part");
        }
    }

    #[test]
    fn a_compacted_batch_is_equal_and_retains_no_more(schema in any_schema(), seed in any::<u64>()) {
        for batch in source(&schema, &mut Rng(seed)) {
            let compacted = compact(&batch).unwrap();
            assert_same_rows(std::slice::from_ref(&compacted), std::slice::from_ref(&batch), "compacted");
            let retained = |batch| ck_arrow::retained_bytes([batch]);
            prop_assert!(retained(&compacted) <= retained(&batch));
        }
    }
}
