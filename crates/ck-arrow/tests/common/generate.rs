//! Arrays of any type with values made up from a seed.

use std::sync::Arc;

use arrow_array::types::{
    ArrowDictionaryKeyType, Int8Type, Int16Type, Int32Type, Int64Type, RunEndIndexType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryViewArray, BooleanArray, DictionaryArray,
    FixedSizeBinaryArray, FixedSizeListArray, GenericBinaryArray, GenericListArray,
    GenericListViewArray, GenericStringArray, MapArray, NullArray, OffsetSizeTrait, PrimitiveArray,
    RecordBatch, RecordBatchOptions, StringViewArray, StructArray, UnionArray, downcast_primitive,
    make_array,
};
use arrow_buffer::{
    ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer,
};
use arrow_data::ArrayDataBuilder;
use arrow_schema::{DataType, Field, FieldRef, SchemaRef, UnionFields, UnionMode};

/// SplitMix64: the same numbers everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 when that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A batch of this schema; nullable fields get nulls.
pub(crate) fn batch(schema: &SchemaRef, rows: usize, rng: &mut Rng) -> RecordBatch {
    let columns = schema
        .fields()
        .iter()
        .map(|field| array(field, rows, rng))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).unwrap()
}

/// An array for this field.
pub(crate) fn array(field: &Field, rows: usize, rng: &mut Rng) -> ArrayRef {
    // Now and then a nullable column without any null.
    let nulls = (field.is_nullable() && !rng.one_in(8))
        .then(|| NullBuffer::new(BooleanBuffer::collect_bool(rows, |_| !rng.one_in(4))));
    let data_type = field.data_type();
    macro_rules! primitive {
        ($t:ty) => {
            Arc::new(
                PrimitiveArray::<$t>::new(values::<$t>(rows, rng), nulls)
                    .with_data_type(data_type.clone()),
            )
        };
    }
    downcast_primitive! {
        data_type => (primitive),
        DataType::Null => Arc::new(NullArray::new(rows)),
        DataType::Boolean => {
            Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(rows, |_| rng.one_in(2)), nulls))
        }
        DataType::Utf8 => text_array::<i32>(&texts(rows, nulls.as_ref(), rng)),
        DataType::LargeUtf8 => text_array::<i64>(&texts(rows, nulls.as_ref(), rng)),
        DataType::Binary => byte_array::<i32>(&texts(rows, nulls.as_ref(), rng)),
        DataType::LargeBinary => byte_array::<i64>(&texts(rows, nulls.as_ref(), rng)),
        DataType::Utf8View => Arc::new(texts(rows, nulls.as_ref(), rng).into_iter().collect::<StringViewArray>()),
        DataType::BinaryView => {
            let texts = texts(rows, nulls.as_ref(), rng);
            Arc::new(texts.iter().map(|t| t.as_ref().map(String::as_bytes)).collect::<BinaryViewArray>())
        }
        DataType::FixedSizeBinary(width) => {
            let bytes: Vec<u8> = (0..rows * *width as usize).map(|_| rng.next() as u8).collect();
            Arc::new(FixedSizeBinaryArray::try_new_with_len(*width, bytes.into(), nulls, rows).unwrap())
        }
        DataType::List(child) => list::<i32>(child, rows, nulls, rng),
        DataType::LargeList(child) => list::<i64>(child, rows, nulls, rng),
        DataType::ListView(child) => list_view::<i32>(child, rows, nulls, rng),
        DataType::LargeListView(child) => list_view::<i64>(child, rows, nulls, rng),
        DataType::FixedSizeList(child, size) => {
            let values = array(child, rows * *size as usize, rng);
            let child = Arc::clone(child);
            Arc::new(FixedSizeListArray::try_new_with_length(child, *size, values, nulls, rows).unwrap())
        }
        DataType::Struct(fields) => {
            let children = fields.iter().map(|field| array(field, rows, rng)).collect();
            Arc::new(StructArray::try_new_with_length(fields.clone(), children, nulls, rows).unwrap())
        }
        DataType::Map(entries, sorted) => {
            let (offsets, total) = offsets::<i32>(rows, rng);
            let values = array(entries, total, rng);
            let values: &StructArray = values.as_any().downcast_ref().unwrap();
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, values.clone(), nulls, *sorted).unwrap())
        }
        DataType::Union(fields, mode) => union(fields, *mode, rows, rng),
        DataType::RunEndEncoded(ends, values) => match ends.data_type() {
            DataType::Int16 => runs::<Int16Type>(data_type, values, rows, rng),
            DataType::Int32 => runs::<Int32Type>(data_type, values, rows, rng),
            _ => runs::<Int64Type>(data_type, values, rows, rng),
        },
        DataType::Dictionary(key, value) => {
            let value = Field::new("", value.as_ref().clone(), field.is_nullable());
            match key.as_ref() {
                DataType::Int8 => dictionary::<Int8Type>(&value, rows, nulls, rng),
                DataType::Int16 => dictionary::<Int16Type>(&value, rows, nulls, rng),
                DataType::Int32 => dictionary::<Int32Type>(&value, rows, nulls, rng),
                DataType::Int64 => dictionary::<Int64Type>(&value, rows, nulls, rng),
                DataType::UInt8 => dictionary::<UInt8Type>(&value, rows, nulls, rng),
                DataType::UInt16 => dictionary::<UInt16Type>(&value, rows, nulls, rng),
                DataType::UInt32 => dictionary::<UInt32Type>(&value, rows, nulls, rng),
                _ => dictionary::<UInt64Type>(&value, rows, nulls, rng),
            }
        }
        other => panic!("no generator for {other}"),
    }
}

