//! The envelope around a cached value: which serializer made it, what describes it, where it
//! begins.
//!
//! Reads and writes `CK` v3 frames, reads the older base64-in-JSON envelope, and knows nothing of
//! what a payload means, but for one kind: the [`Manifest`] of an entry that is stored in chunks. Input is never trusted: every malformed byte sequence is a [`FrameError`]
//! that says what was found and what was expected.
//!
//! # A `CK` v3 frame
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 2 | `"CK"` |
//! | 2 | 1 | frame version, `0x03` |
//! | 3 | 4 | *n*, u32 big-endian: length of the header, at most [`MAX_HEADER_LEN`] |
//! | 7 | *n* | header: a JSON object in UTF-8, then any number of ASCII spaces |
//! | 7 + *n* | rest | payload, raw |
//!
//! The header is `{"s": "arrow", "m": {"format": "arrow"}, "v": "2.0"}`:
//!
//! | key | value | when reading |
//! |---|---|---|
//! | `s` | name of the serializer that made the payload | must be a string that is not empty |
//! | `m` | metadata, an object | may be absent: empty |
//! | `v` | version of the vocabulary, `"2.0"` | may be absent: empty; of any type |
//! | other | an *extension*, any JSON value | kept; the Python reader ignores it |
//!
//! Headers are written in the layout of Python's `json.dumps(.., ensure_ascii=False)`, with keys in
//! the order `s`, `m`, `v`, extensions, and metadata in the order it was added, so that the same
//! header gives the same bytes as cachekit (checked with 0.24.1, module
//! `cachekit.serializers.wrapper`).
//!
//! # The legacy envelope
//!
//! Written by cachekit before the frame existed, read only: one JSON object in UTF-8. Leading JSON
//! white space is allowed, and unknown keys are ignored.
//!
//! | key | value | when reading |
//! |---|---|---|
//! | `data` | payload in standard base64, padded | must be a string |
//! | `metadata` | as `m` | as `m` |
//! | `serializer` | as `s` | as `s` |
//! | `version` | as `v` | as `v` |
//!
//! # Where this reader is stricter than the Python one
//!
//! No known writer produces any of these: a header above [`MAX_HEADER_LEN`] bytes (the limit also
//! holds for the legacy fields other than `data` taken together); objects and arrays nested deeper
//! than 127; JSON that is not UTF-8 or begins with a byte order mark; `NaN`, `Infinity` and numbers
//! beyond the range of `f64`; unpaired surrogate escapes; metadata that is not an object; base64
//! with characters outside its alphabet, missing or excess padding, or stray last bits. Names that
//! occur twice are accepted by both, and the last one holds.
//!
//! # Examples
//!
//! ```
//! use bytes::{Bytes, BytesMut};
//! use ck_frame::{Header, read};
//!
//! let header = Header::new("arrow").with_metadata("format", "arrow");
//!
//! // 22 bytes lie before the place to align: here a file header and a checksum.
//! let head = header.encode_aligned(64, 22)?;
//! assert_eq!((22 + head.len()) % 64, 0);
//!
//! let mut entry = BytesMut::from(&head[..]);
//! entry.extend_from_slice(b"payload");
//! let entry: Bytes = entry.freeze();
//!
//! let frame = read(&entry)?;
//! assert_eq!(frame.header, header);
//! assert_eq!(frame.payload, "payload");
//! # Ok::<(), ck_frame::FrameError>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod frame;
mod header;
mod legacy;
mod manifest;
mod probe;
mod reserve;
mod text;

pub use error::FrameError;
pub use frame::{Frame, read};
pub use header::Header;
pub use manifest::{Manifest, ManifestError, chunk_name};
pub use probe::{Envelope, Probe, probe};
pub use reserve::ReservedHeader;

/// Bytes of a frame before its header: `"CK"`, version, header length.
pub const PREFIX_LEN: usize = 7;

/// The longest header that is read or written, in bytes, trailing spaces included.
///
/// A longer claim is refused before anything is allocated.
pub const MAX_HEADER_LEN: usize = 1 << 20;

const MAGIC: [u8; 2] = *b"CK";
const FRAME_VERSION: u8 = 3;
