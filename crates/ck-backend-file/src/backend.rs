use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ck_core::{
    Backend, BoxFuture, Capabilities, Cursor, EntryInfo, EntryReader, EntryWriter, Error, Expiry,
    Key, Lease, Outcome, Page, Pruned, Rejection, Result, Usage, WriteOptions, offload,
};

use crate::FileBackendBuilder;
use crate::builder::{ReadMode, Settings};
use crate::error::Fault;
use crate::layout::{HEADER_LEN, Name};
use crate::lease;
use crate::read::{self, Entry};
use crate::reconcile;
use crate::store::Store;
use crate::write;

/// A directory as a store. Clones share it.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use ck_backend_file::FileBackend;
/// use ck_core::{Backend, Key, WriteOptions};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// let store = FileBackend::open(dir)?;
/// let key = Key::new("greeting");
/// # pollster::block_on(async {
/// let body = vec![Bytes::from("hello")];
/// assert!(store.put(&key, Bytes::new(), body, WriteOptions::new()).await?.is_stored());
///
/// let entry = store.open(&key).await?.expect("it was just stored");
/// assert_eq!(&entry.read(0..entry.len()).await?[..], b"hello");
/// # Ok::<(), ck_core::Error>(())
/// # })?;
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Clone)]
pub struct FileBackend(Arc<Store>);

impl FileBackend {
    /// Opens the directory with the defaults of [`FileBackendBuilder`], and creates it with mode 0700
    /// when it does not exist. Reads no more of it.
    ///
    /// # Errors
    ///
    /// As [`FileBackendBuilder::build`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(dir).build()
    }

    /// Options for a store in `dir`.
    pub fn builder(dir: impl Into<PathBuf>) -> FileBackendBuilder {
        FileBackendBuilder::new(dir.into())
    }

    pub(crate) fn with_settings(dir: &Path, settings: Settings) -> Result<Self> {
        Ok(Self(Arc::new(Store::open(dir, settings)?)))
    }

    #[cfg(test)]
    pub(crate) fn into_store(self) -> Arc<Store> {
        self.0
    }

    /// Runs `work`, which blocks, off the async threads.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.0);
        offload(move || work(&store)).await.map_err(Error::from)
    }
}

impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBackend")
            .field("dir", &self.0.dir.path())
            .field("settings", &self.0.settings)
            .finish()
    }
}

impl Backend for FileBackend {
    fn url(&self) -> String {
        format!("file:{}", self.0.dir.path().display())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
            .with_maps(self.0.settings.read_mode == ReadMode::Mapped)
            .with_outer_offset(HEADER_LEN as u64)
            .with_leases(true)
    }

    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>> {
        let name = Name::of(key);
        Box::pin(async move {
            #[cfg(target_os = "linux")]
            let at_once = Entry::open_at_once(&self.0, name);
            #[cfg(not(target_os = "linux"))]
            let at_once = None;
            let entry = match at_once {
                Some(entry) => entry,
                None => self.run(move |store| Entry::open(store, name)).await?,
            };
            Ok(entry.map(|entry| Arc::new(entry) as Arc<dyn EntryReader>))
        })
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        let key = key.clone();
        Box::pin(async move {
            Ok(
                match self
                    .run(move |store| write::create(store, &key, options))
                    .await?
                {
                    ControlFlow::Continue(writer) => {
                        ControlFlow::Continue(Box::new(writer) as Box<dyn EntryWriter>)
                    }
                    ControlFlow::Break(rejection) => ControlFlow::Break(rejection),
                },
            )
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        head: Bytes,
        body: Vec<Bytes>,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        let key = key.clone();
        Box::pin(self.run(move |store| write::put(store, &key, &head, &body, options)))
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        let key = key.clone();
        Box::pin(self.run(move |store| read::stat(store, &key)))
    }

    fn touch<'a>(&'a self, key: &'a Key, expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        let name = Name::of(key);
        Box::pin(self.run(move |store| store.touch(name, expiry)))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        let name = Name::of(key);
        Box::pin(self.run(move |store| store.remove(name)))
    }

    fn list(&self, cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>> {
        Box::pin(self.run(move |store| reconcile::list(store, cursor.as_ref(), head_bytes)))
    }

    fn lease<'a>(
        &'a self,
        key: &'a Key,
        term: Duration,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Lease>>>> {
        let name = Name::of(key);
        Box::pin(async move {
            let taken = self.run(move |store| lease::take(store, name, term));
            let lease = taken.await?;
            Ok(lease.map(|lease| Box::new(lease) as Box<dyn Lease>))
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        Box::pin(self.run(Store::usage))
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        Box::pin(self.run(|store| reconcile::prune(store)))
    }
}
