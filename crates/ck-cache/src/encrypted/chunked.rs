//! Entries encrypted in chunks, read chunk by chunk.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ck_core::{
    BoxFuture, EntryReader, Error, ErrorKind, Expiry, Key, Result, Version, aligned_bytes, offload,
};
use ck_crypto::{ChunkOpener, TAG_BYTES};

use super::form::{Chunked, LENGTH_BYTES};
use super::refused::{NotWhole, Unproven};
use super::{Shared, tampered};

/// Columns are used where they lie when they start at a multiple of this.
const ALIGNMENT: usize = 64;

/// Decrypting less than this is quicker than a hop to another thread.
const INLINE_BYTES: u64 = 256 << 10;

/// An entry of which the head is decrypted, and the rest as it is asked for.
struct Opened {
    entry: Unproven,
    head: Bytes,
    body: Body,
}

/// The body of an entry: where its chunks are.
#[derive(Clone)]
struct Body {
    opener: Arc<ChunkOpener>,
    /// Where chunk 1 starts in the stored entry.
    start: u64,
    /// Bytes of each chunk but the last.
    chunk_bytes: u64,
    /// Plain bytes.
    len: u64,
}

/// Decrypts chunk 0, which says how long the entry has to be.
pub(super) async fn open(
    shared: &Arc<Shared>,
    key: &Key,
    stored: &Arc<dyn EntryReader>,
    form: Chunked,
) -> Result<Arc<dyn EntryReader>> {
    let too_short = || tampered("the encrypted entry was cut off");
    let opener = ChunkOpener::new(
        &shared.keys,
        form.fingerprint,
        &form.salt,
        &form.header,
        &shared.store.name_of(key),
    )?;
    let start = form.header.len() as u64;
    if stored.len() < form.body_start() {
        return Err(too_short());
    }
    let first = stored.read(start..form.body_start()).await?;
    // It is the last one when the body is empty.
    let is_last = stored.len() == form.body_start();
    let mut first = Vec::from(&first[..]);
    let tag = take_tag(&mut first).ok_or_else(too_short)?;
    opener.open(0, is_last, &mut first, 0, tag)?;
    let (len, head) = first
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or_else(too_short)?;
    let len = u64::from_be_bytes(*len);
    if form.entry_len(len) != Some(stored.len()) {
        // It is one's own: its head was proven.
        return Err(too_short()
            .with("expected", form.entry_len(len).unwrap_or(u64::MAX))
            .with("found", stored.len())
            .with_source(NotWhole));
    }
    Ok(Arc::new(Opened {
        head: aligned(head),
        body: Body {
            opener: Arc::new(opener),
            start: form.body_start(),
            chunk_bytes: form.chunk_bytes,
            len,
        },
        entry: Unproven::new(shared, key, stored),
    }))
}

/// Chunks next to each other, `first` counted from the start of the body.
#[derive(Debug, PartialEq)]
struct Span {
    first: u64,
    end: u64,
}

/// Decrypted chunks.
struct Plain {
    bytes: Bytes,
    /// Bytes of memory that `bytes` keep.
    memory: usize,
}

impl Body {
    fn span(&self, range: &Range<u64>) -> Span {
        Span {
            first: range.start / self.chunk_bytes,
            end: range.end.div_ceil(self.chunk_bytes),
        }
    }

    /// Where the chunks are in the stored entry.
    fn stored(&self, span: &Span) -> Range<u64> {
        let at = |chunk: u64| {
            let plain = (chunk * self.chunk_bytes).min(self.len);
            self.start + plain + chunk * TAG_BYTES as u64
        };
        at(span.first)..at(span.end)
    }

