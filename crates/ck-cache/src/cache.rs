use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ck_arrow::{Interner, Verification};
use ck_core::{
    Backend, ChangeListener, Cursor, EntryInfo, EntryReader, Error, ErrorKind, Expiry, Key,
    MemoryBudget, Page, Pruned, Result, Usage, Watch, complete,
};
use ck_l1::{Charge, L1};

use crate::contents::{own_header, read_own_header, stale_for};
use crate::flight::Flights;
use crate::held::Held;
use crate::namespace::Namespace;
use crate::order::Order;
use crate::stats::Counters;
use crate::tiers::{Landed, Lookup};
use crate::{CacheBuilder, Stats, blocking, open_store};

/// How many leading bytes of each entry a listing looks at: enough for our headers.
pub(crate) const LISTED_HEAD_BYTES: usize = 4096;

/// The top-level header object that holds what this project adds to a frame.
pub(crate) const EXTENSION: &str = "ck";

/// A cache of tables, typed values and bytes: in the process, in a store, or both. Clones share all of it.
///
/// Every method may fail with what the store reports: [`ErrorKind::Transient`],
/// [`ErrorKind::Permanent`], [`ErrorKind::Timeout`], [`ErrorKind::Authentication`]. Errors say which key
/// and where. A damaged entry met by a get is no error but a miss: it is counted, logged and removed.
/// Whether a store that fails is an error or a miss is up to [`CacheBuilder::on_store_failure`].
///
/// Methods that act on the store alone ([`Cache::open_table`], [`Cache::list`] and the like) fail with
/// [`ErrorKind::Unsupported`] when there is none.
#[derive(Clone)]
pub struct Cache {
    pub(crate) shared: Arc<Shared>,
    pub(crate) namespace: Option<Arc<Namespace>>,
}

pub(crate) struct Shared {
    pub(crate) backend: Option<Arc<dyn Backend>>,
    pub(crate) l1: Option<L1<Held>>,
    pub(crate) l1_max_age: Option<Duration>,
    pub(crate) schemas: Interner<Charge>,
    pub(crate) lookups: Flights<Key, Landed<Lookup>>,
    pub(crate) loads: Flights<Key, Landed<Arc<Held>>>,
    pub(crate) order: Order,
    pub(crate) budget: MemoryBudget,
    pub(crate) verification: Verification,
    pub(crate) on_store_failure: StoreFailure,
    pub(crate) counters: Counters,
    /// Whom the store tells of changes.
    pub(crate) watch: OnceLock<Watch>,
}

/// What it means that a store fails or does not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreFailure {
    /// Gets and loads fail.
    #[default]
    Error,
    /// Gets find nothing, and loads load. Puts that were asked for still fail: nothing is lost silently.
    Miss,
}

