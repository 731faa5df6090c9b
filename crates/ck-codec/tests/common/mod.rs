//! What the scenario files share.
#![allow(dead_code, reason = "each scenario file uses a part of it")]

use std::any::Any;
use std::sync::Arc;

use arrow_array::types::{Float32Type, Int8Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, FixedSizeListArray, Float16Array, Int64Array, ListArray,
    RecordBatch, StringArray, StringViewArray, UInt8Array,
};
use arrow_buffer::Buffer;
use arrow_schema::{DataType, Field};
use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{CacheCodec, CacheCodecImpl, Order, Tensor};
use ck_core::Result;

/// The same bytes, `lead` bytes after a multiple of 64 in memory.
pub(crate) fn placed(bytes: &[u8], lead: usize) -> Bytes {
    let memory = ck_core::aligned_bytes(lead + bytes.len(), |memory| {
        memory[lead..].copy_from_slice(bytes);
        Ok::<_, ck_core::Error>(())
    });
    memory.unwrap().slice(lead..)
}

/// The same bytes at a multiple of 64 in memory.
pub(crate) fn aligned(bytes: &[u8]) -> Bytes {
    placed(bytes, 0)
}

/// A value as its codec stores it.
pub(crate) fn stored<T: CacheCodecImpl>(value: T) -> Bytes {
    let value: Arc<dyn Any + Send + Sync> = Arc::new(value);
    let mut stored = Vec::new();
    CacheCodec::of::<T>()
        .serialize(&value, &mut stored)
        .unwrap();
    aligned(&stored)
}

/// A value from how its codec stores it.
pub(crate) fn loaded<T: CacheCodecImpl + Clone>(stored: &Bytes) -> Result<T> {
    let value = CacheCodec::of::<T>().deserialize(stored)?;
    Ok(value.downcast_ref::<T>().unwrap().clone())
}

/// Columns of each kind of layout.
pub(crate) fn batch() -> RecordBatch {
    let words: DictionaryArray<Int8Type> = ["a", "b", "a", "c"].into_iter().collect();
    let half = [1.0, -0.5, 2.0, 65504.0].map(half_of);
    let lists = (0..4).map(|row| (row > 0).then(|| vec![Some(row as f32), None]));
    let codes = Arc::new(UInt8Array::from_iter_values(0..12));
    let item = Arc::new(Field::new("item", DataType::UInt8, false));
    let texts = [
        "short",
        "text of more than twelve bytes",
        "",
        "another long text, number two",
    ];
    let columns: [(&str, ArrayRef); 7] = [
        (
            "n",
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)])),
        ),
        ("w", Arc::new(words)),
        (
            "s",
            Arc::new(StringArray::from(vec![
                Some("x"),
                None,
                Some("yy"),
                Some("zzz"),
            ])),
        ),
        ("v", Arc::new(StringViewArray::from_iter_values(texts))),
        ("h", Arc::new(Float16Array::from_iter_values(half))),
        (
            "l",
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists)),
        ),
        ("c", Arc::new(FixedSizeListArray::new(item, 3, codes, None))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn half_of(
    value: f32,
) -> <arrow_array::types::Float16Type as arrow_array::ArrowPrimitiveType>::Native {
    use arrow_array::ArrowPrimitiveType;
    type Half = <arrow_array::types::Float16Type as ArrowPrimitiveType>::Native;
    Half::from_f32(value)
}

/// Two batches with different dictionaries.
pub(crate) fn table() -> Table {
    let batches = vec![batch(), batch().slice(1, 2), batch()];
    Table::new(batches[0].schema(), batches).unwrap()
}

pub(crate) fn tensor() -> Tensor {
    let values: Vec<f32> = (0..60).map(|value| value as f32 / 4.0).collect();
    Tensor::from_values::<Float32Type>(values, [3, 4, 5], Order::ColumnMajor).unwrap()
}

/// All buffers of an array, those of its children included.
pub(crate) fn buffers(array: &dyn Array) -> Vec<Buffer> {
    let mut found = Vec::new();
    let mut todo = vec![array.to_data()];
    while let Some(data) = todo.pop() {
        found.extend(data.buffers().iter().cloned());
        found.extend(data.nulls().map(|nulls| nulls.buffer().clone()));
        todo.extend(data.child_data().iter().cloned());
    }
    found
}

/// Fails unless each buffer that has bytes lies inside of `memory`.
pub(crate) fn assert_inside(memory: &Bytes, buffers: &[Buffer]) {
    let memory = memory.as_ptr_range();
    let buffers: Vec<_> = buffers.iter().filter(|buffer| !buffer.is_empty()).collect();
    assert!(!buffers.is_empty());
    for buffer in buffers {
        let range = buffer.as_slice().as_ptr_range();
        assert!(
            memory.start <= range.start && range.end <= memory.end,
            "a buffer of {} bytes was copied",
            buffer.len()
        );
    }
}
