use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow_ipc::{Block as FooterBlock, FooterBuilder, MetadataVersion};
use arrow_schema::{DataType, Field, Fields, SchemaRef};
use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};
use flatbuffers::FlatBufferBuilder;

use crate::compression::Codec;
use crate::extent::{Extent, extents};
use crate::hash::xxh3;
use crate::head::Seal;
use crate::index::{Block, Unit};
use crate::message::{ALIGNMENT, Message, PREFIX_LEN, Span, damaged, framed};
use crate::record::{Record, Recorder};

/// What an IPC file begins with: the magic, padded to 8 bytes.
pub(crate) const MAGIC: &[u8; 8] = b"ARROW1\0\0";

/// What it ends with, after the length of the footer.
pub(crate) const END_MAGIC: &[u8; 6] = b"ARROW1";

/// The end of the sequence of messages.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Columns are hashed together until they have this many bytes, so that very wide tables do not drown
/// in hashes. What is hashed together is fetched together: the less, the closer a projection comes to the
/// bytes of its columns. A column of 4 KiB pays 0.7 % for a hash of its own.
const UNIT_BYTES: u64 = 4 * 1024;

/// Messages up to this size are repeated in the index; a batch of some sixty plain columns stays below.
const INLINE_BYTES: usize = 4096;

/// The kernel maps pages in windows of this size around the one that was touched. Bodies of large
/// uncompressed batches start at a multiple of it, so that reading one column maps no other's pages.
const WINDOW: usize = 64 * 1024;

/// Batches from this size on start at such a window; it costs 0.4 % of a batch of 8 MiB.
const WINDOW_FROM_BYTES: u64 = 4 << 20;

static ZEROS: [u8; WINDOW] = [0; WINDOW];

/// The IPC file being written: positions and the record of what has been given out.
#[derive(Debug)]
pub(crate) struct Output {
    codec: Codec,
    /// Where the IPC file starts in the file it will be mapped from.
    ipc_start: u64,
    /// Bytes given out so far.
    position: u64,
    recorder: Recorder,
    /// What the footer lists.
    dictionaries: Vec<FooterBlock>,
    batches: Vec<FooterBlock>,
    rows: u64,
    /// Bytes that come before the next segment: at first the prelude.
    prelude: Option<Bytes>,
    seal: Option<(Seal, u64)>,
}

