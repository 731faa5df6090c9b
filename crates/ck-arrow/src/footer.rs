use std::sync::Arc;

use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{Block as FooterBlock, Endianness};
use arrow_schema::SchemaRef;
use ck_core::{Error, ErrorKind, Result};

use crate::index::Block;
use crate::message::damaged;
use crate::output::END_MAGIC;

/// The length of the footer and the magic at the very end of an IPC file.
pub(crate) const TRAILER_LEN: usize = 4 + END_MAGIC.len();

/// What the footer of an IPC file says.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) schema: SchemaRef,
    pub(crate) dictionaries: Vec<Block>,
    pub(crate) batches: Vec<Block>,
}

/// The length of the footer in the last [`TRAILER_LEN`] bytes of a file.
pub(crate) fn footer_len(trailer: &[u8]) -> Result<usize> {
    let (len, magic) = trailer
        .split_first_chunk()
        .ok_or_else(|| damaged("an Arrow file is too short for a footer"))?;
    if magic != END_MAGIC {
        return Err(damaged(
            "an Arrow file does not end with its magic; it is truncated or was never finished",
        ));
    }
    usize::try_from(i32::from_le_bytes(*len))
        .map_err(|_| damaged("an Arrow file has a footer of negative length"))
}

impl Footer {
    /// Parses the flatbuffer of a footer, of a file of `file_len` bytes.
    pub(crate) fn parse(flatbuffer: &[u8], file_len: u64) -> Result<Self> {
        let footer = arrow_ipc::root_as_footer(flatbuffer).map_err(|error| {
            damaged("the footer of an Arrow file is damaged").with_source(error.to_string())
        })?;
        let schema = footer
            .schema()
            .ok_or_else(|| damaged("the footer of an Arrow file has no schema"))?;
        if schema.endianness() != Endianness::Little {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the Arrow file is big-endian",
            ));
        }
        let schema = try_fb_to_schema(schema).map_err(|error| {
            damaged("the schema of an Arrow file is damaged").with_source(error)
        })?;
        let block = |block: &FooterBlock| {
            let number = |value: i64| u64::try_from(value).ok();
            let offset = number(block.offset())?;
            let metadata_len = u32::try_from(block.metaDataLength()).ok()?;
            let body_len = number(block.bodyLength())?;
            let end = offset
                .checked_add(metadata_len.into())?
                .checked_add(body_len)?;
            (end <= file_len).then(|| Block {
                offset,
                metadata_len,
                body_len,
                ..Block::default()
            })
        };
        let blocks = |found: Option<flatbuffers::Vector<'_, FooterBlock>>| {
            let found = found
                .into_iter()
                .flatten()
                .map(block)
                .collect::<Option<Vec<_>>>();
            found.ok_or_else(|| {
                damaged("the footer of an Arrow file names a block that lies beyond the file")
            })
        };
        Ok(Self {
            schema: Arc::new(schema),
            dictionaries: blocks(footer.dictionaries())?,
            batches: blocks(footer.recordBatches())?,
        })
    }
}
