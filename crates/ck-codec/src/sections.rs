use std::fmt;
use std::hash::Hasher;
use std::io::{self, Write};
use std::ops::Range;

use arrow_buffer::Buffer;
use bytes::Bytes;
use ck_arrow::{Table, decode_ipc_stream, encode_ipc_stream};
use ck_core::{ErrorKind, Result};
use twox_hash::XxHash3_64;

use crate::align::{ALIGNMENT, padding, write};
use crate::error::{damaged, misuse, unsupported};
use crate::tensor::Tensor;
use crate::tensor_message;

const MAGIC: &[u8; 4] = b"CKSC";
const VERSION: u32 = 1;
/// Magic, version, length of the header.
const FIXED_LEN: usize = 12;
/// A length in the directory, their number, the hash.
const WORD: usize = 8;
/// A header that is not small belongs into a part.
const MAX_HEADER: usize = 1 << 20;

/// Writes a composite value: a small header, then parts that start at multiples of 64.
///
/// Parts go out as they are given, straight from where they lie; nothing is collected, and no length
/// has to be known before. Call [`SectionsWriter::finish`] after the last part: without it, the value
/// does not read.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use ck_codec::{Order, Sections, SectionsWriter, Tensor};
/// use arrow_array::types::Float32Type;
///
/// let codebook = Tensor::from_values::<Float32Type>(vec![0.5, 1.5, 2.5, 3.5], [2, 2], Order::RowMajor)?;
/// let mut stored = Vec::new();
/// let mut sections = SectionsWriter::new(&mut stored, b"partition 7")?;
/// sections.tensor(&codebook)?;
/// sections.bytes(b"raw")?;
/// sections.finish()?;
///
/// let sections = Sections::parse(&Bytes::from(stored))?;
/// assert_eq!(&sections.header_bytes()[..], b"partition 7");
/// assert_eq!(sections.tensor(0)?, codebook);
/// assert_eq!(&sections.part(1)?[..], b"raw");
/// # Ok::<(), ck_core::Error>(())
/// ```
pub struct SectionsWriter<'a> {
    writer: &'a mut dyn Write,
    /// Bytes written.
    at: u64,
    hash: XxHash3_64,
    lengths: Vec<u8>,
    has_failed: bool,
}

impl fmt::Debug for SectionsWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectionsWriter")
            .field("at", &self.at)
            .field("parts", &(self.lengths.len() / WORD))
            .finish_non_exhaustive()
    }
}

