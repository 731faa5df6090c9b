//! Guards against types, shapes and metadata that come back different from how they were put in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use ck_arrow::{Codec, EncodeOptions, Verification};
use ck_core::{ErrorKind, block_on};
use common::generate::{Rng, batch};
use common::types;
use common::{assert_same_rows, assert_same_schema, encode_table, open, open_mock, read};

const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd(1)];

fn options(codec: Codec) -> EncodeOptions {
    EncodeOptions::new().with_codec(codec).with_workers(2)
}

/// Encodes and reads back in every way.
#[track_caller]
fn check(schema: &SchemaRef, batches: &[RecordBatch], what: &str) {
    for codec in CODECS {
        for batch_bytes in [8 << 20, 2048] {
            let what = format!("{what}, {codec:?}, {batch_bytes}");
            let entry = encode_table(
                schema,
                batches,
                options(codec).with_batch_bytes(batch_bytes),
            );
            let entry = entry.unwrap_or_else(|error| panic!("{what}: {error}"));
            let rows = common::rows(batches) as u64;
            assert_eq!(entry.encoded.rows, rows, "{what}");
            let (found_schema, found) = read(&entry.bytes, Verification::OnTouch)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_same_schema(&found_schema, schema, &what);
            assert_eq!(found.len() as u64, entry.encoded.batches, "{what}");
            assert!(
                found.iter().all(|batch| batch.schema() == *schema),
                "{what}"
            );
            assert_same_rows(&found, batches, &what);

            let (_, table) = open_mock(&entry.bytes);
            assert_eq!(table.num_rows(), rows, "{what}");
            let apart =
                block_on(table.read_all()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_same_rows(&apart, batches, &what);
            block_on(table.verify()).unwrap();
        }
    }
}

fn schema_of(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

/// One table per type, with a nullable and (where that is possible) a required column of it.
fn tables(types: Vec<DataType>) -> impl Iterator<Item = (String, SchemaRef)> {
    types.into_iter().map(|data_type| {
        let name = data_type.to_string();
        let mut fields = vec![Field::new("nullable", data_type.clone(), true)];
        if data_type != DataType::Null {
            fields.push(Field::new("required", data_type, false));
        }
        (name, schema_of(fields))
    })
}

/// Whole, at offsets inside of a byte and at whole bytes, one row, and none.
fn cuts(whole: &RecordBatch) -> Vec<(String, Vec<RecordBatch>)> {
    let rows = whole.num_rows();
    let mut cuts = vec![("whole".to_owned(), vec![whole.clone()])];
    for (offset, len) in [
        (1, rows - 1),
        (3, rows - 7),
        (64, 65),
        (77, 8),
        (rows - 1, 1),
        (5, 0),
    ] {
        cuts.push((format!("{offset}+{len}"), vec![whole.slice(offset, len)]));
    }
    let pieces = [(9, 40), (49, 0), (3, 17), (rows - 30, 30), (0, rows)];
    cuts.push((
        "pieces".into(),
        pieces
            .into_iter()
            .map(|(offset, len)| whole.slice(offset, len))
            .collect(),
    ));
    cuts
}

fn check_types(types: Vec<DataType>, seed: u64) {
    for (name, schema) in tables(types) {
        let mut rng = Rng(seed);
        let whole = batch(&schema, 200, &mut rng);
        for (cut, batches) in cuts(&whole) {
            check(&schema, &batches, &format!("{name}, {cut}"));
        }
    }
}

#[test]
fn every_flat_type_comes_back_from_any_slice() {
    check_types(types::flat(), 1);
}

#[test]
fn every_nested_type_comes_back_from_any_slice() {
    check_types(types::nested(), 2);
}

#[test]
fn dictionaries_of_every_kind_and_at_every_place_come_back_from_any_slice() {
    check_types(types::dictionaries(), 3);
}

#[test]
fn dictionaries_that_differ_from_batch_to_batch_keep_their_rows() {
    for (name, schema) in tables(types::dictionaries()) {
        let mut rng = Rng(4);
        // Each batch has dictionaries of its own, with values in common and others.
        let batches: Vec<RecordBatch> = (0..5)
            .map(|i| batch(&schema, 30 + 10 * i, &mut rng))
            .collect();
        let mixed: Vec<RecordBatch> = [0, 1, 0, 2, 3, 4, 1]
            .into_iter()
            .map(|i: usize| batches[i].slice(i, 25))
            .collect();
        check(&schema, &mixed, &name);
    }
}

#[test]
fn a_table_of_all_types_at_once_comes_back() {
    let fields = types::all().into_iter().enumerate();
    let schema = schema_of(
        fields
            .map(|(i, t)| Field::new(format!("c{i}"), t, true))
            .collect(),
    );
    let mut rng = Rng(5);
    let batches = [
        batch(&schema, 100, &mut rng),
        batch(&schema, 0, &mut rng),
        batch(&schema, 33, &mut rng),
    ];
    check(&schema, &batches, "all types");
}

fn words(keys: &[Option<i32>], values: Vec<Option<&str>>) -> ArrayRef {
    let values: ArrayRef = Arc::new(StringArray::from(values));
    Arc::new(DictionaryArray::<Int32Type>::new(
        Int32Array::from(keys.to_vec()),
        values,
    ))
}

#[test]
fn dictionaries_that_grow_shrink_and_hold_nulls_keep_their_rows() {
    let columns = [
        words(&[Some(0), Some(1), None], vec![Some("a"), Some("b")]),
        words(
            &[Some(2), Some(0), Some(1)],
            vec![Some("a"), Some("b"), Some("c")],
        ),
        words(&[Some(0), None], vec![Some("c")]),
        words(&[None, None], vec![]),
        // A null among the values, and one value twice.
        words(
            &[Some(0), Some(1), Some(2), Some(3)],
            vec![Some("x"), None, Some("x"), Some("b")],
        ),
        words(&[Some(1), Some(0)], vec![None, Some("y")]),
    ];
    let schema = schema_of(vec![Field::new("d", columns[0].data_type().clone(), true)]);
    let batch = |column: &ArrayRef| {
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(column)]).unwrap()
    };
    let batches: Vec<RecordBatch> = columns.iter().map(batch).collect();
    check(&schema, &batches, "grow and shrink");
    let backwards: Vec<RecordBatch> = batches.iter().rev().cloned().collect();
    check(&schema, &backwards, "shrink and grow");
    check(&schema, &batches[3..4], "only nulls");

    let entry = encode_table(&schema, &batches, options(Codec::None)).unwrap();
    let (_, found) = read(&entry.bytes, Verification::Full).unwrap();
    let text = |batches: &[RecordBatch]| -> Vec<Option<String>> {
        let all = batches.iter().flat_map(|batch| {
            let column = batch.column(0).as_dictionary::<Int32Type>();
            let column = column.downcast_dict::<StringArray>().unwrap();
            column
                .into_iter()
                .map(|v| v.map(str::to_owned))
                .collect::<Vec<_>>()
        });
        all.collect()
    };
    assert_eq!(text(&found), text(&batches));
    assert_eq!(
        found[0]
            .column(0)
            .as_dictionary::<Int32Type>()
            .values()
            .len(),
        6,
        "a, b, c, x, null, y"
    );
}

