use std::fmt;
use std::future::Future;
use std::ops::{ControlFlow, Range};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{Error, ErrorKind, Expiry, Key, Result};

/// A boxed future, so that the traits below can be used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of entries: a directory, a server, or a wrapper around another store.
///
/// An entry is a sequence of bytes under a [`Key`], with an [`Expiry`]. It is written once, published
/// atomically, and never changed afterwards apart from its expiry. The store knows nothing of what the
/// bytes mean.
///
/// Futures may be polled by any executor; none of them needs a particular runtime unless the store's
/// own documentation says so. Every store passes the `conformance` suite.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The store's URL, for messages: `file:/var/cache/ck`.
    fn url(&self) -> String;

    /// The name that the store gives `key`, with what it puts before all keys: what others who share it ask for.
    fn name_of(&self, key: &Key) -> String {
        key.to_string()
    }

    /// What the store can do.
    fn capabilities(&self) -> Capabilities;

    /// Opens the live entry under `key`; `None` when there is none.
    ///
    /// Missing, expired, torn and symlinked entries are all `None`. The reader keeps seeing this very
    /// entry while others replace or remove it, as far as the store can promise that; where it cannot,
    /// reads fail with [`ErrorKind::Corrupt`] rather than mix two entries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Transient`], [`ErrorKind::Permanent`], [`ErrorKind::Timeout`] or
    /// [`ErrorKind::Authentication`] when the store cannot say.
    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>>;

    /// Starts a new entry under `key`, or says why the store will not take it.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`].
    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>>;

    /// Stores an entry whose bytes are all at hand: `head` (of `options.head_len` bytes), then `body`.
    ///
    /// Same outcome as create, write and commit; stores override it to save round trips.
    ///
    /// # Errors
    ///
    /// As [`Backend::create`] and [`EntryWriter::commit`].
    fn put<'a>(
        &'a self,
        key: &'a Key,
        head: Bytes,
        body: Vec<Bytes>,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let mut writer = match self.create(key, options).await? {
                ControlFlow::Continue(writer) => writer,
                ControlFlow::Break(rejection) => return Ok(Outcome::Rejected(rejection)),
            };
            match writer.write(body).await? {
                ControlFlow::Continue(()) => writer.commit(head).await,
                ControlFlow::Break(rejection) => Ok(Outcome::Rejected(rejection)),
            }
        })
    }

    /// What the store knows of the live entry under `key`, without counting as a use of it.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`].
    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>>;

    /// Gives the live entry under `key` a new expiry; `false` when there is none.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`].
    fn touch<'a>(&'a self, key: &'a Key, expiry: Expiry) -> BoxFuture<'a, Result<bool>>;

    /// Removes the entry under `key`; `false` when there was none.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`].
    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>>;

    /// One page of the live entries, in no particular order, from `cursor` (or the start).
    ///
    /// Each entry comes with its first `head_bytes` bytes, for callers who find the key of an entry
    /// there when the store does not know it. Entries stored or removed meanwhile may be missed, or
    /// seen once more.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`]; [`ErrorKind::Unsupported`] when the store cannot list.
    fn list(&self, cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>>;

    /// Tries to become the one who makes the entry under `key`, among all processes that use the store.
    /// `None` while somebody else is.
    ///
    /// The lease ends when it is released or dropped, when its holder dies, and `term` after it was
    /// taken or last renewed, so that nobody waits for a holder who hangs. It keeps nobody from writing:
    /// whoever must not overwrite newer entries says so with [`WriteMode`].
    ///
    /// # Errors
    ///
    /// As [`Backend::open`]; [`ErrorKind::Unsupported`] when the store has no leases
    /// ([`Capabilities::leases`]).
    fn lease<'a>(
        &'a self,
        key: &'a Key,
        term: Duration,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Lease>>>> {
        let _ = (key, term);
        let error = Error::new(ErrorKind::Unsupported, "the store has no leases");
        Box::pin(std::future::ready(Err(error.with("store", self.url()))))
    }

    /// Tells `listener` which entries change, until the returned [`Watch`] is dropped, for callers who
    /// keep copies of entries. Returns before the first connection is made: changes are told from
    /// [`ChangeListener::watching`] on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when the store cannot tell, [`ErrorKind::Misuse`] when somebody listens
    /// already.
    fn watch(&self, listener: Arc<dyn ChangeListener>) -> Result<Watch> {
        drop(listener);
        let error = Error::new(ErrorKind::Unsupported, "the store cannot tell of changes");
        Err(error.with("store", self.url()))
    }

    /// How full the store is.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`]; [`ErrorKind::Unsupported`] when the store cannot say.
    fn usage(&self) -> BoxFuture<'_, Result<Usage>>;

    /// Removes what is expired or left over from killed writers, and brings the store's accounts in
    /// line with what it holds.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`].
    fn prune(&self) -> BoxFuture<'_, Result<Pruned>>;
}

