use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, Fields, Schema, SchemaRef};
use ck_core::{EntryReader, Error, ErrorKind, Result, block_on};

use crate::buffer_pool::BufferPool;
use crate::content::Content;
use crate::head::stale_seconds;
use crate::layout::Layout;
use crate::stored_batch::StoredBatch;
use crate::stream::TableStream;
use crate::table::Table;
use crate::window::STEP;

/// When stored bytes are compared with their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// Each column of each batch when it is first read. Entries of other writers, which have only one
    /// hash, as a whole when they are opened.
    #[default]
    OnTouch,
    /// Everything when the entry is opened.
    Full,
    /// Never, apart from the index and the footer. Damage may then give wrong values.
    Off,
}

/// A lazily read table, or a part of one.
///
/// Opening reads the header and the footer and nothing else. Columns and rows are fetched, verified and
/// decoded when they are asked for; on a mapped entry without compression that copies nothing, and the
/// arrays keep the mapping alive. Cloning and narrowing ([`TableReader::project`],
/// [`TableReader::rows`]) are cheap; all of them share one entry.
///
/// Reads entries of this project, of the Python client (frames, legacy envelopes), and bare Arrow IPC
/// files.
///
/// # Memory
///
/// One batch at a time: its compressed and plain bytes. Nothing for mapped uncompressed batches.
/// Dictionaries, once needed, are held as long as the reader.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use arrow_array::{Int64Array, RecordBatch};
/// # use ck_arrow::{EncodeOptions, Encoder};
/// use ck_arrow::{TableReader, Verification};
/// use ck_core::MemoryEntry;
/// # let column = Arc::new(Int64Array::from_iter_values(0..100)) as _;
/// # let batch = RecordBatch::try_from_iter([("n", Arc::clone(&column)), ("m", column)])?;
/// # let mut encoder = Encoder::new(batch.schema(), EncodeOptions::new())?;
/// # encoder.push(batch)?;
/// # encoder.end();
/// # let mut body = Vec::new();
/// # while let Some(segment) = encoder.next_segment()? { body.extend(segment); }
/// # let bytes = [&encoder.finish()?.head[..], &body.concat()].concat();
/// let entry = Arc::new(MemoryEntry::new(bytes));
/// let table = ck_core::block_on(TableReader::open(entry, Verification::OnTouch))?;
/// assert_eq!(table.num_rows(), 100);
/// let part = table.select(&["m"])?.rows(10..20)?;
/// for batch in part.batches() {
///     assert_eq!(batch?.num_columns(), 1);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TableReader {
    content: Arc<Content>,
    schema: SchemaRef,
    /// The columns of the entry that this reader shows, in its order.
    columns: Arc<[usize]>,
    /// The rows of the entry that this reader shows.
    rows: Range<u64>,
    /// The first row of each batch of the entry, and the end.
    starts: Arc<[u64]>,
    /// The batches that hold `rows`.
    batches: Range<usize>,
    /// Where memory for decoded batches comes from, if not from the allocator.
    pub(crate) pool: Option<BufferPool>,
}