/// Zeros, ones, small and large numbers; decimals stay within any precision of their width.
fn values<T: ArrowPrimitiveType>(rows: usize, rng: &mut Rng) -> ScalarBuffer<T::Native> {
    let width = size_of::<T::Native>();
    let mut bytes = vec![0_u8; rows * width];
    for value in bytes.chunks_mut(width) {
        match rng.below(4) {
            0 => {}
            1 => value.fill(0xff),
            _ => value[..width.div_ceil(2)].fill_with(|| rng.next() as u8),
        }
    }
    ScalarBuffer::new(Buffer::from(bytes.as_slice()), 0, rows)
}

fn texts(rows: usize, nulls: Option<&NullBuffer>, rng: &mut Rng) -> Vec<Option<String>> {
    let text = |rng: &mut Rng| {
        let len = [0, 3, 12, 13, 40][rng.below(5)];
        (0..len)
            .map(|_| ['a', 'b', 'ß', '漢', 'z', ' '][rng.below(6)])
            .collect()
    };
    (0..rows)
        .map(|row| {
            nulls
                .is_none_or(|nulls| nulls.is_valid(row))
                .then(|| text(rng))
        })
        .collect()
}

fn text_array<O: OffsetSizeTrait>(texts: &[Option<String>]) -> ArrayRef {
    Arc::new(
        texts
            .iter()
            .map(Option::as_ref)
            .collect::<GenericStringArray<O>>(),
    )
}

fn byte_array<O: OffsetSizeTrait>(texts: &[Option<String>]) -> ArrayRef {
    Arc::new(
        texts
            .iter()
            .map(|text| text.as_ref().map(String::as_bytes))
            .collect::<GenericBinaryArray<O>>(),
    )
}

fn offsets<O: OffsetSizeTrait>(rows: usize, rng: &mut Rng) -> (OffsetBuffer<O>, usize) {
    let lengths: Vec<usize> = (0..rows).map(|_| [0, 1, 2, 5][rng.below(4)]).collect();
    let total = lengths.iter().sum();
    (OffsetBuffer::from_lengths(lengths), total)
}

fn list<O: OffsetSizeTrait>(
    child: &FieldRef,
    rows: usize,
    nulls: Option<NullBuffer>,
    rng: &mut Rng,
) -> ArrayRef {
    let (offsets, total) = offsets::<O>(rows, rng);
    let values = array(child, total, rng);
    Arc::new(GenericListArray::<O>::try_new(Arc::clone(child), offsets, values, nulls).unwrap())
}

/// Lists that lie in any order, overlap, and leave values unused.
fn list_view<O: OffsetSizeTrait>(
    child: &FieldRef,
    rows: usize,
    nulls: Option<NullBuffer>,
    rng: &mut Rng,
) -> ArrayRef {
    let total = 3 + 2 * rows;
    let values = array(child, total, rng);
    let sizes: Vec<usize> = (0..rows).map(|_| rng.below(4)).collect();
    let offsets: ScalarBuffer<O> = sizes
        .iter()
        .map(|size| O::usize_as(rng.below(total - size + 1)))
        .collect();
    let sizes: ScalarBuffer<O> = sizes.into_iter().map(O::usize_as).collect();
    Arc::new(
        GenericListViewArray::<O>::try_new(Arc::clone(child), offsets, sizes, values, nulls)
            .unwrap(),
    )
}

fn union(fields: &UnionFields, mode: UnionMode, rows: usize, rng: &mut Rng) -> ArrayRef {
    let ids: Vec<i8> = fields.iter().map(|(id, _)| id).collect();
    let types: Vec<i8> = (0..rows).map(|_| ids[rng.below(ids.len())]).collect();
    let mut offsets = Vec::with_capacity(rows);
    let mut used = vec![0_usize; ids.len()];
    for kind in &types {
        let place = ids.iter().position(|id| id == kind).unwrap();
        offsets.push(used[place] as i32);
        used[place] += 1;
    }
    let is_dense = mode == UnionMode::Dense;
    let children = fields.iter().zip(used);
    // Dense children have values that no row uses.
    let children = children
        .map(|((_, field), used)| array(field, if is_dense { used + 2 } else { rows }, rng));
    let children = children.collect();
    let offsets = is_dense.then(|| ScalarBuffer::from(offsets));
    Arc::new(UnionArray::try_new(fields.clone(), types.into(), offsets, children).unwrap())
}

fn runs<R: RunEndIndexType>(
    data_type: &DataType,
    values: &FieldRef,
    rows: usize,
    rng: &mut Rng,
) -> ArrayRef {
    let mut ends = Vec::new();
    let mut end = 0;
    while end < rows {
        end = (end + 1 + rng.below(6)).min(rows);
        ends.push(R::Native::usize_as(end));
    }
    let values = array(values, ends.len(), rng);
    let ends = PrimitiveArray::<R>::from_iter_values(ends);
    let data = ArrayDataBuilder::new(data_type.clone())
        .len(rows)
        .add_child_data(ends.into_data())
        .add_child_data(values.into_data());
    make_array(data.build().unwrap())
}

fn dictionary<K: ArrowDictionaryKeyType>(
    values: &Field,
    rows: usize,
    nulls: Option<NullBuffer>,
    rng: &mut Rng,
) -> ArrayRef {
    let len = 1 + rng.below(6);
    let values = array(values, len, rng);
    let keys: ScalarBuffer<K::Native> = (0..rows)
        .map(|_| K::Native::usize_as(rng.below(len)))
        .collect();
    Arc::new(DictionaryArray::<K>::try_new(PrimitiveArray::new(keys, nulls), values).unwrap())
}