impl Output {
    pub(crate) fn new(schema: &SchemaRef, codec: Codec, ipc_start: u64) -> Result<Self> {
        let message = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
            schema,
            &mut DictionaryTracker::new(false),
            &IpcWriteOptions::default(),
        );
        // The limits of readers on depth and number of tables; a later check would come after the put.
        arrow_ipc::root_as_message(&message.ipc_message).map_err(|error| {
            Error::new(
                ErrorKind::Unsupported,
                "the schema is nested too deeply, or too large, for readers of Arrow IPC",
            )
            .with_source(error.to_string())
        })?;
        let total =
            (MAGIC.len() + PREFIX_LEN + message.ipc_message.len()).next_multiple_of(ALIGNMENT);
        let prelude = [
            &MAGIC[..],
            &framed(&message.ipc_message, total - MAGIC.len()),
        ]
        .concat();
        let mut record = Record::new();
        record.hashes.add(&prelude);
        Ok(Self {
            codec,
            ipc_start,
            position: prelude.len() as u64,
            recorder: Recorder::new(record, codec == Codec::None),
            dictionaries: Vec::new(),
            batches: Vec::new(),
            rows: 0,
            prelude: Some(Bytes::from(prelude)),
            seal: None,
        })
    }

    /// From here on positions count, and hashes do not.
    pub(crate) fn count_only(&mut self) {
        self.recorder.count_only();
    }

    pub(crate) fn len(&self) -> u64 {
        self.position
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn batches(&self) -> u64 {
        self.batches.len() as u64
    }

    /// The seal and the xxh3-64 of the IPC file, once the tail is out.
    pub(crate) fn seal(&self) -> Option<(Seal, u64)> {
        self.seal
    }

    /// Waits until what has been given out is no longer held here.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.recorder.settle().map(drop)
    }

    /// Lays a message out: places and hashes its stored buffers, writes its metadata.
    pub(crate) fn message(
        &mut self,
        schema: &SchemaRef,
        mut message: Message,
        stored: Vec<Vec<Bytes>>,
    ) -> Result<Vec<Bytes>> {
        message.compression = self.codec.ipc();
        let mut end = 0_u64;
        for (span, pieces) in message.buffers.iter_mut().zip(&stored) {
            let len = pieces.iter().map(|piece| piece.len() as u64).sum();
            *span = Span { offset: end, len };
            end = span.end().next_multiple_of(ALIGNMENT as u64);
        }
        let body_len = end;
        let columns = match message.dictionary {
            None => extents(schema.fields(), &message, false)?,
            Some(_) => vec![Extent {
                nodes: 0..message.nodes.len(),
                buffers: 0..message.buffers.len(),
                variadic: 0..message.variadic.len(),
            }],
        };

        let flatbuffer = message.flatbuffer(body_len);
        let is_inline = flatbuffer.len() <= INLINE_BYTES;
        let windowed = self.codec == Codec::None && is_inline && body_len >= WINDOW_FROM_BYTES;
        let body_alignment = if windowed { WINDOW } else { ALIGNMENT } as u64;
        let start = self.ipc_start + self.position;
        let body_start =
            (start + (PREFIX_LEN + flatbuffer.len()) as u64).next_multiple_of(body_alignment);
        let metadata_len = usize::try_from(body_start - start).unwrap_or(usize::MAX);
        let metadata = framed(&flatbuffer, metadata_len);
        let mut block = Block {
            offset: self.position,
            metadata_len: u32::try_from(metadata_len).map_err(|_| too_wide())?,
            metadata_hash: xxh3(&metadata),
            body_len,
            rows: message.rows,
            dictionary: message.dictionary,
            units: Vec::new(),
            inline: if is_inline { flatbuffer } else { Vec::new() },
        };

        let mut segment = vec![Bytes::from(metadata)];
        let mut unit = Unit {
            columns: 0,
            span: Span::default(),
            hash: 0,
        };
        let mut stored = stored.into_iter();
        for column in &columns {
            unit.columns += 1;
            for _ in column.buffers.clone() {
                let pieces = stored
                    .next()
                    .ok_or_else(|| damaged("a message lacks a buffer"))?;
                let mut len = 0;
                for piece in pieces {
                    len += piece.len();
                    segment.push(piece);
                }
                let padding = &ZEROS[..len.next_multiple_of(ALIGNMENT) - len];
                if !padding.is_empty() {
                    segment.push(Bytes::from_static(padding));
                }
                unit.span.len += (len + padding.len()) as u64;
            }
            if unit.span.len >= UNIT_BYTES {
                let next = Span {
                    offset: unit.span.end(),
                    len: 0,
                };
                block.units.push(std::mem::replace(
                    &mut unit,
                    Unit {
                        columns: 0,
                        span: next,
                        hash: 0,
                    },
                ));
            }
        }
        if unit.columns > 0 {
            block.units.push(unit);
        }
        segment.retain(|piece| !piece.is_empty());
        self.position += metadata_len as u64 + body_len;
        let listed = listed(&block).ok_or_else(too_wide)?;
        if block.dictionary.is_some() {
            self.dictionaries.push(listed);
        } else {
            self.rows += block.rows;
            self.batches.push(listed);
        }
        self.recorder.add(block, &segment)?;
        if let Some(prelude) = self.prelude.take() {
            segment.insert(0, prelude);
        }
        Ok(segment)
    }

    /// The last segment: end of stream, block index, footer. `None` when it has been given out.
    pub(crate) fn close(&mut self, schema: &SchemaRef) -> Result<Option<Vec<Bytes>>> {
        if self.seal.is_some() {
            return Ok(None);
        }
        let mut segment: Vec<Bytes> = self.prelude.take().into_iter().collect();
        self.position += END_OF_STREAM.len() as u64;
        segment.push(Bytes::from_static(&END_OF_STREAM));
        let footer = self.footer(schema)?;
        let record = self.recorder.settle()?;
        record.hashes.add(&END_OF_STREAM);
        let [counts, dictionaries, batches] = std::mem::take(&mut record.index).finish();
        let (tail_offset, mut tail_len) = (self.position, 0);
        for piece in [counts, dictionaries, batches, footer] {
            record.hashes.add_to_unit(&piece);
            tail_len += piece.len() as u64;
            segment.push(Bytes::from(piece));
        }
        self.position += tail_len;
        let seal = Seal {
            tail_offset,
            tail_len,
            tail_hash: record.hashes.end_unit(),
        };
        self.seal = Some((seal, record.hashes.whole()));
        segment.retain(|piece| !piece.is_empty());
        Ok(Some(segment))
    }

    /// The footer of the IPC file, with the length and the magic that end it.
    fn footer(&self, schema: &SchemaRef) -> Result<Vec<u8>> {
        let mut fbb = FlatBufferBuilder::new();
        let dictionaries = fbb.create_vector(&self.dictionaries);
        let batches = fbb.create_vector(&self.batches);
        let schema = IpcSchemaEncoder::new()
            .with_dictionary_tracker(&mut DictionaryTracker::new(false))
            .schema_to_fb_offset(&mut fbb, schema);
        let mut builder = FooterBuilder::new(&mut fbb);
        builder.add_version(MetadataVersion::V5);
        builder.add_schema(schema);
        builder.add_dictionaries(dictionaries);
        builder.add_recordBatches(batches);
        let root = builder.finish();
        fbb.finish(root, None);
        let flatbuffer = fbb.finished_data();
        let len = i32::try_from(flatbuffer.len()).map_err(|_| too_wide())?;
        Ok([flatbuffer, &len.to_le_bytes(), END_MAGIC].concat())
    }
}

/// The block as the footer lists it, if its lengths fit.
fn listed(block: &Block) -> Option<FooterBlock> {
    let signed = |value: u64| i64::try_from(value).ok();
    let metadata_len = i32::try_from(block.metadata_len).ok()?;
    let (offset, body_len) = (signed(block.offset)?, signed(block.body_len)?);
    Some(FooterBlock::new(offset, metadata_len, body_len))
}

/// The fields of a dictionary message: its values are one column.
pub(crate) fn dictionary_fields(values: &DataType) -> Fields {
    Fields::from(vec![Field::new("", values.clone(), true)])
}

fn too_wide() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "the table has more columns or batches than the metadata of an Arrow file can describe",
    )
}
