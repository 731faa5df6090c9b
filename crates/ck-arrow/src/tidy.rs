use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::ByteViewType;
use arrow_array::{Array, ArrayRef, GenericByteViewArray};
use arrow_schema::{ArrowError, DataType, UnionMode};

use crate::buffer_pool::BufferPool;
use crate::measure::outlined;
use crate::nested::{Own, any_type, map_children};

/// Whether arrays of this type can hold on to values that none of their rows show, in a way that the
/// IPC encoder would write out: it cuts every other type to its rows by itself.
pub(crate) fn can_hold_garbage(data_type: &DataType) -> bool {
    any_type(data_type, &|inner| {
        matches!(
            inner,
            DataType::Utf8View
                | DataType::BinaryView
                | DataType::ListView(_)
                | DataType::LargeListView(_)
                | DataType::Union(_, UnionMode::Dense)
        )
    })
}

/// The same values without what no row shows: view buffers are garbage-collected, children of list
/// views and dense unions cut to what is used. Dictionaries are left to `Unifier`.
///
/// # Memory
///
/// Of a slice of views whose text lies together, as builders leave it, only the views are copied (16
/// bytes each); where other text lies between, the text longer than 12 bytes is copied too.
pub(crate) fn without_garbage(array: &ArrayRef, pool: &BufferPool) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Utf8View => without_unused_bytes(array.as_string_view(), pool),
        DataType::BinaryView => without_unused_bytes(array.as_binary_view(), pool),
        DataType::Dictionary(_, _) => Ok(Arc::clone(array)),
        data_type if can_hold_garbage(data_type) => {
            map_children(array, Own::Shared, &mut |child| {
                without_garbage(child, pool)
            })
        }
        _ => Ok(Arc::clone(array)),
    }
}

/// Buffers of views are cut only to pieces of at least this size on average; smaller ones are gathered.
const MIN_PIECE: usize = 4096;

/// The part of a buffer of views that its rows show.
#[derive(Clone, Default)]
struct Shown {
    bytes: Range<usize>,
    /// Which buffer it becomes.
    place: u32,
}

fn without_unused_bytes<T: ByteViewType>(
    array: &GenericByteViewArray<T>,
    pool: &BufferPool,
) -> Result<ArrayRef, ArrowError> {
    let buffers = array.data_buffers();
    let held: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let mut parts = vec![Shown::default(); buffers.len()];
    let mut used = 0;
    for view in array.views().iter().filter_map(|view| outlined(*view)) {
        let start = view.offset as usize;
        let end = start + view.length as usize;
        let shown = &mut parts[view.buffer_index as usize].bytes;
        *shown = if shown.end == 0 {
            start..end
        } else {
            shown.start.min(start)..shown.end.max(end)
        };
        used += view.length as usize;
    }
    let spanned: usize = parts.iter().map(|part| part.bytes.len()).sum();
    if used == held && spanned == held {
        return Ok(Arc::new(array.clone()));
    }
    let mut cut = Vec::new();
    for (part, buffer) in parts.iter_mut().zip(buffers.iter()) {
        if part.bytes.end > 0 {
            part.place = u32::try_from(cut.len()).unwrap_or(u32::MAX);
            cut.push(buffer.slice_with_length(part.bytes.start, part.bytes.len()));
        }
    }
    if spanned > used || cut.len() > 1 && spanned / cut.len() < MIN_PIECE {
        return Ok(Arc::new(array.gc()));
    }
    let moved = |view: &u128| match outlined(*view) {
        None => *view,
        Some(view) => {
            let part = &parts[view.buffer_index as usize];
            // An offset of 32 bits, less something.
            let shift = u32::try_from(part.bytes.start).unwrap_or(0);
            view.with_buffer_index(part.place)
                .with_offset(view.offset - shift)
                .as_u128()
        }
    };
    let views = pool.collect(array.views().iter().map(moved));
    let nulls = array.nulls().cloned();
    Ok(Arc::new(GenericByteViewArray::<T>::try_new(
        views, cut, nulls,
    )?))
}

#[cfg(test)]
mod tests {
    use arrow_array::builder::{StringViewBuilder, make_view};
    use arrow_array::{BinaryViewArray, StringViewArray};
    use arrow_buffer::Buffer;

