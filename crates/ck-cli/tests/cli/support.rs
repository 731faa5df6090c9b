use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

/// A directory with a store in it, and the command.
pub(crate) struct Ck {
    pub(crate) dir: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ck {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// The path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command on the store in the directory, not yet started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ck"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("CK_STORE", "file:store")
            .env("HOME", self.dir.path())
            .env_remove("XDG_CACHE_HOME")
            .env_remove("CACHEKIT_ARROW_COMPRESSION");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        finish(self.command(args).stdin(Stdio::null()))
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The command may refuse to read it.
        let _ = child.stdin.take().unwrap().write_all(input);
        done(child.wait_with_output().unwrap())
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?}: {}", done.err);
        String::from_utf8(done.out).unwrap()
    }

    /// The only file of an entry in the store.
    pub(crate) fn entry_file(&self) -> PathBuf {
        let files = self
            .path("store")
            .read_dir()
            .unwrap()
            .map(|file| file.unwrap().path());
        let mut entries: Vec<_> = files
            .filter(|path| path.file_name().unwrap().len() == 32)
            .collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.remove(0)
    }

    /// Flips a bit of the only entry.
    pub(crate) fn damage(&self, at: impl FnOnce(usize) -> usize) {
        let path = self.entry_file();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at(bytes.len());
        bytes[at] ^= 0x10;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }

    /// The names of all files in the directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let files = self.dir.path().read_dir().unwrap();
        let mut names: Vec<_> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn finish(command: &mut Command) -> Done {
    done(command.output().unwrap())
}

fn done(output: std::process::Output) -> Done {
    let err = String::from_utf8(output.stderr).unwrap();
    Done {
        code: output.status.code().unwrap(),
        out: output.stdout,
        err,
    }
}

/// Numbers from `first` on, text, and fractions with gaps.
pub(crate) fn batch(first: i64, rows: i64) -> RecordBatch {
    let range = first..first + rows;
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(range.clone()));
    let name: ArrayRef = Arc::new(StringArray::from_iter_values(
        range.clone().map(|n| format!("name {n}")),
    ));
    let price: ArrayRef = Arc::new(Float64Array::from_iter(
        range.map(|n| (n % 5 != 0).then_some(n as f64 / 4.0)),
    ));
    RecordBatch::try_from_iter([("id", id), ("name", name), ("price", price)]).unwrap()
}

pub(crate) fn ipc_file(path: &Path, batches: &[RecordBatch]) {
    let mut writer =
        FileWriter::try_new(File::create(path).unwrap(), batches[0].schema_ref()).unwrap();
    batches
        .iter()
        .for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
}

pub(crate) fn ipc_stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), batches[0].schema_ref()).unwrap();
    batches
        .iter()
        .for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

pub(crate) fn parquet_file(path: &Path, batches: &[RecordBatch]) {
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), None).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
        // A row group of each.
        writer.flush().unwrap();
    }
    writer.close().unwrap();
}

pub(crate) fn read_ipc_file(path: &Path) -> Vec<RecordBatch> {
    FileReader::try_new(File::open(path).unwrap(), None)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

pub(crate) fn read_ipc_stream(bytes: &[u8]) -> Vec<RecordBatch> {
    StreamReader::try_new(bytes, None)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

pub(crate) fn read_parquet(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    reader.map(Result::unwrap).collect()
}

/// The rows as csv, however they are cut into batches.
pub(crate) fn csv(batches: &[RecordBatch]) -> String {
    let mut writer = arrow_csv::Writer::new(Vec::new());
    batches
        .iter()
        .for_each(|batch| writer.write(batch).unwrap());
    String::from_utf8(writer.into_inner()).unwrap()
}
