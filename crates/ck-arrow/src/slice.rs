use arrow_array::RecordBatch;

use crate::measure::Measure;

/// Cuts one batch into slices of bounded size.
///
/// The bound is on *actual* bytes: a run of rows that is a hundred times wider than the rest gives
/// slices of a hundred times fewer rows. A single row wider than the bound stands alone.
#[derive(Debug)]
pub(crate) struct Slicer {
    batch: RecordBatch,
    measure: Measure,
    batch_bytes: usize,
    next_row: usize,
    /// Rows of the previous slice: the first guess for the next.
    guess: usize,
    rows: usize,
}

/// Slices of this many rows or more are cut at a multiple of [`COARSE`] rows, so that 8-byte columns
/// come out as multiples of 64 KiB and neighbours share no page.
const COARSE: usize = 8192;

/// Smaller ones are cut at a multiple of this many rows, so that bitmaps start at whole bytes and are
/// not copied.
const FINE: usize = 64;

impl Slicer {
    pub(crate) fn new(batch: RecordBatch, batch_bytes: usize) -> Self {
        Self {
            measure: Measure::new(&batch),
            rows: batch.num_rows(),
            guess: batch.num_rows(),
            batch,
            batch_bytes,
            next_row: 0,
        }
    }

    /// The largest run of rows from `next_row` that fits, or close to it; at least one row.
    fn rows_that_fit(&self) -> usize {
        let left = self.rows - self.next_row;
        let fits = |rows: usize| self.measure.bytes(self.next_row, rows) <= self.batch_bytes;
        let guess = self.guess.clamp(1, left);
        let (mut good, mut bad) = if fits(guess) {
            // Uniform tables stop here: the previous count fits and a little more would not.
            let more = guess + guess / 16 + 1;
            if guess == left || more <= left && !fits(more) {
                return guess;
            }
            (guess, left + 1)
        } else {
            (1, guess)
        };
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        good
    }
}

impl Iterator for Slicer {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        if self.next_row == self.rows {
            return None;
        }
        let mut rows = self.rows_that_fit();
        if self.next_row + rows < self.rows {
            let step = if rows >= 2 * COARSE { COARSE } else { FINE };
            if rows > step {
                rows -= rows % step;
            }
        }
        let slice = self.batch.slice(self.next_row, rows);
        self.next_row += rows;
        self.guess = rows;
        Some(slice)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
    use arrow_schema::Schema;

    use super::*;

    fn rows_of(batch: &RecordBatch, bytes: usize) -> Vec<usize> {
        Slicer::new(batch.clone(), bytes)
            .map(|slice| slice.num_rows())
            .collect()
    }

    #[test]
    fn a_run_of_wide_rows_gets_slices_of_few_rows() {
        let narrow = "x".repeat(10);
        let wide = "y".repeat(1000);
        let text: Vec<&str> = (0..30_000)
            .map(|row| {
                if (10_000..11_000).contains(&row) {
                    wide.as_str()
                } else {
                    narrow.as_str()
                }
            })
            .collect();
        let column: ArrayRef = Arc::new(StringArray::from(text));
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let measure = Measure::new(&batch);
        let bound = 64 * 1024;
        let mut start = 0;
        for rows in rows_of(&batch, bound) {
            assert!(measure.bytes(start, rows) <= bound);
            start += rows;
        }
        assert_eq!(start, 30_000);
    }

    #[test]
    fn a_row_wider_than_the_bound_stands_alone() {
        let wide = "y".repeat(5000);
        let column: ArrayRef = Arc::new(StringArray::from(vec!["a", &wide, "b", "c"]));
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        assert_eq!(rows_of(&batch, 1000), [1, 1, 2]);
    }

    #[test]
    fn uniform_rows_are_cut_at_multiples_that_keep_pages_apart() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        assert_eq!(rows_of(&batch, 300_000), [32_768, 32_768, 34_464]);
    }

    #[test]
    fn rows_without_columns_stay_together() {
        let options = RecordBatchOptions::new().with_row_count(Some(1 << 40));
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        assert_eq!(rows_of(&batch, 1), [1 << 40]);
    }

    #[test]
    fn no_rows_give_no_slice() {
        let column: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        assert!(rows_of(&batch, 1).is_empty());
    }
}
