//! How many bytes rows take when encoded, counted from what is really there.

use arrow_array::{Array, RecordBatch};
use arrow_data::{ArrayData, ByteView, MAX_INLINE_VIEW_LEN};
use arrow_schema::{DataType, UnionMode};

/// The columns of one batch, ready to be asked for the size of any of its row ranges.
#[derive(Debug)]
pub(crate) struct Measure {
    columns: Vec<ArrayData>,
}

impl Measure {
    pub(crate) fn new(batch: &RecordBatch) -> Self {
        Self {
            columns: batch
                .columns()
                .iter()
                .map(|column| column.to_data())
                .collect(),
        }
    }

    /// Encoded bytes of `len` rows from `start`, without padding and without dictionaries. Never
    /// falls when `len` grows. Costs a few operations per column, and one per row for views and dense unions.
    pub(crate) fn bytes(&self, start: usize, len: usize) -> usize {
        self.columns
            .iter()
            .map(|column| bytes_of(column, start, len))
            .sum()
    }
}

/// Encoded bytes of a whole array, counted as by [`Measure::bytes`].
pub(crate) fn encoded_bytes(array: &dyn Array) -> usize {
    bytes_of(&array.to_data(), 0, array.len())
}

/// `start` counts from the array's first logical row.
fn bytes_of(data: &ArrayData, start: usize, len: usize) -> usize {
    let validity = if data.null_count() > 0 {
        len.div_ceil(8)
    } else {
        0
    };
    // Where the logical rows lie in this array's own buffers.
    let physical = data.offset() + start;
    validity
        + match data.data_type() {
            DataType::Null => 0,
            DataType::Boolean => len.div_ceil(8),
            DataType::Utf8 | DataType::Binary => {
                let (first, last) = offsets_i32(data, physical, len);
                (len + 1) * 4 + (last - first)
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                let (first, last) = offsets_i64(data, physical, len);
                (len + 1) * 8 + (last - first)
            }
            DataType::Utf8View | DataType::BinaryView => {
                let views = &data.buffer::<u128>(0)[start..start + len];
                len * 16
                    + views
                        .iter()
                        .filter_map(|view| outlined(*view))
                        .map(|view| view.length as usize)
                        .sum::<usize>()
            }
            DataType::List(_) | DataType::Map(_, _) => {
                let (first, last) = offsets_i32(data, physical, len);
                (len + 1) * 4 + bytes_of(&data.child_data()[0], first, last - first)
            }
            DataType::LargeList(_) => {
                let (first, last) = offsets_i64(data, physical, len);
                (len + 1) * 8 + bytes_of(&data.child_data()[0], first, last - first)
            }
            DataType::ListView(_) => {
                let offsets = data.buffer::<i32>(0);
                let sizes = data.buffer::<i32>(1);
                let rows = start..start + len;
                let used = used_range(rows.map(|row| (offsets[row].into(), sizes[row].into())));
                len * 8 + bytes_of(&data.child_data()[0], used.0, used.1 - used.0)
            }
            DataType::LargeListView(_) => {
                let offsets = data.buffer::<i64>(0);
                let sizes = data.buffer::<i64>(1);
                let rows = start..start + len;
                let used = used_range(rows.map(|row| (offsets[row], sizes[row])));
                len * 16 + bytes_of(&data.child_data()[0], used.0, used.1 - used.0)
            }
            DataType::FixedSizeList(_, size) => {
                let size = usize::try_from(*size).unwrap_or(0);
                bytes_of(&data.child_data()[0], physical * size, len * size)
            }
            // Slicing a struct slices its children, so they start where the struct does.
            DataType::Struct(_) => data
                .child_data()
                .iter()
                .map(|child| bytes_of(child, start, len))
                .sum(),
            DataType::Union(_, UnionMode::Sparse) => {
                len + data
                    .child_data()
                    .iter()
                    .map(|child| bytes_of(child, physical, len))
                    .sum::<usize>()
            }
            DataType::Union(fields, UnionMode::Dense) => {
                let types = &data.buffer::<i8>(0)[start..start + len];
                let offsets = &data.buffer::<i32>(1)[start..start + len];
                let children = fields
                    .iter()
                    .zip(data.child_data())
                    .map(|((id, _), child)| {
                        let mine = types.iter().zip(offsets).filter(|(t, _)| **t == id);
                        let used = used_range(mine.map(|(_, offset)| (i64::from(*offset), 1)));
                        bytes_of(child, used.0, used.1 - used.0)
                    });
                len * 5 + children.sum::<usize>()
            }
            DataType::RunEndEncoded(_, _) => run_bytes(data, physical, len),
            DataType::Dictionary(key, _) => len * key.primitive_width().unwrap_or(8),
            DataType::FixedSizeBinary(width) => len * usize::try_from(*width).unwrap_or(0),
            fixed => len * fixed.primitive_width().unwrap_or(0),
        }
}

/// The view, if it keeps its bytes outside of itself.
pub(crate) fn outlined(view: u128) -> Option<ByteView> {
    let view = ByteView::from(view);
    (view.length > MAX_INLINE_VIEW_LEN).then_some(view)
}

/// The smallest range that holds every `(offset, size)` item.
pub(crate) fn used_range(items: impl Iterator<Item = (i64, i64)>) -> (usize, usize) {
    let mut used: Option<(i64, i64)> = None;
    for (offset, size) in items.filter(|(_, size)| *size > 0) {
        let (first, last) = used.unwrap_or((offset, offset));
        used = Some((first.min(offset), last.max(offset + size)));
    }
    let (first, last) = used.unwrap_or((0, 0));
    (
        usize::try_from(first).unwrap_or(0),
        usize::try_from(last).unwrap_or(0),
    )
}

fn offsets_i32(data: &ArrayData, physical: usize, len: usize) -> (usize, usize) {
    let offsets = data.buffers()[0].typed_data::<i32>();
    let at = |i: usize| {
        offsets
            .get(i)
            .map_or(0, |o| usize::try_from(*o).unwrap_or(0))
    };
    (at(physical), at(physical + len))
}

fn offsets_i64(data: &ArrayData, physical: usize, len: usize) -> (usize, usize) {
    let offsets = data.buffers()[0].typed_data::<i64>();
    let at = |i: usize| {
        offsets
            .get(i)
            .map_or(0, |o| usize::try_from(*o).unwrap_or(0))
    };
    (at(physical), at(physical + len))
}

fn run_bytes(data: &ArrayData, physical: usize, len: usize) -> usize {
    let (ends, values) = (&data.child_data()[0], &data.child_data()[1]);
    if len == 0 {
        return 0;
    }
    // The run that holds a row is the first whose end lies beyond it.
    let run_of = |row: usize| {
        let beyond = |end: i64| usize::try_from(end).unwrap_or(0) > row;
        match ends.data_type() {
            DataType::Int16 => {
                ends.buffer::<i16>(0)[..ends.len()].partition_point(|e| !beyond((*e).into()))
            }
            DataType::Int32 => {
                ends.buffer::<i32>(0)[..ends.len()].partition_point(|e| !beyond((*e).into()))
            }
            _ => ends.buffer::<i64>(0)[..ends.len()].partition_point(|e| !beyond(*e)),
        }
    };
    let (first, last) = (run_of(physical), run_of(physical + len - 1) + 1);
    let width = ends.data_type().primitive_width().unwrap_or(8);
    let runs = last - first;
    runs * width + bytes_of(values, first, runs.min(values.len().saturating_sub(first)))
}