    use super::*;

    #[test]
    fn a_slice_of_views_keeps_only_its_own_bytes() {
        let text: Vec<String> = (0..1000)
            .map(|i| format!("a rather long text, number {i}"))
            .collect();
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(&text));
        let slice = array.slice(10, 3);
        let tidy = without_garbage(&slice, &BufferPool::default()).unwrap();
        let held: usize = tidy
            .as_string_view()
            .data_buffers()
            .iter()
            .map(|b| b.len())
            .sum();
        assert_eq!(held, text[10..13].iter().map(String::len).sum::<usize>());
        assert_eq!(&tidy, &slice);
    }

    /// Texts of 30 bytes in blocks of 64 KiB.
    fn in_blocks(rows: usize) -> StringViewArray {
        let mut builder = StringViewBuilder::new().with_fixed_block_size(64 << 10);
        (0..rows).for_each(|row| builder.append_value(format!("{row:030}")));
        builder.finish()
    }

    #[test]
    fn a_slice_of_blocks_keeps_their_text_where_it_lies() {
        let array = in_blocks(20_000);
        let blocks = array.data_buffers();
        assert!(blocks.len() > 8);
        let slice: ArrayRef = Arc::new(array.slice(5_000, 9_000));
        let tidy = without_garbage(&slice, &BufferPool::default()).unwrap();
        assert_eq!(&tidy, &slice);
        let cut = tidy.as_string_view().data_buffers();
        assert_eq!(cut.iter().map(|part| part.len()).sum::<usize>(), 9_000 * 30);
        for part in cut.iter() {
            let is_in = |block: &Buffer| {
                block
                    .as_slice()
                    .as_ptr_range()
                    .contains(&part.as_slice().as_ptr())
            };
            assert!(blocks.iter().any(is_in));
        }
    }

    #[test]
    fn text_between_the_rows_is_left_behind() {
        let array = in_blocks(10_000);
        let thinned: StringViewArray = array.iter().step_by(3).collect();
        let rows = (0..array.len() / 3).map(|row| array.views()[row * 3]);
        let views = StringViewArray::try_new(rows.collect(), array.data_buffers().to_vec(), None);
        let views: ArrayRef = Arc::new(views.unwrap());
        let tidy = without_garbage(&views, &BufferPool::default()).unwrap();
        assert_eq!(tidy.as_string_view(), &thinned.slice(0, views.len()));
        let held = tidy.as_string_view().data_buffers().iter();
        assert_eq!(
            held.map(|buffer| buffer.len()).sum::<usize>(),
            views.len() * 30
        );
    }

    #[test]
    fn rows_that_share_text_do_not_hide_what_nobody_uses() {
        // As many bytes are used, counted per row, as the buffer has; half of them are never used.
        let text = Buffer::from([&[b'a'; 20][..], &[b'b'; 20]].concat());
        let view = make_view(&[b'a'; 20], 0, 0);
        let array: ArrayRef =
            Arc::new(StringViewArray::try_new(vec![view, view].into(), vec![text], None).unwrap());
        let tidy = without_garbage(&array, &BufferPool::default()).unwrap();
        assert_eq!(&tidy, &array);
        assert_eq!(
            tidy.as_string_view().data_buffers()[0].as_slice(),
            [b'a'; 20]
        );
    }

    #[test]
    fn many_small_blocks_are_gathered() {
        let mut builder = StringViewBuilder::new().with_fixed_block_size(64);
        (0..1000).for_each(|row| builder.append_value(format!("{row:030}")));
        let slice: ArrayRef = Arc::new(builder.finish().slice(10, 900));
        let tidy = without_garbage(&slice, &BufferPool::default()).unwrap();
        assert_eq!(&tidy, &slice);
        assert_eq!(tidy.as_string_view().data_buffers().len(), 1);
    }

    #[test]
    fn views_without_garbage_are_not_copied() {
        let array = BinaryViewArray::from_iter_values([b"a text of more than twelve bytes"]);
        let before = array.data_buffers()[0].as_ptr();
        let tidy = without_garbage(&(Arc::new(array) as ArrayRef), &BufferPool::default()).unwrap();
        assert_eq!(tidy.as_binary_view().data_buffers()[0].as_ptr(), before);
    }
}
