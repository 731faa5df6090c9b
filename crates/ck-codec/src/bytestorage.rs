//! ByteStorage: how the Python client stores values of its default serializer.
//!
//! A MessagePack document, compressed as one LZ4 block, with its length and its xxh3-64. See
//! `docs/formats.md`, "ByteStorage". Entries whose metadata says `"compressed": false` hold the
//! MessagePack document itself.
//!
//! # Examples
//!
//! ```
//! use ck_codec::bytestorage;
//!
//! let document = b"\xa4text";
//! let payload = bytestorage::encode(document)?;
//! assert_eq!(bytestorage::decode(&payload)?, document);
//! # Ok::<(), ck_core::Error>(())
//! ```

mod envelope;
#[cfg(feature = "messagepack")]
mod json;
#[cfg(feature = "messagepack")]
mod json_text;

use ck_core::{Error, ErrorKind, Result};
use lz4_flex::block;
use twox_hash::XxHash3_64;

use crate::error::damaged;
use envelope::Envelope;

#[cfg(feature = "messagepack")]
pub use json::{Json, to_json};
#[cfg(feature = "messagepack")]
pub use json_text::from_json;

/// The client refuses more bytes than this, compressed or not.
const MAX_BYTES: u64 = 512 << 20;

/// The client refuses values that are more than this many times as large as their compressed form.
const MAX_RATIO: u64 = 1000;

/// The MessagePack document in a payload.
///
/// # Memory
///
/// The document, at most 512 MiB and 1,000 times `payload`; nothing before its length was checked. Of old
/// payloads, whose compressed bytes are an array of integers, these too.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] when the payload is damaged or claims a length beyond the ratio,
/// [`ErrorKind::TooLarge`] beyond 512 MiB.
pub fn decode(payload: &[u8]) -> Result<Vec<u8>> {
    let envelope = Envelope::parse(payload)?;
    let compressed = &*envelope.compressed;
    let plain_len = check_size(envelope.plain_len)?;
    let compressed_len = compressed.len() as u64;
    check_size(compressed_len)?;
    if envelope.plain_len > compressed_len * MAX_RATIO {
        return Err(
            damaged("a ByteStorage payload claims to be compressed beyond belief")
                .with("compressed", compressed_len)
                .with("plain", plain_len),
        );
    }
    let mut plain = vec![0; plain_len];
    let written = block::decompress_into(compressed, &mut plain).map_err(|error| {
        damaged("a ByteStorage payload cannot be decompressed").with_source(error)
    })?;
    if written != plain_len {
        return Err(
            damaged("a ByteStorage payload does not have the length it claims")
                .with("stored", plain_len)
                .with("found", written),
        );
    }
    if XxHash3_64::oneshot(&plain).to_be_bytes() != envelope.checksum {
        return Err(damaged(
            "a ByteStorage payload does not have the checksum it was stored with",
        ));
    }
    Ok(plain)
}

/// A payload of a MessagePack document, as the client writes it.
///
/// # Memory
///
/// A buffer of the size of the document, and the payload.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] beyond 512 MiB.
pub fn encode(document: &[u8]) -> Result<Vec<u8>> {
    check_size(document.len() as u64)?;
    let compressed = block::compress(document);
    check_size(compressed.len() as u64)?;
    let checksum = XxHash3_64::oneshot(document).to_be_bytes();
    Ok(envelope::write(&compressed, checksum, document.len()))
}

fn check_size(bytes: u64) -> Result<usize> {
    let len = usize::try_from(bytes).ok();
    len.filter(|_| bytes <= MAX_BYTES).ok_or_else(|| {
        Error::new(ErrorKind::TooLarge, "ByteStorage holds up to 512 MiB")
            .with("bytes", bytes)
            .with("limit", MAX_BYTES)
    })
}
