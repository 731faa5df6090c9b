use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use ck_arrow::TableReader;
use ck_core::{BoxFuture, EntryReader, Key, Result, block_on};
use futures_core::Stream;

use crate::batches::{BatchSource, InOrder};
use crate::cache::{Shared, is_corrupt, with_key};
use crate::crew::Crew;
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
}

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
        let batch = self.source().batch(index).await;
        stage("get", &self.origin.key, "batch");
        self.origin.check(batch).await
    }

    /// All batches of this view. Compressed ones are decoded by one thread for each processor, at most 4, as far
    /// as the memory budget is free.
    ///
    /// # Memory
    ///
    /// The rows of the view once.
    ///
    /// # Errors
    ///
    /// As [`CachedTable::batch`].
    pub async fn read_all(&self) -> Result<Vec<RecordBatch>> {
        let batches = Crew::new(self.source()).read_all().await;
        self.origin.check(batches).await
    }

    /// The batches of this view as an async stream.
    ///
    /// From a store over a wire the batches after the second are under way before they are asked for, as long
    /// as they hold less than 4 MiB together and the memory budget is free: those of narrow views.
    #[must_use]
    pub fn stream(&self) -> BatchStream {
        BatchStream {
            state: Waiting::For(self.in_order()),
        }
    }

    /// The batches of this view as a blocking iterator, read ahead as by [`CachedTable::stream`].
    #[must_use]
    pub fn batches(&self) -> Batches {
        Batches {
            schema: self.schema(),
            batches: self.in_order(),
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

    fn source(&self) -> BatchSource {
        BatchSource::new(
            self.reader.clone(),
            Arc::clone(&self.origin.entry),
            self.origin.shared.budget.clone(),
        )
    }

    fn in_order(&self) -> CheckedBatches {
        CheckedBatches {
            batches: InOrder::new(self.source()),
            origin: Arc::clone(&self.origin),
        }
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

impl fmt::Debug for CachedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedTable")
            .field("key", self.key())
            .field("rows", &self.num_rows())
            .field("columns", &self.schema().fields().len())
            .finish_non_exhaustive()
    }
}

/// Batches one after the other; damage is told to the store.
struct CheckedBatches {
    batches: InOrder,
    origin: Arc<Origin>,
}

impl CheckedBatches {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let batch = self.batches.next().await?;
        stage("get", &self.origin.key, "batch");
        Some(self.origin.check(batch).await)
    }
}

/// The batches of a [`CachedTable`], asynchronously. Ends after the first error.
pub struct BatchStream {
    state: Waiting,
}

/// What a stream waits for.
enum Waiting {
    /// To be asked.
    For(CheckedBatches),
    /// A batch.
    On(BoxFuture<'static, (CheckedBatches, Option<Result<RecordBatch>>)>),
    /// Nothing more.
    Over,
}

impl Stream for BatchStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut pending = match std::mem::replace(&mut self.state, Waiting::Over) {
            Waiting::For(mut batches) => Box::pin(async move {
                let batch = batches.next().await;
                (batches, batch)
            }),
            Waiting::On(pending) => pending,
            Waiting::Over => return Poll::Ready(None),
        };
        match pending.as_mut().poll(cx) {
            Poll::Ready((batches, batch)) => {
                self.state = Waiting::For(batches);
                Poll::Ready(batch)
            }
            Poll::Pending => {
                self.state = Waiting::On(pending);
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.state {
            Waiting::For(batches) => (0, Some(batches.batches.len())),
            Waiting::On(_) => (0, None),
            Waiting::Over => (0, Some(0)),
        }
    }
}

impl fmt::Debug for BatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchStream")
    }
}

/// The batches of a [`CachedTable`], blocking. Ends after the first error.
pub struct Batches {
    schema: SchemaRef,
    batches: CheckedBatches,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = block_on(self.batches.next())?;
        Some(batch.map_err(|error| ArrowError::ExternalError(Box::new(error))))
    }
}

impl RecordBatchReader for Batches {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("left", &self.batches.batches.len())
            .finish_non_exhaustive()
    }
}
