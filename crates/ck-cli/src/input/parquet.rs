use std::fs::File;
use std::path::PathBuf;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

use super::{Batches, batch_rows};
use crate::failure::Failure;
use crate::local_file::LocalFile;

/// How many rows at the start of a row group tell how wide its rows are.
const SAMPLE_ROWS: usize = 1024;

pub(super) fn open(file: LocalFile) -> Result<Batches, Failure> {
    let path = file.path().to_owned();
    let reader = RowGroups::open(file.into_file(), path.clone());
    let reader = reader.map_err(|error| {
        Failure::other(format_args!(
            "cannot read {} as parquet: {error}",
            path.display()
        ))
    })?;
    Ok(Box::new(reader))
}

/// The rows of a file, row group by row group, in batches whose row count fits the row group's rows.
struct RowGroups {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
    next: usize,
    current: Option<ParquetRecordBatchReader>,
}

impl RowGroups {
    fn open(file: File, path: PathBuf) -> Result<Self, ParquetError> {
        let metadata = ArrowReaderMetadata::load(&file, Default::default())?;
        Ok(Self {
            path,
            file,
            metadata,
            next: 0,
            current: None,
        })
    }

    /// The reader of the next row group; `None` after the last.
    fn next_group(&mut self) -> Result<Option<ParquetRecordBatchReader>, ParquetError> {
        let groups = self.metadata.metadata().row_groups();
        let Some(group) = groups.get(self.next) else {
            return Ok(None);
        };
        let rows = usize::try_from(group.num_rows())
            .unwrap_or(usize::MAX)
            .max(1);
        let stored = usize::try_from(group.total_byte_size()).unwrap_or(0);
        let index = self.next;
        self.next += 1;

        // Dictionaries make stored rows narrower than decoded ones, a sample may miss wide ones.
        let mut sample = self
            .group(index, SAMPLE_ROWS.min(rows))?
            .with_limit(SAMPLE_ROWS)
            .build()?;
        let sampled = match sample.next() {
            Some(batch) => {
                batch?.columns().iter().map(decoded_bytes).sum::<usize>() / SAMPLE_ROWS.min(rows)
            }
            None => 0,
        };
        let rows = batch_rows(sampled.max(stored / rows)).min(rows);
        self.group(index, rows)?.build().map(Some)
    }

    fn group(
        &self,
        index: usize,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReaderBuilder<File>, ParquetError> {
        let file = self.file.try_clone()?;
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        Ok(builder
            .with_row_groups(vec![index])
            .with_batch_size(batch_rows))
    }
}

/// Bytes of a freshly decoded array, which shares nothing.
fn decoded_bytes(array: &arrow_array::ArrayRef) -> usize {
    array.get_buffer_memory_size()
}

impl Iterator for RowGroups {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = self.current.as_mut().and_then(Iterator::next) {
                return Some(batch.map_err(|error| self.named(error)));
            }
            self.current = match self.next_group() {
                Ok(Some(reader)) => Some(reader),
                Ok(None) => return None,
                Err(error) => {
                    self.next = usize::MAX;
                    return Some(Err(self.named(error.into())));
                }
            };
        }
    }
}

impl RowGroups {
    fn named(&self, error: ArrowError) -> ArrowError {
        ArrowError::ParquetError(format!("cannot read {}: {error}", self.path.display()))
    }
}

impl RecordBatchReader for RowGroups {
    fn schema(&self) -> SchemaRef {
        self.metadata.schema().clone()
    }
}
