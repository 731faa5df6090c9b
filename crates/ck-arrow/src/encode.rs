use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::Buffer;
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions, StreamEncoder};
use arrow_schema::{ArrowError, SchemaRef};
use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};

use crate::buffer_pool::BufferPool;
use crate::codec::{bytes_of, is_plain};
use crate::compression::Codec;
use crate::dictionary::Unifier;
use crate::head::Head;
use crate::message::{Message, damaged};
use crate::options::EncodeOptions;
use crate::output::Output;
use crate::pool::{Compressed, Input, Pool};
use crate::slice::Slicer;
use crate::tidy::{can_hold_garbage, without_garbage};

/// Turns record batches into the bytes of an entry, segment by segment.
///
/// The encoder is synchronous and pull-based: it takes in no more on its own, so a slow store slows it
/// down and memory stays flat. Push batches, take segments until there are none, push more; call
/// [`Encoder::end`], take the rest, then [`Encoder::finish`] gives the head of the entry, which holds
/// the hashes and goes in front of the segments.
///
/// Batches are cut to [`EncodeOptions::with_batch_bytes`]. Uncompressed column buffers are not copied:
/// the segments share them with the source (except for offsets of slices, which have to be rebased,
/// and views that drag along bytes of other rows).
///
/// # Memory
///
/// Beyond what was pushed: at most `workers + 2` batches when compressing; none, apart from the copies
/// named above, when not.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use arrow_array::{Int64Array, RecordBatch};
/// use ck_arrow::{EncodeOptions, Encoder};
///
/// let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as _)])?;
/// let mut encoder = Encoder::new(batch.schema(), EncodeOptions::new())?;
/// encoder.push(batch)?;
/// encoder.end();
/// let mut body = Vec::new();
/// while let Some(segment) = encoder.next_segment()? {
///     body.extend(segment);
/// }
/// let encoded = encoder.finish()?;
/// let entry = [&encoded.head[..], &body.concat()].concat();
/// assert_eq!(entry.len() as u64, encoded.bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Encoder {
    schema: SchemaRef,
    codec: Codec,
    batch_bytes: usize,
    /// How many batches may be under compression at once.
    depth: usize,
    head: Head,
    /// Which columns may hold on to more than their rows.
    garbage: Vec<bool>,
    /// Memory for rewritten views.
    buffers: BufferPool,
    unifier: Option<Unifier>,
    input: VecDeque<RecordBatch>,
    slicer: Option<Slicer>,
    has_ended: bool,
    flattener: Flattener,
    pool: Option<Pool>,
    pending: VecDeque<Pending>,
    /// Which buffers of the last record batch did not shrink.
    plain: Vec<bool>,
    output: Output,
}

/// What [`Encoder::finish`] gives.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Encoded {
    /// The first [`Encoder::head_len`] bytes of the entry.
    pub head: Bytes,
    /// Rows of the table.
    pub rows: u64,
    /// Record batches of the table.
    pub batches: u64,
    /// Bytes of the whole entry, head included.
    pub bytes: u64,
}

/// A message whose buffers are on their way.
#[derive(Debug)]
struct Pending {
    message: Message,
    /// Groups of consecutive buffers.
    buffers: Vec<Group>,
}

#[derive(Debug)]
enum Group {
    Plain(Vec<Buffer>),
    Compressing(Compressed),
}

/// Buffers are handed to compression threads in groups of at least this many bytes.
const GROUP_BYTES: usize = 256 * 1024;

impl Encoder {
    /// An encoder for a table of this schema.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] for options out of range, [`ErrorKind::Unsupported`] for a type that Arrow
    /// IPC cannot express (dictionaries of dictionaries).
    pub fn new(schema: SchemaRef, options: EncodeOptions) -> Result<Self> {
        options.check()?;
        let codec = options.codec;
        let head = Head::reserve(
            codec != Codec::None,
            options.outer_offset,
            options.key,
            options.stale_seconds,
        )?;
        let ipc_start = options.outer_offset + head.len() as u64;
        Ok(Self {
            output: Output::new(&schema, codec, ipc_start)?,
            flattener: Flattener::new(&schema)?,
            garbage: schema
                .fields()
                .iter()
                .map(|field| can_hold_garbage(field.data_type()))
                .collect(),
            buffers: BufferPool::default(),
            unifier: Unifier::is_needed(&schema).then(Unifier::default),
            pool: match codec {
                Codec::None => None,
                _ => Some(Pool::new(codec, options.workers)?),
            },
            depth: if codec == Codec::None {
                1
            } else {
                options.workers.div_ceil(2) + 1
            },
            schema,
            codec,
            batch_bytes: options.batch_bytes,
            head,
            input: VecDeque::new(),
            slicer: None,
            has_ended: false,
            pending: VecDeque::new(),
            plain: Vec::new(),
        })
    }

