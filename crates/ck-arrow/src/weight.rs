use std::collections::BTreeMap;

use arrow_array::{Array, RecordBatch};
use arrow_data::ArrayData;

/// Bytes of memory that batches keep alive, each allocation once.
///
/// Counts the whole of every buffer they share, not just the rows they show: a one-row slice of a large
/// batch retains the large batch. Buffers that overlap, as those decoded out of one mapping or one
/// message do, are counted by what they cover together. Mapped bytes are included; whoever maps knows
/// to take them off.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use arrow_array::{Int64Array, RecordBatch};
/// use ck_arrow::retained_bytes;
///
/// let column = Arc::new(Int64Array::from_iter_values(0..1000)) as _;
/// let batch = RecordBatch::try_from_iter([("n", column)])?;
/// let row = batch.slice(0, 1);
/// assert_eq!(retained_bytes([&row]), retained_bytes([&batch, &row]));
/// # Ok::<(), arrow_schema::ArrowError>(())
/// ```
pub fn retained_bytes<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> usize {
    let mut regions = Regions::default();
    for column in batches.into_iter().flat_map(RecordBatch::columns) {
        regions.add_array(&column.to_data());
    }
    regions.bytes()
}

/// As [`retained_bytes`], without what lies in `mapping`.
pub(crate) fn heap_bytes(batches: &[RecordBatch], mapping: Option<&bytes::Bytes>) -> usize {
    let mut regions = Regions::default();
    for column in batches.iter().flat_map(RecordBatch::columns) {
        regions.add_array(&column.to_data());
    }
    if let Some(mapping) = mapping {
        let range = mapping.as_ptr_range();
        let range = range.start as usize..range.end as usize;
        regions.0.retain(|start, _| !range.contains(start));
    }
    regions.bytes()
}

/// Bytes that the rows of a batch use, as opposed to retain; dictionaries count whole.
pub(crate) fn used_bytes(batch: &RecordBatch) -> usize {
    let dictionaries: usize = batch
        .columns()
        .iter()
        .map(|c| dictionary_bytes(&c.to_data()))
        .sum();
    crate::measure::Measure::new(batch).bytes(0, batch.num_rows()) + dictionaries
}

fn dictionary_bytes(data: &ArrayData) -> usize {
    if matches!(data.data_type(), arrow_schema::DataType::Dictionary(_, _)) {
        let mut regions = Regions::default();
        regions.add_array(&data.child_data()[0]);
        return regions.bytes();
    }
    data.child_data().iter().map(dictionary_bytes).sum()
}

/// Regions of memory, by where they start.
#[derive(Default)]
struct Regions(BTreeMap<usize, usize>);

impl Regions {
    fn add_array(&mut self, data: &ArrayData) {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        for buffer in data.buffers().iter().chain(nulls) {
            let start = buffer.data_ptr().as_ptr() as usize;
            let end = self.0.entry(start).or_default();
            *end = (*end).max(start + buffer.capacity());
        }
        data.child_data()
            .iter()
            .for_each(|child| self.add_array(child));
    }

    /// The length of their union.
    fn bytes(&self) -> usize {
        let mut covered = 0;
        let mut reached = 0;
        for (&start, &end) in &self.0 {
            covered += end.saturating_sub(start.max(reached));
            reached = reached.max(end);
        }
        covered
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use arrow_buffer::Buffer;

    use super::*;

    #[test]
    fn columns_that_share_an_allocation_count_it_once() {
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(
            (0..1000).map(|i| i.to_string()),
        ));
        let one = RecordBatch::try_from_iter([("a", Arc::clone(&column))]).unwrap();
        let two =
            RecordBatch::try_from_iter([("a", Arc::clone(&column)), ("b", Arc::clone(&column))])
                .unwrap();
        assert_eq!(
            retained_bytes([&one]),
            retained_bytes([&two.slice(5, 9), &one])
        );
    }

    #[test]
    fn slices_of_one_region_count_what_they_cover_together() {
        let region = bytes::Bytes::from(vec![0_u8; 8192]);
        let part = |range| Int64Array::new(Buffer::from(region.slice(range)).into(), None);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(part(0..4096))),
            ("b", Arc::new(part(4096..8192))),
            ("c", Arc::new(part(2048..6144))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        assert_eq!(retained_bytes([&batch]), 8192);
    }
}
