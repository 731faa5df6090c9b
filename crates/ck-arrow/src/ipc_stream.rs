//! Bare Arrow IPC streams, for values that are not entries of their own.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::writer::StreamEncoder;
use arrow_ipc::{Endianness, MessageHeader};
use arrow_schema::{ArrowError, Fields, SchemaRef};
use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};

use crate::buffer_pool::BufferPool;
use crate::codec::bytes_of;
use crate::decode::{Dictionaries, Memory, Part};
use crate::extent::extents;
use crate::footprint::Backing;
use crate::gather::concat;
use crate::message::{Message, Span, damaged};
use crate::output::dictionary_fields;
use crate::table::Table;
use crate::tidy::{can_hold_garbage, without_garbage};

/// Gives the table as an uncompressed Arrow IPC stream, segment by segment.
///
/// All messages and buffers start at multiples of 64 from the start of the stream. Format:
/// <https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format>.
///
/// # Memory
///
/// Column buffers are not copied: the segments share them with the table (except for offsets and
/// bitmaps of slices, dictionaries, and views that drag along bytes of other rows).
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] for a type that Arrow IPC cannot express; whatever `segment` returns.
pub fn encode_ipc_stream(
    table: &Table,
    mut segment: impl FnMut(Bytes) -> Result<()>,
) -> Result<()> {
    let unsupported = |error: ArrowError| {
        Error::new(
            ErrorKind::Unsupported,
            "Arrow IPC cannot express this table",
        )
        .with_source(error)
    };
    let mut encoder = StreamEncoder::try_new(table.schema()).map_err(unsupported)?;
    let pool = BufferPool::default();
    for batch in table.batches() {
        let batch = tidied(batch, &pool).map_err(unsupported)?;
        let buffers = encoder.encode(&batch).map_err(unsupported)?;
        buffers
            .into_iter()
            .map(bytes_of)
            .try_for_each(&mut segment)?;
    }
    let buffers = encoder.finish().map_err(unsupported)?;
    buffers.into_iter().map(bytes_of).try_for_each(segment)
}

fn tidied(batch: &RecordBatch, pool: &BufferPool) -> Result<RecordBatch, ArrowError> {
    let fields = batch.schema_ref().fields();
    if !fields
        .iter()
        .any(|field| can_hold_garbage(field.data_type()))
    {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter();
    let columns = columns.map(|column| without_garbage(column, pool));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns.collect::<Result<_, _>>()?, &options)
}

/// Reads a whole Arrow IPC stream.
///
/// The arrays borrow from `data`: uncompressed buffers stay where they are when they are aligned, and
/// are copied when not. A stream without its end-of-stream marker is taken for a truncated one.
///
/// # Memory
///
/// What is misaligned or compressed is copied; nothing else.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] for anything that is not such a stream, also for bytes after its end;
/// [`ErrorKind::Unsupported`] for a big-endian one.
pub fn decode_ipc_stream(data: &Bytes) -> Result<Table> {
    let mut rest = data.clone();
    let schema = match next_message(&mut rest)? {
        Some(frame) => frame.schema()?,
        None => return Err(damaged("an Arrow stream ends before its schema")),
    };
    let mut dictionaries = Dictionaries::new();
    let types = dictionary_types(&schema);
    let mut batches = Vec::new();
    while let Some(frame) = next_message(&mut rest)? {
        let message = Message::parse_flatbuffer(&frame.flatbuffer)?
            .ok_or_else(|| damaged("an Arrow stream has a message that is no batch"))?;
        message.check_body(frame.body.len() as u64)?;
        let Some(head) = message.dictionary else {
            let place = batches.len();
            let batch = record_batch(&schema, &message, frame.body, &dictionaries);
            batches.push(batch.map_err(|error| error.with("batch", place))?);
            continue;
        };
        let values = types.iter().find(|(id, _)| *id == head.id).ok_or_else(|| {
            damaged("a dictionary is not in the schema").with("dictionary", head.id)
        })?;
        let fields = dictionary_fields(&values.1);
        let mut found = columns(&fields, &message, frame.body, &dictionaries)?;
        let found = found
            .pop_front()
            .ok_or_else(|| damaged("a dictionary has no values").with("dictionary", head.id))?;
        let array = match dictionaries.get(&head.id).filter(|_| head.is_delta) {
            Some(before) => concat(&[Arc::clone(before), found]).map_err(|error| {
                damaged("the parts of a dictionary do not fit together").with_source(error)
            })?,
            None => found,
        };
        dictionaries.insert(head.id, array);
    }
    if !rest.is_empty() {
        return Err(damaged("bytes follow the end of an Arrow stream").with("bytes", rest.len()));
    }
    Ok(Table::new(schema, batches)?.decoded(Backing::heap(data)))
}

