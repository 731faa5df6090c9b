//! Arrow IPC messages as plain data: taken apart with every number checked, and put together again.
//!
//! Format: <https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format>

use arrow_ipc::{
    BodyCompressionBuilder, BodyCompressionMethod, CompressionType, DictionaryBatchBuilder,
    FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatch, RecordBatchBuilder,
};
use ck_core::{Error, ErrorKind, Result};
use flatbuffers::FlatBufferBuilder;

/// Alignment of buffers and messages: what the format recommends and other writers use.
pub(crate) const ALIGNMENT: usize = 64;

/// The continuation marker and the length that come before each message.
pub(crate) const PREFIX_LEN: usize = 8;

const CONTINUATION: [u8; 4] = [0xff; 4];

/// More rows than any buffer could hold; lengths up to here can be multiplied by any fixed width
/// without overflow.
const MAX_LENGTH: i64 = 1 << 40;

/// The metadata of a record batch or dictionary batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    pub(crate) dictionary: Option<DictionaryHead>,
    pub(crate) rows: u64,
    /// `(length, null count)` of each array, depth first.
    pub(crate) nodes: Vec<Node>,
    /// Where each buffer lies in the body.
    pub(crate) buffers: Vec<Span>,
    /// Number of data buffers of each view array.
    pub(crate) variadic: Vec<i64>,
    pub(crate) compression: Option<CompressionType>,
    /// Unions had a validity bitmap before version 5.
    pub(crate) before_v5: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DictionaryHead {
    pub(crate) id: i64,
    pub(crate) is_delta: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) length: i64,
    pub(crate) null_count: i64,
}

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Span {
    pub(crate) fn end(self) -> u64 {
        self.offset + self.len
    }
}