#[test]
fn dictionaries_without_values_come_back() {
    for value in [
        DataType::Int64,
        DataType::Utf8,
        DataType::Utf8View,
        DataType::FixedSizeBinary(16),
    ] {
        let values = arrow_array::new_empty_array(&value);
        let keys = Int32Array::new_null(3);
        let column: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(keys, values));
        let schema = schema_of(vec![Field::new("d", column.data_type().clone(), true)]);
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
        check(&schema, &[batch], &value.to_string());
    }
}

#[test]
fn an_ordered_dictionary_stays_ordered() {
    let data_type = types::dictionary(DataType::Int32, DataType::Utf8);
    #[expect(deprecated, reason = "the only constructor that sets the flag")]
    let field = Field::new_dict("size", data_type, true, 7, true);
    let schema = schema_of(vec![field]);
    let batch = |column| RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
    let batches = [
        batch(words(
            &[Some(0), Some(1), None],
            vec![Some("small"), Some("medium")],
        )),
        batch(words(
            &[Some(2), Some(0)],
            vec![Some("small"), Some("medium"), Some("large")],
        )),
    ];
    check(&schema, &batches, "ordered");
    let entry = encode_table(&schema, &batches, options(Codec::None)).unwrap();
    let (found, _) = read(&entry.bytes, Verification::OnTouch).unwrap();
    assert_eq!(found.field(0).dict_is_ordered(), Some(true));

    let contradicting = [
        batches[0].clone(),
        batch(words(&[Some(0)], vec![Some("medium"), Some("small")])),
    ];
    let error = encode_table(&schema, &contradicting, options(Codec::None))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("size") && error.to_string().contains("unify"),
        "{error}"
    );
}

