use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use ck_arrow::TableReader;
use ck_core::{BoxFuture, EntryReader, Key, Reservation, Result, block_on};
use futures_core::Stream;

use crate::cache::{Shared, is_corrupt, with_key};
use crate::source::feeds_a_put;
use crate::trace::stage;

/// A table in a store, read piece by piece.
///
/// Projections and row ranges are views: they cost nothing and fetch nothing. Clones share the entry.
///
/// Reads fail with [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the bytes they need are
/// damaged; the entry is then counted, logged and removed.
#[derive(Clone)]
pub struct CachedTable {
    reader: TableReader,
    origin: Arc<Origin>,
}

/// Where a table came from, shared by all views of it.
struct Origin {
    shared: Arc<Shared>,
    key: Key,
    entry: Arc<dyn EntryReader>,
    damaged: AtomicBool,
    /// What a read of one batch holds for a while, once it is known.
    held: OnceLock<u64>,
}

/// How much larger columns are taken to be when they are decompressed: no index says it.
const PLAIN_FACTOR: u64 = 4;

impl CachedTable {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: Key,
        entry: Arc<dyn EntryReader>,
        reader: TableReader,
    ) -> Self {
        let origin = Origin {
            shared,
            key,
            entry,
            damaged: AtomicBool::new(false),
            held: OnceLock::new(),
        };
        Self {
            reader,
            origin: Arc::new(origin),
        }
    }

    /// The key of the entry.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.origin.key
    }

    /// The bytes of the whole entry.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.origin.entry.len()
    }

    /// The columns of this view.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.reader.schema()
    }

    /// The number of rows of this view.
    #[must_use]
    pub fn num_rows(&self) -> u64 {
        self.reader.num_rows()
    }

    /// The number of batches that hold rows of this view.
    #[must_use]
    pub fn num_batches(&self) -> usize {
        self.reader.num_batches()
    }

    /// A view of these columns, by position, in this order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`](crate::ErrorKind::Misuse) for a column that does not exist.
    pub fn project(&self, columns: &[usize]) -> Result<Self> {
        Ok(self.view(self.reader.project(columns)?))
    }

    /// A view of these columns, by name, in this order.
    ///
    /// # Errors
    ///
    /// As [`CachedTable::project`].
    pub fn select(&self, names: &[&str]) -> Result<Self> {
        Ok(self.view(self.reader.select(names)?))
    }

    /// A view of these rows. Reading it fetches only the batches that hold some of them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`](crate::ErrorKind::Misuse) for a range beyond the rows.
    pub fn rows(&self, range: Range<u64>) -> Result<Self> {
        Ok(self.view(self.reader.rows(range)?))
    }

    /// One batch of this view.
    ///
    /// # Memory
    ///
    /// The fetched and decompressed columns of one batch; nothing for uncompressed columns of a store
    /// that maps.
    ///
    /// # Errors
    ///
    /// What the store reports, and damage.
    pub async fn batch(&self, index: usize) -> Result<RecordBatch> {
        let _reservation = self.reserve().await?;
        let batch = self.reader.batch(index).await;
        stage("get", &self.origin.key, "batch");
        self.origin.check(batch).await
    }

    /// All batches of this view.
    ///
    /// # Memory
    ///
    /// The rows of the view once.
    ///
    /// # Errors
    ///
    /// As [`CachedTable::batch`].
    pub async fn read_all(&self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::with_capacity(self.num_batches());
        for index in 0..self.num_batches() {
            batches.push(self.batch(index).await?);
        }
        Ok(batches)
    }

    /// The batches of this view as an async stream.
    #[must_use]
    pub fn stream(&self) -> BatchStream {
        BatchStream {
            table: self.clone(),
            next: 0,
            pending: None,
        }
    }

    /// The batches of this view as a blocking iterator.
    #[must_use]
    pub fn batches(&self) -> Batches {
        Batches {
            table: self.clone(),
            next: 0,
        }
    }

    /// Reads every byte of the entry, whatever this view shows, and checks all hashes.
    ///
    /// # Errors
    ///
    /// As [`CachedTable::batch`].
    pub async fn verify(&self) -> Result<()> {
        let verified = self.reader.verify().await;
        self.origin.check(verified).await
    }

    /// The reader beneath, which knows nothing of the cache: damage that it finds stays in the store.
    #[must_use]
    pub fn reader(&self) -> &TableReader {
        &self.reader
    }

    /// The share of the memory budget that one read needs. A batch beyond the whole budget, which
    /// another writer may have made, takes all of it. A read for a put takes what is free, and does not wait.
    async fn reserve(&self) -> Result<Option<Reservation>> {
        let budget = &self.origin.shared.budget;
        let held = *self
            .origin
            .held
            .get_or_init(|| held_by_a_read(&*self.origin.entry, &self.reader));
        let held = held.min(budget.limit());
        if feeds_a_put() {
            return budget.try_reserve(held);
        }
        budget.reserve(held).await.map(Some)
    }

    fn view(&self, reader: TableReader) -> Self {
        Self {
            reader,
            origin: Arc::clone(&self.origin),
        }
    }
}

