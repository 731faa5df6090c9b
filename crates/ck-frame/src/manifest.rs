use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use ck_core::{Error, ErrorKind};

use crate::{FrameError, Header, PREFIX_LEN};

/// How an entry that is too long for one value of a store is split over several.
///
/// The manifest is stored under the entry's key, after all of the chunks. A chunk is stored under
/// [`Manifest::chunk_name`], which holds the random *generation* of the entry: the chunks of two entries
/// never have one name, so that a reader finds the chunk of this very entry or none.
///
/// Chunks need not be equally long. A store that returns chunks only as a whole cuts them where columns
/// begin, so that a reader of one column fetches little else.
///
/// There are no hashes of the chunks here. A name that holds 128 random bits is written once, by one
/// writer; lengths are checked; and the entry brings its own hashes, which a reader checks per column
/// anyway. A hash per chunk would triple the manifest and be computed twice over the same bytes.
///
/// # Format
///
/// A `CK` v3 frame whose header is exactly `{"s": "ck-chunks", "m": {}, "v": "2.0"}`. Its payload,
/// numbers big-endian:
///
/// | offset | bytes | what |
/// |---|---|---|
/// | 0 | 1 | version of this layout, 1 |
/// | 1 | 16 | generation, random |
/// | 17 | 8 | length of the entry, *t* |
/// | 25 | 4 | number of chunks, *n*: 1 to [`Manifest::MAX_CHUNKS`] |
/// | 29 | 4 *n* | length of each chunk in order: each at least 1, together *t* |
///
/// Nothing follows.
///
/// # Memory
///
/// Eight bytes per chunk.
///
/// # Examples
///
/// ```
/// use ck_frame::Manifest;
///
/// let manifest = Manifest::new(7, [100, 50, 50])?;
/// assert_eq!(manifest.total_len(), 200);
/// assert_eq!(manifest.chunk(1), 100..150);
/// assert_eq!(manifest.chunks_of(120..151), 1..3);
/// assert_eq!(manifest.chunk_name(2), "00000000000000000000000000000007:2");
///
/// let stored = manifest.encode()?;
/// assert_eq!(Manifest::decode(&stored)?, Some(manifest));
/// assert_eq!(Manifest::decode(b"any other entry")?, None);
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    generation: u128,
    /// Where each chunk ends in the entry; strictly increasing, never empty.
    ends: Vec<u64>,
}

/// Why bytes that begin like a manifest are none, or why one cannot be made.
///
/// Converts into [`ck_core::Error`]: an unknown version is `Unsupported`, a bad list of lengths handed in
/// is `Misuse`, the rest is `Corrupt`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A layout that this version does not know.
    #[error("manifest version {found}, expected {VERSION}")]
    UnknownVersion {
        /// The version byte.
        found: u8,
    },
    /// The payload does not have the length that the number of chunks calls for.
    #[error("the payload of the manifest has {found} bytes, expected {expected}")]
    Length {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be; for a payload without a number of chunks the least possible.
        expected: u64,
    },
    /// No chunks, or too many.
    #[error("a manifest of {found} chunks, expected 1 to {}", Manifest::MAX_CHUNKS)]
    ChunkCount {
        /// The number of chunks.
        found: usize,
    },
    /// A chunk without bytes.
    #[error("chunk {index} of the manifest has no bytes")]
    EmptyChunk {
        /// Which chunk.
        index: usize,
    },
    /// The chunks are not as long as the entry.
    #[error("the chunks of the manifest have {sum} bytes, but the entry {total}")]
    Total {
        /// The length of all chunks.
        sum: u64,
        /// The length that the manifest states.
        total: u64,
    },
    /// Making one: from lengths that no reader would take.
    #[error("no manifest can be made: {0}")]
    Unwritable(Box<Self>),
}

const VERSION: u8 = 1;
const SERIALIZER: &str = "ck-chunks";
/// The prefix of the frame and its header, byte for byte.
const HEAD: &[u8; 46] = b"CK\x03\0\0\0\x27{\"s\": \"ck-chunks\", \"m\": {}, \"v\": \"2.0\"}";
/// The payload up to the lengths.
const FIXED_LEN: usize = 29;

impl Manifest {
    /// The most chunks that are read or written.
    pub const MAX_CHUNKS: usize = 1 << 20;