#[test]
fn dictionaries_that_outgrow_their_keys_are_an_error_that_names_the_column() {
    let batch = |first: i64| {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + 100));
        let keys = arrow_array::Int8Array::from_iter_values(0..100);
        let column: ArrayRef = Arc::new(DictionaryArray::new(keys, values));
        RecordBatch::try_from_iter([("narrow", column)]).unwrap()
    };
    let batches = [batch(0), batch(100)];
    let error = encode_table(&batches[0].schema(), &batches, options(Codec::None))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("narrow"), "{error}");
}

#[test]
fn tables_without_rows_come_back_with_their_schema() {
    let fields = types::all().into_iter().enumerate();
    let schema = schema_of(
        fields
            .map(|(i, t)| Field::new(format!("c{i}"), t, i % 2 == 0))
            .collect(),
    );
    check(&schema, &[], "no batches");
    check(
        &schema,
        &[RecordBatch::new_empty(Arc::clone(&schema))],
        "an empty batch",
    );
}

#[test]
fn empty_batches_among_others_change_nothing() {
    let schema = schema_of(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8View, true),
        Field::new("d", types::dictionary(DataType::Int8, DataType::Utf8), true),
    ]);
    let mut rng = Rng(6);
    let batches: Vec<RecordBatch> = [0, 10, 0, 0, 7, 0]
        .into_iter()
        .map(|rows| batch(&schema, rows, &mut rng))
        .collect();
    check(&schema, &batches, "empty batches");
}

#[test]
fn rows_without_columns_are_counted() {
    let schema = schema_of(vec![]);
    let batch = |rows| {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap()
    };
    check(&schema, &[batch(7)], "seven rows");
    check(
        &schema,
        &[batch(5), batch(0), batch(1 << 40)],
        "very many rows",
    );
    check(&schema, &[batch(0)], "no rows");
    check(&schema, &[], "nothing at all");
}

#[test]
fn ten_thousand_columns_come_back() {
    let kinds = [
        DataType::Int64,
        DataType::Utf8,
        DataType::Boolean,
        DataType::Float32,
    ];
    let fields =
        (0..10_000).map(|i| Field::new(format!("column {i}"), kinds[i % 4].clone(), i % 3 > 0));
    let schema = schema_of(fields.collect());
    let batch = batch(&schema, 11, &mut Rng(7));
    for codec in CODECS {
        let entry = encode_table(&schema, std::slice::from_ref(&batch), options(codec)).unwrap();
        let (found, batches) = read(&entry.bytes, Verification::OnTouch).unwrap();
        assert_same_schema(&found, &schema, "wide");
        assert_same_rows(&batches, std::slice::from_ref(&batch), "wide");
        let table = open(&entry.bytes, Verification::OnTouch).unwrap();
        let some = table.select(&["column 9999", "column 17"]).unwrap();
        let some = block_on(some.read_all()).unwrap();
        assert_same_rows(&some, &[batch.project(&[9999, 17]).unwrap()], "two of many");
    }
}

