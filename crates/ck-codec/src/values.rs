//! The codecs of values that need no serializer.

use std::io::Write;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};
use bytes::Bytes;
use ck_arrow::{Table, decode_ipc_stream, encode_ipc_stream};
use ck_core::{Error, ErrorKind, Result};

use crate::align::write;
use crate::codec::CacheCodecImpl;
use crate::error::damaged;
use crate::tensor::Tensor;
use crate::tensor_message;

/// As they are.
impl CacheCodecImpl for Bytes {
    const TYPE: &'static str = "ck.bytes";
    const VERSION: u32 = 1;

    fn serialize(&self, writer: &mut dyn Write) -> Result<()> {
        write(writer, self)
    }

    fn deserialize(data: &Bytes) -> Result<Self> {
        Ok(data.clone())
    }
}

/// As an uncompressed Arrow IPC stream; column buffers are neither copied on the way out nor, when they
/// are aligned, on the way in.
impl CacheCodecImpl for Table {
    const TYPE: &'static str = "ck.table";
    const VERSION: u32 = 1;

    fn serialize(&self, writer: &mut dyn Write) -> Result<()> {
        encode_ipc_stream(self, |segment| write(writer, &segment))
    }

    fn deserialize(data: &Bytes) -> Result<Self> {
        decode_ipc_stream(data)
    }
}

/// As a table of one batch.
impl CacheCodecImpl for RecordBatch {
    const TYPE: &'static str = "ck.batch";
    const VERSION: u32 = 1;

    fn serialize(&self, writer: &mut dyn Write) -> Result<()> {
        Table::from(self).serialize(writer)
    }

    fn deserialize(data: &Bytes) -> Result<Self> {
        only_batch(decode_ipc_stream(data)?)
    }
}

/// As a batch with the one column `data`.
impl CacheCodecImpl for ArrayRef {
    const TYPE: &'static str = "ck.array";
    const VERSION: u32 = 1;

    fn serialize(&self, writer: &mut dyn Write) -> Result<()> {
        batch_of(self)?.serialize(writer)
    }

    fn deserialize(data: &Bytes) -> Result<Self> {
        only_column(decode_ipc_stream(data)?)
    }
}

/// As an Arrow tensor message.
impl CacheCodecImpl for Tensor {
    const TYPE: &'static str = "ck.tensor";
    const VERSION: u32 = 1;

    fn serialize(&self, writer: &mut dyn Write) -> Result<()> {
        tensor_message::write(self, writer)
    }

    fn deserialize(data: &Bytes) -> Result<Self> {
        tensor_message::decode(data)
    }
}

/// A batch with the one column `data`.
pub(crate) fn batch_of(array: &ArrayRef) -> Result<RecordBatch> {
    let field = Field::new("data", array.data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![field]));
    let options = RecordBatchOptions::new().with_row_count(Some(array.len()));
    RecordBatch::try_new_with_options(schema, vec![Arc::clone(array)], &options).map_err(|error| {
        Error::new(ErrorKind::Unsupported, "an array does not make a batch").with_source(error)
    })
}

/// The batch of a table that has one.
pub(crate) fn only_batch(table: Table) -> Result<RecordBatch> {
    let mut batches = table.into_batches();
    match (batches.pop(), batches.len()) {
        (Some(batch), 0) => Ok(batch),
        _ => Err(damaged("a record batch was stored as none or as several")),
    }
}

/// The column of a batch that has one.
pub(crate) fn only_column(table: Table) -> Result<ArrayRef> {
    let batch = only_batch(table)?;
    match batch.columns() {
        [column] => Ok(Arc::clone(column)),
        columns => Err(
            damaged("an array was stored with more or less than one column")
                .with("columns", columns.len()),
        ),
    }
}
