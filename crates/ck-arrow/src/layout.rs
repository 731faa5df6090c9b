use std::ops::Range;

use arrow_ipc::CompressionType;
use ck_frame::Header;

use crate::content::Content;
use crate::index::Block;
use crate::message::Message;

/// How an entry is laid out. Positions count from the start of the Arrow IPC file inside of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Layout {
    /// The header of the envelope; `None` for a bare payload.
    pub header: Option<Header>,
    /// Whether the entry has hashes of its parts, so that it was written by this project.
    pub is_sealed: bool,
    /// The dictionaries, in the order they were written.
    pub dictionaries: Vec<BlockLayout>,
    /// The record batches.
    pub batches: Vec<BlockLayout>,
}

/// A record batch or a dictionary.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BlockLayout {
    /// Number of rows, or of values.
    pub rows: u64,
    /// Where its metadata starts.
    pub offset: u64,
    /// Bytes of its metadata.
    pub metadata_bytes: u64,
    /// Bytes of its columns.
    pub body_bytes: u64,
    /// `none`, `lz4` or `zstd` where that is known without reading the batch.
    pub compression: Option<&'static str>,
    /// The parts that have a hash of their own.
    pub units: Vec<UnitLayout>,
}

/// One or several neighbouring columns of a batch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UnitLayout {
    /// Places of the columns.
    pub columns: Range<usize>,
    /// Where the first of them starts.
    pub offset: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// xxh3-64 of those bytes.
    pub xxh3: u64,
}

impl Layout {
    pub(crate) fn of(content: &Content) -> Self {
        Self {
            header: content.header.clone(),
            is_sealed: content.seal.is_some(),
            dictionaries: content
                .index
                .dictionaries
                .iter()
                .map(BlockLayout::of)
                .collect(),
            batches: content.index.batches.iter().map(BlockLayout::of).collect(),
        }
    }
}

impl BlockLayout {
    fn of(block: &Block) -> Self {
        let message = Message::parse_flatbuffer(&block.inline).ok().flatten();
        let compression = message.map(|message| match message.compression {
            None => "none",
            Some(CompressionType::LZ4_FRAME) => "lz4",
            Some(_) => "zstd",
        });
        let mut column = 0;
        let units = block.units.iter().map(|unit| {
            let first = column;
            column += unit.columns as usize;
            UnitLayout {
                columns: first..column,
                offset: block.body() + unit.span.offset,
                bytes: unit.span.len,
                xxh3: unit.hash,
            }
        });
        Self {
            rows: block.rows,
            offset: block.offset,
            metadata_bytes: block.metadata_len.into(),
            body_bytes: block.body_len,
            compression,
            units: units.collect(),
        }
    }
}
