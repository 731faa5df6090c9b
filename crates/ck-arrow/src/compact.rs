use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowDictionaryKeyType, ByteViewType};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, GenericByteViewArray, RecordBatch, RecordBatchOptions,
    downcast_dictionary_array,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer};
use arrow_schema::{ArrowError, DataType};
use ck_core::{Error, ErrorKind, Result};

use crate::footprint::{buffer_bytes, retained_bytes};
use crate::gather::gather;
use crate::measure::encoded_bytes;
use crate::nested::{Own, any_type, map_children};
use crate::tidy::can_hold_garbage;

/// Batches are copied when they retain more than this many quarters of what they use.
const TOLERATED_QUARTERS: usize = 5;

/// They are left alone below this much waste, in bytes.
const TOLERATED_WASTE: usize = 4096;

/// The same batch in memory of its own, if it retains much more than it uses; otherwise the batch itself.
///
/// "Much" is more than a quarter, and more than 4 KiB. Slices of large batches, views into buffers with
/// other rows' bytes, and dictionaries with values that no row uses all lose what they drag along.
/// For batches that share memory see [`Table::compacted`](crate::Table::compacted).
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
    let copy = compact_all(std::slice::from_ref(batch))?;
    Ok(copy
        .and_then(|mut copies| copies.pop())
        .unwrap_or_else(|| batch.clone()))
}

/// The same batches in memory of their own, if together they retain much more than they use. What they
/// share, columns and dictionaries, they still share.
pub(crate) fn compact_all(batches: &[RecordBatch]) -> Result<Option<Vec<RecordBatch>>> {
    let retained = buffer_bytes(batches);
    if retained <= TOLERATED_WASTE {
        return Ok(None);
    }
    let copy_all = || {
        let dictionaries = Dictionaries::used_by(batches)?;
        let columns = batches.iter().flat_map(RecordBatch::columns);
        let columns: ByAddress<_> = columns.map(|column| (address(column), column)).collect();
        let measured = columns.values().map(|column| encoded_bytes(column));
        let used = measured.sum::<usize>() + dictionaries.used_bytes();
        if !is_wasteful(retained, used) {
            return Ok(None);
        }
        let mut copier = Copier {
            dictionaries: dictionaries.compacted()?,
            columns: HashMap::new(),
        };
        let mut copies = Vec::with_capacity(batches.len());
        for batch in batches {
            copies.push(copier.batch(batch)?);
        }
        Ok(Some(copies))
    };
    let copies = copy_all().map_err(|error: ArrowError| {
        Error::new(ErrorKind::Unsupported, "a batch cannot be copied").with_source(error)
    })?;
    // Only the copy tells how much was waste.
    Ok(copies.filter(|copies| is_wasteful(retained_bytes(batches), retained_bytes(copies))))
}

fn is_wasteful(retained: usize, used: usize) -> bool {
    retained > used + TOLERATED_WASTE && retained / TOLERATED_QUARTERS > used / 4
}

/// Arrays by where they lie. The batches that are compacted keep them there.
type ByAddress<T> = HashMap<usize, T>;

fn address(array: &ArrayRef) -> usize {
    Arc::as_ptr(array).addr()
}

/// The dictionaries of some batches, and which of their values any row uses.
#[derive(Default)]
struct Dictionaries(ByAddress<(ArrayRef, BooleanBuffer)>);

impl Dictionaries {
    fn used_by(batches: &[RecordBatch]) -> Result<Self, ArrowError> {
        let mut found = Self::default();
        for column in batches.iter().flat_map(RecordBatch::columns) {
            if has_dictionary(column) {
                found.add(column)?;
            }
        }
        Ok(found)
    }

