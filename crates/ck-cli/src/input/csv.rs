use std::io::{BufReader, Seek};
use std::sync::Arc;

use arrow_csv::reader::{Format, ReaderBuilder};

use super::{Batches, batch_rows};
use crate::failure::Failure;
use crate::local_file::LocalFile;

/// Types are inferred from this many rows, as the help of `ck put` says.
const INFERRED_ROWS: usize = 10_000;

pub(super) fn open(file: LocalFile) -> Result<Batches, Failure> {
    let path = file.path().to_owned();
    let unreadable = |error: &dyn std::fmt::Display| {
        Failure::other(format_args!(
            "cannot read {} as csv: {error}",
            path.display()
        ))
    };
    let row_bytes = row_bytes(&file.head::<65536>()?);
    let mut file = file.into_file();
    let format = Format::default().with_header(true);
    let (schema, _) = format
        .infer_schema(BufReader::new(&mut file), Some(INFERRED_ROWS))
        .map_err(|error| unreadable(&error))?;
    file.rewind().map_err(|error| unreadable(&error))?;
    let reader = ReaderBuilder::new(Arc::new(schema))
        .with_format(format)
        .with_batch_size(batch_rows(row_bytes))
        .build(file)
        .map_err(|error| unreadable(&error))?;
    Ok(Box::new(reader))
}

/// The mean length of the lines in `head`, of which the rest may be zeros.
fn row_bytes(head: &[u8]) -> usize {
    let text = head.split(|byte| *byte == 0).next().unwrap_or_default();
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    text.len() / lines.max(1)
}
