//! Runs of rows of a batch: only their parts of its buffers are read.
//!
//! A run of rows of an uncompressed batch is described by a message of its own, whose buffers are parts
//! of the batch's buffers. Bitmaps can be cut at whole bytes only, so every run starts at a multiple of
//! eight rows, in nested arrays too.

use std::ops::Range;

use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer};
use arrow_data::ByteView;
use arrow_schema::{DataType, UnionMode};
use bytes::Bytes;
use ck_core::{BoxFuture, Result};

use crate::content::Source;
use crate::measure::outlined;
use crate::message::{ALIGNMENT, Message, Node, Span, damaged};

/// Runs start at a multiple of this many rows.
pub(crate) const STEP: u64 = 8;

/// Whether runs of rows can be cut out of an array of this type by looking at its offsets alone.
pub(crate) fn can_cut(data_type: &DataType, message: &Message) -> bool {
    match data_type {
        DataType::RunEndEncoded(_, _)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Union(_, UnionMode::Dense) => false,
        DataType::Union(fields, UnionMode::Sparse) => {
            let mut fields = fields.iter();
            !message.before_v5 && fields.all(|(_, field)| can_cut(field.data_type(), message))
        }
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::Map(field, _)
        | DataType::FixedSizeList(field, _) => can_cut(field.data_type(), message),
        DataType::Struct(fields) => fields
            .iter()
            .all(|field| can_cut(field.data_type(), message)),
        _ => true,
    }
}

/// What has to be read for a run of rows of one column.
#[derive(Debug)]
pub(crate) struct Window {
    nodes: Vec<Node>,
    buffers: Vec<Piece>,
    variadic: Vec<i64>,
}

/// A buffer of a window.
#[derive(Debug)]
enum Piece {
    /// Bytes of the body as they are.
    Stored(Span),
    /// The validity of an array, whose nulls are to be counted.
    Validity { span: Span, node: usize },
    /// Offsets of 4 or 8 bytes, which `base` has to be taken from.
    Offsets { span: Span, width: u64, base: u64 },
    /// Views, read and rewritten already.
    Views(Vec<u8>),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Stored(span) | Self::Validity { span, .. } | Self::Offsets { span, .. } => {
                span.len
            }
            Self::Views(views) => views.len() as u64,
        }
    }
}

impl Window {
    /// Plans to read the rows of a column, which starts at these places of the message. Reads single
    /// offsets, and the views of the rows.
    pub(crate) async fn plan(
        source: &Source<'_>,
        body: u64,
        message: &Message,
        extent: &crate::extent::Extent,
        data_type: &DataType,
        rows: Range<u64>,
    ) -> Result<Self> {
        let mut planner = Planner {
            source,
            body,
            message,
            node: extent.nodes.start,
            buffer: extent.buffers.start,
            variadic: extent.variadic.start,
            window: Self {
                nodes: Vec::new(),
                buffers: Vec::new(),
                variadic: message.variadic[extent.variadic.clone()].to_vec(),
            },
        };
        planner.array(data_type, rows).await?;
        Ok(planner.window)
    }

    /// Bytes of all buffers.
    pub(crate) fn bytes(&self) -> u64 {
        let lens = self.buffers.iter().map(Piece::len);
        lens.fold(0, u64::saturating_add)
    }

    /// Reads the buffers into one allocation; the message describes them.
    pub(crate) async fn load(
        mut self,
        source: &Source<'_>,
        body: u64,
        rows: u64,
    ) -> Result<(Message, Buffer)> {
        let mut spans = Vec::with_capacity(self.buffers.len());
        let mut end = 0;
        for piece in &self.buffers {
            let len = piece.len();
            spans.push(Span { offset: end, len });
            end = (end + len).next_multiple_of(ALIGNMENT as u64);
        }
        let size = |bytes: u64| {
            usize::try_from(bytes).map_err(|_| damaged("a column claims more than memory can hold"))
        };
        let mut memory = MutableBuffer::with_capacity(size(end)?);
        for (piece, span) in self.buffers.iter().zip(&spans) {
            memory.resize(size(span.offset)?, 0);
            match piece {
                Piece::Stored(part) => memory.extend_from_slice(&read(source, body, *part).await?),
                Piece::Validity { span, node } => {
                    let stored = read(source, body, *span).await?;
                    let node = &mut self.nodes[*node];
                    node.null_count = nulls(&stored, node.length)?;
                    memory.extend_from_slice(&stored);
                }
                Piece::Offsets { span, width, base } => {
                    let stored = read(source, body, *span).await?;
                    let wrong = || damaged("the offsets of a column fall");
                    if *width == 4 {
                        let base = i32::try_from(*base).map_err(|_| wrong())?;
                        for offset in stored.as_chunks().0 {
                            let offset = i32::from_le_bytes(*offset).checked_sub(base);
                            memory.push(offset.ok_or_else(wrong)?);
                        }
                    } else {
                        let base = i64::try_from(*base).map_err(|_| wrong())?;
                        for offset in stored.as_chunks().0 {
                            let offset = i64::from_le_bytes(*offset).checked_sub(base);
                            memory.push(offset.ok_or_else(wrong)?);
                        }
                    }
                }
                Piece::Views(views) => memory.extend_from_slice(views),
            }
        }
        let message = Message {
            rows,
            nodes: self.nodes,
            buffers: spans,
            variadic: self.variadic,
            ..Message::default()
        };
        Ok((message, memory.into()))
    }
}

