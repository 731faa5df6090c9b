//! Guards against values that come back as others: of all types, shapes and layouts, from any address.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, downcast_primitive};
use arrow_buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{Flm, Order, Sections, SectionsWriter, Tensor};
use ck_core::ErrorKind;
use common::{loaded, placed, stored, table, tensor};
use proptest::prelude::*;

/// All primitive types of Arrow.
fn primitive_types() -> Vec<DataType> {
    let mut types = vec![
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Date32,
        DataType::Date64,
        DataType::Time32(TimeUnit::Second),
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Interval(IntervalUnit::YearMonth),
        DataType::Interval(IntervalUnit::DayTime),
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Decimal32(7, 2),
        DataType::Decimal64(17, -2),
        DataType::Decimal128(38, 10),
        DataType::Decimal256(70, 3),
    ];
    for unit in [
        TimeUnit::Second,
        TimeUnit::Millisecond,
        TimeUnit::Microsecond,
        TimeUnit::Nanosecond,
    ] {
        types.push(DataType::Duration(unit));
        types.push(DataType::Timestamp(unit, None));
        types.push(DataType::Timestamp(unit, Some("Europe/Zurich".into())));
    }
    assert!(types.iter().all(DataType::is_primitive));
    types
}

fn orders() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::RowMajor), Just(Order::ColumnMajor)]
}

prop_compose! {
    fn tensors()(
        data_type in prop::sample::select(primitive_types()),
        shape in prop::collection::vec(0_usize..5, 0..5),
        order in orders(),
        seed in any::<u64>(),
    ) -> Tensor {
        let bytes = shape.iter().product::<usize>() * data_type.primitive_width().unwrap();
        Tensor::new(data_type, shape, order, noise(seed, bytes)).unwrap()
    }
}

prop_compose! {
    fn arrays()(
        data_type in prop::sample::select(primitive_types()),
        valid in prop::option::of(prop::collection::vec(any::<bool>(), 0..40)),
        len in 0_usize..40,
        seed in any::<u64>(),
    ) -> ArrayRef {
        macro_rules! array {
            ($type:ty) => {
                array::<$type>(&data_type, valid.clone(), len, seed)
            };
        }
        downcast_primitive! {
            data_type => (array),
            other => unreachable!("{other}"),
        }
    }
}

fn array<T: ArrowPrimitiveType>(
    data_type: &DataType,
    valid: Option<Vec<bool>>,
    len: usize,
    seed: u64,
) -> ArrayRef {
    let len = valid.as_ref().map_or(len, Vec::len);
    let bytes = noise(seed, len * data_type.primitive_width().unwrap());
    let values = ScalarBuffer::new(bytes, 0, len);
    let array = PrimitiveArray::<T>::new(values, valid.map(NullBuffer::from));
    Arc::new(array.with_data_type(data_type.clone()))
}

fn noise(seed: u64, bytes: usize) -> Buffer {
    let mut state = seed | 1;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 8) as u8
    });
    // Where values of any width can lie.
    Buffer::from(&noise.take(bytes).collect::<Vec<_>>()[..])
}