impl Message {
    /// Parses an encapsulated message; `None` when it is of another kind (a schema).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        Self::parse_flatbuffer(unframed(bytes)?)
    }

    /// As [`Message::parse`], without prefix and padding.
    pub(crate) fn parse_flatbuffer(flatbuffer: &[u8]) -> Result<Option<Self>> {
        let message = arrow_ipc::root_as_message(flatbuffer).map_err(|error| {
            damaged("a message is not a valid flatbuffer").with_source(error.to_string())
        })?;
        let before_v5 = message.version() < MetadataVersion::V5;
        let (batch, dictionary) = match message.header_type() {
            MessageHeader::RecordBatch => (message.header_as_record_batch(), None),
            MessageHeader::DictionaryBatch => {
                let head = message.header_as_dictionary_batch();
                let dictionary = head.map(|d| DictionaryHead {
                    id: d.id(),
                    is_delta: d.isDelta(),
                });
                (head.and_then(|d| d.data()), dictionary)
            }
            _ => return Ok(None),
        };
        let batch = batch.ok_or_else(|| damaged("a batch message has no batch"))?;
        Self::from_batch(batch, dictionary, before_v5).map(Some)
    }

    fn from_batch(
        batch: RecordBatch<'_>,
        dictionary: Option<DictionaryHead>,
        before_v5: bool,
    ) -> Result<Self> {
        let rows = batch.length();
        let nodes = batch.nodes().into_iter().flatten();
        let nodes: Vec<Node> = nodes
            .map(|n| Node {
                length: n.length(),
                null_count: n.null_count(),
            })
            .collect();
        let sane = |n: &Node| {
            (0..=MAX_LENGTH).contains(&n.length) && (0..=n.length).contains(&n.null_count)
        };
        // Rows without columns cost nothing, so their number has no bound.
        if rows < 0 || (!nodes.is_empty() && rows > MAX_LENGTH) || !nodes.iter().all(sane) {
            return Err(damaged("a batch claims an impossible number of rows").with("rows", rows));
        }
        let buffers = batch.buffers().into_iter().flatten();
        let buffers =
            buffers.map(
                |b| match (u64::try_from(b.offset()), u64::try_from(b.length())) {
                    (Ok(offset), Ok(len)) if offset.checked_add(len).is_some() => {
                        Ok(Span { offset, len })
                    }
                    _ => Err(damaged("a buffer has a negative or overflowing position")
                        .with("offset", b.offset())
                        .with("length", b.length())),
                },
            );
        Ok(Self {
            dictionary,
            rows: rows.unsigned_abs(),
            nodes,
            buffers: buffers.collect::<Result<_>>()?,
            variadic: batch.variadicBufferCounts().into_iter().flatten().collect(),
            compression: batch.compression().map(|compression| compression.codec()),
            before_v5,
        })
    }

    /// Fails unless all buffers lie within a body of `len` bytes, side by side: what is read of them is
    /// then no more than the body, however many they are.
    pub(crate) fn check_body(&self, len: u64) -> Result<()> {
        let total = self
            .buffers
            .iter()
            .fold(0_u64, |total, span| total.saturating_add(span.len));
        if total > len {
            return Err(
                damaged("the buffers of a batch have more bytes than the batch")
                    .with("buffers", total)
                    .with("body_bytes", len),
            );
        }
        match self.buffers.iter().find(|span| span.end() > len) {
            None => Ok(()),
            Some(span) => Err(damaged("a buffer reaches beyond its batch")
                .with("end", span.end())
                .with("body_bytes", len)),
        }
    }

    /// The flatbuffer of the message, without prefix and padding.
    pub(crate) fn flatbuffer(&self, body_len: u64) -> Vec<u8> {
        // Counts and positions were u64 or usize of real memory: they fit i64.
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        // It would grow by doubling; besides the lists there are some tables.
        let listed = (self.nodes.len() + self.buffers.len()) * 16 + self.variadic.len() * 8;
        let mut fbb = FlatBufferBuilder::with_capacity(listed + 256);
        let compression = self.compression.map(|codec| {
            let mut builder = BodyCompressionBuilder::new(&mut fbb);
            builder.add_method(BodyCompressionMethod::BUFFER);
            builder.add_codec(codec);
            builder.finish()
        });
        let nodes: Vec<FieldNode> = self
            .nodes
            .iter()
            .map(|n| FieldNode::new(n.length, n.null_count))
            .collect();
        let buffers: Vec<arrow_ipc::Buffer> = self
            .buffers
            .iter()
            .map(|span| arrow_ipc::Buffer::new(signed(span.offset), signed(span.len)))
            .collect();
        let nodes = fbb.create_vector(&nodes);
        let buffers = fbb.create_vector(&buffers);
        let variadic = (!self.variadic.is_empty()).then(|| fbb.create_vector(&self.variadic));
        let mut builder = RecordBatchBuilder::new(&mut fbb);
        builder.add_length(signed(self.rows));
        builder.add_nodes(nodes);
        builder.add_buffers(buffers);
        if let Some(compression) = compression {
            builder.add_compression(compression);
        }
        if let Some(variadic) = variadic {
            builder.add_variadicBufferCounts(variadic);
        }
        let batch = builder.finish();
        let (kind, header) = match self.dictionary {
            None => (MessageHeader::RecordBatch, batch.as_union_value()),
            Some(head) => {
                let mut builder = DictionaryBatchBuilder::new(&mut fbb);
                builder.add_id(head.id);
                builder.add_data(batch);
                builder.add_isDelta(head.is_delta);
                (
                    MessageHeader::DictionaryBatch,
                    builder.finish().as_union_value(),
                )
            }
        };
        let mut message = MessageBuilder::new(&mut fbb);
        message.add_version(if self.before_v5 {
            MetadataVersion::V4
        } else {
            MetadataVersion::V5
        });
        message.add_header_type(kind);
        message.add_bodyLength(signed(body_len));
        message.add_header(header);
        let root = message.finish();
        fbb.finish(root, None);
        fbb.finished_data().to_vec()
    }
}

/// The flatbuffer inside an encapsulated message; also of the kind before format version 0.15, whose
/// prefix is the length alone.
fn unframed(bytes: &[u8]) -> Result<&[u8]> {
    let short = || damaged("a message is shorter than its own prefix").with("bytes", bytes.len());
    let (first, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let (len, rest) = if *first == CONTINUATION {
        rest.split_first_chunk::<4>().ok_or_else(short)?
    } else {
        (first, rest)
    };
    let len = u32::from_le_bytes(*len) as usize;
    rest.get(..len).ok_or_else(|| {
        damaged("a message is longer than the space it has")
            .with("bytes", len)
            .with("space", rest.len())
    })
}

/// `flatbuffer` with its prefix, padded to `total` bytes in all.
pub(crate) fn framed(flatbuffer: &[u8], total: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(total);
    message.extend_from_slice(&CONTINUATION);
    // Metadata beyond 2 GiB cannot be written: the format has 32 bits for it, and no schema comes near.
    let len = u32::try_from(total - PREFIX_LEN).unwrap_or(u32::MAX);
    message.extend_from_slice(&len.to_le_bytes());
    message.extend_from_slice(flatbuffer);
    message.resize(total, 0);
    message
}

pub(crate) fn damaged(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}