/// An open entry.
pub trait EntryReader: fmt::Debug + Send + Sync + 'static {
    /// The number of bytes of the entry.
    fn len(&self) -> u64;

    /// Whether the entry has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The expiry when the entry was opened.
    fn expiry(&self) -> Expiry;

    /// Which entry this is; what [`WriteMode::Update`] is compared with. Entries that are in no store all
    /// have one version.
    fn version(&self) -> Version {
        Version(0)
    }

    /// The whole entry when its bytes can be used where they lie: a mapped file, or a small entry that
    /// was read when it was opened.
    fn contiguous(&self) -> Option<&Bytes> {
        None
    }

    /// Whether [`contiguous`](EntryReader::contiguous) is a mapping: address space and page cache, and no
    /// memory of the process.
    fn is_mapped(&self) -> bool {
        false
    }

    /// The bytes of `range`. They start at a multiple of 64 in memory; those of an entry that is
    /// [`contiguous`](EntryReader::contiguous) start at the remainder that
    /// `outer_offset + range.start` leaves, as they do in the store's file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] when the entry ends before the range does or was replaced by another;
    /// otherwise as [`Backend::open`].
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>>;

    /// Bytes that reading so many takes on top of them, at most: none, where they are stored as they are given.
    fn read_overhead(&self, len: u64) -> u64 {
        let _ = len;
        0
    }

    /// Several ranges at once; a store with round trips overlaps them.
    ///
    /// # Errors
    ///
    /// As [`EntryReader::read`].
    fn read_ranges(&self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        Box::pin(async move {
            let mut parts = Vec::with_capacity(ranges.len());
            for range in ranges {
                parts.push(self.read(range).await?);
            }
            Ok(parts)
        })
    }

    /// Removes this very entry from its store, because it turned out to be damaged. A newer entry under
    /// the same key stays. `false` when the entry was gone already or belongs to no store.
    ///
    /// # Errors
    ///
    /// As [`Backend::remove`].
    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

/// The right, for a while, to make the entry under one key; see [`Backend::lease`].
///
/// Dropping it gives it up, as far as that is possible without waiting.
pub trait Lease: Send + 'static {
    /// Starts the term anew; `false` when the lease was lost.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`].
    fn renew(&mut self) -> BoxFuture<'_, Result<bool>>;

    /// Gives the lease up.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`].
    fn release(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

impl fmt::Debug for dyn Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

/// Somebody who keeps copies of entries and wants to know when they are stale; see [`Backend::watch`].
///
/// Called on the store's own threads: implementations return at once and call nothing of the store.
pub trait ChangeListener: Send + Sync + 'static {
    /// Changes are told from now on. Copies of what is read from now on stay true until one is told.
    fn watching(&self);

    /// Somebody has stored, replaced, touched or removed the entry under `key`, or it has expired or was
    /// evicted. What this store object itself changes may be told too: [`EntryReader::version`] of the entry
    /// that is there now says whether a copy is still good. Changes may be told late and more than once.
    fn changed(&self, key: &Key);

    /// Changes go untold until the next [`watching`](Self::watching): every copy may be stale.
    fn lost(&self);
}

/// Keeps a [`ChangeListener`] informed until it is dropped.
#[must_use = "nothing is told once it is dropped"]
pub struct Watch(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl Watch {
    /// Ends when `guard` is dropped.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// An entry being written. Dropping it before [`EntryWriter::commit`] leaves the store as it was.
///
/// The entry consists of a head of [`WriteOptions::head_len`] bytes, then everything written. The head
/// comes last, at commit, because it holds hashes and sizes that are known only then. Nothing else is
/// ever patched, which is what lets stores without random access take part.
pub trait EntryWriter: Send + 'static {
    /// Appends `parts` in order. `Break` means that the store will not take the entry: drop the writer.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`]. After an error the writer can only be dropped.
    fn write(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>>;

    /// Publishes the entry: readers see the old entry or this one, never a mixture.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`]; [`ErrorKind::Misuse`] when `head` does not have the promised length.
    fn commit(self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>>;
}

impl fmt::Debug for dyn EntryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntryWriter")
    }
}

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Entries are read in place, so uncompressed columns cost nothing to read.
    pub maps: bool,
    /// How many bytes the store puts before an entry in the same file. What must be aligned in the
    /// file is aligned relative to this.
    pub outer_offset: u64,
    /// The store grants leases ([`Backend::lease`]).
    pub leases: bool,
}

