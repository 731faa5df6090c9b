//! The block index: where everything in an entry lies, and what it must hash to.
//!
//! Bytes are specified in `docs/formats.md`, "Block index".

use std::ops::Range;

use ck_core::{Error, ErrorKind, Result};

use crate::message::{DictionaryHead, Span};

const MAGIC: [u8; 4] = *b"CKI1";

/// What an entry consists of, apart from its schema.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) dictionaries: Vec<Block>,
    pub(crate) batches: Vec<Block>,
}

/// One message and its body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Block {
    /// Where the message starts in the IPC file.
    pub(crate) offset: u64,
    pub(crate) metadata_len: u32,
    pub(crate) metadata_hash: u64,
    pub(crate) body_len: u64,
    pub(crate) rows: u64,
    pub(crate) dictionary: Option<DictionaryHead>,
    pub(crate) units: Vec<Unit>,
    /// The message itself when it is small, so that reading the batch does not touch it.
    pub(crate) inline: Vec<u8>,
}

/// The unit of integrity: one column of one batch, or several small ones side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    /// How many columns, counted on from the previous unit.
    pub(crate) columns: u32,
    /// Its bytes, counted from the start of the body.
    pub(crate) span: Span,
    pub(crate) hash: u64,
}

impl Block {
    /// Where the message lies in the IPC file.
    pub(crate) fn metadata(&self) -> Range<u64> {
        self.offset..self.body()
    }

    /// Where the body starts in the IPC file.
    pub(crate) fn body(&self) -> u64 {
        self.offset + u64::from(self.metadata_len)
    }
}

/// Fixed bytes of a block and of a unit.
const BLOCK_LEN: usize = 8 + 4 + 8 + 8 + 8 + 1 + 8 + 4 + 4;
const UNIT_LEN: usize = 4 + 8 + 8 + 8;

/// An index that is being written: every block is kept as the bytes it will have.
#[derive(Debug, Default)]
pub(crate) struct IndexWriter {
    dictionaries: Encoded,
    batches: Encoded,
}

#[derive(Debug, Default)]
struct Encoded {
    count: usize,
    blocks: Vec<u8>,
}

impl IndexWriter {
    pub(crate) fn add(&mut self, block: &Block) {
        let part = if block.dictionary.is_some() {
            &mut self.dictionaries
        } else {
            &mut self.batches
        };
        part.count += 1;
        block.encode(&mut part.blocks);
    }

    /// The bytes of the index, in pieces.
    pub(crate) fn finish(self) -> [Vec<u8>; 3] {
        let counts = [count(self.dictionaries.count), count(self.batches.count)];
        let head = [&MAGIC[..], counts.as_flattened()].concat();
        [head, self.dictionaries.blocks, self.batches.blocks]
    }
}

impl Index {
    /// Parses what [`IndexWriter::finish`] gave, for an IPC file of `file_len` bytes and a table of
    /// `columns` columns.
    pub(crate) fn decode(bytes: &[u8], file_len: u64, columns: usize) -> Result<Self> {
        let mut cursor = Cursor { rest: bytes };
        if cursor.take::<4>()? != MAGIC {
            return Err(invalid("it does not start with its magic"));
        }
        let (dictionaries, batches) = (cursor.u32()?, cursor.u32()?);
        let blocks = |count: u32, cursor: &mut Cursor<'_>| {
            // The count is a claim: reserve no more than the bytes could hold.
            let most = cursor.rest.len() / BLOCK_LEN;
            let mut blocks = Vec::with_capacity((count as usize).min(most));
            for _ in 0..count {
                blocks.push(Block::decode(cursor, file_len, columns)?);
            }
            Ok::<_, Error>(blocks)
        };
        let index = Self {
            dictionaries: blocks(dictionaries, &mut cursor)?,
            batches: blocks(batches, &mut cursor)?,
        };
        if !cursor.rest.is_empty() {
            return Err(invalid("bytes follow its last block"));
        }
        if index.dictionaries.iter().any(|b| b.dictionary.is_none())
            || index.batches.iter().any(|b| b.dictionary.is_some())
        {
            return Err(invalid(
                "a dictionary stands among the batches or the other way round",
            ));
        }
        Ok(index)
    }
}