impl<'a> SectionsWriter<'a> {
    /// Starts a value with a header of any form.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] for a header above 1 MiB; those of the writer.
    pub fn new(writer: &'a mut dyn Write, header: &[u8]) -> Result<Self> {
        let header_len = u32::try_from(header.len()).ok();
        let Some(header_len) = header_len.filter(|_| header.len() <= MAX_HEADER) else {
            return Err(ck_core::Error::new(
                ErrorKind::TooLarge,
                "the header of a composite value is too large; make it a part",
            )
            .with("bytes", header.len())
            .with("limit", MAX_HEADER));
        };
        let mut head = Vec::with_capacity(FIXED_LEN + header.len());
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&header_len.to_le_bytes());
        head.extend_from_slice(header);
        let mut hash = XxHash3_64::new();
        hash.write(&head);
        write(writer, &head)?;
        Ok(Self {
            writer,
            at: head.len() as u64,
            hash,
            lengths: Vec::new(),
            has_failed: false,
        })
    }

    /// Starts a value with a `serde` header, as MessagePack with the names of the fields.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] for a header that MessagePack cannot express, and those of
    /// [`SectionsWriter::new`].
    #[cfg(feature = "messagepack")]
    pub fn with_header<H: serde_core::Serialize + ?Sized>(
        writer: &'a mut dyn Write,
        header: &H,
    ) -> Result<Self> {
        Self::new(writer, &crate::messagepack::to_vec(header)?)
    }

    /// Adds a part that is a buffer.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn bytes(&mut self, part: &[u8]) -> Result<()> {
        self.part(|writer| write(writer, part))
    }

    /// Adds a part that is a table, as an uncompressed Arrow IPC stream.
    ///
    /// # Memory
    ///
    /// That of [`encode_ipc_stream`], one batch at a time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for a type that Arrow IPC cannot express; those of the writer.
    pub fn table(&mut self, part: &Table) -> Result<()> {
        self.part(|writer| encode_ipc_stream(part, |segment| write(writer, &segment)))
    }

    /// Adds a part that is a tensor, as an Arrow tensor message.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn tensor(&mut self, part: &Tensor) -> Result<()> {
        self.part(|writer| tensor_message::write(part, writer))
    }

    /// Adds a part of any form: what `fill` writes.
    ///
    /// # Errors
    ///
    /// Whatever `fill` returns. The value cannot be continued then ([`ErrorKind::Misuse`]).
    pub fn part(&mut self, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        self.check()?;
        // Stays so if anything fails on the way.
        self.has_failed = true;
        self.pad()?;
        let mut counted = Counted {
            writer: &mut *self.writer,
            written: 0,
        };
        fill(&mut counted)?;
        let written = counted.written;
        self.at += written;
        self.lengths.extend_from_slice(&written.to_le_bytes());
        self.has_failed = false;
        Ok(())
    }

    /// Writes the directory, which ends the value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when a part has failed before; those of the writer.
    pub fn finish(mut self) -> Result<()> {
        self.check()?;
        self.pad()?;
        let mut directory = std::mem::take(&mut self.lengths);
        let count = (directory.len() / WORD) as u64;
        directory.extend_from_slice(&count.to_le_bytes());
        self.hash.write(&directory);
        directory.extend_from_slice(&self.hash.finish().to_le_bytes());
        write(self.writer, &directory)
    }

    fn check(&self) -> Result<()> {
        if self.has_failed {
            return Err(misuse("a part of this value has failed; write it anew"));
        }
        Ok(())
    }

    fn pad(&mut self) -> Result<()> {
        let padding = padding(self.at);
        self.at += padding.len() as u64;
        write(self.writer, padding)
    }
}

struct Counted<'a> {
    writer: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A composite value that was written with [`SectionsWriter`]. Everything it gives borrows from the
/// bytes it was parsed from.
///
/// Header and directory are proved by a hash; the parts are not, they rely on that of the entry.
#[derive(Clone)]
pub struct Sections {
    header: Bytes,
    parts: Vec<Bytes>,
}

impl Sections {
    /// Finds header and parts.
    ///
    /// # Memory
    ///
    /// A handle for each part.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] for anything but the exact bytes of one value,
    /// [`ErrorKind::Unsupported`] for a later version of the format.
    pub fn parse(data: &Bytes) -> Result<Self> {
        let head = header_range(data)?;
        let directory = Directory::find(data, head.end)?;
        directory.check(&data[..head.end])?;
        Ok(Self {
            header: data.slice(head.clone()),
            parts: directory.parts(data, head.end)?,
        })
    }

    /// The header as it was given.
    #[must_use]
    pub fn header_bytes(&self) -> &Bytes {
        &self.header
    }

    /// The header of [`SectionsWriter::with_header`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] when it is not an `H`.
    #[cfg(feature = "messagepack")]
    pub fn header<H: serde_core::de::DeserializeOwned>(&self) -> Result<H> {
        crate::messagepack::from_slice(&self.header)
    }

    /// How many parts there are.
    #[must_use]
    pub fn num_parts(&self) -> usize {
        self.parts.len()
    }

    /// The bytes of a part, shared.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] when the value has no such part.
    pub fn part(&self, index: usize) -> Result<Bytes> {
        self.parts.get(index).cloned().ok_or_else(|| {
            damaged("a composite value lacks a part")
                .with("part", index)
                .with("parts", self.parts.len())
        })
    }

    /// A part as an Arrow buffer, shared.
    ///
    /// # Errors
    ///
    /// Those of [`Sections::part`].
    pub fn buffer(&self, index: usize) -> Result<Buffer> {
        self.part(index).map(Buffer::from)
    }

    /// A part that was written as a table.
    ///
    /// # Errors
    ///
    /// Those of [`Sections::part`], and [`ErrorKind::Corrupt`] when it is no table.
    pub fn table(&self, index: usize) -> Result<Table> {
        decode_ipc_stream(&self.part(index)?).map_err(|error| error.with("part", index))
    }

