//! Files that a table can be written to, batch by batch.

mod target;

use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{ArrowError, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

pub(crate) use self::target::Target;
use crate::failure::Failure;

/// A parquet row group is written out when it holds this much.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// What a table is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    IpcFile,
    IpcStream,
    Parquet,
    Csv,
}

impl Format {
    /// By the extension; an IPC stream for `-`.
    pub(crate) fn of(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Self::IpcStream);
        }
        let extension = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .to_ascii_lowercase();
        match extension.as_str() {
            "arrow" | "feather" | "ipc" => Ok(Self::IpcFile),
            "arrows" => Ok(Self::IpcStream),
            "parquet" | "pq" => Ok(Self::Parquet),
            "csv" => Ok(Self::Csv),
            _ => Err(Failure::usage(format_args!(
                "cannot tell the format of {} from its extension; \
                 known are arrow, feather, ipc (IPC file), arrows (IPC stream), parquet, pq and csv",
                path.display()
            ))),
        }
    }
}

/// Writes `batches` to `path`, or standard output for `-`, and tells the number of rows.
///
/// A file appears under its name once it is complete. `started` is set when bytes went where they
/// cannot be taken back.
pub(crate) fn write(
    path: &Path,
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    started: &mut bool,
) -> Result<u64, Failure> {
    let format = Format::of(path)?;
    let mut target = Target::create(path)?;
    let mut rows = 0;
    let mut batches = batches.peekable();
    if let Some(Err(error)) = batches.next_if(Result::is_err) {
        return Err(error.into());
    }
    *started = target.is_shared();
    let mut writer = Writer::new(format, &mut target, schema)?;
    for batch in batches {
        let batch = batch?;
        writer.write(&batch)?;
        rows += batch.num_rows() as u64;
    }
    writer.finish()?;
    target.publish()?;
    Ok(rows)
}

/// Writes bytes as they are to `path`, or standard output for `-`.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut target = Target::create(path)?;
    target
        .write_all(bytes)
        .map_err(|error| target.failure(error))?;
    target.publish()
}

/// Writes something and a newline to `path`, or standard output for `-`.
pub(crate) fn write_line(path: &Path, what: impl Display) -> Result<(), Failure> {
    let mut target = Target::create(path)?;
    let mut buffered = BufWriter::new(&mut target);
    let written = writeln!(buffered, "{what}").and_then(|()| buffered.flush());
    drop(buffered);
    written.map_err(|error| target.failure(error))?;
    target.publish()
}

enum Writer<W: Write + Send> {
    IpcFile(Box<FileWriter<BufWriter<W>>>),
    IpcStream(Box<StreamWriter<BufWriter<W>>>),
    Parquet(Box<ArrowWriter<W>>),
    Csv(Box<arrow_csv::Writer<BufWriter<W>>>),
}

impl<W: Write + Send> Writer<W> {
    fn new(format: Format, target: W, schema: &SchemaRef) -> Result<Self, Failure> {
        Ok(match format {
            Format::IpcFile => Self::IpcFile(Box::new(FileWriter::try_new(
                BufWriter::new(target),
                schema,
            )?)),
            Format::IpcStream => Self::IpcStream(Box::new(StreamWriter::try_new(
                BufWriter::new(target),
                schema,
            )?)),
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .build();
                let writer = ArrowWriter::try_new(target, schema.clone(), Some(properties));
                Self::Parquet(Box::new(writer.map_err(parquet)?))
            }
            Format::Csv => Self::Csv(Box::new(arrow_csv::Writer::new(BufWriter::new(target)))),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        match self {
            Self::IpcFile(writer) => writer.write(batch)?,
            Self::IpcStream(writer) => writer.write(batch)?,
            Self::Parquet(writer) => {
                writer.write(batch).map_err(parquet)?;
                if writer.in_progress_size() >= ROW_GROUP_BYTES {
                    writer.flush().map_err(parquet)?;
                }
            }
            Self::Csv(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::IpcFile(mut writer) => {
                writer.finish()?;
                writer.into_inner()?.flush()?;
            }
            Self::IpcStream(mut writer) => {
                writer.finish()?;
                writer.into_inner()?.flush()?;
            }
            Self::Parquet(writer) => drop(writer.close().map_err(parquet)?),
            Self::Csv(writer) => writer.into_inner().flush()?,
        }
        Ok(())
    }
}

fn parquet(error: parquet::errors::ParquetError) -> Failure {
    use parquet::errors::ParquetError;
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => (*error).into(),
            Err(error) => Failure::other(error),
        },
        error => Failure::other(format_args!("cannot write parquet: {error}")),
    }
}
