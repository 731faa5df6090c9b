use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use ck_cache::{Backend, Cache, Compression, PutOptions, Table, open_store};
use tempfile::TempDir;

/// A cache in a directory that is gone at the end of the test.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) cache: Cache,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with_options("")
    }

    /// `query` goes into the store's URL.
    pub(crate) fn with_options(query: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(store_in(&dir, query));
        Self { dir, cache }
    }

    /// The files that hold entries.
    pub(crate) fn entry_files(&self) -> Vec<PathBuf> {
        self.files(|name| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// The files of writers that have not finished.
    pub(crate) fn temporary_files(&self) -> Vec<PathBuf> {
        self.files(|name| name.contains(".tmp."))
    }

    fn files(&self, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let files = self
            .dir
            .path()
            .read_dir()
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .filter(|path| wanted(path.file_name().unwrap().to_str().unwrap()))
            .collect()
    }

    /// Changes the bytes of the only entry's file.
    pub(crate) fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let files = self.entry_files();
        let [path] = files.as_slice() else {
            panic!("{files:?}")
        };
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        // Like a disk would: under the name, not aside.
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

pub(crate) fn store_in(dir: &TempDir, query: &str) -> Arc<dyn Backend> {
    open_store(&format!("file:{}?{query}", dir.path().display())).unwrap()
}

/// `rows` rows from `first` on: numbers, and text that compresses.
pub(crate) fn batch(first: i64, rows: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(
        (first..first + rows).map(|n| format!("text {}", n % 7)),
    ));
    RecordBatch::try_from_iter([("number", numbers), ("text", text)]).unwrap()
}

/// A table of several batches.
pub(crate) fn table(rows_per_batch: i64, batches: i64) -> Table {
    let batches: Vec<_> = (0..batches)
        .map(|n| batch(n * rows_per_batch, rows_per_batch))
        .collect();
    Table::new(batches[0].schema(), batches).unwrap()
}

/// No compression, small batches.
pub(crate) fn plain() -> PutOptions {
    PutOptions::new()
        .with_compression(Compression::None)
        .with_batch_bytes(64 << 10)
}

/// The numbers of a table, however it is cut into batches.
pub(crate) fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    let columns = batches
        .iter()
        .map(|batch| batch.column_by_name("number").unwrap());
    columns
        .flat_map(|column| column.as_primitive::<Int64Type>().values().to_vec())
        .collect()
}
