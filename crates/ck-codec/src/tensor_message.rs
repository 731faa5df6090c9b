//! Tensors as Arrow tensor messages: metadata, padded to a multiple of 64, then the values.
//!
//! Format: <https://arrow.apache.org/docs/format/Other.html#tensor-multi-dimensional-array>

use std::borrow::Cow;
use std::io::Write;

use arrow_buffer::Buffer;
use arrow_ipc::{
    MessageArgs, MessageHeader, MetadataVersion, TensorArgs, TensorDim, TensorDimArgs,
};
use bytes::Bytes;
use ck_core::{Error, Result};
use flatbuffers::FlatBufferBuilder;

use crate::align::{ALIGNMENT, padding, write as write_all};
use crate::error::{damaged, unsupported};
use crate::tensor::{Order, Tensor, bytes_of, strides};
use crate::tensor_type;

const CONTINUATION: [u8; 4] = [0xff; 4];
/// The continuation marker and the length that come before the metadata.
const PREFIX_LEN: usize = 8;

/// Writes a tensor; its values straight from where they lie.
pub(crate) fn write(tensor: &Tensor, writer: &mut (impl Write + ?Sized)) -> Result<()> {
    write_all(writer, &metadata(tensor)?)?;
    write_all(writer, tensor.data())
}

/// What stands before the values.
pub(crate) fn metadata(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut fbb = FlatBufferBuilder::new();
    let (type_type, type_) = tensor_type::add(&mut fbb, tensor.data_type()).ok_or_else(|| {
        unsupported("tensors of this type cannot be stored").with("type", tensor.data_type())
    })?;
    // Lengths of memory fit; the lengths beside a zero are the caller's.
    let signed = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let sizes = tensor.shape().iter().map(|len| TensorDimArgs {
        size: signed(*len),
        name: None,
    });
    let sizes: Vec<_> = sizes
        .map(|args| TensorDim::create(&mut fbb, &args))
        .collect();
    let shape = fbb.create_vector(&sizes);
    let strides: Vec<_> = tensor.strides().into_iter().map(signed).collect();
    let strides = (!strides.is_empty()).then(|| fbb.create_vector(&strides));
    let len = signed(tensor.data().len());
    let args = TensorArgs {
        type_type,
        type_: Some(type_),
        shape: Some(shape),
        strides,
        data: Some(&arrow_ipc::Buffer::new(0, len)),
    };
    let header = arrow_ipc::Tensor::create(&mut fbb, &args);
    let args = MessageArgs {
        version: MetadataVersion::V5,
        header_type: MessageHeader::Tensor,
        header: Some(header.as_union_value()),
        bodyLength: len,
        custom_metadata: None,
    };
    let message = arrow_ipc::Message::create(&mut fbb, &args);
    fbb.finish(message, None);
    let flatbuffer = fbb.finished_data();
    let total = (PREFIX_LEN + flatbuffer.len()).next_multiple_of(ALIGNMENT);
    let metadata_len = u32::try_from(total - PREFIX_LEN)
        .map_err(|_| unsupported("a tensor has too many dimensions to be stored"))?;
    let mut metadata = Vec::with_capacity(total);
    metadata.extend_from_slice(&CONTINUATION);
    metadata.extend_from_slice(&metadata_len.to_le_bytes());
    metadata.extend_from_slice(flatbuffer);
    metadata.extend_from_slice(padding(metadata.len() as u64));
    Ok(metadata)
}

/// Reads the one tensor that `data` is; its values stay where they are when they are aligned.
pub(crate) fn decode(data: &Bytes) -> Result<Tensor> {
    let (flatbuffer, body_start) = split(data)?;
    let body = &data[body_start..];
    let flatbuffer = without_empty_strides(flatbuffer);
    let message = arrow_ipc::root_as_message(&flatbuffer).map_err(|error| {
        damaged("the metadata of a tensor is not a valid flatbuffer").with_source(error.to_string())
    })?;
    let tensor = match message.header_type() {
        MessageHeader::Tensor => message.header_as_tensor(),
        MessageHeader::SparseTensor => return Err(unsupported("the tensor is sparse")),
        _ => None,
    };
    let tensor = tensor.ok_or_else(|| damaged("an Arrow message is no tensor"))?;
    if u64::try_from(message.bodyLength()).ok() != Some(body.len() as u64) {
        return Err(damaged("a tensor is truncated, or bytes follow it")
            .with("stored", message.bodyLength())
            .with("found", body.len()));
    }
    let data_type = tensor_type::of(&tensor)
        .ok_or_else(|| unsupported("the tensor has values that are not of a primitive type"))?;
    let sizes = tensor.shape().iter().map(|dim| usize::try_from(dim.size()));
    let shape: Vec<usize> = sizes
        .collect::<Result<_, _>>()
        .map_err(|_| damaged("a tensor has a dimension of negative length"))?;
    let width = data_type.primitive_width().unwrap_or(1);
    let len = bytes_of(&shape, width);
    let range = len.and_then(|len| {
        let start = usize::try_from(tensor.data().offset()).ok()?;
        let stored = usize::try_from(tensor.data().length()).ok()?;
        let end = start.checked_add(len)?;
        (end <= body.len() && stored == len).then_some(start..end)
    });
    let range = range.ok_or_else(|| {
        damaged("a tensor does not have the values of its shape")
            .with("shape", format_args!("{shape:?}"))
            .with("bytes", body.len())
    })?;
    let stored = tensor.strides().map(|strides| strides.iter().collect());
    let order = order(&shape, width, stored.unwrap_or_default())?;
    // A slice of the message, and not a buffer of its own: it tells how much it keeps.
    let message = Buffer::from(data.clone());
    let values = message.slice_with_length(body_start + range.start, range.len());
    Tensor::new(data_type, shape, order, values)
}