/// Which entry of a key: two entries stored under one key have different versions. Meaningful to the
/// store that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(pub u128);

/// What a write may replace, decided when it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WriteMode {
    /// Whatever is there.
    #[default]
    Overwrite,
    /// Nothing: when there is a live entry the write is rejected.
    Create,
    /// This very entry: when it is gone or another one is there the write is rejected.
    Update(Version),
}

impl Capabilities {
    /// A store that reads over a wire and puts nothing before an entry.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            maps: false,
            outer_offset: 0,
            leases: false,
        }
    }

    /// Sets [`Capabilities::maps`].
    #[must_use]
    pub const fn with_maps(mut self, maps: bool) -> Self {
        self.maps = maps;
        self
    }

    /// Sets [`Capabilities::outer_offset`].
    #[must_use]
    pub const fn with_outer_offset(mut self, outer_offset: u64) -> Self {
        self.outer_offset = outer_offset;
        self
    }

    /// Sets [`Capabilities::leases`].
    #[must_use]
    pub const fn with_leases(mut self, leases: bool) -> Self {
        self.leases = leases;
        self
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::new()
    }
}

/// How to store an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// When the entry expires. Default: never.
    pub expiry: Expiry,
    /// How many leading bytes come only at commit. Default: 0.
    pub head_len: usize,
    /// How many bytes the entry will have in all, head included, as far as known. It lets a store
    /// reserve space once and refuse early. Default: unknown.
    pub size_hint: Option<u64>,
    /// What the entry may replace. Default: whatever is there.
    pub mode: WriteMode,
    /// Records that the entry holds Arrow data that can be mapped, in stores that have a place for it.
    /// Default: no.
    pub mappable: bool,
}

impl WriteOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`WriteOptions::expiry`].
    #[must_use]
    pub fn with_expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Sets [`WriteOptions::head_len`].
    #[must_use]
    pub fn with_head_len(mut self, head_len: usize) -> Self {
        self.head_len = head_len;
        self
    }

    /// Sets [`WriteOptions::size_hint`].
    #[must_use]
    pub fn with_size_hint(mut self, bytes: Option<u64>) -> Self {
        self.size_hint = bytes;
        self
    }

    /// Sets [`WriteOptions::mode`].
    #[must_use]
    pub fn with_mode(mut self, mode: WriteMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets [`WriteOptions::mappable`].
    #[must_use]
    pub fn with_mappable(mut self, mappable: bool) -> Self {
        self.mappable = mappable;
        self
    }
}

/// How a put ended. A value, not an error: nothing went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a rejected value is not stored"]
pub enum Outcome {
    /// The entry is published.
    Stored {
        /// Bytes of the entry, as the store counts them against its limits.
        bytes: u64,
    },
    /// The entry is not stored. An older one under the same key is still there, except where
    /// [`Rejection::ValueTooLarge`] says otherwise.
    Rejected(Rejection),
}

impl Outcome {
    /// Whether the entry is published.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored { .. })
    }

    /// The stored bytes, or the rejection as a [`ErrorKind::TooLarge`] error, for callers to whom
    /// "not stored" is a failure.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] when there is no room for the entry, [`ErrorKind::Transient`] when another
    /// writer came first, [`ErrorKind::Unsupported`] when nothing can keep it.
    pub fn stored(self) -> Result<u64> {
        match self {
            Self::Stored { bytes } => Ok(bytes),
            Self::Rejected(rejection) => {
                let kind = match rejection {
                    Rejection::Superseded | Rejection::NotAdmitted { .. } => ErrorKind::Transient,
                    Rejection::NoTier => ErrorKind::Unsupported,
                    _ => ErrorKind::TooLarge,
                };
                Err(Error::new(kind, rejection.to_string()))
            }
        }
    }
}

