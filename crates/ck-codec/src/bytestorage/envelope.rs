//! The MessagePack around the compressed bytes, taken apart by hand: it is four fields, and the large
//! one is borrowed.
//!
//! Format: <https://github.com/msgpack/msgpack/blob/master/spec.md>

use std::borrow::Cow;

use ck_core::{Error, Result};

use crate::error::{damaged, unsupported};

const FORMAT: &str = "msgpack";
const NAMES: [&str; 4] = ["compressed_data", "checksum", "original_size", "format"];

/// A ByteStorage payload, with nothing believed yet.
pub(super) struct Envelope<'a> {
    pub(super) compressed: Cow<'a, [u8]>,
    pub(super) checksum: [u8; 8],
    pub(super) plain_len: u64,
}

/// The payload as current clients write it.
pub(super) fn write(compressed: &[u8], checksum: [u8; 8], plain_len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(compressed.len() + 64);
    out.push(0x94);
    // Up to 512 MiB: 32 bits suffice for both lengths.
    match u32::try_from(compressed.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
    {
        [0, 0, 0, len] => out.extend_from_slice(&[0xc4, len]),
        [0, 0, len @ ..] => {
            out.push(0xc5);
            out.extend_from_slice(&len);
        }
        len => {
            out.push(0xc6);
            out.extend_from_slice(&len);
        }
    }
    out.extend_from_slice(compressed);
    out.push(0x98);
    for byte in checksum {
        write_uint(&mut out, byte.into());
    }
    write_uint(&mut out, u32::try_from(plain_len).unwrap_or(u32::MAX));
    // A fixstr of seven bytes.
    out.push(0xa7);
    out.extend_from_slice(FORMAT.as_bytes());
    out
}

/// The shortest form, as the client.
fn write_uint(out: &mut Vec<u8>, value: u32) {
    match value.to_be_bytes() {
        [0, 0, 0, byte @ 0..0x80] => out.push(byte),
        [0, 0, 0, byte] => out.extend_from_slice(&[0xcc, byte]),
        [0, 0, bytes @ ..] => {
            out.push(0xcd);
            out.extend_from_slice(&bytes);
        }
        bytes => {
            out.push(0xce);
            out.extend_from_slice(&bytes);
        }
    }
}

impl<'a> Envelope<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor(payload);
        let mut fields = Fields::default();
        match cursor.marker()? {
            // Four fields in order.
            0x94 => {
                for name in NAMES {
                    fields.read(name, &mut cursor)?;
                }
            }
            // Four fields by name, in any order.
            0x84 => {
                for _ in NAMES {
                    let name = cursor.text()?;
                    fields.read(name, &mut cursor)?;
                }
            }
            _ => return Err(not_storage()),
        }
        if !cursor.0.is_empty() {
            return Err(damaged("bytes follow a ByteStorage payload").with("bytes", cursor.0.len()));
        }
        match fields {
            Fields {
                compressed: Some(compressed),
                checksum: Some(checksum),
                plain_len: Some(plain_len),
                format: Some(FORMAT),
            } => Ok(Self {
                compressed,
                checksum,
                plain_len,
            }),
            Fields {
                format: Some(format),
                ..
            } if format != FORMAT => {
                Err(unsupported("the ByteStorage payload is no MessagePack").with("format", format))
            }
            _ => Err(damaged("a ByteStorage payload lacks a field")),
        }
    }
}

/// What has been read so far.
#[derive(Default)]
struct Fields<'a> {
    compressed: Option<Cow<'a, [u8]>>,
    checksum: Option<[u8; 8]>,
    plain_len: Option<u64>,
    format: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn read(&mut self, name: &str, cursor: &mut Cursor<'a>) -> Result<()> {
        match name {
            "compressed_data" => self.compressed = Some(cursor.bytes()?),
            "checksum" => {
                let checksum = <[u8; 8]>::try_from(&*cursor.bytes()?);
                self.checksum = Some(checksum.map_err(|_| {
                    damaged("a ByteStorage payload has a checksum that is not 8 bytes long")
                })?);
            }
            "original_size" => self.plain_len = Some(cursor.uint()?),
            "format" => self.format = Some(cursor.text()?),
            _ => return Err(not_storage()),
        }
        Ok(())
    }
}

/// What is left of a payload.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn marker(&mut self) -> Result<u8> {
        let [marker] = self.array()?;
        Ok(marker)
    }

    /// A length of so many bytes.
    fn len<const N: usize>(&mut self) -> Result<usize> {
        let len = self.array::<N>()?;
        let len = len
            .iter()
            .fold(0_u64, |len, byte| len << 8 | u64::from(*byte));
        usize::try_from(len).map_err(|_| truncated())
    }

    fn uint(&mut self) -> Result<u64> {
        Ok(match self.marker()? {
            small @ 0..0x80 => small.into(),
            0xcc => self.marker()?.into(),
            0xcd => u16::from_be_bytes(self.array()?).into(),
            0xce => u32::from_be_bytes(self.array()?).into(),
            0xcf => u64::from_be_bytes(self.array()?),
            _ => return Err(not_storage()),
        })
    }

    /// Bytes: as such, or as an array of integers.
    fn bytes(&mut self) -> Result<Cow<'a, [u8]>> {
        let count = match self.marker()? {
            0xc4 => {
                return self
                    .len::<1>()
                    .and_then(|len| self.take(len))
                    .map(Cow::from);
            }
            0xc5 => {
                return self
                    .len::<2>()
                    .and_then(|len| self.take(len))
                    .map(Cow::from);
            }
            0xc6 => {
                return self
                    .len::<4>()
                    .and_then(|len| self.take(len))
                    .map(Cow::from);
            }
            small @ 0x90..0xa0 => usize::from(small & 0x0f),
            0xdc => self.len::<2>()?,
            0xdd => self.len::<4>()?,
            _ => return Err(not_storage()),
        };
        // Each integer has a byte at least.
        if count > self.0.len() {
            return Err(truncated());
        }
        let mut bytes = Vec::with_capacity(count);
        for _ in 0..count {
            bytes.push(u8::try_from(self.uint()?).map_err(|_| not_storage())?);
        }
        Ok(bytes.into())
    }

    fn text(&mut self) -> Result<&'a str> {
        let len = match self.marker()? {
            small @ 0xa0..0xc0 => usize::from(small & 0x1f),
            0xd9 => self.len::<1>()?,
            0xda => self.len::<2>()?,
            0xdb => self.len::<4>()?,
            _ => return Err(not_storage()),
        };
        let text = std::str::from_utf8(self.take(len)?);
        text.map_err(|error| damaged("a ByteStorage payload has broken text").with_source(error))
    }
}

fn truncated() -> Error {
    damaged("a ByteStorage payload is truncated")
}

fn not_storage() -> Error {
    damaged("the bytes are no ByteStorage payload")
}