#[test]
fn metadata_of_schemas_and_fields_comes_back() {
    let pairs = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    let child = Field::new("item", DataType::Int32, true).with_metadata(pairs(&[("deep", "yes")]));
    let uuid = [
        ("ARROW:extension:name", "arrow.uuid"),
        ("ARROW:extension:metadata", ""),
    ];
    let fields = vec![
        Field::new("list", DataType::List(Arc::new(child)), true)
            .with_metadata(pairs(&[("unit", "m/s"), ("", "")])),
        Field::new("id", DataType::FixedSizeBinary(16), false).with_metadata(pairs(&uuid)),
    ];
    let metadata = pairs(&[
        ("pandas", r#"{"index": [], "ß": "漢"}"#),
        ("empty", ""),
        ("long", &"x".repeat(100_000)),
    ]);
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    check(&schema, &[batch(&schema, 50, &mut Rng(8))], "metadata");
    check(&schema, &[], "metadata without rows");
}

#[test]
fn columns_may_share_a_name() {
    let fields = ["a", "b", "a", ""].map(|name| Field::new(name, DataType::Int32, true));
    let schema = schema_of(fields.to_vec());
    let batch = batch(&schema, 20, &mut Rng(9));
    check(&schema, std::slice::from_ref(&batch), "same names");
    let entry = encode_table(&schema, std::slice::from_ref(&batch), options(Codec::None)).unwrap();
    let table = open(&entry.bytes, Verification::OnTouch).unwrap();
    let first = block_on(table.select(&["a"]).unwrap().read_all()).unwrap();
    assert_same_rows(
        &first,
        &[batch.project(&[0]).unwrap()],
        "the first of a name",
    );
}

#[test]
fn batches_that_differ_from_the_table_in_metadata_take_on_its_schema() {
    let plain = schema_of(vec![Field::new("n", DataType::Int32, true)]);
    let noted = Arc::new(Schema::new_with_metadata(
        plain.fields().clone(),
        HashMap::from([("note".to_owned(), "x".to_owned())]),
    ));
    let batch = batch(&noted, 10, &mut Rng(10));
    let entry = encode_table(&plain, std::slice::from_ref(&batch), options(Codec::None)).unwrap();
    let (schema, found) = read(&entry.bytes, Verification::OnTouch).unwrap();
    assert_eq!(schema, plain);
    assert_same_rows(&found, &[batch], "metadata differs");
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    // A required column of the table that has nulls in the batch.
    let required = schema_of(vec![Field::new("n", DataType::Int32, false)]);
    let column: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let nullable = schema_of(vec![Field::new("n", DataType::Int32, true)]);
    let batch = RecordBatch::try_new(nullable, vec![column]).unwrap();
    let error = encode_table(&required, &[batch], options(Codec::None))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");

    // Other columns.
    let other =
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])
            .unwrap();
    let error = encode_table(&required, &[other], options(Codec::None))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");

    // A dictionary of dictionaries, which Arrow IPC cannot express.
    let twice = types::dictionary(
        DataType::Int8,
        types::dictionary(DataType::Int8, DataType::Utf8),
    );
    let schema = schema_of(vec![Field::new("twice", twice, true)]);
    let error = encode_table(&schema, &[], options(Codec::None))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn nesting_too_deep_to_be_read_back_is_refused_when_it_is_written() {
    let mut deepest = 0;
    for depth in [1, 10, 20, 30, 40, 50, 60, 80, 120] {
        let mut data_type = DataType::Int8;
        for _ in 0..depth {
            data_type = DataType::FixedSizeList(types::item(data_type, true), 1);
        }
        let schema = schema_of(vec![Field::new("deep", data_type, true)]);
        for batches in [vec![batch(&schema, 3, &mut Rng(11))], vec![]] {
            match encode_table(&schema, &batches, options(Codec::None)) {
                Ok(entry) => {
                    let (found, _) = read(&entry.bytes, Verification::OnTouch)
                        .unwrap_or_else(|error| panic!("depth {depth} was written: {error}"));
                    assert_eq!(found, schema);
                    deepest = depth;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
            }
        }
    }
    assert!(deepest >= 20, "{deepest}");
}

#[test]
fn options_out_of_range_are_misuse_and_say_what_is_valid() {
    let schema = schema_of(vec![]);
    let bad = [
        EncodeOptions::new().with_batch_bytes(0),
        EncodeOptions::new().with_batch_bytes((1 << 30) + 1),
        EncodeOptions::new().with_workers(0),
        EncodeOptions::new().with_workers(65),
    ];
    for options in bad {
        let error = encode_table(&schema, &[], options).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.to_string().contains("1..="), "{error}");
    }
}

#[test]
fn the_encoder_refuses_to_be_used_out_of_order() {
    let batch =
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])
            .unwrap();
    let mut encoder = ck_arrow::Encoder::new(batch.schema(), EncodeOptions::new()).unwrap();
    encoder.push(batch.clone()).unwrap();
    encoder.end();
    assert_eq!(
        encoder.push(batch.clone()).unwrap_err().kind(),
        ErrorKind::Misuse
    );
    encoder.next_segment().unwrap().expect("a batch");
    assert_eq!(encoder.finish().unwrap_err().kind(), ErrorKind::Misuse);
}