    /// How many bytes the entry of these batches will have, to the byte; `None` when it is compressed, which
    /// nobody knows beforehand.
    ///
    /// # Memory
    ///
    /// The copies that [`Encoder`] names, of one batch at a time. Nothing is hashed, and only what is copied
    /// is read.
    ///
    /// # Errors
    ///
    /// What encoding the batches would report.
    pub fn measure(
        schema: SchemaRef,
        options: EncodeOptions,
        batches: impl IntoIterator<Item = RecordBatch>,
    ) -> Result<Option<u64>> {
        if options.codec != Codec::None {
            return Ok(None);
        }
        let mut encoder = Self::new(schema, options)?;
        encoder.output.count_only();
        for batch in batches {
            encoder.push(batch)?;
            while encoder.next_segment()?.is_some() {}
        }
        encoder.end();
        while encoder.next_segment()?.is_some() {}
        Ok(Some(encoder.head.len() as u64 + encoder.output.len()))
    }

    /// How many bytes [`Encoded::head`] will have.
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.head.len()
    }

    /// The codec in use.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Adds a batch to the input. No work is done yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when the batch has other columns than the schema, or nulls where the schema
    /// allows none, or after [`Encoder::end`].
    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if self.has_ended {
            return Err(Error::new(
                ErrorKind::Misuse,
                "a batch was pushed after the end of the input",
            ));
        }
        let types = |schema: &SchemaRef| {
            schema
                .fields()
                .iter()
                .map(|field| field.data_type().clone())
                .collect::<Vec<_>>()
        };
        if !Arc::ptr_eq(&self.schema, batch.schema_ref())
            && types(&self.schema) != types(batch.schema_ref())
        {
            return Err(Error::new(
                ErrorKind::Misuse,
                "a batch has other columns than the table's schema",
            )
            .with("batch", batch.schema_ref())
            .with("table", &self.schema));
        }
        // A reader would refuse such a batch, and it is too late then.
        let mut columns = self.schema.fields().iter().zip(batch.columns());
        if let Some((field, _)) =
            columns.find(|(field, column)| !field.is_nullable() && column.null_count() > 0)
        {
            return Err(Error::new(
                ErrorKind::Misuse,
                "a batch has nulls in a column that the table's schema requires",
            )
            .with("column", field.name()));
        }
        self.input.push_back(batch);
        Ok(())
    }

    /// Says that no more batches will come.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// The next bytes of the entry, in pieces. `None`: push more input, or, after [`Encoder::end`],
    /// everything has been given out.
    ///
    /// A segment is about one record batch. The call works for as long as that takes to encode or
    /// compress. Plain segments are still being hashed, on a thread beside, when they are given out; the
    /// next call waits for that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when the source cannot be expressed as one Arrow IPC file (its
    /// batches' dictionaries outgrow their keys or contradict each other's order).
    pub fn next_segment(&mut self) -> Result<Option<Vec<Bytes>>> {
        self.output.settle()?;
        while self.pending.len() < self.depth {
            let Some(batch) = self.next_slice() else {
                break;
            };
            self.submit(batch)?;
        }
        let is_full = self.pending.len() >= self.depth;
        if (is_full || self.has_ended)
            && let Some(pending) = self.pending.pop_front()
        {
            return self.write(pending).map(Some);
        }
        if !self.has_ended {
            return Ok(None);
        }
        self.output.close(&self.schema)
    }

    /// The head of the entry, and what the entry consists of.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when segments are still to be taken.
    pub fn finish(self) -> Result<Encoded> {
        let Some((seal, payload_hash)) = self.output.seal() else {
            return Err(Error::new(
                ErrorKind::Misuse,
                "the encoder was finished before its last segment was taken",
            ));
        };
        let bytes = self.head.len() as u64 + self.output.len();
        Ok(Encoded {
            rows: self.output.rows(),
            batches: self.output.batches(),
            head: self.head.patch(&seal, payload_hash)?,
            bytes,
        })
    }

    fn next_slice(&mut self) -> Option<RecordBatch> {
        loop {
            if let Some(slice) = self.slicer.as_mut().and_then(Iterator::next) {
                return Some(slice);
            }
            let batch = self.input.pop_front()?;
            self.slicer = Some(Slicer::new(batch, self.batch_bytes));
        }
    }

    /// Waits for the buffers of a message and lays it out.
    fn write(&mut self, pending: Pending) -> Result<Vec<Bytes>> {
        let mut stored: Vec<Vec<Bytes>> = Vec::with_capacity(pending.message.buffers.len());
        for group in pending.buffers {
            match group {
                Group::Plain(buffers) => {
                    stored.extend(buffers.into_iter().map(|buffer| vec![bytes_of(buffer)]));
                }
                Group::Compressing(compressed) => stored.extend(compressed.wait()?),
            }
        }
        if self.pool.is_some() && pending.message.dictionary.is_none() {
            self.plain = stored.iter().map(|pieces| is_plain(pieces)).collect();
        }
        self.output.message(&self.schema, pending.message, stored)
    }

    /// Takes a slice apart and hands its buffers to compression.
    fn submit(&mut self, slice: RecordBatch) -> Result<()> {
        let tidy = |(column, garbage): (&ArrayRef, &bool)| {
            if *garbage {
                without_garbage(column, &self.buffers)
            } else {
                Ok(Arc::clone(column))
            }
        };
        let columns = slice.columns().iter().zip(&self.garbage).map(tidy);
        let mut columns = columns
            .collect::<Result<Vec<_>, _>>()
            .map_err(unsupported)?;
        if let Some(unifier) = &mut self.unifier {
            columns = unifier.unify(&self.schema, &columns).map_err(unsupported)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(slice.num_rows()));
        // The caller's own batches may differ from the schema in nullability or metadata.
        let schema = slice.schema();
        let slice =
            RecordBatch::try_new_with_options(schema, columns, &options).map_err(unsupported)?;
        for (message, buffers) in self.flattener.flatten(&slice)? {
            let buffers = match &self.pool {
                None => vec![Group::Plain(buffers)],
                Some(pool) => {
                    // Only record batches are like the one before.
                    let plain = if message.dictionary.is_none() {
                        &self.plain[..]
                    } else {
                        &[]
                    };
                    let hints = plain.iter().copied().chain(std::iter::repeat(false));
                    groups(buffers.into_iter().zip(hints))
                        .map(|group| Group::Compressing(pool.compress(group)))
                        .collect()
                }
            };
            self.pending.push_back(Pending { message, buffers });
        }
        Ok(())
    }
}

