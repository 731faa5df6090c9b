use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ck_core::{BoxFuture, EntryReader, Error, ErrorKind, Expiry, Result, aligned_bytes};

use crate::failure::Failure;

/// A file, or what follows its first bytes, read range by range like an entry of a store.
#[derive(Debug)]
pub(crate) struct LocalFile {
    file: File,
    path: PathBuf,
    start: u64,
    len: u64,
}

impl LocalFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            Failure::other(format_args!("cannot read {}: {error}", path.display()))
        };
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            return Err(Failure::other(format_args!(
                "cannot read {}: not a regular file; use - for a pipe",
                path.display()
            )));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            start: 0,
            len: metadata.len(),
        })
    }

    /// Leaves out the first `bytes`, or all when there are fewer.
    pub(crate) fn skip(mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.len);
        self.start += bytes;
        self.len -= bytes;
        self
    }

    /// The first `N` bytes, zeros beyond the end.
    pub(crate) fn head<const N: usize>(&self) -> Result<[u8; N], Failure> {
        let mut head = [0; N];
        let available = usize::try_from(self.len).map_or(N, |len| len.min(N));
        self.file
            .read_exact_at(&mut head[..available], self.start)
            .map_err(|error| {
                Failure::other(format_args!("cannot read {}: {error}", self.path.display()))
            })?;
        Ok(head)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn into_file(self) -> File {
        self.file
    }

    fn read_now(&self, range: Range<u64>) -> Result<Bytes> {
        let cut = || {
            Error::new(
                ErrorKind::Corrupt,
                "the file ends before the bytes asked for",
            )
            .with("wanted", format_args!("{}..{}", range.start, range.end))
            .with("file_bytes", self.len)
        };
        let len = range
            .end
            .checked_sub(range.start)
            .filter(|_| range.end <= self.len);
        let len = usize::try_from(len.ok_or_else(cut)?).map_err(|_| cut())?;
        aligned_bytes(len, |memory| {
            self.file.read_exact_at(memory, self.start + range.start)
        })
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut(),
            _ => Error::new(ErrorKind::Permanent, "cannot read the file")
                .with("path", self.path.display())
                .with_source(error),
        })
    }
}

impl EntryReader for LocalFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn expiry(&self) -> Expiry {
        Expiry::NEVER
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(std::future::ready(self.read_now(range)))
    }
}
