//! A store whose entries nobody reads, moves or changes without the key.

mod chunked;
mod form;
mod info;
mod kept;
mod options;
mod refused;
mod single;
mod writer;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ck_core::{
    Backend, BoxFuture, Capabilities, ChangeListener, Cursor, EntryInfo, EntryReader, EntryWriter,
    Error, ErrorKind, Expiry, Key, Lease, MemoryBudget, Outcome, Page, Pruned, Rejection, Result,
    Usage, Watch, WriteOptions, complete,
};
use ck_crypto::Keyring;
use ck_frame::{Envelope, Probe};

use crate::cache::is_corrupt;
use crate::stats::Counter;
use form::Form;
pub use info::EncryptedInfo;
use kept::{Kept, Relay};
pub use options::{EncryptionOptions, Tampering};
use refused::{Refused, Unproven};

/// How much of an entry is read to find out its form.
const HEAD_BYTES: u64 = 4096;

/// A store around another one, which is given nothing but encrypted entries.
///
/// - Tables, values and bytes go in and come out as without it, in all stores; chunks of large entries are encrypted and
///   decrypted one by one, so that batches, columns and rows are still read alone, and memory stays flat. Small tables,
///   and values of the Python client's default serializer, have the Python client's form, which it reads; see
///   [`EncryptionOptions`].
/// - What is read has been proven: these bytes were stored under this key of the cache by somebody who has the key of
///   the [`Keyring`]. Whatever else lies there (a plain entry, one of another tenant, one that was moved, changed or cut) is
///   never decoded. By default it is a miss that [`EncryptedStats::tampered`] counts; see [`Tampering`].
/// - What a store sees of an entry: its key, length, expiry, and the header that docs/formats.md describes. Expiries
///   are not proven, and an old entry that is put back in place of a newer one of the same key is not noticed.
///
/// A [`Guard`](crate::Guard) belongs around the store and this around the guard: opening an entry may read all of it, which
/// takes longer than the guard gives an open.
///
/// Nothing is mapped: plain bytes are in the process's memory. What [`CacheBuilder::l1_bytes`](crate::CacheBuilder::l1_bytes) keeps
/// there is decrypted and decoded; [`EncryptionOptions::with_memory`] keeps entries there as they are stored. Clones share the store and the counters.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use ck_cache::{Cache, Encrypted, EncryptionOptions, Keyring, MasterKey, PutOptions, open_store};
///
/// # let dir = tempfile::tempdir()?;
/// # let url = format!("file:{}", dir.path().display());
/// # /*
/// let url = "file:/var/cache/ck";
/// # */
/// let keys = Keyring::new(&MasterKey::generate()?, &[], "acme")?;
/// let store = Encrypted::new(open_store(&url)?, keys, EncryptionOptions::new())?;
/// let cache = Cache::builder(Arc::new(store.clone())).build().blocking();
/// cache.put_bytes("password", "secret", &PutOptions::new())?.stored()?;
/// assert_eq!(cache.get_bytes("password")?.as_deref(), Some(&b"secret"[..]));
/// assert_eq!(store.stats().tampered, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Encrypted(Arc<Shared>);

struct Shared {
    store: Arc<dyn Backend>,
    keys: Keyring,
    options: EncryptionOptions,
    /// For entries that are decrypted whole.
    budget: MemoryBudget,
    /// What the process keeps, as it is stored.
    kept: Option<Kept>,
    tampered: Counter,
}

/// What an [`Encrypted`] store has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EncryptedStats {
    /// Entries that were not what a holder of the key had stored there.
    pub tampered: u64,
}

impl Encrypted {
    /// Encrypts what goes into `store` with the keys of `keys`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] for an option out of range.
    pub fn new(store: Arc<dyn Backend>, keys: Keyring, options: EncryptionOptions) -> Result<Self> {
        options.check()?;
        let kept = options.memory();
        Ok(Self(Arc::new(Shared {
            kept: kept.map(|(bytes, max_age)| Kept::new(bytes, max_age)),
            budget: MemoryBudget::new(options.whole_bytes()),
            store,
            keys,
            options,
            tampered: Counter::new("ck_cache_tampered_total"),
        })))
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> EncryptedStats {
        EncryptedStats {
            tampered: self.0.tampered.get(),
        }
    }
}

impl Shared {
    /// Proves that `entry`, which begins with `head`, belongs under `key`, and gives its plain bytes.
    async fn unlock(
        self: &Arc<Self>,
        key: &Key,
        entry: &Arc<dyn EntryReader>,
        head: &Bytes,
    ) -> Result<Arc<dyn EntryReader>> {
        match Form::of(head, entry.len())? {
            Form::Chunked(form) => chunked::open(self, key, entry, form).await,
            Form::SingleShot(header) => single::open(self, key, entry, header.as_ref()).await,
        }
    }