impl Block {
    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, id) = match self.dictionary {
            None => (0, 0),
            Some(head) => (1 + u8::from(head.is_delta), head.id),
        };
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.metadata_len.to_le_bytes());
        out.extend_from_slice(&self.metadata_hash.to_le_bytes());
        out.extend_from_slice(&self.body_len.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.push(kind);
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&count(self.units.len()));
        out.extend_from_slice(&count(self.inline.len()));
        for unit in &self.units {
            out.extend_from_slice(&unit.columns.to_le_bytes());
            out.extend_from_slice(&unit.span.offset.to_le_bytes());
            out.extend_from_slice(&unit.span.len.to_le_bytes());
            out.extend_from_slice(&unit.hash.to_le_bytes());
        }
        out.extend_from_slice(&self.inline);
    }

    fn decode(cursor: &mut Cursor<'_>, file_len: u64, columns: usize) -> Result<Self> {
        let (offset, metadata_len, metadata_hash) = (cursor.u64()?, cursor.u32()?, cursor.u64()?);
        let (body_len, rows, [kind]) = (cursor.u64()?, cursor.u64()?, cursor.take::<1>()?);
        let id = i64::from_le_bytes(cursor.take()?);
        let dictionary = match kind {
            0 => None,
            1 | 2 => Some(DictionaryHead {
                id,
                is_delta: kind == 2,
            }),
            _ => return Err(invalid("a block has an unknown kind")),
        };
        let end = offset
            .checked_add(u64::from(metadata_len))
            .and_then(|at| at.checked_add(body_len));
        if end.is_none_or(|end| end > file_len) {
            return Err(invalid("a block reaches beyond the file"));
        }
        let (unit_count, inline_len) = (cursor.u32()? as usize, cursor.u32()? as usize);
        // The count is a claim: it is proved by the bytes there are before it sizes anything.
        let encoded = cursor.slice(unit_count.saturating_mul(UNIT_LEN))?;
        let mut units = Vec::with_capacity(unit_count);
        let (mut seen, mut reached) = (0_usize, 0);
        for encoded in encoded.as_chunks::<UNIT_LEN>().0 {
            let unit = Unit::decode(encoded)?;
            let end = unit.span.offset.checked_add(unit.span.len);
            let end = end.filter(|end| *end <= body_len);
            let end = end.ok_or_else(|| invalid("a unit reaches beyond its block"))?;
            if unit.span.offset < reached {
                return Err(invalid("the units of a block overlap or are out of order"));
            }
            reached = end;
            seen = seen.saturating_add(unit.columns as usize);
            units.push(unit);
        }
        let wanted = if dictionary.is_some() { 1 } else { columns };
        if seen != wanted {
            return Err(invalid("the units of a block do not cover its columns"));
        }
        let inline = cursor.slice(inline_len)?.to_vec();
        Ok(Self {
            offset,
            metadata_len,
            metadata_hash,
            body_len,
            rows,
            dictionary,
            units,
            inline,
        })
    }
}

impl Unit {
    fn decode(bytes: &[u8; UNIT_LEN]) -> Result<Self> {
        // Of known length: none of the checks is left in the loop over units.
        let mut cursor = Cursor { rest: bytes };
        Ok(Self {
            columns: cursor.u32()?,
            span: Span {
                offset: cursor.u64()?,
                len: cursor.u64()?,
            },
            hash: cursor.u64()?,
        })
    }
}

fn count(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| invalid("it ends early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| invalid("it ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

fn invalid(why: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "the block index is damaged").with("why", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        let unit = |columns, offset| Unit {
            columns,
            span: Span { offset, len: 8 },
            hash: offset,
        };
        Index {
            dictionaries: vec![Block {
                offset: 64,
                metadata_len: 64,
                body_len: 64,
                rows: 3,
                dictionary: Some(DictionaryHead {
                    id: 7,
                    is_delta: true,
                }),
                units: vec![unit(1, 0)],
                ..Block::default()
            }],
            batches: vec![Block {
                offset: 192,
                metadata_len: 128,
                metadata_hash: 5,
                body_len: 128,
                rows: 9,
                units: vec![unit(2, 0), unit(1, 64)],
                inline: vec![1, 2, 3],
                ..Block::default()
            }],
        }
    }

    fn encoded(index: &Index) -> Vec<u8> {
        let mut writer = IndexWriter::default();
        let blocks = index.dictionaries.iter().chain(&index.batches);
        blocks.for_each(|block| writer.add(block));
        writer.finish().concat()
    }

    #[test]
    fn an_index_round_trips() {
        let index = sample();
        assert_eq!(Index::decode(&encoded(&index), 1000, 3).unwrap(), index);
    }

    #[test]
    fn every_truncation_and_every_impossible_claim_is_refused() {
        let bytes = encoded(&sample());
        for len in 0..bytes.len() {
            assert!(Index::decode(&bytes[..len], 1000, 3).is_err());
        }
        assert!(Index::decode(&[&bytes[..], &[0]].concat(), 1000, 3).is_err());
        assert!(Index::decode(&bytes, 300, 3).is_err());
        assert!(Index::decode(&bytes, 1000, 4).is_err());
        let mut huge = bytes.clone();
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Index::decode(&huge, 1000, 3).is_err());
    }
}