impl Origin {
    /// Passes `result` on; removes the entry the first time that its bytes are at fault.
    async fn check<T>(&self, result: Result<T>) -> Result<T> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => with_key(&self.key)(error),
        };
        if is_corrupt(&error) && !self.damaged.swap(true, Ordering::Relaxed) {
            self.shared.discard(&self.key, &*self.entry, &error).await;
        }
        Err(error)
    }
}

/// Bytes that a read of the largest batch fetches and decompresses.
pub(crate) fn held_by_a_read(entry: &dyn EntryReader, reader: &TableReader) -> u64 {
    let batches = reader.layout().batches;
    let largest = batches
        .iter()
        .map(|batch| batch.body_bytes)
        .max()
        .unwrap_or(0);
    let is_plain = batches.iter().find_map(|batch| batch.compression) == Some("none");
    let fetched = if entry.contiguous().is_some() { 0 } else { 1 };
    let plain = if is_plain { 0 } else { PLAIN_FACTOR };
    largest.saturating_mul(fetched + plain)
}

impl fmt::Debug for CachedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedTable")
            .field("key", self.key())
            .field("rows", &self.num_rows())
            .field("columns", &self.schema().fields().len())
            .finish_non_exhaustive()
    }
}

/// The batches of a [`CachedTable`], asynchronously. Ends after the first error.
pub struct BatchStream {
    table: CachedTable,
    next: usize,
    pending: Option<BoxFuture<'static, Result<RecordBatch>>>,
}

impl Stream for BatchStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.next >= self.table.num_batches() {
            return Poll::Ready(None);
        }
        let mut pending = self.pending.take().unwrap_or_else(|| {
            let (table, index) = (self.table.clone(), self.next);
            Box::pin(async move { table.batch(index).await })
        });
        let Poll::Ready(batch) = pending.as_mut().poll(cx) else {
            self.pending = Some(pending);
            return Poll::Pending;
        };
        self.next = if batch.is_ok() {
            self.next + 1
        } else {
            usize::MAX
        };
        Poll::Ready(Some(batch))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.table.num_batches().saturating_sub(self.next)))
    }
}

impl fmt::Debug for BatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchStream")
            .field("table", &self.table)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// The batches of a [`CachedTable`], blocking. Ends after the first error.
#[derive(Debug)]
pub struct Batches {
    table: CachedTable,
    next: usize,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.table.num_batches() {
            return None;
        }
        let batch = block_on(self.table.batch(self.next));
        self.next = if batch.is_ok() {
            self.next + 1
        } else {
            usize::MAX
        };
        Some(batch.map_err(|error| ArrowError::ExternalError(Box::new(error))))
    }
}

impl RecordBatchReader for Batches {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }
}