impl Cache {
    /// A cache over `backend` with default options: nothing is kept in the process.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self::builder(backend).build()
    }

    /// A cache over `backend`, options first.
    pub fn builder(backend: Arc<dyn Backend>) -> CacheBuilder {
        CacheBuilder::new(Some(backend))
    }

    /// A cache that keeps up to `budget_bytes` in the process and has no store.
    pub fn in_process(budget_bytes: u64) -> Self {
        CacheBuilder::new(None).l1_bytes(budget_bytes).build()
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
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when there is none.
    pub fn backend(&self) -> Result<&Arc<dyn Backend>> {
        self.shared.store()
    }

    /// Has the process let go of what it keeps as soon as the store tells that it was changed, by whomever:
    /// server-assisted caching. Of the stores here a single Redis server can tell. Without this, or while the
    /// connection over which changes are told is broken, the process keeps values for their time to live or
    /// [`CacheBuilder::l1_max_age`]; when it works again, all of them are let go of.
    ///
    /// Stores tell of the cache's own puts too: what was put is read from the store once before it is kept.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when the store cannot tell or there is none, [`ErrorKind::Misuse`] when it is
    /// watched already.
    pub fn watch(&self) -> Result<()> {
        let listener = Arc::new(Listener(Arc::downgrade(&self.shared)));
        let watch = self.shared.store()?.watch(listener)?;
        self.shared
            .watch
            .set(watch)
            .map_err(|_second| Error::new(ErrorKind::Misuse, "the cache watches its store already"))
    }

    /// The budget of bytes in flight.
    #[must_use]
    pub fn memory_budget(&self) -> &MemoryBudget {
        &self.shared.budget
    }

    /// What the cache has counted so far, over all its clones.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let l1 = self.shared.l1.as_ref().map(L1::stats);
        self.shared.counters.snapshot(l1)
    }

    /// What the store knows of the entry under `key`; not a use of it.
    ///
    /// # Errors
    ///
    /// See [`Cache`].
    pub async fn stat(&self, key: impl Into<Key>) -> Result<Option<EntryInfo>> {
        let key = self.resolve(key.into()).await?;
        let info = self
            .shared
            .store()?
            .stat(&key)
            .await
            .map_err(with_key(&key))?;
        Ok(info.map(|info| info.with_key(key)))
    }

    /// Lets the entry under `key` live for `ttl` from now, or without end; `false` when the store has none.
    /// The time that it may be stale comes on top.
    ///
    /// # Errors
    ///
    /// See [`Cache`]; [`ErrorKind::Misuse`] for a `ttl` of zero or beyond ten years.
    pub async fn touch(&self, key: impl Into<Key>, ttl: Option<Duration>) -> Result<bool> {
        let key = self.resolve(key.into()).await?;
        let store = Arc::clone(self.shared.store()?);
        if let Some(ttl) = ttl {
            Expiry::after(ttl)?;
        }
        let touched = self.shared.change(&key, move |shared, key| async move {
            let touched = touch_stored(&*store, &key, ttl).await;
            // The stored entry decides, and the process reads it again. What is not stored stays.
            if !matches!(touched, Ok(false)) {
                shared.drop_held(&key);
            }
            touched
        });
        touched.await
    }

    /// Removes the entry under `key` from all tiers; `false` when there was none. Loads under way do not
    /// bring it back.
    ///
    /// # Errors
    ///
    /// See [`Cache`].
    pub async fn remove(&self, key: impl Into<Key>) -> Result<bool> {
        let key = self.resolve(key.into()).await?;
        let removed = self.shared.change(&key, |shared, key| async move {
            let was_held = shared.drop_held(&key);
            let was_stored = match &shared.backend {
                Some(store) => store.remove(&key).await?,
                None => false,
            };
            Ok(was_stored || was_held)
        });
        removed.await
    }

    /// Makes the entry under `key` stale: plain gets do not find it any more, and loads hand it out while
    /// they make a fresh one, for as long as its writer allowed
    /// ([`PutOptions::with_stale_for`](crate::PutOptions::with_stale_for)). An entry that may not be stale
    /// is removed. `false` when there was none.
    ///
    /// # Errors
    ///
    /// See [`Cache`].
    pub async fn expire(&self, key: impl Into<Key>) -> Result<bool> {
        let key = self.resolve(key.into()).await?;
        let expired = self.shared.change(&key, |shared, key| async move {
            let expired = match &shared.backend {
                Some(store) => expire_stored(&**store, &key).await,
                None => Ok(false),
            };
            if matches!(expired, Ok(false)) {
                // What only the process has.
                return Ok(shared.expire_held(&key));
            }
            shared.drop_held(&key);
            expired
        });
        expired.await
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
        let mut page = self.shared.store()?.list(cursor, LISTED_HEAD_BYTES).await?;
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
        self.shared.store()?.usage().await
    }

    /// Removes what is expired or left over from killed writers.
    ///
    /// # Errors
    ///
    /// See [`Cache`].
    pub async fn prune(&self) -> Result<Pruned> {
        self.shared.store()?.prune().await
    }
}

/// Passes on what the store tells of changes.
struct Listener(Weak<Shared>);

impl ChangeListener for Listener {
    fn watching(&self) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        // Nobody told what changed before.
        shared.order.untold(|| {
            if let Some(l1) = &shared.l1 {
                l1.clear();
            }
        });
    }

    fn changed(&self, key: &Key) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        shared.order.told(key, || {
            shared.drop_held(key);
        });
        shared.lookups.detach(key);
    }

    fn lost(&self) {}
}