async fn read(source: &Source<'_>, body: u64, span: Span) -> Result<Bytes> {
    if span.len == 0 {
        return Ok(Bytes::new());
    }
    source.read(body + span.offset..body + span.end()).await
}

/// How many of `length` bits are not set.
fn nulls(bits: &[u8], length: i64) -> Result<i64> {
    let wrong = || damaged("a bitmap is shorter than its rows need");
    let length = usize::try_from(length).map_err(|_| wrong())?;
    if bits.len() < length.div_ceil(8) {
        return Err(wrong());
    }
    let bits = BooleanBuffer::new(Buffer::from(bits), 0, length);
    i64::try_from(length - bits.count_set_bits()).map_err(|_| wrong())
}

struct Planner<'a> {
    source: &'a Source<'a>,
    body: u64,
    message: &'a Message,
    node: usize,
    buffer: usize,
    variadic: usize,
    window: Window,
}

impl Planner<'_> {
    /// `rows` counts from the array's own first value.
    fn array<'b>(
        &'b mut self,
        data_type: &'b DataType,
        rows: Range<u64>,
    ) -> BoxFuture<'b, Result<()>> {
        Box::pin(async move {
            let node = self.message.nodes.get(self.node).copied();
            let node = node.ok_or_else(|| damaged("a batch has fewer arrays than its schema"))?;
            self.node += 1;
            let length = node.length.unsigned_abs();
            if rows.start > rows.end || rows.end > length {
                return Err(damaged("an array has fewer values than its rows need")
                    .with("values", length)
                    .with("wanted", rows.end));
            }
            let count = i64::try_from(rows.end - rows.start).unwrap_or(i64::MAX);
            let place = self.window.nodes.len();
            let is_null = *data_type == DataType::Null;
            self.window.nodes.push(Node {
                length: count,
                null_count: if is_null { count } else { 0 },
            });
            if !is_null && !matches!(data_type, DataType::Union(_, _)) {
                let span = self.bits(&rows)?;
                self.window
                    .buffers
                    .push(if node.null_count > 0 && !rows.is_empty() {
                        Piece::Validity { span, node: place }
                    } else {
                        Piece::Stored(span)
                    });
            }
            match data_type {
                DataType::Null => {}
                DataType::Boolean => {
                    let span = self.bits(&rows)?;
                    self.window.buffers.push(Piece::Stored(span));
                }
                DataType::Utf8 | DataType::Binary => {
                    let values = self.offsets(&rows, 4, 1).await?;
                    self.fixed(&values, 1)?;
                }
                DataType::LargeUtf8 | DataType::LargeBinary => {
                    let values = self.offsets(&rows, 8, 1).await?;
                    self.fixed(&values, 1)?;
                }
                DataType::Utf8View | DataType::BinaryView => self.views(&rows).await?,
                DataType::List(field) | DataType::Map(field, _) => {
                    let values = self.offsets(&rows, 4, STEP).await?;
                    self.array(field.data_type(), values).await?;
                }
                DataType::LargeList(field) => {
                    let values = self.offsets(&rows, 8, STEP).await?;
                    self.array(field.data_type(), values).await?;
                }
                DataType::FixedSizeList(field, size) => {
                    let size = u64::try_from(*size).unwrap_or(0);
                    let times = |row: u64| row.checked_mul(size);
                    let values = times(rows.start).zip(times(rows.end));
                    let (start, end) = values.ok_or_else(|| damaged("a list is too long"))?;
                    self.array(field.data_type(), start..end).await?;
                }
                DataType::Struct(fields) => {
                    for field in fields {
                        self.array(field.data_type(), rows.clone()).await?;
                    }
                }
                DataType::Union(fields, _) => {
                    self.fixed(&rows, 1)?;
                    for (_, field) in fields.iter() {
                        self.array(field.data_type(), rows.clone()).await?;
                    }
                }
                DataType::FixedSizeBinary(width) => {
                    self.fixed(&rows, u64::try_from(*width).unwrap_or(0))?;
                }
                DataType::Dictionary(keys, _) => {
                    self.fixed(&rows, keys.primitive_width().unwrap_or(8) as u64)?;
                }
                fixed => self.fixed(&rows, fixed.primitive_width().unwrap_or(8) as u64)?,
            }
            Ok(())
        })
    }

    fn next_buffer(&mut self) -> Result<Span> {
        let span = self.message.buffers.get(self.buffer).copied();
        self.buffer += 1;
        span.ok_or_else(|| damaged("a batch has fewer buffers than its schema"))
    }

    /// A bitmap; a missing one stays missing.
    fn bits(&mut self, rows: &Range<u64>) -> Result<Span> {
        let span = self.next_buffer()?;
        if span.len == 0 {
            return Ok(span);
        }
        cut(span, rows.start / 8, rows.end.div_ceil(8))
    }

    /// Values of `width` bytes.
    fn fixed(&mut self, rows: &Range<u64>, width: u64) -> Result<()> {
        let span = self.next_buffer()?;
        let ends = rows
            .start
            .checked_mul(width)
            .zip(rows.end.checked_mul(width));
        let (start, end) = ends.ok_or_else(|| damaged("a buffer is shorter than its rows need"))?;
        self.window
            .buffers
            .push(Piece::Stored(cut(span, start, end)?));
        Ok(())
    }

    /// Offsets; which values they stand for, from a multiple of `step` on.
    async fn offsets(&mut self, rows: &Range<u64>, width: u64, step: u64) -> Result<Range<u64>> {
        let span = self.next_buffer()?;
        if rows.is_empty() {
            self.window.buffers.push(Piece::Stored(Span::default()));
            return Ok(0..0);
        }
        let (first, last) = (
            self.offset(span, rows.start, width).await?,
            self.offset(span, rows.end, width).await?,
        );
        if first > last {
            return Err(damaged("the offsets of a column fall")
                .with("first", first)
                .with("last", last));
        }
        let base = first - first % step;
        self.window.buffers.push(Piece::Offsets {
            span: cut(span, rows.start * width, (rows.end + 1) * width)?,
            width,
            base,
        });
        Ok(base..last)
    }

    async fn offset(&self, span: Span, row: u64, width: u64) -> Result<u64> {
        let part = cut(span, row * width, (row + 1) * width)?;
        let bytes = read(self.source, self.body, part).await?;
        let offset = match (
            <[u8; 4]>::try_from(&bytes[..]),
            <[u8; 8]>::try_from(&bytes[..]),
        ) {
            (Ok(narrow), _) => i64::from(i32::from_le_bytes(narrow)),
            (_, Ok(wide)) => i64::from_le_bytes(wide),
            _ => -1,
        };
        u64::try_from(offset).map_err(|_| damaged("an offset is negative").with("offset", offset))
    }

    /// Views, and of each data buffer the part that they show.
    async fn views(&mut self, rows: &Range<u64>) -> Result<()> {
        const WIDTH: u64 = size_of::<u128>() as u64;
        let span = self.next_buffer()?;
        let part = cut(span, rows.start * WIDTH, rows.end * WIDTH)?;
        let stored = read(self.source, self.body, part).await?;
        let count = self.message.variadic.get(self.variadic).copied();
        self.variadic += 1;
        let count = count.and_then(|count| usize::try_from(count).ok());
        let mut shown: Vec<Option<Range<u64>>> = vec![None; count.unwrap_or(0)];
        let views = || {
            stored
                .as_chunks()
                .0
                .iter()
                .map(|view| u128::from_le_bytes(*view))
        };
        for view in views().filter_map(outlined) {
            let (start, len) = (u64::from(view.offset), u64::from(view.length));
            let shown = shown.get_mut(view.buffer_index as usize);
            let shown = shown.ok_or_else(|| damaged("a view shows a buffer that is not there"))?;
            let end = start + len;
            *shown = Some(match shown {
                None => start..end,
                Some(old) => old.start.min(start)..old.end.max(end),
            });
        }
        let moved = |view: u128| match outlined(view) {
            None => view,
            Some(view) => {
                let shown = shown.get(view.buffer_index as usize).cloned().flatten();
                // An offset of 32 bits, less something.
                let start = shown.map_or(0, |shown| u32::try_from(shown.start).unwrap_or(0));
                let ByteView { offset, .. } = view;
                view.with_offset(offset - start).as_u128()
            }
        };
        let rewritten = views().flat_map(|view| moved(view).to_le_bytes());
        self.window.buffers.push(Piece::Views(rewritten.collect()));
        for shown in shown {
            let span = self.next_buffer()?;
            let shown = shown.unwrap_or_default();
            let part = cut(span, shown.start, shown.end)?;
            self.window.buffers.push(Piece::Stored(part));
        }
        Ok(())
    }
}

/// The bytes from `start` to `end` of a buffer.
fn cut(span: Span, start: u64, end: u64) -> Result<Span> {
    if start == end {
        return Ok(Span::default());
    }
    if start > end || end > span.len {
        return Err(damaged("a buffer is shorter than its rows need")
            .with("bytes", span.len)
            .with("wanted", end));
    }
    Ok(Span {
        offset: span.offset + start,
        len: end - start,
    })
}
