use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use ck_core::{Error, ErrorKind, Result};

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