impl TableReader {
    /// Opens the table in an entry.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] when the entry is not what was written, [`ErrorKind::Unsupported`] when it
    /// holds something else than a table (another serializer, an encrypted value), and what the entry's
    /// own reads give.
    pub async fn open(entry: Arc<dyn EntryReader>, verification: Verification) -> Result<Self> {
        let content = Content::open(entry, verification).await?;
        let mut starts = Vec::with_capacity(content.index.batches.len() + 1);
        let mut end = 0_u64;
        starts.push(0);
        for block in &content.index.batches {
            end = end.checked_add(block.rows).ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    "the batches claim more rows together than can be counted",
                )
            })?;
            starts.push(end);
        }
        Ok(Self {
            schema: Arc::clone(&content.schema),
            columns: (0..content.schema.fields().len()).collect(),
            rows: 0..end,
            batches: 0..content.index.batches.len(),
            starts: starts.into(),
            content: Arc::new(content),
            pool: None,
        })
    }

    /// The schema of what this reader shows, metadata included.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// How long before its expiry the entry is stale, as its writer recorded it
    /// ([`EncodeOptions::with_stale_for`](crate::EncodeOptions::with_stale_for)).
    #[must_use]
    pub fn stale_for(&self) -> Duration {
        let header = self.content.header.as_ref();
        Duration::from_secs(header.map_or(0, stale_seconds))
    }

    /// Number of rows this reader shows.
    #[must_use]
    pub fn num_rows(&self) -> u64 {
        self.rows.end - self.rows.start
    }

    /// Number of record batches those rows come in.
    #[must_use]
    pub fn num_batches(&self) -> usize {
        self.batches.len()
    }

    /// The columns at these places, in this order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when there is no such column.
    pub fn project(&self, columns: &[usize]) -> Result<Self> {
        let known = self.columns.len();
        if let Some(column) = columns.iter().find(|column| **column >= known) {
            return Err(
                Error::new(ErrorKind::Misuse, "the table has no column at this place")
                    .with("place", column)
                    .with("columns", known),
            );
        }
        let fields: Fields = columns
            .iter()
            .map(|c| Arc::clone(&self.schema.fields()[*c]))
            .collect();
        Ok(Self {
            schema: Arc::new(Schema::new_with_metadata(
                fields,
                self.schema.metadata().clone(),
            )),
            columns: columns.iter().map(|column| self.columns[*column]).collect(),
            ..self.clone()
        })
    }

    /// The columns with these names, in this order. Where several have a name, the first is taken.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when there is no such column; the message lists those there are.
    pub fn select(&self, names: &[&str]) -> Result<Self> {
        let place = |name: &&str| {
            self.schema
                .fields()
                .iter()
                .position(|field| field.name() == name)
                .ok_or_else(|| {
                    let known = self
                        .schema
                        .fields()
                        .iter()
                        .take(50)
                        .map(|field| field.name().as_str());
                    Error::new(ErrorKind::Misuse, "the table has no such column")
                        .with("column", name)
                        .with("columns", known.collect::<Vec<_>>().join(", "))
                })
        };
        self.project(&names.iter().map(place).collect::<Result<Vec<_>>>()?)
    }

    /// The rows of `range`, counted within what this reader shows. Batches outside of it are never read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when the range ends beyond the last row, or before it starts.
    pub fn rows(&self, range: Range<u64>) -> Result<Self> {
        if range.start > range.end || range.end > self.num_rows() {
            return Err(
                Error::new(ErrorKind::Misuse, "the table does not have these rows")
                    .with("rows", format_args!("{}..{}", range.start, range.end))
                    .with("table_rows", self.num_rows()),
            );
        }
        let rows = self.rows.start + range.start..self.rows.start + range.end;
        let batches = if rows.is_empty() {
            0..0
        } else {
            // The batch that holds a row is the last that starts at or before it and is not empty.
            let first = self.starts.partition_point(|start| *start <= rows.start) - 1;
            let end = self.starts.partition_point(|start| *start < rows.end);
            first..end.min(self.starts.len() - 1)
        };
        Ok(Self {
            rows,
            batches,
            ..self.clone()
        })
    }

    /// The record batch at this place.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when there is none, [`ErrorKind::Corrupt`] when its bytes are not what was
    /// written, and what the entry's own reads give.
    pub async fn batch(&self, place: usize) -> Result<RecordBatch> {
        self.fetch(place).await?.into_batch().await
    }

    /// Brings the bytes of the record batch at this place, and leaves verifying and decoding them for later.
    /// Dictionaries that it needs, and that this reader has not read yet, are read and decoded.
    ///
    /// # Memory
    ///
    /// The stored bytes; nothing for an entry that lies in memory in one piece. Dictionaries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when there is none, [`ErrorKind::Corrupt`] when its metadata or a dictionary that
    /// it needs are not what was written, and what the entry's own reads give.
    pub async fn fetch(&self, place: usize) -> Result<StoredBatch> {
        let at = self.place(place)?;
        let columns = self.content.fetch_batch(at, &self.columns).await?;
        let (start, end) = (self.starts[at], self.starts[at + 1]);
        let (first, last) = (self.rows.start.max(start), self.rows.end.min(end));
        Ok(StoredBatch {
            columns,
            place: at,
            schema: Arc::clone(&self.schema),
            shown: first - start..last.saturating_sub(start),
            pool: self.pool.clone(),
        })
    }

    /// This reader, whose compressed batches are decoded into the memory of earlier ones once those are let go
    /// of: for one who reads batch after batch and keeps none. A buffer then holds up to a quarter more than
    /// it shows.
    #[must_use]
    pub fn reusing_memory(&self) -> Self {
        Self {
            pool: Some(BufferPool::default()),
            ..self.clone()
        }
    }

    /// All record batches.
    ///
    /// # Memory
    ///
    /// The whole table, apart from what is mapped.
    ///
    /// # Errors
    ///
    /// As [`TableReader::batch`].
    pub async fn read_all(&self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::with_capacity(self.num_batches());
        for place in 0..self.num_batches() {
            batches.push(self.batch(place).await?);
        }
        Ok(batches)
    }

    /// All of it as a table that knows what it borrows: its bytes are told apart into heap and mapped.
    ///
    /// # Memory
    ///
    /// As [`TableReader::read_all`].
    ///
    /// # Errors
    ///
    /// As [`TableReader::batch`].
    pub async fn read_table(&self) -> Result<Table> {
        self.table_of(self.read_all().await?)
    }

    /// Batches that this reader gave, as [`TableReader::read_table`] does it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when their schema is not this reader's.
    pub fn table_of(&self, batches: Vec<RecordBatch>) -> Result<Table> {
        let table = Table::new(self.schema(), batches)?;
        Ok(table.decoded(self.content.backing()))
    }

    /// Bytes that reading the batch at this place fetches from an entry that has to be fetched: those of
    /// this reader's columns, and the batch's metadata. For entries of other writers, all of the batch.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when there is no such batch.
    pub fn fetched_bytes(&self, place: usize) -> Result<u64> {
        let at = self.place(place)?;
        Ok(self.content.fetched_bytes(at, &self.columns))
    }

    /// Whether the batch at this place is compressed; `None` where only the batch itself says it, because
    /// it has very many columns or another writer made it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when there is no such batch.
    pub fn is_compressed(&self, place: usize) -> Result<Option<bool>> {
        Ok(self.content.is_compressed(self.place(place)?))
    }

    /// The place in the entry of a batch of this reader.
    fn place(&self, place: usize) -> Result<usize> {
        if place < self.batches.len() {
            return Ok(self.batches.start + place);
        }
        Err(
            Error::new(ErrorKind::Misuse, "the table has no batch at this place")
                .with("place", place)
                .with("batches", self.num_batches()),
        )
    }

    /// The record batches one after the other, for async code.
    #[must_use]
    pub fn stream(&self) -> TableStream {
        TableStream::new(self.reusing_memory())
    }

    /// The record batches one after the other, for synchronous code; blocks on the entry's reads.
    #[must_use]
    pub fn batches(&self) -> Batches {
        Batches {
            table: self.reusing_memory(),
            next: 0,
        }
    }

    /// As [`TableReader::batches`], but batches of more than `bytes` come in parts of that size, of which
    /// only the rows' own bytes are read, as far as that can be done.
    ///
    /// For files of other writers, which may have all their rows in one batch. Batches that are compressed,
    /// or mapped, or have hashes to be verified, and those with run-end encoded columns, list views
    /// or dense unions, come whole; so do eight rows that have more bytes together.
    ///
    /// # Memory
    ///
    /// One part, and the largest of its columns once more. Dictionaries are held as by all reads.
    #[must_use]
    pub fn windows(&self, bytes: u64) -> Windows {
        Windows {
            table: self.clone(),
            bytes,
            batch: 0,
            row: self.rows.start,
        }
    }

    /// The next part from `row` on of the batch at this place, and the row that follows it.
    async fn window(&self, place: usize, row: u64, bytes: u64) -> Result<(RecordBatch, u64)> {
        let at = self.batches.start + place;
        let start = self.starts[at];
        let end = self.starts[at + 1].min(self.rows.end);
        // Parts start at a multiple of eight rows, so some rows may come before.
        let ahead = (row - start) % STEP;
        let rows = row - start - ahead..end - start;
        let window = self
            .content
            .window(at, &self.columns, &self.schema, rows, bytes);
        let Some(part) = window.await? else {
            return Ok((self.batch(place).await?, end));
        };
        let ahead = usize::try_from(ahead)
            .unwrap_or(usize::MAX)
            .min(part.num_rows());
        let part = part.slice(ahead, part.num_rows() - ahead);
        let next = row + part.num_rows() as u64;
        Ok((part, next))
    }

    /// Compares the whole entry with the hash it was stored with; where the writer stored none, decodes
    /// all of it instead.
    ///
    /// # Errors
    ///
    /// As [`TableReader::batch`].
    pub async fn verify(&self) -> Result<()> {
        if self.content.has_checksum() {
            return self.content.check().await;
        }
        let columns: Vec<usize> = (0..self.content.schema.fields().len()).collect();
        let pool = BufferPool::default();
        for (place, block) in self.content.index.batches.iter().enumerate() {
            let stored = StoredBatch {
                columns: self.content.fetch_batch(place, &columns).await?,
                place,
                schema: Arc::clone(&self.content.schema),
                shown: 0..block.rows,
                pool: Some(pool.clone()),
            };
            drop(stored.into_batch().await?);
        }
        Ok(())
    }

    /// How the entry is laid out, without reading more of it.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::of(&self.content)
    }
}

