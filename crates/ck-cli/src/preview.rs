//! The start of a table, for people.

use std::io::{self, Write};

use arrow_array::RecordBatch;
use arrow_cast::pretty::pretty_format_batches_with_schema;
use arrow_schema::SchemaRef;

use crate::failure::Failure;
use crate::human;

/// How many rows are shown.
pub(crate) const ROWS: u64 = 20;

/// Prints the first rows of a table of `total_rows`.
pub(crate) fn print(
    schema: SchemaRef,
    first: &[RecordBatch],
    total_rows: u64,
) -> Result<(), Failure> {
    let columns = schema.fields().len() as u64;
    let table = pretty_format_batches_with_schema(schema, first)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{table}")?;
    let shown: u64 = first.iter().map(|batch| batch.num_rows() as u64).sum();
    if shown < total_rows {
        write!(out, "first {shown} of ")?;
    }
    let rows = human::count(total_rows, "row", "rows");
    writeln!(
        out,
        "{rows} × {}",
        human::count(columns, "column", "columns")
    )?;
    Ok(())
}

/// Prints what there is to say of an entry that is no table.
pub(crate) fn print_bytes(len: usize, serializer: Option<&str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(
        out,
        "no table: {}",
        human::count(len as u64, "byte", "bytes")
    )?;
    if let Some(serializer) = serializer {
        write!(out, " of the serializer {:?}", serializer)?;
    }
    writeln!(out, "; write them out with -o FILE or -o -")?;
    Ok(())
}