/// Metadata without prefix, and where what follows it starts.
fn split(data: &[u8]) -> Result<(&[u8], usize)> {
    let truncated = || -> Error { damaged("a tensor is truncated") };
    let (word, rest) = data.split_first_chunk::<4>().ok_or_else(truncated)?;
    // Before format version 0.15, the length came alone.
    let (len, prefix_len) = if *word == CONTINUATION {
        (rest.first_chunk::<4>().ok_or_else(truncated)?, PREFIX_LEN)
    } else {
        (word, 4)
    };
    let len = usize::try_from(u32::from_le_bytes(*len)).ok();
    let end = len.and_then(|len| prefix_len.checked_add(len));
    let end = end.filter(|end| *end <= data.len()).ok_or_else(truncated)?;
    Ok((&data[prefix_len..end], end))
}

/// pyarrow gives a tensor without dimensions a vector of no strides, and places it where a vector of
/// strides may not lie, so that the checks of flatbuffers refuse the message. Strides that are not there
/// mean the same.
fn without_empty_strides(flatbuffer: &[u8]) -> Cow<'_, [u8]> {
    match empty_strides(flatbuffer) {
        Some(entry) => {
            let mut patched = flatbuffer.to_vec();
            patched[entry..entry + 2].fill(0);
            patched.into()
        }
        None => flatbuffer.into(),
    }
}

/// Where the table of the message's tensor says where its strides are, if these are an empty vector.
fn empty_strides(flatbuffer: &[u8]) -> Option<usize> {
    const HEADER: usize = 2;
    const STRIDES: usize = 3;
    let word = |at: usize| -> Option<usize> {
        let word = flatbuffer.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*word)).ok()
    };
    let half = |at: usize| -> Option<usize> {
        let half = flatbuffer.get(at..)?.first_chunk()?;
        Some(u16::from_le_bytes(*half).into())
    };
    let follow = |at: usize| at.checked_add(word(at)?);
    // The entry in the vtable of the field with this number, and the field.
    let field = |table: usize, number: usize| {
        let back = i32::from_le_bytes(*flatbuffer.get(table..)?.first_chunk()?);
        let vtable = i64::try_from(table).ok()?.checked_sub(back.into())?;
        let vtable = usize::try_from(vtable).ok()?;
        let entry = 4 + 2 * number;
        let offset = half(vtable).filter(|len| entry + 2 <= *len);
        let entry = offset.and_then(|_| vtable.checked_add(entry))?;
        let offset = half(entry).filter(|offset| *offset > 0)?;
        Some((entry, table.checked_add(offset)?))
    };
    let message = follow(0)?;
    let tensor = follow(field(message, HEADER)?.1)?;
    let (entry, strides) = field(tensor, STRIDES)?;
    (word(follow(strides)?)? == 0).then_some(entry)
}

/// The order that strides mean. Those of dimensions with one value, and of tensors without values,
/// mean nothing.
fn order(shape: &[usize], width: usize, stored: Vec<i64>) -> Result<Order> {
    if stored.is_empty() || shape.contains(&0) {
        return Ok(Order::RowMajor);
    }
    let is = |order: Order| {
        let strides = strides(shape, order, width);
        stored.len() == shape.len()
            && (shape.iter().zip(&stored).zip(strides))
                .all(|((len, stored), stride)| *len == 1 || usize::try_from(*stored) == Ok(stride))
    };
    let order = [Order::RowMajor, Order::ColumnMajor].into_iter();
    order.into_iter().find(|order| is(*order)).ok_or_else(|| {
        unsupported("the values of a tensor lie neither in row- nor in column-major order")
            .with("shape", format_args!("{shape:?}"))
            .with("strides", format_args!("{stored:?}"))
    })
}
