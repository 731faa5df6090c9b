//! From checked messages and verified bytes to arrays.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_schema::{Fields, Schema};
use bytes::Bytes;
use ck_core::Result;

use crate::codec::{Decompressor, Stored};
use crate::extent::{Extent, extents};
use crate::message::{ALIGNMENT, Message, Span, damaged};

/// The alignment that other writers give their buffers at least.
const WORD: u64 = 8;

/// The dictionaries that a decode may need, by their IPC number.
pub(crate) type Dictionaries = HashMap<i64, ArrayRef>;

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
    /// The arrays of the part's columns.
    ///
    /// Uncompressed buffers stay where they are when they are aligned; with `is_aligned` all of them have
    /// to be. Compressed columns get an allocation each.
    pub(crate) fn decode(
        &self,
        fields: &Fields,
        message: &Message,
        dictionaries: &Dictionaries,
        is_aligned: bool,
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
        for (column, extent) in self.columns.iter().zip(&self.extents) {
            let (data, spans) = self.decompress(message, extent, &mut decompressor)?;
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
    /// decoder moves most of what is misaligned itself, but not the offsets of unions.
    fn plain(&self, mut spans: Vec<Span>) -> Result<(Buffer, Vec<Span>)> {
        if self.bytes.is_empty() {
            // Nothing has no address, and the decoder would call a made-up one misaligned.
            return Ok((Buffer::default(), spans));
        }
        let start = self.bytes.as_ptr() as u64;
        if spans
            .iter()
            .all(|span| span.len == 0 || (start + span.offset).is_multiple_of(WORD))
        {
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

    /// The plain buffers of one column, side by side in one allocation.
    fn decompress(
        &self,
        message: &Message,
        extent: &Extent,
        decompressor: &mut Decompressor,
    ) -> Result<(Buffer, Vec<Span>)> {
        let stored = message.buffers[extent.buffers.clone()].iter();
        let stored = stored
            .map(|span| Stored::of(self.stored(*span)?))
            .collect::<Result<Vec<_>>>()?;
        // Claims that the compressed bytes cannot vouch for are decompressed aside first.
        let mut grown: Vec<Option<Vec<u8>>> = Vec::with_capacity(stored.len());
        let mut spans = Vec::with_capacity(stored.len());
        let mut end = 0_usize;
        let mut stored_bytes = 0;
        for buffer in &stored {
            let (len, aside) = match buffer {
                Stored::Plain(bytes) => {
                    stored_bytes += bytes.len();
                    (bytes.len(), None)
                }
                Stored::Compressed { plain_len, bytes } => {
                    stored_bytes += bytes.len();
                    // Together with the buffers before it: many small claims are a large one.
                    let is_credible =
                        Decompressor::is_credible(end.saturating_add(*plain_len), stored_bytes);
                    let aside =
                        (!is_credible).then(|| decompressor.decompress_growing(bytes, *plain_len));
                    (*plain_len, aside.transpose()?)
                }
            };
            grown.push(aside);
            spans.push(Span {
                offset: end as u64,
                len: len as u64,
            });
            end = end
                .checked_add(len.next_multiple_of(ALIGNMENT))
                .ok_or_else(|| {
                    damaged("a compressed column claims more bytes than memory can hold")
                })?;
        }
        let mut memory = MutableBuffer::from_len_zeroed(end);
        for ((buffer, aside), span) in stored.iter().zip(grown).zip(&spans) {
            let start = usize::try_from(span.offset).unwrap_or(usize::MAX);
            let plain = memory.as_slice_mut();
            match (buffer, aside) {
                (_, Some(aside)) => plain[start..start + aside.len()].copy_from_slice(&aside),
                (Stored::Plain(bytes), None) => {
                    plain[start..start + bytes.len()].copy_from_slice(bytes)
                }
                (Stored::Compressed { plain_len, bytes }, None) => {
                    decompressor.decompress_into(bytes, &mut plain[start..start + plain_len])?;
                }
            }
        }
        Ok((memory.into(), spans))
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
