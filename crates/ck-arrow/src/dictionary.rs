use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::ArrowDictionaryKeyType;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, PrimitiveArray, downcast_dictionary_array,
    downcast_primitive_array,
};
use arrow_buffer::{ArrowNativeType, ToByteSlice};
use arrow_schema::{ArrowError, DataType, Schema};

use crate::buffer_pool::BufferPool;
use crate::gather::{concat, gather};
use crate::nested::{Own, any_type, map_children};
use crate::tidy::without_garbage;

/// Brings the dictionaries of successive batches together.
///
/// An Arrow IPC file has one dictionary per field; it may grow (by deltas) but never be replaced.
/// Sources are freer: each batch may bring its own. The unifier keeps, per dictionary field, the
/// values seen so far; a batch with other values gets its keys rewritten and adds what is new at the end.
///
/// # Memory
///
/// The values of every dictionary seen so far, and for those that had to be merged an index of them.
#[derive(Debug, Default)]
pub(crate) struct Unifier {
    /// One per dictionary field, in the order of a depth-first walk.
    states: Vec<State>,
}

#[derive(Debug)]
struct State {
    /// All values so far.
    values: ArrayRef,
    /// The dictionary of the previous batch and where its values went; `None`: to the same places.
    previous: (ArrayRef, Option<Arc<[usize]>>),
    /// Where each value stands; made when the first merge needs it.
    places: Option<HashMap<Option<Box<[u8]>>, usize>>,
}

impl Unifier {
    /// Whether tables of this schema have anything to unify.
    pub(crate) fn is_needed(schema: &Schema) -> bool {
        let is_dictionary = |t: &DataType| matches!(t, DataType::Dictionary(_, _));
        schema
            .fields()
            .iter()
            .any(|field| any_type(field.data_type(), &is_dictionary))
    }

    /// The columns of the next batch, with dictionaries that extend those of the batches before.
    ///
    /// # Errors
    ///
    /// When the values together are more than the key type can address, or when a merge would break
    /// the order that an ordered dictionary promises.
    pub(crate) fn unify(
        &mut self,
        schema: &Schema,
        columns: &[ArrayRef],
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut next = 0;
        let columns = schema.fields().iter().zip(columns).map(|(field, column)| {
            let ordered = field.dict_is_ordered() == Some(true);
            self.walk(column, ordered, &mut next).map_err(|error| {
                ArrowError::InvalidArgumentError(format!("column {:?}: {error}", field.name()))
            })
        });
        columns.collect()
    }

    fn walk(
        &mut self,
        array: &ArrayRef,
        ordered: bool,
        next: &mut usize,
    ) -> Result<ArrayRef, ArrowError> {
        let is_dictionary = |t: &DataType| matches!(t, DataType::Dictionary(_, _));
        if !any_type(array.data_type(), &is_dictionary) {
            return Ok(Arc::clone(array));
        }
        let any: &dyn Array = array;
        downcast_dictionary_array!(
            any => {
                let place = *next;
                *next += 1;
                let keys = self.extend(place, any, ordered)?;
                // Dictionaries inside the values are brought together for the values of all batches at once.
                let values = Arc::clone(&self.states[place].values);
                let values = self.walk(&values, false, next)?;
                // The keys are in range by construction; `try_new` checks it once more.
                Ok(Arc::new(DictionaryArray::try_new(keys, values)?))
            }
            _ => map_children(array, Own::Shared, &mut |child| self.walk(child, false, next))
        )
    }

    /// Adds the values of an array to those so far, and gives its keys into them.
    fn extend<K: ArrowDictionaryKeyType>(
        &mut self,
        place: usize,
        array: &DictionaryArray<K>,
        ordered: bool,
    ) -> Result<PrimitiveArray<K>, ArrowError> {
        let values = array.values();
        if self.states.len() <= place {
            let values = without_garbage(values, &BufferPool::default())?;
            self.states.push(State {
                previous: (Arc::clone(&values), None),
                values,
                places: None,
            });
        }
        let state = &mut self.states[place];
        if !values.to_data().ptr_eq(&state.previous.0.to_data()) {
            let places = state.merge(values)?;
            if ordered
                && places
                    .as_ref()
                    .is_some_and(|places| !places.is_sorted_by(|a, b| a < b))
            {
                return Err(ArrowError::InvalidArgumentError(
                    "batches bring ordered dictionaries whose orders contradict each other; \
                     unify the dictionaries before caching the table"
                        .into(),
                ));
            }
            state.previous = (Arc::clone(values), places);
        }
        match &state.previous.1 {
            None => Ok(array.keys().clone()),
            Some(places) => moved(array.keys(), places),
        }
    }
}

fn moved<K: ArrowDictionaryKeyType>(
    keys: &PrimitiveArray<K>,
    places: &[usize],
) -> Result<PrimitiveArray<K>, ArrowError> {
    keys.try_unary(|key| {
        // A null row may hold any key.
        let place = places.get(key.as_usize()).copied().unwrap_or(0);
        K::Native::from_usize(place).ok_or_else(|| {
            ArrowError::InvalidArgumentError(format!(
                "the dictionaries of its batches together hold more values than {} keys can address; \
                 cast the column to wider keys",
                K::DATA_TYPE
            ))
        })
    })
}

