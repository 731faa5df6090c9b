//! Files that a table can be read from, batch by batch.

mod csv;
mod ipc;
mod parquet;

use std::path::Path;

use arrow_array::RecordBatchReader;

use crate::failure::Failure;
use crate::local_file::LocalFile;

/// Batches of about this size are asked of formats that can be read in any size: a little less than
/// what the cache stores in one, so that they need not be cut.
const BATCH_BYTES: usize = 6 << 20;

/// The batches of a file.
pub(crate) type Batches = Box<dyn RecordBatchReader + Send>;

/// Opens `path`, or standard input for `-`. What it holds is told by its first bytes; csv, which has
/// none of its own, by its extension.
pub(crate) fn open(path: &Path) -> Result<Batches, Failure> {
    if path.as_os_str() == "-" {
        return ipc::open_stdin();
    }
    let file = LocalFile::open(path)?;
    let extension = path
        .extension()
        .map(|extension| extension.to_ascii_lowercase());
    let head: [u8; 8] = file.head()?;
    match &head {
        [b'P', b'A', b'R', b'1', ..] => parquet::open(file),
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => ipc::open_file(file),
        [0xff, 0xff, 0xff, 0xff, ..] => ipc::open_stream(file),
        [b'F', b'E', b'A', b'1', ..] => Err(Failure::other(format_args!(
            "cannot read {}: feather version 1, which is no Arrow format; write it again as version 2",
            path.display()
        ))),
        _ if extension.is_some_and(|extension| extension == "csv") => csv::open(file),
        _ => Err(Failure::other(format_args!(
            "cannot read {}: neither parquet, nor an Arrow IPC file or stream by its first bytes, \
             nor csv by its extension",
            path.display()
        ))),
    }
}

/// Rows in a batch of [`BATCH_BYTES`] when a row takes this many bytes.
fn batch_rows(row_bytes: usize) -> usize {
    (BATCH_BYTES / row_bytes.max(1)).clamp(1, 1 << 17)
}