/// Why a store did not take an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The entry is larger than the store's limit for one value.
    ///
    /// No retry helps, so what the entry was to replace is stale; a store may remove it, and says so in its
    /// own documentation.
    ValueTooLarge {
        /// Bytes of the entry, as far as they were known when it was refused.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// There is no room, and nothing left to evict: the rest is being written by others.
    StoreFull {
        /// Bytes that were asked for.
        bytes: u64,
        /// The store's limit in bytes.
        limit: u64,
    },
    /// The store holds as many entries as it may, and none can be evicted.
    TooManyEntries {
        /// The store's limit in entries.
        limit: u64,
    },
    /// The key no longer has the entry that was to be replaced ([`WriteMode`]).
    Superseded,
    /// The in-process tier holds values that were asked for more often, and there is no store.
    NotAdmitted {
        /// Bytes of the value.
        bytes: u64,
    },
    /// What other values hold mapped leaves no room for this one, and there is no store.
    MappedFull {
        /// Bytes that the value holds mapped.
        bytes: u64,
    },
    /// No tier takes this kind of value: it has no codec, and the cache keeps nothing in the process.
    NoTier,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ValueTooLarge { bytes, limit } => write!(
                f,
                "not stored: the entry has at least {bytes} bytes, and the store takes {limit} in one entry; \
                 raise its value limit, compress, or split the table"
            ),
            Self::StoreFull { bytes, limit } => write!(
                f,
                "not stored: no room for {bytes} more bytes within the store's limit of {limit}, \
                 because other writers hold the rest; try again later or raise the limit"
            ),
            Self::TooManyEntries { limit } => write!(
                f,
                "not stored: the store already holds {limit} entries, its limit, and none can be evicted"
            ),
            Self::NotAdmitted { bytes } => write!(
                f,
                "not stored: the in-process tier keeps what is asked for more often than this value of {bytes} \
                 bytes; ask for it again, or let newcomers in (`Policy::Lru`)"
            ),
            Self::MappedFull { bytes } => write!(
                f,
                "not stored: the in-process tier may not keep {bytes} more mapped bytes; raise its limit for them"
            ),
            Self::NoTier => f.write_str(
                "not stored: the value has no codec for a store, and the cache has no in-process tier",
            ),
            Self::Superseded => {
                f.write_str("not stored: another writer has changed the entry in the meantime")
            }
        }
    }
}

/// What a store knows of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryInfo {
    /// The store's own name of the entry: a file name, a server key.
    pub id: String,
    /// The key, where the store knows it.
    pub key: Option<Key>,
    /// Bytes of the entry, without what the store puts before it.
    pub bytes: u64,
    /// When it expires.
    pub expiry: Expiry,
    /// When it was last read or written, where the store knows.
    pub last_used: Option<SystemTime>,
    /// The leading bytes that [`Backend::list`] was asked for; empty elsewhere.
    pub head: Bytes,
}

impl EntryInfo {
    /// An entry with this name and size, and nothing else known.
    #[must_use]
    pub fn new(id: impl Into<String>, bytes: u64) -> Self {
        Self {
            id: id.into(),
            key: None,
            bytes,
            expiry: Expiry::NEVER,
            last_used: None,
            head: Bytes::new(),
        }
    }

    /// Sets [`EntryInfo::key`].
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets [`EntryInfo::expiry`].
    #[must_use]
    pub fn with_expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Sets [`EntryInfo::last_used`].
    #[must_use]
    pub fn with_last_used(mut self, last_used: SystemTime) -> Self {
        self.last_used = Some(last_used);
        self
    }

    /// Sets [`EntryInfo::head`].
    #[must_use]
    pub fn with_head(mut self, head: Bytes) -> Self {
        self.head = head;
        self
    }
}

/// A position in a listing, meaningful to the store that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Bytes);

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The entries of this part; may be empty although more follow.
    pub entries: Vec<EntryInfo>,
    /// Where the next part starts; `None` at the end.
    pub next: Option<Cursor>,
}

/// How full a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of all entries, and of those being written.
    pub bytes: u64,
    /// Of `bytes`, those being written.
    pub reserved_bytes: u64,
    /// The limit for `bytes`.
    pub limit_bytes: Option<u64>,
    /// The limit for `entries`.
    pub limit_entries: Option<u64>,
}

impl Usage {
    /// Nothing stored, no limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// What [`Backend::prune`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// Expired or damaged entries removed.
    pub entries: u64,
    /// Left-overs of killed writers removed.
    pub orphans: u64,
    /// Bytes freed by both.
    pub bytes: u64,
}

impl Pruned {
    /// Nothing removed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}