    /// The plain bytes of the chunks of a span, at a multiple of 64 in memory.
    fn decrypt(&self, span: &Span, stored: Bytes) -> Result<Plain> {
        let plain_end = (span.end * self.chunk_bytes).min(self.len);
        let plain_len = plain_end.saturating_sub(span.first * self.chunk_bytes);
        let plain_len = usize::try_from(plain_len).map_err(|_| too_large())?;
        let chunk_len = usize::try_from(self.chunk_bytes).map_err(|_| too_large())?;
        let tags = usize::try_from(span.end - span.first).map_err(|_| too_large())? * TAG_BYTES;
        if stored.len() != plain_len + tags {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the store gave another number of bytes than asked for",
            ));
        }
        match stored.try_into_mut() {
            Ok(memory) if memory.as_ptr().align_offset(ALIGNMENT) == 0 => {
                self.decrypt_in_place(span, memory, plain_len, chunk_len)
            }
            Ok(memory) => self.decrypt_into_new(span, &memory, plain_len, chunk_len),
            Err(stored) => self.decrypt_into_new(span, &stored, plain_len, chunk_len),
        }
    }

    /// Each chunk moves to the front by the tags before it.
    fn decrypt_in_place(
        &self,
        span: &Span,
        mut memory: BytesMut,
        plain_len: usize,
        chunk_len: usize,
    ) -> Result<Plain> {
        let (mut from, mut to) = (0, 0);
        for chunk in span.first..span.end {
            let len = chunk_len.min(plain_len - to);
            let mut tag = [0; TAG_BYTES];
            tag.copy_from_slice(&memory[from + len..][..TAG_BYTES]);
            self.open(chunk, &mut memory[to..from + len], from - to, tag)?;
            from += len + TAG_BYTES;
            to += len;
        }
        memory.truncate(plain_len);
        Ok(Plain {
            memory: memory.capacity(),
            bytes: memory.freeze(),
        })
    }

    fn decrypt_into_new(
        &self,
        span: &Span,
        stored: &[u8],
        plain_len: usize,
        chunk_len: usize,
    ) -> Result<Plain> {
        let bytes = aligned_bytes(plain_len, |memory| {
            let chunks = stored.chunks(chunk_len + TAG_BYTES);
            let places = memory.chunks_mut(chunk_len);
            for (chunk, (stored, plain)) in (span.first..span.end).zip(chunks.zip(places)) {
                let (bytes, tag) = stored.split_at(plain.len());
                plain.copy_from_slice(bytes);
                let tag = tag.try_into().map_err(|_| too_large())?;
                self.open(chunk, plain, 0, tag)?;
            }
            Ok(())
        });
        bytes.map(|bytes| Plain {
            memory: plain_len,
            bytes,
        })
    }

    fn open(
        &self,
        chunk: u64,
        buffer: &mut [u8],
        start: usize,
        tag: [u8; TAG_BYTES],
    ) -> Result<()> {
        let is_last = (chunk + 1) * self.chunk_bytes >= self.len;
        self.opener.open(chunk + 1, is_last, buffer, start, tag)
    }
}

impl Opened {
    /// Parts of the body, in the order of `ranges`. What lies in chunks that ranges next to each other share is fetched
    /// and decrypted once.
    async fn read_body(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut spans: Vec<Span> = Vec::new();
        let mut places = Vec::with_capacity(ranges.len());
        for range in ranges {
            let span = self.body.span(range);
            match spans.last_mut() {
                Some(last) if (last.first..last.end).contains(&span.first) => {
                    last.end = last.end.max(span.end);
                }
                _ => spans.push(span),
            }
            places.push(spans.len() - 1);
        }
        let stored = spans.iter().map(|span| self.body.stored(span)).collect();
        let stored = self.entry.stored.read_ranges(stored).await;
        let stored = stored.map_err(|error| self.entry.failed(error))?;
        let bytes: u64 = stored.iter().map(|bytes| bytes.len() as u64).sum();
        let body = self.body.clone();
        let wanted: Vec<_> = ranges.iter().cloned().zip(places).collect();
        let decrypt = move || {
            let spans = spans.iter().zip(stored).enumerate();
            let parts = spans.map(|(place, (span, bytes))| {
                let plain = body.decrypt(span, bytes)?;
                let start = span.first * body.chunk_bytes;
                let wanted = wanted.iter().filter(|(_, at)| *at == place);
                cut(&plain, start, wanted.map(|(range, _)| range))
            });
            Ok(parts.collect::<Result<Vec<_>>>()?.concat())
        };
        let plain = if bytes <= INLINE_BYTES {
            decrypt()
        } else {
            offload(decrypt).await
        };
        plain.map_err(|error: Error| match error.kind() {
            ErrorKind::Tampered => self.entry.tampered(error),
            _ => self.entry.failed(error),
        })
    }

