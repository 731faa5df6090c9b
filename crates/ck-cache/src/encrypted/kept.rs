//! Encrypted entries that the process keeps as they are stored.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ck_core::{
    BoxFuture, ChangeListener, EntryReader, Expiry, Key, MemoryEntry, Result, Version, complete,
};
use ck_l1::{L1, Weigh, Weight};

use super::Shared;
use crate::namespace;

/// Entries that were read once, as far as a budget goes and for a while.
pub(super) struct Kept {
    entries: L1<Stored>,
    budget_bytes: u64,
    max_age: Duration,
    /// Counts changes: what was read before one is not kept after it.
    changes: Mutex<u64>,
}

/// An entry as it is stored.
struct Stored {
    key_bytes: usize,
    bytes: MemoryEntry,
    expiry: Expiry,
    version: Version,
}

/// A stored entry that lies in the process.
struct Entry {
    shared: Arc<Shared>,
    key: Key,
    stored: Arc<Stored>,
}

/// Where a read of the store began among the changes.
#[derive(Clone, Copy)]
pub(super) struct Moment(u64);

impl Kept {
    pub(super) fn new(budget_bytes: u64, max_age: Duration) -> Self {
        Self {
            entries: L1::builder(budget_bytes).build(),
            budget_bytes,
            max_age,
            changes: Mutex::new(0),
        }
    }

    fn changes(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Moment {
        Moment(*self.changes())
    }

    /// What is kept under `key` is old, and so is what is being read.
    pub(super) fn change(&self, key: &Key) {
        let mut changes = self.changes();
        *changes += 1;
        self.entries.remove(key);
    }

    fn clear(&self) {
        let mut changes = self.changes();
        *changes += 1;
        self.entries.clear();
    }

    /// The number of a namespace says which keys are meant: other processes change it, and it is tiny.
    fn takes(&self, key: &Key, entry: &dyn EntryReader) -> bool {
        // A mapping is in memory already, and one entry may not drive out all others.
        !entry.is_mapped() && entry.len() <= self.budget_bytes / 4 && !namespace::is_number(key)
    }
}

impl Shared {
    /// What the process keeps under `key`.
    pub(super) fn kept_entry(self: &Arc<Self>, key: &Key) -> Option<Arc<dyn EntryReader>> {
        let stored = self.kept.as_ref()?.entries.get(key)?;
        (!stored.expiry.is_expired()).then(|| self.entry(key, stored))
    }

    /// The same entry in memory, if such an entry is to be kept.
    pub(super) async fn in_memory(
        self: &Arc<Self>,
        key: &Key,
        entry: &Arc<dyn EntryReader>,
    ) -> Result<Option<Arc<dyn EntryReader>>> {
        if !self
            .kept
            .as_ref()
            .is_some_and(|kept| kept.takes(key, &**entry))
        {
            return Ok(None);
        }
        let stored = Stored {
            key_bytes: key.as_str().len(),
            bytes: MemoryEntry::new(entry.read(0..entry.len()).await?),
            expiry: entry.expiry(),
            version: entry.version(),
        };
        Ok(Some(self.entry(key, Arc::new(stored))))
    }

    fn entry(self: &Arc<Self>, key: &Key, stored: Arc<Stored>) -> Arc<dyn EntryReader> {
        Arc::new(Entry {
            shared: Arc::clone(self),
            key: key.clone(),
            stored,
        })
    }

    /// Keeps an entry that was proven, unless something has changed since `before`.
    pub(super) fn keep(&self, key: &Key, entry: &dyn EntryReader, before: Moment) {
        let Some(kept) = &self.kept else { return };
        let Some(bytes) = entry.contiguous() else {
            return;
        };
        let stored = Arc::new(Stored {
            key_bytes: key.as_str().len(),
            bytes: MemoryEntry::new(bytes.clone()),
            expiry: entry.expiry(),
            version: entry.version(),
        });
        let left = entry.expiry().remaining();
        let ttl = left.map_or(kept.max_age, |left| left.min(kept.max_age));
        let changes = kept.changes();
        if *changes == before.0 {
            let _ = kept.entries.insert(key.clone(), stored, Some(ttl));
        }
    }

    /// Forgets what is kept under `key`, now and when what is returned is dropped.
    pub(super) fn changing<'a>(&'a self, key: &'a Key) -> Changing<'a> {
        self.changed(key);
        Changing { shared: self, key }
    }

    /// Forgets what is kept under `key`.
    pub(super) fn changed(&self, key: &Key) {
        if let Some(kept) = &self.kept {
            kept.change(key);
        }
    }
}

/// A change under way; see [`Shared::changing`].
pub(super) struct Changing<'a> {
    shared: &'a Shared,
    key: &'a Key,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.shared.changed(self.key);
    }
}

impl Weigh for Stored {
    fn weight(&self) -> Weight {
        Weight::heap(self.bytes.len() + (size_of::<Self>() + self.key_bytes) as u64)
    }
}

impl EntryReader for Entry {
    fn len(&self) -> u64 {
        self.stored.bytes.len()
    }

    fn expiry(&self) -> Expiry {
        self.stored.expiry
    }

    fn version(&self) -> Version {
        self.stored.version
    }

    fn contiguous(&self) -> Option<&Bytes> {
        self.stored.bytes.contiguous()
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.stored.bytes.read(range)
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let (shared, key, version) =
                (Arc::clone(&self.shared), self.key.clone(), self.version());
            complete(async move {
                let _changing = shared.changing(&key);
                match shared.store.open(&key).await? {
                    Some(stored) if stored.version() == version => stored.discard().await,
                    _ => Ok(false),
                }
            })
            .await
        })
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Forgets what the store says was changed, and passes it on.
pub(super) struct Relay {
    pub(super) shared: Arc<Shared>,
    pub(super) listener: Arc<dyn ChangeListener>,
}

impl ChangeListener for Relay {
    fn watching(&self) {
        if let Some(kept) = &self.shared.kept {
            kept.clear();
        }
        self.listener.watching();
    }

    fn changed(&self, key: &Key) {
        if let Some(kept) = &self.shared.kept {
            kept.change(key);
        }
        self.listener.changed(key);
    }

    fn lost(&self) {
        self.listener.lost();
    }
}