/// NaN is not itself, so values are compared by their bits.
fn same(left: &dyn Array, right: &dyn Array) -> bool {
    let (left, right) = (left.to_data(), right.to_data());
    let width = left.data_type().primitive_width().unwrap();
    let bytes = |data: &Buffer, row: usize| data[row * width..][..width].to_vec();
    left.data_type() == right.data_type()
        && left.len() == right.len()
        && (0..left.len()).all(|row| {
            left.is_null(row) == right.is_null(row)
                && (left.is_null(row)
                    || bytes(&left.buffers()[0], left.offset() + row)
                        == bytes(&right.buffers()[0], right.offset() + row))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tensors_come_back_as_they_were(tensor in tensors(), lead in 0_usize..64) {
        let found: Tensor = loaded(&placed(&stored(tensor.clone()), lead)).unwrap();
        if tensor.is_empty() {
            // Their order means nothing, and is not kept.
            prop_assert_eq!((found.data_type(), found.shape()), (tensor.data_type(), tensor.shape()));
        } else if tensor.shape().iter().filter(|len| **len > 1).count() > 1 {
            prop_assert_eq!(found, tensor);
        } else {
            // With one dimension at most, both orders are the same.
            prop_assert_eq!((found.shape(), found.data()), (tensor.shape(), tensor.data()));
        }
    }

    #[test]
    fn arrays_come_back_as_they_were(array in arrays(), lead in 0_usize..64, cut in 0_usize..8) {
        let cut = cut.min(array.len());
        for array in [array.slice(cut, array.len() - cut), array] {
            let found: ArrayRef = loaded(&placed(&stored(array.clone()), lead)).unwrap();
            prop_assert!(same(&*found, &*array));
            let Flm::Array(found) = Flm::decode(&Flm::Array(array.clone()).to_bytes().unwrap()).unwrap() else {
                unreachable!("an array");
            };
            prop_assert!(same(&*found, &*array));
        }
    }

    #[test]
    fn composite_values_come_back_as_they_were(
        header in prop::collection::vec(any::<u8>(), 0..200),
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6),
        lead in 0_usize..64,
    ) {
        let mut written = Vec::new();
        let mut sections = SectionsWriter::new(&mut written, &header).unwrap();
        for part in &parts {
            sections.bytes(part).unwrap();
        }
        sections.finish().unwrap();
        let sections = Sections::parse(&placed(&written, lead)).unwrap();
        prop_assert_eq!(&sections.header_bytes()[..], header);
        prop_assert_eq!(sections.num_parts(), parts.len());
        for (index, part) in parts.iter().enumerate() {
            prop_assert_eq!(&sections.part(index).unwrap()[..], part);
        }
    }

    #[test]
    fn flm_tensors_of_numbers_come_back_and_others_are_refused(tensor in tensors()) {
        let is_number = tensor.data_type().is_integer() || tensor.data_type().is_floating();
        match Flm::Tensor(tensor.clone()).to_bytes() {
            Ok(payload) => {
                prop_assert!(is_number);
                let Flm::Tensor(found) = Flm::decode(&payload).unwrap() else {
                    unreachable!("a tensor");
                };
                prop_assert_eq!((found.shape(), found.data()), (tensor.shape(), tensor.data()));
            }
            Err(error) => {
                prop_assert!(!is_number);
                prop_assert_eq!(error.kind(), ErrorKind::Unsupported);
            }
        }
    }
}

#[test]
fn tables_without_rows_columns_or_batches_come_back() {
    let rows = table().batches()[0].slice(0, 0);
    let columns = rows.project(&[]).unwrap();
    for table in [
        Table::from(rows),
        Table::from(columns.clone()),
        Table::new(columns.schema(), vec![]).unwrap(),
        Table::new(table().schema().clone(), vec![]).unwrap(),
    ] {
        assert_eq!(loaded::<Table>(&stored(table.clone())).unwrap(), table);
    }
}

#[test]
fn empty_bytes_come_back() {
    assert_eq!(
        loaded::<Bytes>(&stored(Bytes::new())).unwrap(),
        Bytes::new()
    );
}

#[test]
fn a_tensor_has_the_values_of_its_shape() {
    use arrow_array::types::{Float32Type, Int32Type, TimestampSecondType};

    let tensor = tensor();
    assert_eq!((tensor.len(), tensor.is_empty()), (60, false));
    assert_eq!(tensor.strides(), [4, 12, 48]);
    assert_eq!(tensor.position(&[1, 2, 3]), Some(1 + 2 * 3 + 3 * 12));
    assert_eq!(tensor.position(&[3, 0, 0]), None);
    assert_eq!(tensor.position(&[0, 0]), None);
    let error = tensor.values::<Int32Type>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);

    let zoned = DataType::Timestamp(TimeUnit::Second, Some("UTC".into()));
    let scalar = Tensor::new(zoned, [], Order::RowMajor, Buffer::from_vec(vec![7_i64])).unwrap();
    assert_eq!(scalar.values::<TimestampSecondType>().unwrap()[..], [7]);
    assert_eq!(scalar.position(&[]), Some(0));

    let wrong = |data_type: DataType, shape: &[usize], bytes: usize| {
        let data = Buffer::from_vec(vec![0_u8; bytes]);
        let error = Tensor::new(data_type, shape, Order::RowMajor, data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    };
    wrong(DataType::Float32, &[2, 3], 23);
    wrong(DataType::Float32, &[2, 3], 28);
    wrong(DataType::Float32, &[usize::MAX, usize::MAX], 4);
    wrong(DataType::Boolean, &[8], 1);
    wrong(DataType::Utf8, &[0], 0);
    let misplaced = Buffer::from_vec(vec![0_u8, 1, 2, 3, 4]).slice(1);
    let moved = Tensor::new(DataType::Float32, [1], Order::RowMajor, misplaced).unwrap();
    assert_eq!(moved.data().as_slice(), [1, 2, 3, 4]);
    assert_eq!(moved.values::<Float32Type>().unwrap().len(), 1);
}