/// One message of a stream.
struct Frame {
    flatbuffer: Bytes,
    body: Bytes,
}

const CONTINUATION: [u8; 4] = [0xff; 4];

/// Takes the next message off `rest`; `None` at the end of the stream.
fn next_message(rest: &mut Bytes) -> Result<Option<Frame>> {
    let mut len = take_word(rest)?;
    // Before format version 0.15, the length came alone.
    if len == CONTINUATION {
        len = take_word(rest)?;
    }
    let len = u32::from_le_bytes(len);
    if len == 0 {
        return Ok(None);
    }
    let flatbuffer = take(rest, len.into())?;
    let message = arrow_ipc::root_as_message(&flatbuffer).map_err(|error| {
        damaged("a message is not a valid flatbuffer").with_source(error.to_string())
    })?;
    let body_len = u64::try_from(message.bodyLength())
        .map_err(|_| damaged("a message has a body of negative length"))?;
    let body = take(rest, body_len)?;
    Ok(Some(Frame { flatbuffer, body }))
}

fn take_word(rest: &mut Bytes) -> Result<[u8; 4]> {
    let word = rest.first_chunk().copied();
    let word = word.ok_or_else(|| damaged("an Arrow stream ends within a message"))?;
    take(rest, 4)?;
    Ok(word)
}

fn take(rest: &mut Bytes, len: u64) -> Result<Bytes> {
    match usize::try_from(len) {
        Ok(len) if len <= rest.len() => Ok(rest.split_to(len)),
        _ => Err(damaged("an Arrow stream ends within a message")
            .with("wanted", len)
            .with("left", rest.len())),
    }
}

impl Frame {
    fn schema(&self) -> Result<SchemaRef> {
        let message = arrow_ipc::root_as_message(&self.flatbuffer).ok();
        let schema = message
            .filter(|message| message.header_type() == MessageHeader::Schema)
            .and_then(|message| message.header_as_schema())
            .ok_or_else(|| damaged("an Arrow stream does not start with a schema"))?;
        if schema.endianness() != Endianness::Little {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the Arrow stream is big-endian",
            ));
        }
        let schema = try_fb_to_schema(schema).map_err(|error| {
            damaged("the schema of an Arrow stream is damaged").with_source(error)
        })?;
        Ok(Arc::new(schema))
    }
}

fn dictionary_types(schema: &SchemaRef) -> Vec<(i64, arrow_schema::DataType)> {
    let mut types = Vec::new();
    for field in schema.fields() {
        crate::content::needed_dictionaries(field, &mut types);
    }
    types
}

fn record_batch(
    schema: &SchemaRef,
    message: &Message,
    body: Bytes,
    dictionaries: &Dictionaries,
) -> Result<RecordBatch> {
    let rows = usize::try_from(message.rows)
        .map_err(|_| damaged("a batch has more rows than memory can count"))?;
    let columns = columns(schema.fields(), message, body, dictionaries)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns.into(), &options)
        .map_err(|error| damaged("a batch does not fit its schema").with_source(error))
}

fn columns(
    fields: &Fields,
    message: &Message,
    body: Bytes,
    dictionaries: &Dictionaries,
) -> Result<VecDeque<ArrayRef>> {
    let part = Part {
        columns: (0..fields.len()).collect(),
        extents: extents(fields, message, false)?,
        span: Span {
            offset: 0,
            len: body.len() as u64,
        },
        bytes: body,
    };
    Ok(part
        .decode(fields, message, dictionaries, false, Memory::default())?
        .into())
}

