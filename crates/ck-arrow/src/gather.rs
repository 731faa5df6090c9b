//! Rows of several arrays in one, by way of `arrow-data` alone.
//!
//! The kernels of `arrow-select` do the same with code of their own for every type, merge
//! dictionaries on the way and bring comparisons of every pair of types for that: a fifth of what a
//! program that reads tables would weigh.

use std::ops::Range;

use arrow_array::{Array, ArrayRef, make_array};
use arrow_data::transform::MutableArrayData;
use arrow_schema::ArrowError;

/// The rows `runs` of `arrays`, each run the number of an array and a range in it, in memory of their
/// own; views go on sharing the buffers that they show. `rows` is how many to make room for.
///
/// # Errors
/// When the types differ, or the sum is more than offsets or dictionary keys can address.
pub(crate) fn gather(
    arrays: &[&dyn Array],
    rows: usize,
    runs: impl IntoIterator<Item = (usize, Range<usize>)>,
) -> Result<ArrayRef, ArrowError> {
    if let [first, rest @ ..] = arrays
        && let Some(other) = rest.iter().find(|a| a.data_type() != first.data_type())
    {
        return Err(ArrowError::InvalidArgumentError(format!(
            "{} and {} do not go into one array",
            first.data_type(),
            other.data_type()
        )));
    }
    let data: Vec<_> = arrays.iter().map(|array| array.to_data()).collect();
    let mut rows = MutableArrayData::try_new(data.iter().collect(), false, rows)?;
    for (array, run) in runs {
        rows.try_extend(array, run.start, run.end)?;
    }
    Ok(make_array(rows.freeze()))
}

/// All rows of `arrays`, one after the other. A single one is not copied.
///
/// # Errors
/// As [`gather`], and when there is no array at all.
pub(crate) fn concat(arrays: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
    match arrays {
        [] => Err(ArrowError::InvalidArgumentError(
            "no array, and thus no type".to_owned(),
        )),
        [one] => Ok(one.clone()),
        _ => {
            let lengths = arrays.iter().map(|array| array.len());
            let runs = lengths.clone().map(|len| 0..len).enumerate();
            let arrays: Vec<_> = arrays.iter().map(|array| &**array).collect();
            gather(&arrays, lengths.sum(), runs)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::{Int8Type, Int32Type};
    use arrow_array::{
        DictionaryArray, Int32Array, Int64Array, ListArray, StringArray, StringViewArray,
    };

    use super::*;

    /// What the kernels of `arrow-select` make of the same arrays.
    fn check(arrays: &[ArrayRef]) {
        let borrowed: Vec<_> = arrays.iter().map(|array| &**array).collect();
        let theirs = arrow_select::concat::concat(&borrowed).unwrap();
        assert_eq!(&concat(arrays).unwrap(), &theirs);
        let last = arrays.len() - 1;
        let picked = gather(&borrowed, 3, [(last, 1..2), (0, 0..2)]).unwrap();
        let theirs =
            arrow_select::interleave::interleave(&borrowed, &[(last, 1), (0, 0), (0, 1)]).unwrap();
        assert_eq!(&picked, &theirs);
    }

    #[test]
    fn rows_are_what_the_kernels_of_arrow_select_give() {
        let numbers = |n: i64| Arc::new((n..n + 9).collect::<Int64Array>()) as ArrayRef;
        check(&[numbers(0), numbers(40).slice(3, 4), numbers(7)]);
        let text = |words: &[Option<&str>]| Arc::new(StringArray::from(words.to_vec())) as ArrayRef;
        check(&[
            text(&[Some("a"), None, Some("")]),
            text(&[None, Some("longer text")]),
        ]);
        let views = |word: &str| {
            let values = [Some(word), None, Some("a text of more than twelve bytes")];
            Arc::new(StringViewArray::from(values.to_vec())) as ArrayRef
        };
        check(&[
            views("x"),
            views("another that is not kept inline").slice(1, 2),
        ]);
        let lists = |n| {
            let rows = [Some(vec![Some(n), None]), None, Some(vec![])];
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows)) as ArrayRef
        };
        check(&[lists(1), lists(2).slice(1, 2)]);
        let words = |words: &[&str]| {
            Arc::new(
                words
                    .iter()
                    .copied()
                    .collect::<DictionaryArray<Int32Type>>(),
            ) as ArrayRef
        };
        check(&[words(&["a", "b", "a"]), words(&["b", "c"])]);
    }

    #[test]
    fn one_array_is_given_back_as_it_is() {
        let one: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let same = concat(&[Arc::clone(&one)]).unwrap();
        assert_eq!(
            same.to_data().buffers()[0].as_ptr(),
            one.to_data().buffers()[0].as_ptr()
        );
    }

    #[test]
    fn what_does_not_fit_together_is_an_error() {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        assert!(concat(&[]).is_err());
        let error = concat(&[numbers, text]).unwrap_err().to_string();
        assert!(error.contains("Int32") && error.contains("Utf8"), "{error}");
        let many = |from: u8| -> ArrayRef {
            let values = (from..from + 100).map(|n| n.to_string());
            let values: Vec<_> = values.collect();
            let words = values.iter().map(String::as_str);
            Arc::new(words.collect::<DictionaryArray<Int8Type>>())
        };
        assert!(concat(&[many(0), many(100)]).is_err(), "keys of 8 bits");
    }
}
