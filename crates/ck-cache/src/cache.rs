use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ck_arrow::Verification;
use ck_core::{
    Backend, Cursor, EntryInfo, EntryReader, Error, ErrorKind, Expiry, Key, MemoryBudget, Page,
    Pruned, Result, Usage,
};
use ck_frame::{Envelope, Probe};

use crate::stats::Counters;
use crate::{CacheBuilder, Stats, blocking, open_store};

/// How many leading bytes of each entry a listing looks at: enough for our headers.
const LISTED_HEAD_BYTES: usize = 4096;

/// The top-level header object that holds what this project adds to a frame.
pub(crate) const EXTENSION: &str = "ck";

/// A cache of tables and bytes over a store. Clones share the store, the memory budget and the counters.
///
/// Every method may fail with what the store reports: [`ErrorKind::Transient`],
/// [`ErrorKind::Permanent`], [`ErrorKind::Timeout`], [`ErrorKind::Authentication`]. Errors say which key
/// and where. A damaged entry met by a get is no error but a miss: it is counted, logged and removed.
#[derive(Clone)]
pub struct Cache {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) budget: MemoryBudget,
    pub(crate) verification: Verification,
    pub(crate) counters: Counters,
}

impl Cache {
    /// A cache over `backend` with default options.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self::builder(backend).build()
    }

    /// A cache over `backend`, options first.
    pub fn builder(backend: Arc<dyn Backend>) -> CacheBuilder {
        CacheBuilder::new(backend)
    }

    /// A cache over the store at `url`, with default options.
    ///
    /// # Errors
    ///
    /// As [`open_store`].
    pub fn open(url: &str) -> Result<Self> {
        Ok(Self::new(open_store(url)?))
    }

    /// The same cache for threads that may block.
    #[must_use]
    pub fn blocking(&self) -> blocking::Cache {
        blocking::Cache::new(self.clone())
    }

    /// The store.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.shared.backend
    }

    /// The budget of bytes in flight.
    #[must_use]
    pub fn memory_budget(&self) -> &MemoryBudget {
        &self.shared.budget
    }

    /// What the cache has counted so far, over all its clones.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.snapshot()
    }

    /// What the store knows of the entry under `key`; not a use of it.
    ///
    /// # Errors
    ///
    /// See [`Cache`].
    pub async fn stat(&self, key: impl Into<Key>) -> Result<Option<EntryInfo>> {
        let key = key.into();
        let info = self.shared.backend.stat(&key).await?;
        Ok(info.map(|info| info.with_key(key)))
    }

    /// Lets the entry under `key` live for `ttl` from now, or without end; `false` when there is none.
    ///
    /// # Errors
    ///
    /// See [`Cache`]; [`ErrorKind::Misuse`] for a `ttl` of zero or beyond ten years.
    pub async fn touch(&self, key: impl Into<Key>, ttl: Option<Duration>) -> Result<bool> {
        let expiry = ttl.map_or(Ok(Expiry::NEVER), Expiry::after)?;
        self.shared.backend.touch(&key.into(), expiry).await
    }

    /// Removes the entry under `key`; `false` when there was none.
    ///
    /// # Errors
    ///
    /// See [`Cache`].
    pub async fn remove(&self, key: impl Into<Key>) -> Result<bool> {
        self.shared.backend.remove(&key.into()).await
    }

    /// One page of the entries, in no particular order, from `cursor` or the start.
    ///
    /// Keys are read from the entries' own headers, where [`Cache`] puts those of up to 1 KiB. Other
    /// entries have no key here, only the store's own name for them: those with longer keys, those of
    /// other writers, and damaged ones. The leading bytes of each entry are in [`EntryInfo::head`].
    ///
    /// # Errors
    ///
    /// See [`Cache`]; [`ErrorKind::Unsupported`] when the store cannot list.
    pub async fn list(&self, cursor: Option<Cursor>) -> Result<Page> {
        let mut page = self.shared.backend.list(cursor, LISTED_HEAD_BYTES).await?;
        for entry in &mut page.entries {
            entry.key = entry
                .key
                .take()
                .or_else(|| recorded_key(&entry.head, entry.bytes));
        }
        Ok(page)
    }

    /// How full the store is.
    ///
    /// # Errors
    ///
    /// See [`Cache`]; [`ErrorKind::Unsupported`] when the store cannot say.
    pub async fn usage(&self) -> Result<Usage> {
        self.shared.backend.usage().await
    }

    /// Removes what is expired or left over from killed writers.
    ///
    /// # Errors
    ///
    /// See [`Cache`].
    pub async fn prune(&self) -> Result<Pruned> {
        self.shared.backend.prune().await
    }
}

impl Shared {
    /// Counts, logs and removes an entry that turned out to be damaged.
    pub(crate) async fn discard(&self, key: &Key, entry: &dyn EntryReader, damage: &Error) {
        self.counters.corrupt.add(1);
        tracing::warn!(%key, store = %self.backend.url(), error = %damage, "damaged entry removed");
        if let Err(error) = entry.discard().await {
            tracing::warn!(%key, store = %self.backend.url(), %error, "the damaged entry cannot be removed");
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("backend", &self.shared.backend)
            .field("budget", &self.shared.budget)
            .field("stats", &self.stats())
            .finish()
    }
}

/// The key that an entry says it is stored under.
fn recorded_key(head: &[u8], entry_bytes: u64) -> Option<Key> {
    match ck_frame::probe(head, entry_bytes) {
        Ok(Probe::Ready(Envelope::V3 { header, .. })) => {
            let key = header.extension(EXTENSION)?.get("key")?.as_str()?;
            Some(Key::from(key))
        }
        _ => None,
    }
}

/// Names the key in an error that does not name it yet.
pub(crate) fn with_key(key: &Key) -> impl FnOnce(Error) -> Error {
    move |error| {
        let named = error.context().any(|(name, _)| name == "key");
        if named { error } else { error.with("key", key) }
    }
}

/// Whether the stored bytes are at fault.
pub(crate) fn is_corrupt(error: &Error) -> bool {
    error.kind() == ErrorKind::Corrupt
}
