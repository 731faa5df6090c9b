use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};

use crate::compact::compact_all;
use crate::footprint::{Backing, schema_bytes, table_bytes};

/// What goes in smaller tables is not worth noting.
const FREED: u64 = 1 << 20;

/// A table in memory: record batches of one schema, possibly none. Clones share everything.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use arrow_schema::{DataType, Field, Schema};
/// use ck_arrow::Table;
///
/// let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
/// let empty = Table::new(schema, Vec::new())?;
/// assert_eq!(empty.num_rows(), 0);
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    schema: SchemaRef,
    batches: Arc<Vec<RecordBatch>>,
    backing: Backing,
    /// Goes with the last clone of a table that was decoded.
    freed: Option<Arc<Freed>>,
}

/// Bytes of the heap, about, that go when this goes.
#[derive(Debug)]
struct Freed(u64);

impl Drop for Freed {
    fn drop(&mut self) {
        ck_core::note_dropped(self.0);
    }
}

/// Equal schemas and equal batches, wherever they lie.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.schema == other.schema && self.batches == other.batches
    }
}

impl Table {
    /// A table of these batches.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] when a batch has another schema.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        if let Some(index) = batches
            .iter()
            .position(|batch| batch.schema_ref() != &schema)
        {
            return Err(Error::new(
                ErrorKind::Misuse,
                "all batches of a table must have its schema",
            )
            .with("batch", index)
            .with("expected", &schema)
            .with("found", batches[index].schema_ref()));
        }
        Ok(Self {
            schema,
            batches: Arc::new(batches),
            backing: Backing::Unknown,
            freed: None,
        })
    }

    /// What a reader decoded.
    pub(crate) fn decoded(self, backing: Backing) -> Self {
        let sizes = self.batches.iter().map(RecordBatch::get_array_memory_size);
        let most = sizes.fold(0, usize::saturating_add) as u64;
        let mut table = Self { backing, ..self };
        if most >= FREED {
            let bytes = match table.backing {
                Backing::Mapped(_) => table.heap_bytes(None),
                _ => most,
            };
            table.freed = Some(Arc::new(Freed(bytes)));
        }
        table
    }

    /// The same table with another copy of its schema.
    pub(crate) fn with_equal_schema(self, schema: &SchemaRef) -> Self {
        let relabelled = |batch: &RecordBatch| batch.clone().with_schema(Arc::clone(schema));
        match self.batches.iter().map(relabelled).collect() {
            Ok(batches) => Self {
                schema: Arc::clone(schema),
                batches: Arc::new(batches),
                backing: self.backing,
                freed: self.freed,
            },
            // Equal schemas fit.
            Err(_) => self,
        }
    }

    /// The names, types and metadata of the columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows.
    #[must_use]
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The rows, without the table: from its only owner without a copy of the list.
    #[must_use]
    pub fn into_batches(self) -> Vec<RecordBatch> {
        Arc::unwrap_or_clone(self.batches)
    }

    /// Bytes of heap memory that the table keeps alive, each allocation once: buffers, arrays, batches and
    /// their list, without the schema and without what is mapped.
    ///
    /// The whole of every buffer counts, not only the rows that the table shows. Of a table that was
    /// [read](crate::TableReader::read_table) out of an entry in one piece, all of that piece counts. Such a
    /// table also knows what is mapped; of one that was decoded out of some other `mapping` the caller does.
    ///
    /// Of memory that another library has allocated and lent (the C data interface), Arrow knows only the
    /// part that an array shows: copy such a slice before it is kept, or it retains what nobody counts.
    #[must_use]
    pub fn heap_bytes(&self, mapping: Option<&Bytes>) -> u64 {
        let mapping = mapping.map(Backing::mapped);
        let backing = mapping.as_ref().unwrap_or(&self.backing);
        table_bytes(&self.schema, &self.batches, backing).0 as u64
    }

    /// Bytes of heap memory that the schema takes.
    #[must_use]
    pub fn schema_bytes(&self) -> u64 {
        schema_bytes(&self.schema) as u64
    }

    /// Bytes that the table keeps mapped: all of the entry that it was
    /// [read](crate::TableReader::read_table) out of, if it borrows any of it.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        match &self.backing {
            Backing::Mapped(_) => table_bytes(&self.schema, &self.batches, &self.backing).1 as u64,
            _ => 0,
        }
    }

    /// The same rows in memory of their own; `None` unless the table retains much more than it uses: more than a
    /// quarter, and more than 4 KiB. Batches that share columns or dictionaries still do. What is mapped
    /// stays where it is.
    ///
    /// # Memory
    ///
    /// Up to one copy of the rows, in exchange for what is let go.
    #[must_use]
    pub fn compacted(&self) -> Option<Self> {
        if matches!(self.backing, Backing::Mapped(_)) {
            return None;
        }
        // A type that Arrow cannot copy stays where it is.
        let batches = compact_all(&self.batches).ok().flatten()?;
        Some(Self {
            schema: Arc::clone(&self.schema),
            batches: Arc::new(batches),
            backing: Backing::Unknown,
            freed: None,
        })
    }

    /// The number of rows.
    #[must_use]
    pub fn num_rows(&self) -> u64 {
        let rows = self.batches.iter().map(|batch| batch.num_rows() as u64);
        // Rows without columns can be any number.
        rows.fold(0, u64::saturating_add)
    }
}

impl From<RecordBatch> for Table {
    fn from(batch: RecordBatch) -> Self {
        Self {
            schema: batch.schema(),
            batches: Arc::new(vec![batch]),
            backing: Backing::Unknown,
            freed: None,
        }
    }
}

/// Shares the columns.
impl From<&RecordBatch> for Table {
    fn from(batch: &RecordBatch) -> Self {
        batch.clone().into()
    }
}

/// Shares the columns.
impl From<&Table> for Table {
    fn from(table: &Table) -> Self {
        table.clone()
    }
}
