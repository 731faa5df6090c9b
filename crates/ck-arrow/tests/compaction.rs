//! Guards against compacted tables that still hold what they should have let go of, as the allocator sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryViewArray, DictionaryArray, FixedSizeListArray, Int32Array, Int64Array,
    RecordBatch, StringArray, StringViewArray, StructArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use ck_arrow::{EncodeOptions, Verification, compact, retained_bytes};
use ck_core::block_on;
use common::generate::{Rng, batch};
use common::{aligned, assert_same_rows, encode, open, types};
use testkit::heap::{CountingAllocator, alone, live_here as live};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

/// What the structs around the buffers of a batch may take.
const STRUCTS: usize = 16 << 10;

fn one_column(data_type: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("c", data_type.clone(), true)]))
}

#[test]
fn compacted_slices_of_every_type_let_go_of_the_rest() {
    let _alone = alone();
    for data_type in types::all() {
        let what = data_type.to_string();
        let schema = one_column(&data_type);
        let source = batch(&schema, 8_000, &mut Rng(2));
        let expected = batch(&schema, 8_000, &mut Rng(2)).slice(7_003, 20);
        let whole = retained_bytes([&source]);
        let before = live();
        let compacted = compact(&source.slice(7_003, 20)).unwrap();
        let added = live() - before;
        drop(source);
        let freed = before - (live() - added).min(before);
        assert_same_rows(std::slice::from_ref(&compacted), &[expected], &what);
        let said = retained_bytes([&compacted]);
        // List views point anywhere: they keep all values between the first and the last they show.
        if what.contains("ListView") {
            assert!(said <= whole, "{what}: {said} bytes are left of {whole}");
            continue;
        }
        assert!(
            said <= whole / 20 + 4096,
            "{what}: {said} bytes are left of {whole}"
        );
        assert!(
            freed + STRUCTS + 4096 >= whole,
            "{what}: {freed} bytes of {whole} were freed"
        );
        assert!(
            added <= said + said / 10 + STRUCTS + 4096,
            "{what}: {added} bytes held, {said} said"
        );
    }
}

/// Compacts the row in the middle of a column.
fn one_row_of(column: ArrayRef, what: &str) {
    let row = column.len() / 2;
    let whole = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).unwrap();
    let one = compact(&whole.slice(row, 1)).unwrap();
    assert_same_rows(std::slice::from_ref(&one), &[whole.slice(row, 1)], what);
    let said = retained_bytes([&one]);
    assert!(said < 4096, "{what}: {said} bytes are said to be left");
    let before = live();
    drop(whole);
    let freed = before - live();
    assert!(freed > 500_000, "{what}: {freed} bytes were freed");
}

#[test]
fn a_row_of_views_lets_go_of_the_views_and_the_validity_of_all_others() {
    let _alone = alone();
    let short = |row: usize| row.is_multiple_of(2).then_some("short");
    let long = |row: usize| {
        row.is_multiple_of(2)
            .then_some("a text that is not inlined")
    };
    let rows = 2_000_000;
    let inlined: StringViewArray = (0..rows).map(short).collect();
    one_row_of(Arc::new(inlined), "inlined views");
    let outlined: BinaryViewArray = (0..rows).map(long).collect();
    one_row_of(Arc::new(outlined), "outlined views");
    let nulls = BinaryViewArray::from_iter((0..rows).map(|_| None::<&[u8]>));
    one_row_of(Arc::new(nulls), "nulls");
}

#[test]
fn a_row_of_a_dictionary_lets_go_of_all_that_other_values_show() {
    let _alone = alone();
    let rows = 20_000;
    let keys = || Int32Array::from_iter_values(0..rows);
    let text = || (0..rows).map(|row| format!("a text that is not inlined, number {row}"));
    let views = || Arc::new(StringViewArray::from_iter_values(text())) as ArrayRef;
    let of = |values| Arc::new(DictionaryArray::new(keys(), values)) as ArrayRef;
    one_row_of(of(views()), "views");
    let field = Arc::new(Field::new("item", DataType::Utf8View, true));
    let lists = FixedSizeListArray::new(field, 1, views(), None);
    one_row_of(of(Arc::new(lists)), "lists of views");
    let field = Arc::new(Field::new("f", DataType::Utf8View, true));
    let structs = StructArray::from(vec![(field, views())]);
    one_row_of(of(Arc::new(structs)), "structs of views");
    let strings = of(Arc::new(StringArray::from_iter_values(text())));
    one_row_of(of(strings), "a dictionary");
}

#[test]
fn compacting_a_part_of_an_entry_frees_the_entry() {
    let _alone = alone();
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000_000));
    let source = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let encoded = encode(std::slice::from_ref(&source), EncodeOptions::new());
    let before = live();
    let bytes = aligned(&encoded);
    let table = open(&bytes, Verification::OnTouch).unwrap();
    let rows = block_on(table.rows(500..600).unwrap().read_all())
        .unwrap()
        .remove(0);
    drop(bytes);
    drop(table);
    assert!(live() - before > 8_000_000);
    let small = compact(&rows).unwrap();
    drop(rows);
    assert!(live() - before < STRUCTS, "{} bytes", live() - before);
    assert_same_rows(&[small], &[source.slice(500, 100)], "compacted");
}
