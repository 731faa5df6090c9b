//! Every Arrow type, and nested ones of every shape.

use std::sync::Arc;

use arrow_schema::{
    DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit, UnionFields, UnionMode,
};

use DataType::*;

pub(crate) fn item(data_type: DataType, nullable: bool) -> FieldRef {
    Arc::new(Field::new("item", data_type, nullable))
}

pub(crate) fn dictionary(key: DataType, value: DataType) -> DataType {
    Dictionary(Box::new(key), Box::new(value))
}

/// Whether a field of this type may be declared without nulls. Types whose nulls are not their own, but
/// inside of them, are always nullable here.
pub(crate) fn can_be_required(data_type: &DataType) -> bool {
    match data_type {
        Null | Union(_, _) | RunEndEncoded(_, _) => false,
        Dictionary(_, values) => can_be_required(values),
        _ => true,
    }
}

pub(crate) fn structure(children: Vec<DataType>) -> DataType {
    // Every other child is required.
    let field = |(i, child): (usize, DataType)| {
        let nullable = i % 2 == 0 || !can_be_required(&child);
        Field::new(format!("f{i}"), child, nullable)
    };
    Struct(
        children
            .into_iter()
            .enumerate()
            .map(field)
            .collect::<Fields>(),
    )
}

pub(crate) fn map(key: DataType, value: DataType, sorted: bool) -> DataType {
    let entries = Fields::from(vec![
        Field::new("keys", key, false),
        Field::new("values", value, true),
    ]);
    Map(
        Arc::new(Field::new("entries", Struct(entries), false)),
        sorted,
    )
}

pub(crate) fn union(mode: UnionMode, children: Vec<DataType>) -> DataType {
    let field = |(i, child): (usize, DataType)| {
        (
            2 + 3 * i as i8,
            Arc::new(Field::new(format!("u{i}"), child, true)),
        )
    };
    Union(
        children
            .into_iter()
            .enumerate()
            .map(field)
            .collect::<UnionFields>(),
        mode,
    )
}

pub(crate) fn run_ends(ends: DataType, values: DataType) -> DataType {
    RunEndEncoded(
        Arc::new(Field::new("run_ends", ends, false)),
        Arc::new(Field::new("values", values, true)),
    )
}

/// The types without children.
pub(crate) fn flat() -> Vec<DataType> {
    let mut types = vec![
        Null,
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Decimal32(9, 2),
        Decimal64(18, -3),
        Decimal128(38, 10),
        Decimal256(76, 76),
        Date32,
        Date64,
        Time32(TimeUnit::Second),
        Time32(TimeUnit::Millisecond),
        Time64(TimeUnit::Microsecond),
        Time64(TimeUnit::Nanosecond),
        Interval(IntervalUnit::YearMonth),
        Interval(IntervalUnit::DayTime),
        Interval(IntervalUnit::MonthDayNano),
        Utf8,
        LargeUtf8,
        Binary,
        LargeBinary,
        Utf8View,
        BinaryView,
        FixedSizeBinary(1),
        FixedSizeBinary(5),
        FixedSizeBinary(16),
    ];
    for unit in [
        TimeUnit::Second,
        TimeUnit::Millisecond,
        TimeUnit::Microsecond,
        TimeUnit::Nanosecond,
    ] {
        types.push(Duration(unit));
        for zone in [None, Some("UTC"), Some("+02:00"), Some("Europe/Berlin")] {
            types.push(Timestamp(unit, zone.map(Into::into)));
        }
    }
    types
}

/// Dictionaries: of every key type, of every kind of value, and at every place.
pub(crate) fn dictionaries() -> Vec<DataType> {
    let keys = [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64];
    let mut types: Vec<DataType> = keys.into_iter().map(|key| dictionary(key, Utf8)).collect();
    let values = [
        Boolean,
        Int32,
        Float64,
        Decimal128(10, 2),
        Timestamp(TimeUnit::Second, Some("UTC".into())),
        LargeUtf8,
        Binary,
        Utf8View,
        BinaryView,
        FixedSizeBinary(3),
    ];
    types.extend(values.into_iter().map(|value| dictionary(Int32, value)));
    let text = || dictionary(Int16, Utf8);
    types.extend([
        List(item(text(), true)),
        LargeList(item(text(), false)),
        FixedSizeList(item(text(), true), 2),
        ListView(item(text(), true)),
        structure(vec![text(), dictionary(Int8, Int64), Int32]),
        map(text(), dictionary(UInt8, Utf8View), false),
        union(UnionMode::Sparse, vec![text(), Int8]),
        union(UnionMode::Dense, vec![Int8, text()]),
        run_ends(Int32, text()),
        List(item(
            structure(vec![text(), List(item(dictionary(Int32, LargeUtf8), true))]),
            true,
        )),
        // Dictionaries whose values are nested, and have dictionaries in them.
        dictionary(Int32, List(item(Int64, true))),
        dictionary(Int32, structure(vec![Int64, Utf8])),
        dictionary(Int64, structure(vec![text(), Int32])),
    ]);
    types
}

/// Types with children.
pub(crate) fn nested() -> Vec<DataType> {
    vec![
        List(item(Int32, true)),
        List(item(Boolean, true)),
        List(item(Null, true)),
        LargeList(item(Utf8, false)),
        FixedSizeList(item(Int16, true), 3),
        FixedSizeList(item(Utf8View, true), 2),
        FixedSizeList(item(Int64, true), 0),
        ListView(item(Int32, true)),
        ListView(item(Utf8, true)),
        LargeListView(item(structure(vec![Int8, Utf8View]), true)),
        structure(vec![Int32, Utf8, Boolean]),
        structure(vec![]),
        structure(vec![structure(vec![]), Null, FixedSizeBinary(3)]),
        map(Utf8, Int64, false),
        map(Int32, Utf8View, true),
        map(Utf8, List(item(Float64, true)), false),
        union(UnionMode::Sparse, vec![Int32, Utf8, Null]),
        union(UnionMode::Dense, vec![Int32, Utf8, Boolean]),
        union(
            UnionMode::Dense,
            vec![List(item(Int32, true)), structure(vec![Int8, Utf8View])],
        ),
        run_ends(Int16, Int32),
        run_ends(Int32, Utf8),
        run_ends(Int64, List(item(Int16, true))),
        List(item(
            List(item(structure(vec![Utf8, map(Utf8, Int32, false)]), true)),
            true,
        )),
        List(item(union(UnionMode::Dense, vec![Utf8View, Int64]), true)),
        List(item(run_ends(Int32, Utf8), true)),
        structure(vec![
            run_ends(Int32, Int64),
            ListView(item(Utf8View, true)),
            union(UnionMode::Sparse, vec![Int8]),
        ]),
        FixedSizeList(item(FixedSizeList(item(Boolean, true), 3), true), 2),
    ]
}

pub(crate) fn all() -> Vec<DataType> {
    [flat(), nested(), dictionaries()].concat()
}
