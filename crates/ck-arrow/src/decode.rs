//! From checked messages and verified bytes to arrays.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_schema::{Fields, Schema};
use bytes::Bytes;
use ck_core::Result;

use crate::buffer_pool::{BufferPool, Room};
use crate::codec::{Decompressor, Stored};
use crate::extent::{Extent, extents};
use crate::message::{ALIGNMENT, Message, Span, damaged};

/// The alignment that other writers give their buffers at least.
const WORD: u64 = 8;

/// The dictionaries that a decode may need, by their IPC number.
pub(crate) type Dictionaries = HashMap<i64, ArrayRef>;

/// Where compressed columns of a part go.
#[derive(Default)]
pub(crate) struct Memory<'a> {
    /// Of each column, as far as they were taken before.
    pub(crate) rooms: Vec<Option<Room>>,
    /// Where the others come from, if not from the allocator.
    pub(crate) pool: Option<&'a BufferPool>,
}

/// Some neighbouring columns of a batch, with the bytes that hold them.
#[derive(Debug)]
pub(crate) struct Part {
    /// Which columns of the schema; each has its extent in `extents`.
    pub(crate) columns: Vec<usize>,
    pub(crate) extents: Vec<Extent>,
    /// Where `bytes` lie in the body.
    pub(crate) span: Span,
    pub(crate) bytes: Bytes,
}

impl Part {
    /// Memory for the compressed columns, taken from the heap of this thread and not touched yet; `None` for
    /// those whose claims have to be proved first.
    pub(crate) fn rooms(&self, message: &Message, pool: Option<&BufferPool>) -> Vec<Option<Room>> {
        let room = |extent: &Extent| {
            let plan = self.plan(message, extent).ok();
            plan.filter(Plan::is_credible)?.room(pool).ok()
        };
        self.extents.iter().map(room).collect()
    }

    /// The arrays of the part's columns.
    ///
    /// Uncompressed buffers stay where they are when they are aligned; with `is_aligned` all of them have
    /// to be. Compressed columns get an allocation each, out of `memory`.
    pub(crate) fn decode(
        &self,
        fields: &Fields,
        message: &Message,
        dictionaries: &Dictionaries,
        is_aligned: bool,
        memory: Memory<'_>,
    ) -> Result<Vec<ArrayRef>> {
        let field = |column: &usize| Arc::clone(&fields[*column]);
        let Some(codec) = message.compression else {
            let spans = self
                .extents
                .iter()
                .flat_map(|e| &message.buffers[e.buffers.clone()]);
            let spans = spans
                .map(|span| self.rebased(*span))
                .collect::<Result<Vec<_>>>()?;
            let fields = self.columns.iter().map(field).collect();
            let (data, spans) = self.plain(spans)?;
            let message = Extent::message_of(message, self.extents.iter(), spans);
            return arrays(fields, &message, &data, dictionaries, is_aligned);
        };
        let mut decompressor = Decompressor::new(codec)?;
        let mut columns = Vec::with_capacity(self.columns.len());
        let rooms = memory
            .rooms
            .into_iter()
            .chain(std::iter::repeat_with(|| None));
        for ((column, extent), room) in self.columns.iter().zip(&self.extents).zip(rooms) {
            let plan = self.plan(message, extent)?;
            let (data, spans) = plan.decompress(room, memory.pool, &mut decompressor)?;
            let message = Extent::message_of(message, std::iter::once(extent), spans);
            let fields = Fields::from(vec![field(column)]);
            columns.extend(arrays(fields, &message, &data, dictionaries, true)?);
        }
        Ok(columns)
    }

    /// Where a buffer lies in `bytes`.
    fn rebased(&self, span: Span) -> Result<Span> {
        if span.len == 0 {
            return Ok(Span::default());
        }
        match span.offset.checked_sub(self.span.offset) {
            Some(offset) if offset + span.len <= self.bytes.len() as u64 => {
                Ok(Span { offset, ..span })
            }
            _ => Err(damaged("a buffer lies outside of the bytes of its column")
                .with("offset", span.offset)),
        }
    }

    /// Uncompressed buffers where they lie, or, when that is not at words, moved to where they do: the
    /// decoder moves most of what is misaligned itself, but not the offsets of unions, be they empty.
    fn plain(&self, mut spans: Vec<Span>) -> Result<(Buffer, Vec<Span>)> {
        if spans.iter().all(|span| span.len == 0) {
            // They need no bytes, and those that are here, if any, lie anywhere.
            return Ok((Buffer::default(), spans));
        }
        let start = self.bytes.as_ptr() as u64;
        let is_at_word = |span: &Span| (start + span.offset).is_multiple_of(WORD);
        if spans.iter().all(is_at_word) {
            return Ok((Buffer::from(self.bytes.clone()), spans));
        }
        let mut memory = MutableBuffer::new(self.bytes.len());
        for span in &mut spans {
            let bytes = self.bytes_of(*span)?;
            memory.resize(memory.len().next_multiple_of(ALIGNMENT), 0);
            span.offset = memory.len() as u64;
            memory.extend_from_slice(bytes);
        }
        Ok((memory.into(), spans))
    }

    fn stored(&self, span: Span) -> Result<&[u8]> {
        self.bytes_of(self.rebased(span)?)
    }

