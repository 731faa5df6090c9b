use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_ipc::reader::StreamReader;
use ck_arrow::{TableReader, Verification};
use ck_core::{Error, ErrorKind, block_on};

use super::{BATCH_BYTES, Batches};
use crate::failure::Failure;
use crate::local_file::LocalFile;

/// Streams are read in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

/// An IPC file is read like an entry: one batch at a time, or, where batches are large, some of its rows.
pub(super) fn open_file(file: LocalFile) -> Result<Batches, Failure> {
    let path = file.path().to_owned();
    let table = block_on(TableReader::open(Arc::new(file), Verification::Off));
    let table = table.map_err(|error| unreadable(&path, &error))?;
    Ok(Box::new(table.windows(BATCH_BYTES as u64)))
}

pub(super) fn open_stream(file: LocalFile) -> Result<Batches, Failure> {
    let path = file.path().to_owned();
    let reader = BufReader::with_capacity(BUFFER_BYTES, file.into_file());
    stream::<BufReader<File>>(reader, &path)
}

pub(super) fn open_stdin() -> Result<Batches, Failure> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, std::io::stdin());
    let head = reader
        .fill_buf()
        .map_err(|error| Failure::other(format_args!("cannot read standard input: {error}")))?;
    if head.is_empty() {
        return Err(Failure::other(
            "standard input is empty, expected an Arrow IPC stream",
        ));
    }
    if head.starts_with(b"ARROW1") || head.starts_with(b"PAR1") {
        return Err(Failure::other(
            "standard input must be an Arrow IPC stream; give a file of another format by its name",
        ));
    }
    stream(reader, Path::new("standard input"))
}

fn stream<R: Read + Send + 'static>(reader: R, path: &Path) -> Result<Batches, Failure> {
    match StreamReader::try_new(reader, None) {
        Ok(reader) => Ok(Box::new(reader)),
        Err(error) => Err(Failure::other(format_args!(
            "cannot read {} as an Arrow IPC stream: {error}",
            path.display()
        ))),
    }
}

/// A damaged input is no damaged entry.
fn unreadable(path: &Path, error: &Error) -> Failure {
    let hint = if error.kind() == ErrorKind::Corrupt {
        "; is the file complete?"
    } else {
        ""
    };
    Failure::other(format_args!(
        "cannot read {}: {error}{hint}",
        path.display()
    ))
}
