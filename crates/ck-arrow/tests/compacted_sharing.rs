//! Guards compacted tables whose batches share things, above all dictionaries with keys of every width up to
//! its last value, null, and pointing nowhere under a null.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int64Array, NullArray, PrimitiveArray, RecordBatch,
    StringArray,
};
use arrow_buffer::{ArrowNativeType, NullBuffer, ScalarBuffer};
use ck_arrow::Table;

fn text(value: usize) -> String {
    format!("a long enough text for value number {value}")
}

/// As many values as keys of this type can tell apart, or 70,000.
fn values<K: ArrowDictionaryKeyType>() -> usize {
    match size_of::<K::Native>() {
        1 => 128 + usize::from(K::Native::from_usize(255).is_some()) * 128,
        2 => (1 << 15) + usize::from(K::Native::from_usize(65_535).is_some()) * (1 << 15),
        _ => 70_000,
    }
}

/// One batch for each list of rows; `None` is a null over a key that is no place in the dictionary.
fn table<K: ArrowDictionaryKeyType>(batches: &[Vec<Option<usize>>], values: &ArrayRef) -> Table {
    let wrong = K::Native::from_usize(values.len() - 1).unwrap();
    let batch = |rows: &Vec<Option<usize>>| {
        // Built by hand: the largest key there is, under a null.
        let keys = rows.iter().map(|row| match row {
            Some(value) => K::Native::usize_as(*value),
            None => wrong,
        });
        let nulls: NullBuffer = rows.iter().map(Option::is_some).collect();
        let keys: ScalarBuffer<K::Native> = keys.collect();
        let keys = PrimitiveArray::<K>::new(keys, Some(nulls));
        let column: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::clone(values)));
        RecordBatch::try_from_iter_with_nullable([("d", column, true)]).unwrap()
    };
    let batches: Vec<RecordBatch> = batches.iter().map(batch).collect();
    Table::new(batches[0].schema(), batches).unwrap()
}

fn check<K: ArrowDictionaryKeyType>(batches: &[Vec<Option<usize>>], left: usize) {
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..values::<K>()).map(text)));
    let table = table::<K>(batches, &values);
    let compacted = table.compacted().unwrap();
    let mut shared = None;
    for (batch, expected) in compacted.batches().iter().zip(batches) {
        let column: &DictionaryArray<K> = batch.column(0).as_dictionary();
        column.to_data().validate_full().unwrap();
        assert_eq!(column.values().len(), left);
        let one = shared.get_or_insert_with(|| Arc::clone(column.values()));
        assert!(Arc::ptr_eq(one, column.values()));
        let found = column.downcast_dict::<StringArray>().unwrap();
        let found: Vec<Option<String>> = found.into_iter().map(|v| v.map(Into::into)).collect();
        let expected: Vec<_> = expected.iter().map(|value| value.map(text)).collect();
        assert_eq!(found, expected);
    }
}

fn check_all<K: ArrowDictionaryKeyType>() {
    let last = values::<K>() - 1;
    // The last value only; first and last in two batches; all but one; none at all.
    check::<K>(&[vec![Some(last), None, Some(last)]], 1);
    check::<K>(&[vec![Some(last)], vec![None, Some(0)], vec![]], 2);
    check::<K>(&[vec![None, None], vec![None]], 0);
    check::<K>(&[vec![], vec![]], 0);
    let half: Vec<Option<usize>> = (0..=last).rev().step_by(2).map(Some).collect();
    check::<K>(&[half.clone(), half[1..].to_vec()], half.len());
}

#[test]
fn keys_of_every_width_lead_to_the_same_values() {
    check_all::<Int8Type>();
    check_all::<Int16Type>();
    check_all::<Int32Type>();
    check_all::<Int64Type>();
    check_all::<UInt8Type>();
    check_all::<UInt16Type>();
    check_all::<UInt32Type>();
    check_all::<UInt64Type>();
}

#[test]
fn keys_that_point_nowhere_under_a_null_do_no_harm() {
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..20_000).map(text)));
    for wrong in [-1, i32::MIN, i32::MAX, 20_000] {
        let keys = PrimitiveArray::<Int32Type>::new(
            vec![wrong, 19_999, wrong].into(),
            Some(NullBuffer::from(vec![false, true, false])),
        );
        let column: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::clone(&values)));
        let batch = RecordBatch::try_from_iter_with_nullable([("d", column, true)]).unwrap();
        let compacted = Table::from(batch).compacted().unwrap();
        let column: &DictionaryArray<Int32Type> = compacted.batches()[0].column(0).as_dictionary();
        column.to_data().validate_full().unwrap();
        let found: Vec<_> = column
            .downcast_dict::<StringArray>()
            .unwrap()
            .into_iter()
            .collect();
        assert_eq!(found, [None, Some(&*text(19_999)), None]);
    }
}

#[test]
fn columns_with_keys_of_two_widths_share_one_dictionary() {
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..256).map(text)));
    let narrow = DictionaryArray::<UInt8Type>::new(vec![255, 3].into(), Arc::clone(&values));
    let wide = DictionaryArray::<Int64Type>::new(vec![200, 255].into(), values);
    let columns: [(&str, ArrayRef); 2] = [("n", Arc::new(narrow)), ("w", Arc::new(wide))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let compacted = Table::from(batch).compacted().unwrap();
    let batch = &compacted.batches()[0];
    let narrow: &DictionaryArray<UInt8Type> = batch.column(0).as_dictionary();
    let wide: &DictionaryArray<Int64Type> = batch.column(1).as_dictionary();
    assert!(Arc::ptr_eq(narrow.values(), wide.values()));
    let texts = narrow.values().as_string::<i32>();
    assert_eq!(
        texts.iter().flatten().collect::<Vec<_>>(),
        [3, 200, 255].map(text)
    );
    assert_eq!(
        (
            narrow.keys().values().to_vec(),
            wide.keys().values().to_vec()
        ),
        (vec![2, 0], vec![1, 2])
    );
}

#[test]
fn dictionaries_of_more_values_than_memory_could_mark_do_no_harm() {
    // Nulls take no memory, however many they are.
    let values: ArrayRef = Arc::new(NullArray::new(1 << 40));
    let keys = PrimitiveArray::<Int64Type>::from_iter_values(0..10_000);
    let column: ArrayRef = Arc::new(DictionaryArray::new(keys, values));
    let batch = RecordBatch::try_from_iter_with_nullable([("d", column, true)]).unwrap();
    let table = Table::from(batch.slice(5_000, 10));
    let compacted = table.compacted().unwrap();
    assert!(compacted.heap_bytes(None) < 4096);
    let column: &DictionaryArray<Int64Type> = compacted.batches()[0].column(0).as_dictionary();
    assert_eq!(
        column.keys().values()[..],
        (5_000..5_010).collect::<Vec<_>>()
    );
    assert_eq!(column.values().len(), 1 << 40);
}

#[test]
fn a_column_that_many_batches_share_is_not_taken_for_many() {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
    let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let half = batch.slice(10_000, 50_000);
    let table = Table::new(batch.schema(), vec![half; 100]).unwrap();
    let compacted = table.compacted().unwrap();
    assert_eq!(compacted, table);
    assert!(compacted.heap_bytes(None) < 420_000);
}