impl Shared {
    /// The store.
    pub(crate) fn store(&self) -> Result<&Arc<dyn Backend>> {
        self.backend.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "the cache has no store, and this is done in one",
            )
        })
    }

    pub(crate) fn store_url(&self) -> String {
        self.backend
            .as_ref()
            .map_or_else(|| "none".to_owned(), |backend| backend.url())
    }

    /// Changes what the tiers have under `key`. Goes on to its end when the caller goes away.
    async fn change<F, W>(self: &Arc<Self>, key: &Key, work: F) -> Result<bool>
    where
        F: FnOnce(Arc<Self>, Key) -> W + Send + 'static,
        W: Future<Output = Result<bool>> + Send + 'static,
    {
        let (shared, own_key) = (Arc::clone(self), key.clone());
        let changed = complete(async move {
            let mut publication = shared.order.lock(&own_key).await;
            shared.forget_flights(&own_key);
            publication.change();
            let changed = work(Arc::clone(&shared), own_key.clone()).await;
            // Those who began meanwhile may have seen what was before.
            shared.forget_flights(&own_key);
            changed
        });
        changed.await.map_err(with_key(key))
    }

    /// Has the process forget what it holds; `false` when that was nothing.
    fn drop_held(&self, key: &Key) -> bool {
        self.l1.as_ref().is_some_and(|l1| l1.remove(key))
    }

    /// Makes what the process holds stale; `false` when that was nothing.
    fn expire_held(&self, key: &Key) -> bool {
        let Some(l1) = &self.l1 else { return false };
        let Some(held) = l1.get(key) else {
            return false;
        };
        let may_be_stale = match (held.fresh_until, held.expires) {
            (Some(fresh), Some(expires)) => expires > fresh,
            _ => false,
        };
        if may_be_stale {
            let stale = Arc::new(held.expired());
            let ttl = self.l1_ttl(&stale);
            let _ = l1.insert(key.clone(), stale, ttl);
        } else {
            l1.remove(key);
        }
        true
    }

    /// Counts, logs and removes an entry that turned out to be damaged.
    pub(crate) async fn discard(&self, key: &Key, entry: &dyn EntryReader, damage: &Error) {
        self.counters.corrupt.add(1);
        let store = self.store_url();
        match entry.discard().await {
            Ok(true) => tracing::warn!(%key, store, error = %damage, "damaged entry removed"),
            Ok(false) => tracing::warn!(%key, store, error = %damage, "damaged entry, not removed"),
            Err(error) => {
                tracing::warn!(%key, store, %damage, %error, "the damaged entry cannot be removed");
            }
        }
    }
}

/// Gives an entry of the store a new time to live.
async fn touch_stored(store: &dyn Backend, key: &Key, ttl: Option<Duration>) -> Result<bool> {
    let Some(entry) = store.open(key).await? else {
        return Ok(false);
    };
    let Some(stale) = stale_time(&*entry).await? else {
        return Ok(false);
    };
    let expiry = match ttl {
        Some(ttl) => Expiry::after(ttl.saturating_add(stale))?,
        None => Expiry::NEVER,
    };
    store.touch(key, expiry).await
}

/// Makes an entry of the store stale, or removes it if it may not be.
async fn expire_stored(store: &dyn Backend, key: &Key) -> Result<bool> {
    let Some(entry) = store.open(key).await? else {
        return Ok(false);
    };
    let Some(stale) = stale_time(&*entry).await? else {
        return Ok(false);
    };
    if stale.is_zero() {
        return store.remove(key).await;
    }
    let is_stale = entry.expiry().remaining().is_some_and(|left| left <= stale);
    Ok(is_stale || store.touch(key, Expiry::after(stale)?).await?)
}

/// How long before its end an entry is stale; `None` for one that cannot be read, which a get removes.
async fn stale_time(entry: &dyn EntryReader) -> Result<Option<Duration>> {
    match read_own_header(entry).await {
        Ok(header) => Ok(Some(header.as_ref().map_or(Duration::ZERO, stale_for))),
        Err(error) if is_corrupt(&error) => Ok(None),
        Err(error) => Err(error),
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
    let header = own_header(head, entry_bytes)?;
    let key = header.extension(EXTENSION)?.get("key")?.as_str()?;
    Some(Key::from(key))
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
