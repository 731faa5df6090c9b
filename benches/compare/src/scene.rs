use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::RecordBatch;
use ck_backend_file::{Durability, FileBackend, ReadMode};
use ck_cache::{Cache, Verification, blocking};
use serde_json::{Value, json};
use testkit::{Memcached, RedisServer};
use tokio::runtime::Runtime;

use crate::Result;
use crate::python::Python;
use crate::tables::{self, Kind};

/// What the rows share: tables, directories, servers and the Python process, each made when first needed.
pub(crate) struct Scene {
    pub(crate) quick: bool,
    pub(crate) python: Option<PathBuf>,
    /// Whether this process does one side alone, for its memory.
    pub(crate) alone: bool,
    dir: PathBuf,
    tables: RefCell<HashMap<Kind, Rc<Vec<RecordBatch>>>>,
    peer: OnceCell<Rc<Python>>,
    redis: OnceCell<Rc<RedisServer>>,
    memcached: OnceCell<Rc<Memcached>>,
    runtime: OnceCell<Rc<Runtime>>,
}

impl Scene {
    pub(crate) fn new(
        dir: PathBuf,
        quick: bool,
        python: Option<PathBuf>,
        alone: bool,
    ) -> Result<Self> {
        Ok(Self {
            quick,
            python,
            alone,
            dir,
            tables: RefCell::default(),
            peer: OnceCell::new(),
            redis: OnceCell::new(),
            memcached: OnceCell::new(),
            runtime: OnceCell::new(),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of a table.
    pub(crate) fn bytes(&self) -> usize {
        if self.quick { 32 << 20 } else { 256 << 20 }
    }

    /// What the reader has to know of the run.
    pub(crate) fn about(&self) -> Result<Value> {
        let versions = match &self.python {
            Some(_) => self.peer()?.versions.clone(),
            None => Value::Null,
        };
        Ok(json!({
            "cores": std::thread::available_parallelism()?.get(),
            "file_system": file_system(&self.dir)?,
            "table_bytes": self.bytes(),
            "l1_bytes": self.l1_bytes(),
            "versions": versions,
        }))
    }

    /// The budget of the process in rows with a key mix.
    pub(crate) fn l1_bytes(&self) -> u64 {
        if self.quick { 8 << 20 } else { 32 << 20 }
    }

    pub(crate) fn table(&self, kind: Kind) -> Result<Rc<Vec<RecordBatch>>> {
        if let Some(table) = self.tables.borrow().get(&kind) {
            return Ok(Rc::clone(table));
        }
        let path = self.source_path(kind);
        // The process that measures memory reads what its parent has made, which is quicker.
        let table = match self.alone && path.exists() {
            true => crate::ipc::read_batches(&path, None)?,
            false => tables::make(kind, self.bytes())?,
        };
        let table = Rc::new(table);
        self.tables.borrow_mut().insert(kind, Rc::clone(&table));
        Ok(table)
    }

    /// The table as an Arrow file, for peers that make their own copy of it.
    pub(crate) fn source(&self, kind: Kind) -> Result<PathBuf> {
        let path = self.source_path(kind);
        if !path.exists() {
            let half = path.with_extension("half");
            crate::ipc::write(&self.table(kind)?, &half, crate::ipc::Codec::None, false)?;
            std::fs::rename(half, &path)?;
        }
        Ok(path)
    }

    fn source_path(&self, kind: Kind) -> PathBuf {
        self.dir.join(format!("{}.arrow", kind.name()))
    }

    /// Writes the sources of all tables made so far.
    pub(crate) fn write_sources(&self) -> Result<()> {
        let made: Vec<Kind> = self.tables.borrow().keys().copied().collect();
        made.into_iter()
            .try_for_each(|kind| self.source(kind).map(drop))
    }

    /// A directory of this name for one side of the row.
    pub(crate) fn side(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join("side").join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    pub(crate) fn clear_side(&self) -> Result<()> {
        let dir = self.dir.join("side");
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        Ok(())
    }

    /// Forgets what earlier rows stored.
    pub(crate) fn start_row(&self) -> Result<()> {
        self.clear_side()?;
        if let Some(redis) = self.redis.get() {
            redis.command(&["FLUSHALL"]);
        }
        Ok(())
    }

    /// Our cache over a fresh directory.
    pub(crate) fn cache(
        &self,
        durability: Durability,
        verification: Verification,
    ) -> Result<blocking::Cache> {
        Ok(self
            .store("ours", durability, ReadMode::default())?
            .verification(verification)
            .build()
            .blocking())
    }

    pub(crate) fn store(
        &self,
        name: &str,
        durability: Durability,
        read: ReadMode,
    ) -> Result<ck_cache::CacheBuilder> {
        let backend = self.backend(name, durability, read)?;
        Ok(Cache::builder(Arc::new(backend)))
    }

    pub(crate) fn backend(
        &self,
        name: &str,
        durability: Durability,
        read: ReadMode,
    ) -> Result<FileBackend> {
        Ok(FileBackend::builder(self.side(name)?)
            .durability(durability)
            .read_mode(read)
            .build()?)
    }

    pub(crate) fn peer(&self) -> Result<Rc<Python>> {
        let path = self.python.as_deref().ok_or("no --python given")?;
        made(&self.peer, || Python::start(path))
    }

    pub(crate) fn redis(&self) -> Result<Rc<RedisServer>> {
        made(&self.redis, || Ok(RedisServer::start()))
    }

    /// With room for a few tables.
    pub(crate) fn memcached(&self) -> Result<Rc<Memcached>> {
        let mib = (self.bytes() >> 20) * 5 + 256;
        made(&self.memcached, || {
            Ok(Memcached::start_with(&["-m", &mib.to_string()]))
        })
    }

    pub(crate) fn runtime(&self) -> Result<Rc<Runtime>> {
        made(&self.runtime, || {
            Ok(tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?)
        })
    }
}

fn made<T>(cell: &OnceCell<Rc<T>>, make: impl FnOnce() -> Result<T>) -> Result<Rc<T>> {
    if let Some(value) = cell.get() {
        return Ok(Rc::clone(value));
    }
    let value = Rc::new(make()?);
    Ok(Rc::clone(cell.get_or_init(|| value)))
}

/// The type of the file system that `dir` lies on.
fn file_system(dir: &Path) -> Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let of_line = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?.to_owned(), words.next()?.to_owned());
        dir.starts_with(&place).then_some((place.len(), kind))
    };
    let deepest = mounts.lines().filter_map(of_line).max();
    Ok(deepest.ok_or("no mount point")?.1)
}
