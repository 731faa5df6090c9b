use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::ArrowDictionaryKeyType;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, RecordBatch, RecordBatchOptions, downcast_dictionary_array,
    make_array,
};
use arrow_data::transform::MutableArrayData;
use arrow_schema::{ArrowError, DataType};
use arrow_select::dictionary::garbage_collect_dictionary;
use ck_core::{Error, ErrorKind, Result};

use crate::nested::{any_type, map_children};
use crate::weight::{retained_bytes, used_bytes};

/// A batch is copied when it retains more than this many quarters of what it uses.
const TOLERATED_QUARTERS: usize = 5;

/// Small batches are left alone below this much waste, in bytes.
const TOLERATED_WASTE: usize = 4096;

/// The same batch in memory of its own, if it retains much more than it uses; otherwise the batch itself.
///
/// "Much" is more than a quarter, and more than 4 KiB. Slices of large batches, views into buffers with
/// other rows' bytes, and dictionaries with values that no row uses all lose what they drag along.
///
/// # Memory
///
/// Up to one copy of the rows.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] for a type that Arrow cannot copy.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use arrow_array::{Int64Array, RecordBatch};
/// use ck_arrow::{compact, retained_bytes};
///
/// let column = Arc::new(Int64Array::from_iter_values(0..100_000)) as _;
/// let row = RecordBatch::try_from_iter([("n", column)])?.slice(7, 1);
/// assert!(retained_bytes([&row]) >= 800_000);
/// assert!(retained_bytes([&compact(&row)?]) < 1000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let (retained, used) = (retained_bytes([batch]), used_bytes(batch));
    let is_small = retained <= used + TOLERATED_WASTE;
    if !batch.columns().iter().any(has_dictionary)
        && (is_small || retained * 4 <= used * TOLERATED_QUARTERS)
    {
        return Ok(batch.clone());
    }
    let columns = batch
        .columns()
        .iter()
        .map(copied)
        .collect::<Result<Vec<_>, _>>();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let copy = columns
        .and_then(|columns| RecordBatch::try_new_with_options(batch.schema(), columns, &options));
    let copy = copy.map_err(|error| {
        Error::new(ErrorKind::Unsupported, "a batch cannot be copied").with_source(error)
    })?;
    // With dictionaries only the copy tells how much was waste.
    let kept = retained_bytes([&copy]);
    let is_worth_it = retained > kept + TOLERATED_WASTE && retained * 4 > kept * TOLERATED_QUARTERS;
    Ok(if is_worth_it { copy } else { batch.clone() })
}

fn has_dictionary(array: &ArrayRef) -> bool {
    any_type(array.data_type(), &|inner| {
        matches!(inner, DataType::Dictionary(_, _))
    })
}

/// The array in fresh memory that holds its rows and nothing else.
fn copied(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Utf8View => Ok(Arc::new(array.as_string_view().gc())),
        DataType::BinaryView => Ok(Arc::new(array.as_binary_view().gc())),
        DataType::Null => Ok(Arc::clone(array)),
        DataType::Dictionary(_, _) => {
            let any: &dyn Array = array;
            downcast_dictionary_array!(
                any => copied_dictionary(any),
                _ => Ok(Arc::clone(array))
            )
        }
        data_type if data_type.is_nested() => {
            // The children in fresh memory; what the parent has of its own is copied after.
            let parent = map_children(array, &mut copied)?;
            // Runs have no buffers of their own.
            let has_buffers = !matches!(data_type, DataType::RunEndEncoded(_, _));
            Ok(if has_buffers {
                with_own_buffers(&parent)
            } else {
                parent
            })
        }
        _ => flat_copy(array),
    }
}

fn copied_dictionary<K: ArrowDictionaryKeyType>(
    array: &DictionaryArray<K>,
) -> Result<ArrayRef, ArrowError> {
    let tidy = garbage_collect_dictionary(array)?;
    let keys = flat_copy(&(Arc::new(tidy.keys().clone()) as ArrayRef))?;
    let values = copied(tidy.values())?;
    Ok(Arc::new(DictionaryArray::<K>::try_new(
        keys.as_primitive::<K>().clone(),
        values,
    )?))
}

fn flat_copy(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let data = array.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())?;
    Ok(make_array(copy.freeze()))
}

/// The same parent with its offsets (and the types of a union) and its validity in fresh memory; children
/// stay.
fn with_own_buffers(parent: &ArrayRef) -> ArrayRef {
    let data = parent.to_data();
    let own = |buffer: &arrow_buffer::Buffer| arrow_buffer::Buffer::from(buffer.as_slice());
    let nulls = data.nulls().map(|nulls| {
        let bits =
            arrow_buffer::BooleanBuffer::collect_bool(nulls.len(), |row| nulls.is_valid(row));
        arrow_buffer::NullBuffer::new(bits)
    });
    let buffers = data.buffers().iter().map(own).collect();
    let copy = data
        .clone()
        .into_builder()
        .buffers(buffers)
        .nulls(nulls)
        .build();
    // The same lengths and values as before: it cannot fail, and if it did the original would do.
    copy.map_or_else(|_| Arc::clone(parent), make_array)
}

#[cfg(test)]
mod tests {
    use arrow_array::types::Int32Type;
    use arrow_array::{Int64Array, StringArray, StringViewArray, StructArray};
    use arrow_schema::Field;

    use super::*;

    fn check(column: ArrayRef) {
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let slice = batch.slice(1000, 10);
        let compacted = compact(&slice).unwrap();
        assert_eq!(compacted, slice);
        assert!(
            retained_bytes([&compacted]) < 6000,
            "{}",
            retained_bytes([&compacted])
        );
    }

    #[test]
    fn slices_of_every_shape_lose_the_rest_of_their_batch() {
        let rows = 50_000;
        let text: Vec<String> = (0..rows)
            .map(|i| format!("text that is not inlined {i}"))
            .collect();
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter(
            (0..rows).map(|i| (i % 3 > 0).then_some(i)),
        ));
        let strings: ArrayRef = Arc::new(StringArray::from_iter_values(&text));
        check(Arc::clone(&numbers));
        check(Arc::clone(&strings));
        check(Arc::new(StringViewArray::from_iter_values(&text)));
        let dictionary: DictionaryArray<Int32Type> = text.iter().map(String::as_str).collect();
        check(Arc::new(dictionary));
        let fields = vec![
            (Arc::new(Field::new("n", DataType::Int64, true)), numbers),
            (Arc::new(Field::new("s", DataType::Utf8, true)), strings),
        ];
        check(Arc::new(StructArray::from(fields)));
        let lists = (0..rows).map(|i| Some(vec![Some(i), None]));
        check(Arc::new(arrow_array::ListArray::from_iter_primitive::<
            arrow_array::types::Int64Type,
            _,
            _,
        >(lists)));
    }

    #[test]
    fn a_batch_that_wastes_nothing_is_not_copied() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..50_000));
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let same = compact(&batch).unwrap();
        let start = |batch: &RecordBatch| batch.column(0).to_data().buffers()[0].as_ptr();
        assert_eq!(start(&same), start(&batch));
    }
}
