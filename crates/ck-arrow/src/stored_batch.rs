use std::fmt;
use std::ops::Range;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use ck_core::Result;

use crate::buffer_pool::BufferPool;
use crate::content::assemble;
use crate::undecoded::Undecoded;

/// A record batch of which the stored bytes are at hand, neither verified nor decoded yet.
///
/// What is fetched by one thread, and decoded by another, can be put into memory of a third: glibc keeps a
/// heap for each thread, and what was freed in the heap of a thread that has ended may stay with the process.
pub struct StoredBatch {
    pub(crate) columns: Undecoded,
    pub(crate) place: usize,
    pub(crate) schema: SchemaRef,
    /// The rows of it that the reader shows.
    pub(crate) shown: Range<u64>,
    pub(crate) pool: Option<BufferPool>,
}

impl StoredBatch {
    /// Takes the memory that compressed columns will be decoded into, as far as their lengths are credible,
    /// from the heap of this thread. Nothing is touched yet.
    pub fn reserve(&mut self) {
        self.columns.reserve(self.pool.as_ref());
    }

    /// Verifies and decodes the batch here and now, into the memory that was reserved, if it was.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](ck_core::ErrorKind::Corrupt) when its bytes are not what was written.
    pub fn decode(self) -> Result<RecordBatch> {
        let rows = self.columns.rows;
        let columns = self.columns.decode();
        finish(self.place, &self.schema, rows, self.shown, columns)
    }

    /// As [`StoredBatch::reserve`] and [`StoredBatch::decode`]; a large one is decoded away from async threads.
    ///
    /// # Errors
    ///
    /// As [`StoredBatch::decode`].
    pub async fn into_batch(self) -> Result<RecordBatch> {
        let rows = self.columns.rows;
        let columns = self.columns.arrays(self.pool.as_ref()).await;
        finish(self.place, &self.schema, rows, self.shown, columns)
    }
}

fn finish(
    place: usize,
    schema: &SchemaRef,
    rows: u64,
    shown: Range<u64>,
    columns: Result<Vec<ArrayRef>>,
) -> Result<RecordBatch> {
    let columns = columns.map_err(|error| error.with("batch", place))?;
    let batch = assemble(place, schema, columns, rows)?;
    if shown == (0..rows) {
        return Ok(batch);
    }
    // Both lie within a batch that is in memory.
    let offset = usize::try_from(shown.start).unwrap_or(usize::MAX);
    let len = usize::try_from(shown.end.saturating_sub(shown.start)).unwrap_or(usize::MAX);
    Ok(batch.slice(offset, len))
}

impl fmt::Debug for StoredBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredBatch")
            .field("place", &self.place)
            .field("rows", &self.shown)
            .finish_non_exhaustive()
    }
}