    /// A manifest of chunks of these lengths. `generation` must be random, and new for every entry.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Unwritable`] when there are no chunks, more than [`Manifest::MAX_CHUNKS`], or one
    /// of them is empty.
    pub fn new(
        generation: u128,
        lengths: impl IntoIterator<Item = u32>,
    ) -> Result<Self, ManifestError> {
        Self::from_lengths(generation, lengths)
            .map_err(|error| ManifestError::Unwritable(Box::new(error)))
    }

    /// How many bytes a manifest of `chunks` chunks takes when encoded.
    #[must_use]
    pub const fn encoded_len(chunks: usize) -> usize {
        HEAD.len() + FIXED_LEN + chunks.saturating_mul(4)
    }

    /// What tells the chunks of this entry from those of all others.
    #[must_use]
    pub fn generation(&self) -> u128 {
        self.generation
    }

    /// Bytes of the entry.
    #[must_use]
    pub fn total_len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The number of chunks, at least 1.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.ends.len()
    }

    /// Which bytes of the entry the chunk holds; an empty range behind the last chunk.
    #[must_use]
    pub fn chunk(&self, index: usize) -> Range<u64> {
        let end = |index: usize| self.ends.get(index).copied();
        let start = index
            .checked_sub(1)
            .map_or(0, |before| end(before).unwrap_or_else(|| self.total_len()));
        start..end(index).unwrap_or(start)
    }

    /// The chunks that hold the bytes of `range`: none for an empty range.
    #[must_use]
    pub fn chunks_of(&self, range: Range<u64>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        let first = self.ends.partition_point(|&end| end <= range.start);
        let last = self.ends.partition_point(|&end| end < range.end);
        first..(last + 1).min(self.ends.len()).max(first)
    }

    /// The name of a chunk: the generation in 32 lower-case hex digits, a colon, the index in decimal.
    #[must_use]
    pub fn chunk_name(&self, index: usize) -> String {
        chunk_name(self.generation, index)
    }

    /// The bytes to store under the entry's key.
    ///
    /// # Errors
    ///
    /// None in practice; the header is a constant.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let head = Header::new(SERIALIZER).encode()?;
        let mut bytes = BytesMut::with_capacity(Self::encoded_len(self.ends.len()));
        bytes.put_slice(&head);
        bytes.put_u8(VERSION);
        bytes.put_u128(self.generation);
        bytes.put_u64(self.total_len());
        // Both fit: there are at most MAX_CHUNKS, and each was made from a u32.
        bytes.put_u32(u32::try_from(self.ends.len()).unwrap_or(u32::MAX));
        let mut start = 0;
        for &end in &self.ends {
            bytes.put_u32(u32::try_from(end - start).unwrap_or(u32::MAX));
            start = end;
        }
        Ok(bytes.freeze())
    }

    /// Whether the bytes begin like a manifest. The first 64 bytes of an entry are enough to tell.
    #[must_use]
    pub fn is_manifest(bytes: &[u8]) -> bool {
        // Up to the end of the serializer's name.
        const TELLING: usize = PREFIX_LEN + 17;
        bytes.len() >= TELLING && bytes[..3] == HEAD[..3] && bytes[7..TELLING] == HEAD[7..TELLING]
    }

    /// Reads a manifest; `None` when the bytes are an entry of another kind.
    ///
    /// # Memory
    ///
    /// Nothing is allocated before the length of `bytes` has been checked against the number of chunks.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] for bytes that begin like a manifest and are none.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, ManifestError> {
        if !Self::is_manifest(bytes) {
            return Ok(None);
        }
        let length = |found, expected: usize| ManifestError::Length {
            found,
            expected: expected as u64,
        };
        let Some(payload) = bytes.strip_prefix(HEAD) else {
            return Err(length(bytes.len().saturating_sub(HEAD.len()), FIXED_LEN));
        };
        let Some((&fixed, lengths)) = payload.split_first_chunk::<FIXED_LEN>() else {
            return Err(length(payload.len(), FIXED_LEN));
        };
        if fixed[0] != VERSION {
            return Err(ManifestError::UnknownVersion { found: fixed[0] });
        }
        let generation = number(&fixed[1..17]);
        let total = number(&fixed[17..25]);
        let count = number(&fixed[25..29]);
        let (lengths, rest) = lengths.as_chunks::<4>();
        if count != lengths.len() as u128 || !rest.is_empty() {
            let expected = FIXED_LEN as u128 + 4 * count;
            return Err(ManifestError::Length {
                found: payload.len(),
                expected: u64::try_from(expected).unwrap_or(u64::MAX),
            });
        }
        let lengths = lengths.iter().map(|&length| u32::from_be_bytes(length));
        let manifest = Self::from_lengths(generation, lengths)?;
        let sum = manifest.total_len();
        if u128::from(sum) != total {
            let total = u64::try_from(total).unwrap_or(u64::MAX);
            return Err(ManifestError::Total { sum, total });
        }
        Ok(Some(manifest))
    }

    /// The generation and the number of chunks, which are what the chunks are named by, from the first
    /// [`encoded_len(0)`](Self::encoded_len) bytes of a manifest; `None` for other bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use ck_frame::Manifest;
    ///
    /// let stored = Manifest::new(7, [100, 50, 50])?.encode()?;
    /// let start = &stored[..Manifest::encoded_len(0)];
    /// assert_eq!(Manifest::decode_start(start), Some((7, 3)));
    /// # Ok::<(), ck_core::Error>(())
    /// ```
    #[must_use]
    pub fn decode_start(bytes: &[u8]) -> Option<(u128, usize)> {
        let (fixed, _) = bytes.strip_prefix(HEAD)?.split_first_chunk::<FIXED_LEN>()?;
        let count = usize::try_from(number(&fixed[25..29])).ok()?;
        let is_known = fixed[0] == VERSION && (1..=Self::MAX_CHUNKS).contains(&count);
        is_known.then(|| (number(&fixed[1..17]), count))
    }

    fn from_lengths(
        generation: u128,
        lengths: impl IntoIterator<Item = u32>,
    ) -> Result<Self, ManifestError> {
        let lengths = lengths.into_iter();
        let mut ends = Vec::with_capacity(lengths.size_hint().0.min(Self::MAX_CHUNKS));
        let mut end = 0_u64;
        for (index, length) in lengths.enumerate() {
            if length == 0 {
                return Err(ManifestError::EmptyChunk { index });
            }
            if index == Self::MAX_CHUNKS {
                return Err(ManifestError::ChunkCount { found: index + 1 });
            }
            end += u64::from(length);
            ends.push(end);
        }
        if ends.is_empty() {
            return Err(ManifestError::ChunkCount { found: 0 });
        }
        Ok(Self { generation, ends })
    }
}