    /// A part that was written as a tensor.
    ///
    /// # Errors
    ///
    /// Those of [`Sections::part`], and [`ErrorKind::Corrupt`] when it is no tensor.
    pub fn tensor(&self, index: usize) -> Result<Tensor> {
        tensor_message::decode(&self.part(index)?).map_err(|error| error.with("part", index))
    }
}

/// Lengths only; the bytes are many.
impl fmt::Debug for Sections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.parts.iter().map(Bytes::len).collect();
        f.debug_struct("Sections")
            .field("header", &self.header.len())
            .field("parts", &parts)
            .finish()
    }
}

/// Where the header lies.
fn header_range(data: &[u8]) -> Result<Range<usize>> {
    let not_sections = || damaged("the bytes are no composite value");
    let (fixed, rest) = data
        .split_first_chunk::<FIXED_LEN>()
        .ok_or_else(not_sections)?;
    let [m0, m1, m2, m3, v0, v1, v2, v3, l0, l1, l2, l3] = *fixed;
    if [m0, m1, m2, m3] != *MAGIC {
        return Err(not_sections());
    }
    let version = u32::from_le_bytes([v0, v1, v2, v3]);
    if version != VERSION {
        return Err(
            unsupported("the composite value is of another version of the format")
                .with("version", version),
        );
    }
    let header_len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok();
    match header_len.filter(|len| *len <= MAX_HEADER && *len <= rest.len()) {
        Some(len) => Ok(FIXED_LEN..FIXED_LEN + len),
        None => Err(damaged(
            "the header of a composite value is longer than the value",
        )),
    }
}

/// The end of a composite value: the length of each part, their number, and a hash.
struct Directory<'a> {
    lengths: &'a [u8],
    count: [u8; WORD],
    hash: u64,
    /// Where it starts.
    start: usize,
}

impl<'a> Directory<'a> {
    /// `head_end` is the least place it can start at.
    fn find(data: &'a [u8], head_end: usize) -> Result<Self> {
        let truncated = || damaged("a composite value is truncated, or bytes follow it");
        let (rest, hash) = data.split_last_chunk::<WORD>().ok_or_else(truncated)?;
        let (rest, count) = rest.split_last_chunk::<WORD>().ok_or_else(truncated)?;
        let len = usize::try_from(u64::from_le_bytes(*count)).ok();
        let len = len.and_then(|count| count.checked_mul(WORD));
        let start = len.and_then(|len| rest.len().checked_sub(len));
        let start = start.filter(|start| *start >= head_end);
        let start = start.ok_or_else(truncated)?;
        Ok(Self {
            lengths: &rest[start..],
            count: *count,
            hash: u64::from_le_bytes(*hash),
            start,
        })
    }

    /// Compares the hash.
    fn check(&self, head: &[u8]) -> Result<()> {
        let mut hash = XxHash3_64::new();
        for bytes in [head, self.lengths, &self.count] {
            hash.write(bytes);
        }
        if hash.finish() == self.hash {
            return Ok(());
        }
        Err(damaged(
            "head and directory of a composite value do not have the hash they were stored with",
        ))
    }

    /// The parts, which fill the space between head and directory exactly.
    fn parts(&self, data: &Bytes, head_end: usize) -> Result<Vec<Bytes>> {
        let mut at = next_start(head_end);
        let mut parts = Vec::with_capacity(self.lengths.len() / WORD);
        for length in self.lengths.as_chunks::<WORD>().0 {
            let length = u64::from_le_bytes(*length);
            let end = usize::try_from(length).ok().zip(at);
            let part = end.and_then(|(length, start)| {
                let end = start.checked_add(length)?;
                (end <= self.start).then_some(start..end)
            });
            let part = part.ok_or_else(|| {
                damaged("a part of a composite value reaches beyond the value")
                    .with("part", parts.len())
                    .with("length", length)
            })?;
            at = next_start(part.end);
            parts.push(data.slice(part));
        }
        if at != Some(self.start) {
            return Err(damaged(
                "the parts of a composite value do not fill the space they have",
            ));
        }
        Ok(parts)
    }
}

/// Where what follows `end` starts.
fn next_start(end: usize) -> Option<usize> {
    end.checked_next_multiple_of(ALIGNMENT)
}
