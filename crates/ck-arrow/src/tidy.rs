use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::ByteViewType;
use arrow_array::{Array, ArrayRef, GenericByteViewArray};
use arrow_schema::{ArrowError, DataType, UnionMode};

use crate::measure::outlined_bytes;
use crate::nested::{any_type, map_children};

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
/// Views longer than 12 bytes are copied when their buffers hold anything else.
pub(crate) fn without_garbage(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Utf8View => Ok(without_unused_bytes(array.as_string_view())),
        DataType::BinaryView => Ok(without_unused_bytes(array.as_binary_view())),
        DataType::Dictionary(_, _) => Ok(Arc::clone(array)),
        data_type if can_hold_garbage(data_type) => map_children(array, &mut without_garbage),
        _ => Ok(Arc::clone(array)),
    }
}

fn without_unused_bytes<T: ByteViewType>(array: &GenericByteViewArray<T>) -> ArrayRef {
    let held: usize = array.data_buffers().iter().map(|buffer| buffer.len()).sum();
    if held == 0 {
        return Arc::new(array.clone());
    }
    let used: usize = array.views().iter().map(|view| outlined_bytes(*view)).sum();
    if used == held {
        return Arc::new(array.clone());
    }
    Arc::new(array.gc())
}

#[cfg(test)]
mod tests {
    use arrow_array::{BinaryViewArray, StringViewArray};

    use super::*;

    #[test]
    fn a_slice_of_views_keeps_only_its_own_bytes() {
        let text: Vec<String> = (0..1000)
            .map(|i| format!("a rather long text, number {i}"))
            .collect();
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(&text));
        let slice = array.slice(10, 3);
        let tidy = without_garbage(&slice).unwrap();
        let held: usize = tidy
            .as_string_view()
            .data_buffers()
            .iter()
            .map(|b| b.len())
            .sum();
        assert_eq!(held, text[10..13].iter().map(String::len).sum::<usize>());
        assert_eq!(&tidy, &slice);
    }

    #[test]
    fn views_without_garbage_are_not_copied() {
        let array = BinaryViewArray::from_iter_values([b"a text of more than twelve bytes"]);
        let before = array.data_buffers()[0].as_ptr();
        let tidy = without_garbage(&(Arc::new(array) as ArrayRef)).unwrap();
        assert_eq!(tidy.as_binary_view().data_buffers()[0].as_ptr(), before);
    }
}
