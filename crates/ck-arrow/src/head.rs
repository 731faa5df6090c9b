//! What comes before the Arrow IPC file in an entry: the frame header and the payload's checksum.

use bytes::{Bytes, BytesMut};
use ck_core::{Error, ErrorKind, Key, Result};
use ck_frame::{Header, ReservedHeader};
use serde_json::{Value, json};

use crate::message::ALIGNMENT;

/// The checksum before the IPC file: xxh3-64 of it, big-endian.
pub(crate) const CHECKSUM_LEN: usize = 8;

/// The serializer name of Arrow entries, the one of the Python client.
pub(crate) const SERIALIZER: &str = "arrow";

/// The header key of what this project adds.
pub(crate) const EXTENSION: &str = "ck";

/// The only layout so far.
const LAYOUT: u64 = 1;

/// The head of an entry being written: its length is fixed, its contents come last.
#[derive(Debug)]
pub(crate) struct Head {
    reserved: ReservedHeader,
    notes: Notes,
}

/// What the seal says of the entry apart from its proof.
#[derive(Debug)]
struct Notes {
    generation: String,
    key: Option<Key>,
    stale_seconds: u64,
}

/// What proves the rest of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    /// Where the tail (block index, footer) starts in the IPC file.
    pub(crate) tail_offset: u64,
    pub(crate) tail_len: u64,
    pub(crate) tail_hash: u64,
}

impl Head {
    pub(crate) fn reserve(
        compressed: bool,
        outer_offset: u64,
        key: Option<Key>,
        stale_seconds: u64,
    ) -> Result<Self> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|error| {
            Error::new(ErrorKind::Transient, "the system gives no random numbers")
                .with_source(error.to_string())
        })?;
        let notes = Notes {
            generation: format!("{:016x}", u64::from_ne_bytes(random)),
            key,
            stale_seconds,
        };
        let placeholder = Seal {
            tail_offset: 0,
            tail_len: 0,
            tail_hash: 0,
        };
        let header = Header::new(SERIALIZER)
            .with_metadata("format", SERIALIZER)
            .with_metadata("encoding", "utf-8")
            .with_metadata("compressed", compressed)
            .with_metadata("original_type", SERIALIZER)
            .with_extension(EXTENSION, placeholder.to_json(&notes));
        let reserved = header.reserve(ALIGNMENT, outer_offset + CHECKSUM_LEN as u64)?;
        Ok(Self { reserved, notes })
    }

    pub(crate) fn len(&self) -> usize {
        self.reserved.len() + CHECKSUM_LEN
    }

    pub(crate) fn patch(self, seal: &Seal, payload_hash: u64) -> Result<Bytes> {
        let header = self.reserved.patch(EXTENSION, seal.to_json(&self.notes))?;
        let mut head = BytesMut::from(&header[..]);
        head.extend_from_slice(&payload_hash.to_be_bytes());
        Ok(head.freeze())
    }
}

/// How many seconds before its expiry the entry is stale.
pub(crate) fn stale_seconds(header: &Header) -> u64 {
    let seal = header.extension(EXTENSION);
    let seconds = seal.and_then(|seal| seal.get("stale"));
    seconds.and_then(Value::as_u64).unwrap_or_default()
}

impl Seal {
    /// Numbers are hex text of fixed width, so that the header's length does not depend on them.
    fn to_json(self, notes: &Notes) -> Value {
        let hex = |value: u64| format!("{value:016x}");
        let mut object = json!({
            "layout": LAYOUT,
            "generation": notes.generation,
            "tail": [hex(self.tail_offset), hex(self.tail_len), hex(self.tail_hash)],
        });
        if let Some(object) = object.as_object_mut() {
            if let Some(key) = &notes.key {
                object.insert("key".into(), key.as_str().into());
            }
            if notes.stale_seconds > 0 {
                object.insert("stale".into(), notes.stale_seconds.into());
            }
        }
        object
    }

    /// The seal in a header, `None` when another writer made it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for a layout of a later version, [`ErrorKind::Corrupt`] for one that
    /// cannot be read.
    pub(crate) fn from_header(header: &Header) -> Result<Option<Self>> {
        let Some(extension) = header.extension(EXTENSION) else {
            return Ok(None);
        };
        let layout = extension.get("layout").and_then(Value::as_u64);
        if layout.is_some_and(|layout| layout > LAYOUT) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the entry was written by a later version",
            )
            .with("layout", layout.unwrap_or_default())
            .with("known", LAYOUT));
        }
        let number = |i: usize| {
            let text = extension
                .get("tail")
                .and_then(|tail| tail.get(i))
                .and_then(Value::as_str);
            text.filter(|text| text.len() == 16)
                .and_then(|text| u64::from_str_radix(text, 16).ok())
        };
        match (layout, number(0), number(1), number(2)) {
            (Some(LAYOUT), Some(tail_offset), Some(tail_len), Some(tail_hash)) => Ok(Some(Self {
                tail_offset,
                tail_len,
                tail_hash,
            })),
            _ => Err(
                Error::new(ErrorKind::Corrupt, "the header's own part cannot be read")
                    .with("found", extension),
            ),
        }
    }
}