/// The name of chunk `index` of the entry with this generation, as [`Manifest::chunk_name`] gives it, for
/// writers, who have no manifest yet.
#[must_use]
pub fn chunk_name(generation: u128, index: usize) -> String {
    format!("{generation:032x}:{index}")
}

/// At most 16 bytes as a big-endian number.
fn number(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0, |number, &byte| number << 8 | u128::from(byte))
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        let (kind, message) = match error {
            ManifestError::UnknownVersion { .. } => {
                (ErrorKind::Unsupported, "unsupported manifest of chunks")
            }
            ManifestError::Unwritable(_) => (ErrorKind::Misuse, "cannot describe the chunks"),
            _ => (ErrorKind::Corrupt, "malformed manifest of chunks"),
        };
        Self::new(kind, message).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest::new(0x1234, [3, 1, u32::MAX]).unwrap()
    }

    /// A manifest with these fields, whatever they are.
    fn raw(version: u8, total: u64, count: u32, lengths: &[u32]) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        bytes.push(version);
        bytes.extend_from_slice(&5_u128.to_be_bytes());
        bytes.extend_from_slice(&total.to_be_bytes());
        bytes.extend_from_slice(&count.to_be_bytes());
        for length in lengths {
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let bytes = Manifest::new(5, [2, 7]).unwrap().encode().unwrap();
        assert_eq!(bytes, raw(1, 9, 2, &[2, 7]));
        assert_eq!(bytes.len(), Manifest::encoded_len(2));
        let frame = crate::read(&bytes).unwrap();
        assert_eq!(frame.header.serializer(), SERIALIZER);
        assert_eq!(frame.payload.len(), FIXED_LEN + 8);
        assert_eq!(Manifest::decode(&bytes).unwrap().unwrap().generation(), 5);
    }

    #[test]
    fn the_start_tells_what_chunks_are_named_by() {
        let start = Manifest::encoded_len(0);
        let bytes = raw(1, 9, 2, &[2, 7]);
        assert_eq!(Manifest::decode_start(&bytes), Some((5, 2)));
        assert_eq!(Manifest::decode_start(&bytes[..start]), Some((5, 2)));
        assert_eq!(Manifest::decode_start(&bytes[..start - 1]), None);
        assert_eq!(Manifest::decode_start(&raw(2, 9, 2, &[2, 7])), None);
        assert_eq!(Manifest::decode_start(&raw(1, 9, 0, &[])), None);
        assert_eq!(Manifest::decode_start(&raw(1, 9, u32::MAX, &[])), None);
        assert_eq!(Manifest::decode_start(&[b'x'; 100]), None);
    }

    #[test]
    fn a_range_is_in_the_chunks_that_touch_it() {
        let manifest = manifest();
        let total = manifest.total_len();
        assert_eq!(total, 4 + u64::from(u32::MAX));
        for (range, chunks) in [
            (0..1, 0..1),
            (0..3, 0..1),
            (2..4, 0..2),
            (3..4, 1..2),
            (3..5, 1..3),
            (total - 1..total, 2..3),
            (0..total, 0..3),
            (total..total + 5, 3..3),
        ] {
            assert_eq!(manifest.chunks_of(range.clone()), chunks, "{range:?}");
        }
        assert!(manifest.chunks_of(2..2).is_empty());
        assert_eq!(manifest.chunk(0), 0..3);
        assert_eq!(manifest.chunk(2), 4..total);
        assert!(manifest.chunk(3).is_empty() && manifest.chunk(usize::MAX).is_empty());
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        let cases = [
            (raw(2, 9, 2, &[2, 7]), "version 2"),
            (raw(1, 9, 2, &[2]), "33 bytes, expected 37"),
            (raw(1, 9, u32::MAX, &[9]), "33 bytes, expected 17179869209"),
            (raw(1, 0, 0, &[]), "0 chunks"),
            (
                raw(1, 9, 2, &[9, 0]),
                "chunk 1 of the manifest has no bytes",
            ),
            (raw(1, 8, 2, &[2, 7]), "have 9 bytes, but the entry 8"),
            (raw(1, u64::MAX, 1, &[7]), "the entry 18446744073709551615"),
        ];
        for (bytes, text) in cases {
            let error = Manifest::decode(&bytes).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        let longer = [&raw(1, 2, 1, &[2])[..], b"x"].concat();
        assert!(Manifest::decode(&longer).is_err());
    }

    #[test]
    fn a_cut_or_changed_manifest_is_never_another_one() {
        let whole = manifest().encode().unwrap();
        for len in 0..whole.len() {
            let cut = Manifest::decode(&whole[..len]);
            assert!(!matches!(cut, Ok(Some(_))), "{len} bytes: {cut:?}");
        }
        for at in (0..whole.len()).filter(|at| !(HEAD.len() + 1..HEAD.len() + 17).contains(at)) {
            for bit in 0..8 {
                let mut changed = whole.to_vec();
                changed[at] ^= 1 << bit;
                let read = Manifest::decode(&changed);
                assert!(!matches!(read, Ok(Some(_))), "byte {at}: {read:?}");
            }
        }
    }

    #[test]
    fn other_entries_are_no_manifests() {
        let other = Header::new("ck-chunks2").encode().unwrap();
        for bytes in [&b""[..], b"CK\x03", b"{}", &other] {
            assert_eq!(Manifest::decode(bytes), Ok(None));
        }
    }

    #[test]
    fn unwritable_lists_of_chunks_are_misuse() {
        let too_many = Manifest::new(1, std::iter::repeat_n(1, Manifest::MAX_CHUNKS + 1));
        for made in [Manifest::new(1, []), Manifest::new(1, [1, 0]), too_many] {
            assert_eq!(Error::from(made.unwrap_err()).kind(), ErrorKind::Misuse);
        }
        assert!(Manifest::new(1, std::iter::repeat_n(1, Manifest::MAX_CHUNKS)).is_ok());
    }
}