#[cfg(test)]
mod tests {
    use arrow_array::types::Int8Type;
    use arrow_array::{DictionaryArray, Int64Array, StringArray, StringViewArray};
    use arrow_ipc::CompressionType;
    use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};

    use super::*;

    fn table() -> Table {
        let batch = |from: i64, words: [&str; 3]| {
            let words: DictionaryArray<Int8Type> = words.into_iter().collect();
            let others: DictionaryArray<Int8Type> = ["p", "q", "p"].into_iter().collect();
            let columns: [(&str, ArrayRef); 4] = [
                ("o", Arc::new(others)),
                ("n", Arc::new(Int64Array::from_iter_values(from..from + 3))),
                ("w", Arc::new(words)),
                (
                    "s",
                    Arc::new(StringArray::from(vec![Some("a"), None, Some("ccc")])),
                ),
            ];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let batches = vec![batch(0, ["x", "y", "x"]), batch(9, ["z", "z", "q"])];
        Table::new(batches[0].schema(), batches).unwrap()
    }

    fn encoded(table: &Table) -> Bytes {
        let mut stream = Vec::new();
        let push = |segment: Bytes| {
            stream.extend_from_slice(&segment);
            Ok(())
        };
        encode_ipc_stream(table, push).unwrap();
        ck_core::aligned_bytes(stream.len(), |memory| {
            memory.copy_from_slice(&stream);
            Ok::<_, Error>(())
        })
        .unwrap()
    }

    #[test]
    fn a_table_comes_back_from_its_stream() {
        let table = table();
        assert_eq!(decode_ipc_stream(&encoded(&table)).unwrap(), table);
        let empty = Table::new(Arc::clone(table.schema()), vec![]).unwrap();
        assert_eq!(decode_ipc_stream(&encoded(&empty)).unwrap(), empty);
    }

    #[test]
    fn a_stream_ends_with_its_marker_and_nothing_else() {
        let stream = encoded(&table());
        for cut in 0..stream.len() {
            let error = decode_ipc_stream(&stream.slice(..cut)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{cut}");
        }
        let longer = Bytes::from([&stream[..], b"more"].concat());
        assert_eq!(
            decode_ipc_stream(&longer).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }

    #[test]
    fn rows_without_columns_count_up_to_what_there_is_a_number_for() {
        let rows = usize::try_from(i64::MAX).unwrap();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(arrow_schema::Schema::empty());
        let batch =
            RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap();
        let table = Table::new(schema, vec![batch; 3]).unwrap();
        let decoded = decode_ipc_stream(&encoded(&table)).unwrap();
        assert_eq!(decoded.num_rows(), u64::MAX);
    }

    #[test]
    fn views_do_not_drag_along_the_text_of_other_rows() {
        let text = StringViewArray::from_iter_values((0..1000).map(|row| format!("{row:040}")));
        let batch = RecordBatch::try_from_iter([("v", Arc::new(text) as ArrayRef)]).unwrap();
        let table = Table::from(batch.slice(500, 2));
        let stream = encoded(&table);
        assert!(stream.len() < 1000, "{} bytes", stream.len());
        assert_eq!(decode_ipc_stream(&stream).unwrap(), table);
    }

    #[test]
    fn other_writers_streams_are_read() {
        let table = table();
        let mut writer = StreamWriter::try_new(Vec::new(), table.schema()).unwrap();
        for batch in table.batches() {
            writer.write(batch).unwrap();
        }
        let stream = Bytes::from(writer.into_inner().unwrap());
        assert_eq!(decode_ipc_stream(&stream).unwrap(), table);
        for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
            let options = IpcWriteOptions::default().try_with_compression(Some(codec));
            let mut writer =
                StreamWriter::try_new_with_options(Vec::new(), table.schema(), options.unwrap())
                    .unwrap();
            for batch in table.batches() {
                writer.write(batch).unwrap();
            }
            let stream = Bytes::from(writer.into_inner().unwrap());
            assert_eq!(decode_ipc_stream(&stream).unwrap(), table);
        }
    }
}
