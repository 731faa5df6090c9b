use std::io::Write;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;
use ck_arrow::{Table, decode_ipc_stream, encode_ipc_stream};
use ck_core::Result;

use crate::align::{gathered, write};
use crate::error::unsupported;
use crate::tensor::Tensor;
use crate::tensor_message;
use crate::values::{batch_of, only_batch, only_column};

/// A payload of the Python client `flamepy`: `"FLM"`, a type byte, and a value.
///
/// Pickles are recognised and handed out as bytes. They are programs, and are never run.
///
/// # Memory
///
/// The marker costs no copy: reading borrows from what follows it, writing hands out the source's
/// buffers. But Arrow wants buffers at multiples of their width: numbers behind a marker at an aligned
/// address are misaligned, and Arrow copies them. [`Flm::aligned`] puts payloads where they need no
/// copy: byte 4 at a multiple of 64.
///
/// # Examples
///
/// ```
/// use arrow_array::types::Float32Type;
/// use ck_codec::{Flm, Order, Tensor};
///
/// let tensor = Tensor::from_values::<Float32Type>(vec![1.0, 2.0], [1, 2], Order::RowMajor)?;
/// let payload = Flm::Tensor(tensor.clone()).to_bytes()?;
/// assert!(payload.starts_with(b"FLM\x01"));
/// assert_eq!(Flm::decode(&payload)?, Flm::Tensor(tensor));
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Flm {
    /// A pickle of the `cloudpickle` module, without the marker.
    CloudPickle(Bytes),
    /// A numpy array.
    Tensor(Tensor),
    /// A table.
    Table(Table),
    /// An array.
    Array(ArrayRef),
    /// A record batch.
    Batch(RecordBatch),
    /// Bytes without a marker, which `flamepy` takes for a pickle of before it had markers.
    Unmarked(Bytes),
}

const CLOUDPICKLE: &[u8; Flm::VALUE_START] = b"FLM\x00";
const TENSOR: &[u8; Flm::VALUE_START] = b"FLM\x01";
const TABLE: &[u8; Flm::VALUE_START] = b"FLM\x02";
const ARRAY: &[u8; Flm::VALUE_START] = b"FLM\x03";
const BATCH: &[u8; Flm::VALUE_START] = b"FLM\x04";

impl Flm {
    /// Where the value starts in a payload: after the marker.
    pub const VALUE_START: usize = 4;

    /// Reads a payload. What it gives borrows from `payload`.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](ck_core::ErrorKind::Corrupt) when the value is not what its type says,
    /// [`Unsupported`](ck_core::ErrorKind::Unsupported) for a type byte above 4, and for a tensor that is
    /// neither in row- nor in column-major order.
    pub fn decode(payload: &Bytes) -> Result<Self> {
        let value = || payload.slice(Self::VALUE_START..);
        Ok(match payload.first_chunk() {
            Some(CLOUDPICKLE) => Self::CloudPickle(value()),
            Some(TENSOR) => Self::Tensor(tensor_message::decode(&value())?),
            Some(TABLE) => Self::Table(decode_ipc_stream(&value())?),
            Some(ARRAY) => Self::Array(only_column(decode_ipc_stream(&value())?)?),
            Some(BATCH) => Self::Batch(only_batch(decode_ipc_stream(&value())?)?),
            Some([b'F', b'L', b'M', kind]) => {
                return Err(unsupported("the payload is of an unknown type").with("type", kind));
            }
            _ => Self::Unmarked(payload.clone()),
        })
    }

    /// Gives the payload segment by segment; column buffers and tensors are shared, not copied.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ck_core::ErrorKind::Unsupported) for what `flamepy` cannot read (tensors of other
    /// than integers and floats) and for pickles; whatever `segment` returns.
    pub fn encode(&self, mut segment: impl FnMut(Bytes) -> Result<()>) -> Result<()> {
        match self {
            Self::Tensor(tensor) => {
                check_tensor(tensor)?;
                let metadata = tensor_message::metadata(tensor)?;
                segment(Bytes::from_static(TENSOR))?;
                segment(metadata.into())?;
                segment(Bytes::from_owner(tensor.data().clone()))
            }
            Self::Table(table) => {
                segment(Bytes::from_static(TABLE))?;
                encode_ipc_stream(table, segment)
            }
            Self::Array(array) => {
                let batch = batch_of(array)?;
                segment(Bytes::from_static(ARRAY))?;
                encode_ipc_stream(&batch.into(), segment)
            }
            Self::Batch(batch) => {
                segment(Bytes::from_static(BATCH))?;
                encode_ipc_stream(&batch.into(), segment)
            }
            Self::CloudPickle(_) | Self::Unmarked(_) => {
                Err(unsupported("pickles are read as bytes and never written"))
            }
        }
    }

    /// Writes the payload; column buffers and tensors straight from where they lie.
    ///
    /// # Errors
    ///
    /// Those of [`Flm::encode`] and of the writer.
    pub fn write(&self, writer: &mut dyn Write) -> Result<()> {
        self.encode(|segment| write(writer, &segment))
    }

    /// The payload in one piece, placed as by [`Flm::aligned`].
    ///
    /// # Memory
    ///
    /// One copy of the value.
    ///
    /// # Errors
    ///
    /// Those of [`Flm::encode`].
    pub fn to_bytes(&self) -> Result<Bytes> {
        let mut segments = Vec::new();
        self.encode(|segment| {
            segments.push(segment);
            Ok(())
        })?;
        gathered(&segments, Self::VALUE_START)
    }

    /// The payload with its value at a multiple of 64 in memory, so that [`Flm::decode`] copies nothing.
    ///
    /// # Memory
    ///
    /// One copy, unless the payload lies so already.
    ///
    /// # Errors
    ///
    /// None for payloads that fit in memory.
    pub fn aligned(payload: &Bytes) -> Result<Bytes> {
        let value = payload.get(Self::VALUE_START..).unwrap_or_default();
        if value.is_empty() || (value.as_ptr() as usize).is_multiple_of(crate::align::ALIGNMENT) {
            return Ok(payload.clone());
        }
        gathered(std::slice::from_ref(payload), Self::VALUE_START)
    }
}

/// Fails for tensors that `pyarrow.ipc.read_tensor` refuses.
fn check_tensor(tensor: &Tensor) -> Result<()> {
    match tensor.data_type() {
        data_type if data_type.is_integer() || data_type.is_floating() => Ok(()),
        data_type => Err(
            unsupported("flamepy reads tensors of integers and floats only")
                .with("type", DataType::clone(data_type)),
        ),
    }
}
