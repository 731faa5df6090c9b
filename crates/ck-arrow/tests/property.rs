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

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef, UnionMode};
use ck_arrow::{Codec, EncodeOptions, Table, Verification, compact};
use ck_core::block_on;
use common::generate::{Rng, batch};
use common::{assert_same_rows, assert_same_schema, encode_table, open, open_mock, rows, types};
use proptest::prelude::*;
use proptest::sample::select;

/// Any type, with children up to three levels deep.
fn any_type() -> impl Strategy<Value = DataType> {
    type_with(any_child)
}

/// Any type, also dictionaries of all these types and of dictionaries, which Arrow IPC cannot express.
fn any_type_in_memory() -> impl Strategy<Value = DataType> {
    type_with(|child| {
        let dictionary =
            (keys(), child.clone()).prop_map(|(key, value)| types::dictionary(key, value));
        prop_oneof![6 => any_child(child), 1 => dictionary].boxed()
    })
}

fn keys() -> impl Strategy<Value = DataType> {
    select(vec![
        DataType::Int8,
        DataType::UInt8,
        DataType::UInt16,
        DataType::Int32,
        DataType::UInt64,
    ])
}

fn type_with(
    with_child: impl Fn(BoxedStrategy<DataType>) -> BoxedStrategy<DataType>,
) -> impl Strategy<Value = DataType> {
    let values = select(vec![
        DataType::Utf8,
        DataType::Int64,
        DataType::Utf8View,
        DataType::Boolean,
        DataType::FixedSizeBinary(5),
    ]);
    let dictionary = (keys(), values).prop_map(|(key, value)| types::dictionary(key, value));
    let leaf = prop_oneof![4 => select(types::flat()), 1 => dictionary];
    leaf.prop_recursive(3, 24, 3, with_child)
}

/// A type with children of this one.
fn any_child(child: BoxedStrategy<DataType>) -> BoxedStrategy<DataType> {
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
    .boxed()
}

fn any_schema() -> impl Strategy<Value = SchemaRef> {
    schema_of(any_type())
}

fn schema_of(types: impl Strategy<Value = DataType>) -> impl Strategy<Value = SchemaRef> {
    prop::collection::vec((types, any::<bool>(), "[a-c]{0,2}"), 0..6).prop_map(|columns| {
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

/// Batches that share what they have with each other: slices that overlap, clones, and batches put together
/// from the columns of others.
fn sharing(schema: &SchemaRef, rng: &mut Rng) -> Vec<RecordBatch> {
    let wholes = [0, 1].map(|_| batch(schema, [30, 400, 1500][rng.below(3)], rng));
    let mut batches: Vec<RecordBatch> = Vec::new();
    for _ in 0..rng.below(7) {
        let whole = &wholes[rng.below(2)];
        let most = [2, 20, whole.num_rows() + 1][rng.below(3)];
        let len = rng.below(most);
        let start = rng.below(whole.num_rows() - len + 1);
        let slice = whole.slice(start, len);
        match batches.last().cloned() {
            Some(last) if rng.one_in(4) => batches.push(last),
            Some(last) if rng.one_in(3) => {
                // Every other column is that of the batch before.
                let slice = wholes[rng.below(2)].slice(0, last.num_rows().min(30));
                let last = last.slice(0, slice.num_rows());
                let columns = (0..schema.fields().len())
                    .map(|column| Arc::clone([&slice, &last][column % 2].column(column)));
                let options = RecordBatchOptions::new().with_row_count(Some(slice.num_rows()));
                let columns = columns.collect();
                let mixed =
                    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options);
                batches.push(mixed.unwrap());
            }
            _ => batches.push(slice),
        }
    }
    batches
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

    #[test]
    fn a_compacted_table_has_the_same_rows_in_the_same_batches(
        schema in schema_of(any_type_in_memory()),
        seed in any::<u64>(),
    ) {
        let batches = sharing(&schema, &mut Rng(seed));
        let table = Table::new(Arc::clone(&schema), batches.clone()).unwrap();
        if let Some(compacted) = table.compacted() {
            prop_assert_eq!(compacted.schema(), &schema);
            prop_assert_eq!(compacted.batches().len(), batches.len());
            for (found, expected) in compacted.batches().iter().zip(&batches) {
                prop_assert_eq!(found.num_rows(), expected.num_rows());
                assert_same_rows(std::slice::from_ref(found), std::slice::from_ref(expected), "compacted");
                for column in found.columns() {
                    arrow_array::Array::to_data(column).validate_full().unwrap();
                }
            }
            prop_assert!(compacted.heap_bytes(None) < table.heap_bytes(None));
            // All that could be let go of is.
            prop_assert!(compacted.compacted().is_none());
        }
    }
}