    /// The bytes of a buffer whose place in `bytes` is known.
    fn bytes_of(&self, span: Span) -> Result<&[u8]> {
        let range = usize::try_from(span.offset)
            .ok()
            .zip(usize::try_from(span.end()).ok());
        let bytes = range.and_then(|(start, end)| self.bytes.get(start..end));
        bytes.ok_or_else(|| damaged("a buffer lies outside of the bytes of its column"))
    }

    /// Where the plain buffers of one column will lie.
    fn plan(&self, message: &Message, extent: &Extent) -> Result<Plan<'_>> {
        let spans = &message.buffers[extent.buffers.clone()];
        let mut plan = Plan {
            buffers: Vec::with_capacity(spans.len()),
            len: 0,
        };
        let mut stored_bytes = 0;
        for span in spans {
            let stored = Stored::of(self.stored(*span)?)?;
            let (len, bytes) = match stored {
                Stored::Plain(bytes) => (bytes.len(), bytes),
                Stored::Compressed { plain_len, bytes } => (plain_len, bytes),
            };
            stored_bytes += bytes.len();
            let start = plan.len;
            // Together with the buffers before it: many small claims are a large one.
            let is_credible = match stored {
                Stored::Plain(_) => true,
                Stored::Compressed { .. } => {
                    Decompressor::is_credible(start.saturating_add(len), stored_bytes)
                }
            };
            let rounded = len.checked_next_multiple_of(ALIGNMENT);
            let end = rounded.and_then(|len| start.checked_add(len));
            plan.len = end.ok_or_else(|| {
                damaged("a compressed column claims more bytes than memory can hold")
            })?;
            plan.buffers.push(Planned {
                stored,
                plain: start..start + len,
                is_credible,
            });
        }
        Ok(plan)
    }
}

/// The buffers of one compressed column, and where they go, side by side in one allocation.
struct Plan<'a> {
    buffers: Vec<Planned<'a>>,
    len: usize,
}

struct Planned<'a> {
    stored: Stored<'a>,
    plain: Range<usize>,
    /// Whether the compressed bytes can vouch for the length they claim.
    is_credible: bool,
}

impl Plan<'_> {
    fn is_credible(&self) -> bool {
        self.buffers.iter().all(|buffer| buffer.is_credible)
    }

    fn room(&self, pool: Option<&BufferPool>) -> Result<Room> {
        match pool {
            Some(pool) => pool.take(self.len),
            None => Room::new(self.len),
        }
    }

    /// The plain buffers, in `room` if there is one.
    fn decompress(
        &self,
        room: Option<Room>,
        pool: Option<&BufferPool>,
        decompressor: &mut Decompressor,
    ) -> Result<(Buffer, Vec<Span>)> {
        // What is not credible is decompressed aside first.
        let mut grown: Vec<Option<Vec<u8>>> = Vec::with_capacity(self.buffers.len());
        for buffer in &self.buffers {
            grown.push(match buffer.stored {
                Stored::Compressed { plain_len, bytes } if !buffer.is_credible => {
                    Some(decompressor.decompress_growing(bytes, plain_len)?)
                }
                _ => None,
            });
        }
        // The room was measured by what may have been overwritten since.
        let mut room = match room.filter(|room| room.capacity() >= self.len) {
            Some(room) => room,
            None => self.room(pool)?,
        };
        let memory = room.bytes(self.len);
        let mut spans = Vec::with_capacity(self.buffers.len());
        for (buffer, aside) in self.buffers.iter().zip(grown) {
            let plain = &mut memory[buffer.plain.clone()];
            match (buffer.stored, aside) {
                (_, Some(aside)) => plain.copy_from_slice(&aside),
                (Stored::Plain(bytes), None) => plain.copy_from_slice(bytes),
                (Stored::Compressed { bytes, .. }, None) => {
                    decompressor.decompress_into(bytes, plain)?;
                }
            }
            let padding = buffer.plain.end..buffer.plain.end.next_multiple_of(ALIGNMENT);
            memory[padding].fill(0);
            spans.push(Span {
                offset: buffer.plain.start as u64,
                len: buffer.plain.len() as u64,
            });
        }
        Ok((room.into(), spans))
    }
}

/// The arrays that `message` describes, with its buffers in `data`.
pub(crate) fn arrays(
    fields: Fields,
    message: &Message,
    data: &Buffer,
    dictionaries: &Dictionaries,
    is_aligned: bool,
) -> Result<Vec<ArrayRef>> {
    // Once more, now with plain lengths to check.
    extents(&fields, message, true)?;
    message.check_body(data.len() as u64)?;
    let flatbuffer = message.flatbuffer(data.len() as u64);
    let root = arrow_ipc::root_as_message(&flatbuffer);
    let parsed = root
        .ok()
        .and_then(|root| Some((root.version(), root.header_as_record_batch()?)));
    let Some((version, batch)) = parsed else {
        return Err(damaged(
            "a batch has more columns than the Arrow decoder takes",
        ));
    };
    let decode = || {
        RecordBatchDecoder::try_new(
            data,
            batch,
            Arc::new(Schema::new(fields)),
            dictionaries,
            &version,
        )?
        .with_require_alignment(is_aligned)
        .read_record_batch()
    };
    // What the decoder takes for granted was checked above. Should a damaged batch make it panic all
    // the same, the entry is damaged, and nothing of the decoder's state is left.
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(batch)) => Ok(batch.columns().to_vec()),
        Ok(Err(error)) => Err(damaged("a batch does not decode").with_source(error)),
        Err(_) => Err(damaged(
            "a batch does not decode: the Arrow decoder panicked",
        )),
    }
}
