use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};

use crate::compact::compact;
use crate::weight::{heap_bytes, retained_bytes};

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
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    schema: SchemaRef,
    batches: Arc<Vec<RecordBatch>>,
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
        })
    }

    /// The same table with another copy of its schema.
    pub(crate) fn with_equal_schema(self, schema: &SchemaRef) -> Self {
        let relabelled = |batch: &RecordBatch| batch.clone().with_schema(Arc::clone(schema));
        match self.batches.iter().map(relabelled).collect() {
            Ok(batches) => Self {
                schema: Arc::clone(schema),
                batches: Arc::new(batches),
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

    /// Bytes of heap memory that the table keeps alive, each allocation once, without its schema. What lies
    /// in `mapping` is not heap.
    #[must_use]
    pub fn heap_bytes(&self, mapping: Option<&Bytes>) -> u64 {
        heap_bytes(&self.batches, mapping) as u64
    }

    /// The same rows in memory of their own where they retain much more than they use.
    #[must_use]
    pub fn compacted(self) -> Self {
        let compacted: Result<Vec<_>> = self.batches.iter().map(compact).collect();
        match compacted {
            Ok(batches) if retained_bytes(&batches) < retained_bytes(self.batches.iter()) => Self {
                batches: Arc::new(batches),
                ..self
            },
            _ => self,
        }
    }

    /// The number of rows.
    #[must_use]
    pub fn num_rows(&self) -> u64 {
        self.batches
            .iter()
            .map(|batch| batch.num_rows() as u64)
            .sum()
    }
}

impl From<RecordBatch> for Table {
    fn from(batch: RecordBatch) -> Self {
        Self {
            schema: batch.schema(),
            batches: Arc::new(vec![batch]),
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