impl State {
    /// Adds what is new in `values` and says where each of them stands.
    fn merge(&mut self, values: &ArrayRef) -> Result<Option<Arc<[usize]>>, ArrowError> {
        let common = values.len().min(self.values.len());
        if values.slice(0, common).to_data() == self.values.slice(0, common).to_data() {
            if values.len() > common {
                self.values = without_garbage(values, &BufferPool::default())?;
                self.places = None;
            }
            return Ok(None);
        }
        let known = self.values.len();
        let Some(incoming) = keys_of(values) else {
            // Values that cannot be looked up are appended as a whole.
            self.values = concat(&[Arc::clone(&self.values), Arc::clone(values)])?;
            return Ok(Some((known..known + values.len()).collect()));
        };
        let places = self.places.get_or_insert_with(|| {
            let keys = keys_of(&self.values).unwrap_or_default();
            let mut places = HashMap::with_capacity(keys.len());
            for (place, key) in keys.into_iter().enumerate() {
                places.entry(key).or_insert(place);
            }
            places
        });
        let mut fresh = Vec::new();
        let mut moves = Vec::with_capacity(values.len());
        for (i, key) in incoming.into_iter().enumerate() {
            moves.push(*places.entry(key).or_insert_with(|| {
                fresh.push((1, i..i + 1));
                known + fresh.len() - 1
            }));
        }
        if !fresh.is_empty() {
            let rows = known + fresh.len();
            let runs = [(0, 0..known)].into_iter().chain(fresh);
            let longer = gather(&[&*self.values, &**values], rows, runs)?;
            self.values = without_garbage(&longer, &BufferPool::default())?;
        }
        Ok(Some(moves.into()))
    }
}

/// The bytes of each value, `None` for a null; `None` when the type has no bytes to compare.
fn keys_of(values: &ArrayRef) -> Option<Vec<Option<Box<[u8]>>>> {
    fn owned<V: AsRef<[u8]>>(values: impl Iterator<Item = Option<V>>) -> Vec<Option<Box<[u8]>>> {
        values
            .map(|value| value.map(|value| value.as_ref().into()))
            .collect()
    }
    Some(downcast_primitive_array!(
        values => values.iter().map(|v| v.map(|v| v.to_byte_slice().into())).collect(),
        DataType::Utf8 => owned(values.as_string::<i32>().iter()),
        DataType::LargeUtf8 => owned(values.as_string::<i64>().iter()),
        DataType::Binary => owned(values.as_binary::<i32>().iter()),
        DataType::LargeBinary => owned(values.as_binary::<i64>().iter()),
        DataType::Utf8View => owned(values.as_string_view().iter()),
        DataType::BinaryView => owned(values.as_binary_view().iter()),
        DataType::FixedSizeBinary(_) => owned(values.as_fixed_size_binary().iter()),
        _ => return None,
    ))
}

#[cfg(test)]
mod tests {
    use arrow_array::types::{Int8Type, Int32Type};
    use arrow_array::{RecordBatch, StringArray};
    use arrow_schema::Field;

    use super::*;

    fn batch(keys: &[Option<i32>], values: &[&str]) -> RecordBatch {
        let values: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let keys = PrimitiveArray::<Int32Type>::from(keys.to_vec());
        let column: ArrayRef = Arc::new(DictionaryArray::new(keys, values));
        RecordBatch::try_from_iter([("d", column)]).unwrap()
    }

    fn text(array: &ArrayRef) -> Vec<Option<String>> {
        let typed = array
            .as_dictionary::<Int32Type>()
            .downcast_dict::<StringArray>()
            .unwrap();
        typed.into_iter().map(|v| v.map(str::to_owned)).collect()
    }

    #[test]
    fn each_dictionary_extends_the_one_before_and_rows_keep_their_values() {
        let batches = [
            batch(&[Some(0), None, Some(1)], &["a", "b"]),
            batch(&[Some(1), Some(0)], &["c", "b"]),
            batch(&[Some(0)], &["a"]),
            batch(&[Some(2), Some(3)], &["a", "b", "c", "d"]),
        ];
        let mut unifier = Unifier::default();
        let mut before: Option<ArrayRef> = None;
        for batch in &batches {
            let column = unifier
                .unify(&batch.schema(), batch.columns())
                .unwrap()
                .remove(0);
            assert_eq!(text(&column), text(batch.column(0)));
            let values = Arc::clone(column.as_dictionary::<Int32Type>().values());
            if let Some(before) = before {
                assert_eq!(&values.slice(0, before.len()), &before);
            }
            before = Some(values);
        }
        assert_eq!(before.unwrap().len(), 4);
    }

    #[test]
    fn more_values_than_the_keys_can_address_is_an_error_that_names_the_column() {
        let make = |first: i32| {
            let values: ArrayRef = Arc::new(arrow_array::Int32Array::from_iter_values(
                first..first + 100,
            ));
            let keys = PrimitiveArray::<Int8Type>::from_iter_values(0..100);
            let column: ArrayRef = Arc::new(DictionaryArray::new(keys, values));
            RecordBatch::try_from_iter([("small", column)]).unwrap()
        };
        let mut unifier = Unifier::default();
        let first = make(0);
        unifier.unify(&first.schema(), first.columns()).unwrap();
        let second = make(100);
        let error = unifier
            .unify(&second.schema(), second.columns())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("small") && error.contains("wider keys"),
            "{error}"
        );
    }

    #[test]
    fn ordered_dictionaries_may_grow_but_not_contradict_each_other() {
        let data_type = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        #[expect(deprecated, reason = "the only constructor that sets the flag")]
        let field = Field::new_dict("d", data_type, true, 0, true);
        let schema = Schema::new(vec![field]);
        let mut unifier = Unifier::default();
        let mut add = |values: &[&str]| unifier.unify(&schema, batch(&[Some(0)], values).columns());
        assert!(add(&["low", "mid"]).is_ok());
        assert!(add(&["mid", "high"]).is_ok());
        assert!(add(&["high", "low"]).is_err());
    }
}