    /// Opens and proves what is stored under `key`, and keeps it if entries are kept.
    async fn open(self: &Arc<Self>, key: &Key) -> Result<Option<Arc<dyn EntryReader>>> {
        if let Some(entry) = self.kept_entry(key) {
            return self.prove(key, &entry).await.map(Some);
        }
        let before = self.kept.as_ref().map(Kept::now);
        let Some(entry) = self.store.open(key).await? else {
            return Ok(None);
        };
        let in_memory = match self.in_memory(key, &entry).await {
            // What is damaged shows below.
            Err(error) if is_corrupt(&error) => None,
            in_memory => in_memory?,
        };
        let plain = self.prove(key, in_memory.as_ref().unwrap_or(&entry));
        let plain = plain.await?;
        if let (Some(before), Some(entry)) = (before, in_memory) {
            self.keep(key, &*entry, before);
        }
        Ok(Some(plain))
    }

    /// The plain bytes of `entry`, or one that is refused when it is read, by option an error. Damage that the store tells
    /// of is the reader's to find, too.
    async fn prove(
        self: &Arc<Self>,
        key: &Key,
        entry: &Arc<dyn EntryReader>,
    ) -> Result<Arc<dyn EntryReader>> {
        let unlocked = async {
            let head = read_head(&**entry).await?;
            self.unlock(key, entry, &head).await
        };
        let error = match unlocked.await {
            Ok(plain) => return Ok(plain),
            Err(error) => error,
        };
        let unproven = Unproven::new(self, key, entry);
        let error = match error.kind() {
            ErrorKind::Tampered => unproven.tampered(error),
            _ => unproven.failed(error),
        };
        match is_corrupt(&error) {
            true => Ok(Arc::new(Refused::new(unproven, error))),
            false => Err(error),
        }
    }
}

/// The leading bytes of an entry, with the whole header in them.
async fn read_head(entry: &dyn EntryReader) -> Result<Bytes> {
    let mut wanted = entry.len().min(HEAD_BYTES);
    loop {
        let head = entry.read(0..wanted).await?;
        match ck_frame::probe(&head, entry.len()) {
            Ok(Probe::NeedBytes(more)) => wanted = more,
            Ok(Probe::Ready(Envelope::V3 { payload_offset, .. })) if payload_offset > wanted => {
                wanted = payload_offset;
            }
            _ => return Ok(head),
        }
    }
}

fn tampered(message: &str) -> Error {
    Error::new(ErrorKind::Tampered, message)
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted")
            .field("store", &self.0.store)
            .field("keys", &self.0.keys)
            .field("options", &self.0.options)
            .field("stats", &self.stats())
            .finish()
    }
}

impl Backend for Encrypted {
    fn url(&self) -> String {
        self.0.store.url()
    }

    fn name_of(&self, key: &Key) -> String {
        self.0.store.name_of(key)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().with_leases(self.0.store.capabilities().leases)
    }

    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>> {
        Box::pin(self.0.open(key))
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        Box::pin(writer::create(&self.0, key, options))
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        head: Bytes,
        body: Vec<Bytes>,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(writer::put(&self.0, key, head, body, options))
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        self.0.store.stat(key)
    }

    fn touch<'a>(&'a self, key: &'a Key, expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        let (shared, key) = (Arc::clone(&self.0), key.clone());
        Box::pin(complete(async move {
            let _changing = shared.changing(&key);
            shared.store.touch(&key, expiry).await
        }))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        let (shared, key) = (Arc::clone(&self.0), key.clone());
        Box::pin(complete(async move {
            let _changing = shared.changing(&key);
            shared.store.remove(&key).await
        }))
    }

    fn list(&self, cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>> {
        self.0.store.list(cursor, head_bytes)
    }

    fn lease<'a>(
        &'a self,
        key: &'a Key,
        term: Duration,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Lease>>>> {
        self.0.store.lease(key, term)
    }

    fn watch(&self, listener: Arc<dyn ChangeListener>) -> Result<Watch> {
        let shared = Arc::clone(&self.0);
        self.0.store.watch(Arc::new(Relay { shared, listener }))
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        self.0.store.usage()
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        self.0.store.prune()
    }
}