impl fmt::Debug for TableReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableReader")
            .field("columns", &self.columns.len())
            .field("rows", &self.rows)
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}

/// The record batches of a table, read as they are taken.
#[derive(Debug)]
pub struct Batches {
    table: TableReader,
    next: usize,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.table.num_batches() {
            self.table.pool = None;
            return None;
        }
        let batch = block_on(self.table.batch(self.next));
        self.next = if batch.is_ok() {
            self.next + 1
        } else {
            self.table.num_batches()
        };
        Some(batch.map_err(|error| ArrowError::ExternalError(Box::new(error))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.table.num_batches() - self.next;
        (usize::from(left > 0), Some(left))
    }
}

impl RecordBatchReader for Batches {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }
}

/// The record batches of a table, large ones in parts, read as they are taken.
#[derive(Debug)]
pub struct Windows {
    table: TableReader,
    bytes: u64,
    batch: usize,
    /// The next row to read, of the entry.
    row: u64,
}

impl Iterator for Windows {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let table = &self.table;
        if self.batch == table.num_batches() {
            return None;
        }
        let window = block_on(table.window(self.batch, self.row, self.bytes));
        let (batch, next) = match window {
            Ok(window) => window,
            Err(error) => {
                self.batch = table.num_batches();
                return Some(Err(ArrowError::ExternalError(Box::new(error))));
            }
        };
        let end = table.starts[table.batches.start + self.batch + 1];
        if next >= end.min(table.rows.end) {
            self.batch += 1;
        }
        self.row = next;
        Some(Ok(batch))
    }
}

impl RecordBatchReader for Windows {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }
}
