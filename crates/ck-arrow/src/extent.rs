//! Which arrays and buffers of a batch belong to which of its columns.

use std::ops::Range;

use arrow_schema::{DataType, Fields, UnionMode};
use ck_core::Result;

use crate::message::{Message, Span, damaged};

/// The parts of a message that make up one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) nodes: Range<usize>,
    pub(crate) buffers: Range<usize>,
    pub(crate) variadic: Range<usize>,
}

/// The extent of each field, in order; together they must use the message up.
///
/// With `is_plain`, buffers are uncompressed and their lengths are checked where the Arrow decoder
/// takes them for granted.
pub(crate) fn extents(fields: &Fields, message: &Message, is_plain: bool) -> Result<Vec<Extent>> {
    let mut walk = Walk {
        message,
        is_plain,
        node: 0,
        buffer: 0,
        variadic: 0,
    };
    let mut extents = Vec::with_capacity(fields.len());
    for field in fields {
        let before = (walk.node, walk.buffer, walk.variadic);
        walk.step(field.data_type())?;
        extents.push(Extent {
            nodes: before.0..walk.node,
            buffers: before.1..walk.buffer,
            variadic: before.2..walk.variadic,
        });
    }
    let used = (walk.node, walk.buffer, walk.variadic);
    if used
        != (
            message.nodes.len(),
            message.buffers.len(),
            message.variadic.len(),
        )
    {
        return Err(
            damaged("a batch has more arrays or buffers than its schema")
                .with("nodes", message.nodes.len())
                .with("buffers", message.buffers.len()),
        );
    }
    Ok(extents)
}

struct Walk<'a> {
    message: &'a Message,
    is_plain: bool,
    node: usize,
    buffer: usize,
    variadic: usize,
}

impl Walk<'_> {
    fn step(&mut self, data_type: &DataType) -> Result<()> {
        let node = self.message.nodes.get(self.node).copied();
        let node = node.ok_or_else(|| damaged("a batch has fewer arrays than its schema"))?;
        self.node += 1;
        let len = node.length.unsigned_abs();
        match data_type {
            DataType::Null => {}
            DataType::Utf8 | DataType::Binary | DataType::LargeUtf8 | DataType::LargeBinary => {
                self.buffers(3)?
            }
            DataType::Utf8View | DataType::BinaryView => {
                let count = self.message.variadic.get(self.variadic).copied();
                let count = count.and_then(|count| usize::try_from(count).ok());
                let count = count.filter(|count| *count <= self.message.buffers.len());
                let count =
                    count.ok_or_else(|| damaged("a view column has no sane buffer count"))?;
                self.variadic += 1;
                self.buffers(2 + count)?;
            }
            DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => {
                self.buffers(2)?;
                self.step(field.data_type())?;
            }
            DataType::ListView(field) | DataType::LargeListView(field) => {
                self.buffers(3)?;
                self.step(field.data_type())?;
            }
            DataType::FixedSizeList(field, size) => {
                self.buffers(1)?;
                let child = self
                    .message
                    .nodes
                    .get(self.node)
                    .map_or(0, |node| node.length.unsigned_abs());
                let wanted = u64::try_from(*size)
                    .ok()
                    .and_then(|size| size.checked_mul(len));
                if wanted.is_none_or(|wanted| wanted > child) {
                    return Err(damaged(
                        "a fixed-size list has fewer values than its rows need",
                    ));
                }
                self.step(field.data_type())?;
            }
            DataType::Struct(fields) => {
                self.buffers(1)?;
                for field in fields {
                    self.step(field.data_type())?;
                }
            }
            DataType::RunEndEncoded(ends, values) => {
                self.step(ends.data_type())?;
                self.step(values.data_type())?;
            }
            DataType::Union(fields, mode) => {
                if self.message.before_v5 {
                    self.buffers(1)?;
                }
                self.sized_buffer(1, len)?;
                if *mode == UnionMode::Dense {
                    self.sized_buffer(4, len)?;
                }
                for (_, field) in fields.iter() {
                    self.step(field.data_type())?;
                }
            }
            DataType::FixedSizeBinary(width) => {
                self.buffers(1)?;
                self.sized_buffer(u64::try_from(*width).unwrap_or(u64::MAX), len)?;
            }
            // Validity and values.
            _ => self.buffers(2)?,
        }
        Ok(())
    }

    fn buffers(&mut self, count: usize) -> Result<()> {
        self.buffer += count;
        if self.buffer > self.message.buffers.len() {
            return Err(damaged("a batch has fewer buffers than its schema"));
        }
        Ok(())
    }

    fn sized_buffer(&mut self, width: u64, len: u64) -> Result<()> {
        let span = self
            .message
            .buffers
            .get(self.buffer)
            .copied()
            .unwrap_or_default();
        self.buffers(1)?;
        if self.is_plain
            && width
                .checked_mul(len)
                .is_none_or(|wanted| wanted > span.len)
        {
            return Err(damaged("a buffer is shorter than its rows need").with("bytes", span.len));
        }
        Ok(())
    }
}

impl Extent {
    /// The bytes of the body that hold the column; empty for a column without buffers.
    pub(crate) fn span(&self, message: &Message) -> Span {
        let spans = message.buffers[self.buffers.clone()]
            .iter()
            .filter(|span| span.len > 0);
        let (first, last) = spans.fold((u64::MAX, 0), |(first, last), span| {
            (first.min(span.offset), last.max(span.end()))
        });
        if first > last {
            Span::default()
        } else {
            Span {
                offset: first,
                len: last - first,
            }
        }
    }

    /// A message that holds only the columns of `extents`, with the given buffer positions.
    pub(crate) fn message_of<'a>(
        message: &Message,
        extents: impl Iterator<Item = &'a Extent> + Clone,
        buffers: Vec<Span>,
    ) -> Message {
        Message {
            dictionary: None,
            rows: message.rows,
            nodes: extents
                .clone()
                .flat_map(|e| message.nodes[e.nodes.clone()].iter().copied())
                .collect(),
            buffers,
            variadic: extents
                .flat_map(|e| message.variadic[e.variadic.clone()].iter().copied())
                .collect(),
            compression: None,
            before_v5: message.before_v5,
        }
    }
}