    fn add(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        match array.data_type() {
            DataType::Dictionary(_, _) if has_weight(array.as_any_dictionary().values()) => {
                let any: &dyn Array = array;
                downcast_dictionary_array!(
                    any => {
                        let used = any.occupancy();
                        let known = self.0.entry(address(any.values()));
                        known
                            .and_modify(|(_, all)| *all = &*all | &used)
                            .or_insert_with(|| (Arc::clone(any.values()), used));
                    },
                    _ => {}
                );
                Ok(())
            }
            inner if inner.is_nested() => {
                let mut add = |child: &ArrayRef| {
                    self.add(child)?;
                    Ok(Arc::clone(child))
                };
                map_children(array, Own::Shared, &mut add).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// About how many bytes the used values take.
    fn used_bytes(&self) -> usize {
        let bytes = |(values, used): &(ArrayRef, BooleanBuffer)| {
            let whole = values.to_data().get_slice_memory_size();
            let whole = whole.unwrap_or_else(|_| values.get_buffer_memory_size());
            whole / used.len().max(1) * used.count_set_bits()
        };
        self.0.values().map(bytes).sum()
    }

    /// Each with the used values only.
    fn compacted(self) -> Result<ByAddress<Compacted>, ArrowError> {
        let compacted = self.0.into_iter().map(|(address, (values, used))| {
            let mut next = 0;
            let places = used.iter().map(|is_used| {
                let place = next;
                next += usize::from(is_used);
                place
            });
            let places = places.collect();
            let all = used.count_set_bits() == values.len();
            let left = match all {
                true => values,
                false => gather(
                    &[&*values],
                    used.count_set_bits(),
                    used.set_slices().map(|(from, to)| (0, from..to)),
                )?,
            };
            // Views and dictionaries among the values still hold what the others showed.
            let values = if all || has_dictionary(&left) || can_hold_garbage(left.data_type()) {
                let mut inner = Self::default();
                inner.add(&left)?;
                copied(&left, &inner.compacted()?)?
            } else {
                left
            };
            Ok((address, Compacted { values, places }))
        });
        compacted.collect()
    }
}

/// A dictionary in memory of its own.
struct Compacted {
    values: ArrayRef,
    /// Where each of the former values is now.
    places: Vec<usize>,
}

struct Copier {
    dictionaries: ByAddress<Compacted>,
    columns: ByAddress<ArrayRef>,
}

impl Copier {
    fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for column in batch.columns() {
            columns.push(self.column(column)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(batch.schema(), columns, &options)
    }

    fn column(&mut self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        if let Some(copy) = self.columns.get(&address(column)) {
            return Ok(Arc::clone(copy));
        }
        let copy = copied(column, &self.dictionaries)?;
        self.columns.insert(address(column), Arc::clone(&copy));
        Ok(copy)
    }
}

fn has_dictionary(array: &ArrayRef) -> bool {
    any_type(array.data_type(), &|inner| {
        matches!(inner, DataType::Dictionary(_, _))
    })
}

/// Whether values take a bit each at least. Nulls take none, and can be more than there is memory to mark those
/// that are used.
fn has_weight(values: &ArrayRef) -> bool {
    let bytes = values.to_data().get_slice_memory_size();
    let bytes = bytes.unwrap_or_else(|_| values.get_buffer_memory_size());
    values.len() / 8 <= bytes
}

/// The array in fresh memory that holds its rows and nothing else.
fn copied(array: &ArrayRef, dictionaries: &ByAddress<Compacted>) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Utf8View => copied_views(array.as_string_view()),
        DataType::BinaryView => copied_views(array.as_binary_view()),
        DataType::Null => Ok(Arc::clone(array)),
        DataType::Dictionary(_, _) => {
            let any: &dyn Array = array;
            downcast_dictionary_array!(
                any => copied_dictionary(any, dictionaries),
                _ => Ok(Arc::clone(array))
            )
        }
        data_type if data_type.is_nested() => {
            map_children(array, Own::Copied, &mut |child| copied(child, dictionaries))
        }
        _ => flat_copy(array),
    }
}

fn copied_dictionary<K: ArrowDictionaryKeyType>(
    array: &DictionaryArray<K>,
    dictionaries: &ByAddress<Compacted>,
) -> Result<ArrayRef, ArrowError> {
    let (keys, values) = match dictionaries.get(&address(array.values())) {
        Some(Compacted { values, places }) => {
            // What stands under a null may be no place at all.
            let place = |key: K::Native| places.get(key.as_usize()).copied().unwrap_or(0);
            let moved = |key| K::Native::from_usize(place(key)).unwrap_or_default();
            (array.keys().unary(moved), Arc::clone(values))
        }
        // They weigh nothing.
        None => (array.keys().clone(), Arc::clone(array.values())),
    };
    let keys = flat_copy(&(Arc::new(keys) as ArrayRef))?;
    Ok(Arc::new(DictionaryArray::<K>::try_new(
        keys.as_primitive::<K>().clone(),
        values,
    )?))
}

fn copied_views<T: ByteViewType>(array: &GenericByteViewArray<T>) -> Result<ArrayRef, ArrowError> {
    let (views, buffers, nulls) = array.gc().into_parts();
    // `gc` leaves views without text outside of them, and the validity, where they lie in the whole batch.
    let views = match buffers.is_empty() {
        true => Own::Copied.values(&views),
        false => views,
    };
    let nulls = Own::Copied.nulls(nulls.as_ref());
    Ok(Arc::new(GenericByteViewArray::<T>::try_new(
        views,
        buffers.to_vec(),
        nulls,
    )?))
}

fn flat_copy(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    gather(&[&**array], array.len(), [(0, 0..array.len())])
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