fn groups(buffers: impl Iterator<Item = Input>) -> impl Iterator<Item = Vec<Input>> {
    let mut rest = buffers.peekable();
    std::iter::from_fn(move || {
        rest.peek()?;
        let mut bytes = 0;
        let mut group = Vec::new();
        while bytes < GROUP_BYTES
            && let Some(buffer) = rest.next()
        {
            bytes += buffer.0.len();
            group.push(buffer);
        }
        Some(group)
    })
}

/// Takes record batches apart into the buffers of their IPC messages.
///
/// This is arrow-ipc's own encoder, whose buffers share memory with the batch; what it writes around
/// them is dropped, because the layout is ours.
struct Flattener {
    encoder: StreamEncoder,
}

impl Flattener {
    fn new(schema: &SchemaRef) -> Result<Self> {
        let options =
            IpcWriteOptions::default().with_dictionary_handling(DictionaryHandling::Delta);
        let encoder = StreamEncoder::try_new_with_options(schema, options).map_err(unsupported)?;
        Ok(Self { encoder })
    }

    /// The messages of a batch (its new dictionaries, then itself), each with its buffers.
    fn flatten(&mut self, batch: &RecordBatch) -> Result<Vec<(Message, Vec<Buffer>)>> {
        let pieces = self.encoder.encode(batch).map_err(unsupported)?;
        let mut pieces = pieces.into_iter();
        let mut messages = Vec::new();
        // A message is its prefix, its flatbuffer, padding, then each buffer with padding.
        while let Some(prefix) = pieces.next() {
            let wrong = || damaged("the Arrow encoder gave an unexpected sequence of buffers");
            let len: [u8; 4] = prefix
                .get(4..8)
                .and_then(|len| len.try_into().ok())
                .ok_or_else(wrong)?;
            let mut framed = prefix.to_vec();
            let total = framed.len() + u32::from_le_bytes(len) as usize;
            while framed.len() < total {
                framed.extend_from_slice(&pieces.next().ok_or_else(wrong)?);
            }
            // The schema goes out with the prelude.
            let Some(message) = Message::parse(&framed)? else {
                continue;
            };
            let mut buffers = Vec::with_capacity(message.buffers.len());
            for span in &message.buffers {
                let buffer = pieces
                    .next()
                    .filter(|buffer| buffer.len() as u64 == span.len);
                buffers.push(buffer.ok_or_else(wrong)?);
                if !span.len.is_multiple_of(crate::message::ALIGNMENT as u64) {
                    pieces.next().ok_or_else(wrong)?;
                }
            }
            messages.push((message, buffers));
        }
        Ok(messages)
    }
}

impl std::fmt::Debug for Flattener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flattener")
    }
}

fn unsupported(error: ArrowError) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the table cannot be encoded as Arrow IPC",
    )
    .with_source(error)
}