    async fn read_all(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        let head_len = self.head.len() as u64;
        if let Some(range) = ranges
            .iter()
            .find(|range| range.start > range.end || range.end > self.len())
        {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the entry ends before the bytes asked for",
            )
            .with("wanted", format_args!("{}..{}", range.start, range.end))
            .with("entry_bytes", self.len()));
        }
        let in_body = |range: &Range<u64>| {
            let range = range.start.max(head_len) - head_len..range.end.max(head_len) - head_len;
            (!range.is_empty()).then_some(range)
        };
        let bodies: Vec<_> = ranges.iter().filter_map(in_body).collect();
        let bodies = if bodies.is_empty() {
            Vec::new()
        } else {
            self.read_body(&bodies).await?
        };
        let mut bodies = bodies.into_iter();
        let parts = ranges.iter().map(|range| {
            let body = in_body(range)
                .and_then(|_| bodies.next())
                .unwrap_or_default();
            if range.start >= head_len {
                return Ok(body);
            }
            let offset = |at: u64| usize::try_from(at.min(head_len)).map_err(|_| too_large());
            let head = &self.head[offset(range.start)?..offset(range.end)?];
            aligned_bytes(head.len() + body.len(), |memory| {
                let (start, rest) = memory.split_at_mut(head.len());
                start.copy_from_slice(head);
                rest.copy_from_slice(&body);
                Ok(())
            })
        });
        parts.collect()
    }
}

impl EntryReader for Opened {
    fn len(&self) -> u64 {
        self.head.len() as u64 + self.body.len
    }

    fn expiry(&self) -> Expiry {
        self.entry.stored.expiry()
    }

    fn version(&self) -> Version {
        self.entry.stored.version()
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let mut parts = self.read_all(vec![range]).await?;
            Ok(parts.pop().unwrap_or_default())
        })
    }

    /// The tags, and the rest of the first chunk and of the last.
    fn read_overhead(&self, len: u64) -> u64 {
        let chunk = self.body.chunk_bytes;
        let tags = (len / chunk)
            .saturating_add(2)
            .saturating_mul(TAG_BYTES as u64);
        tags.saturating_add(2 * chunk)
    }

    fn read_ranges(&self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        Box::pin(self.read_all(ranges))
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.entry.discard())
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("stored", &self.entry.stored)
            .finish_non_exhaustive()
    }
}

/// The parts of decrypted chunks that were asked for; copied, and the chunks let go of, when they lie badly or would keep
/// a thirty-second of memory that was not asked for.
fn cut<'a>(
    plain: &Plain,
    start: u64,
    ranges: impl Iterator<Item = &'a Range<u64>> + Clone,
) -> Result<Vec<Bytes>> {
    let wanted: u64 = ranges.clone().map(|range| range.end - range.start).sum();
    // What is kept for longer is charged by what was asked for.
    let is_part = wanted < plain.memory as u64 / 32 * 31;
    let parts = ranges.map(|range| {
        let offset = |at: u64| usize::try_from(at - start).map_err(|_| too_large());
        let (start, end) = (offset(range.start)?, offset(range.end)?);
        if is_part || !start.is_multiple_of(ALIGNMENT) {
            Ok(aligned(&plain.bytes[start..end]))
        } else {
            Ok(plain.bytes.slice(start..end))
        }
    });
    parts.collect()
}

/// Cuts the tag off the end.
fn take_tag(bytes: &mut Vec<u8>) -> Option<[u8; TAG_BYTES]> {
    let at = bytes.len().checked_sub(TAG_BYTES)?;
    let tag = bytes[at..].try_into().ok()?;
    bytes.truncate(at);
    Some(tag)
}

fn aligned(bytes: &[u8]) -> Bytes {
    let copied = aligned_bytes(bytes.len(), |memory| {
        memory.copy_from_slice(bytes);
        Ok::<_, std::convert::Infallible>(())
    });
    match copied {
        Ok(bytes) => bytes,
        Err(never) => match never {},
    }
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::TooLarge,
        "more bytes than this process can address",
    )
}
