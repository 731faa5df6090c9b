use std::sync::Arc;

use bytes::Bytes;
use ck_arrow::TableReader;
use ck_core::{EntryReader, Key, Result};

use crate::cache::{Shared, is_corrupt, with_key};
use crate::contents::read_bytes;
use crate::{Cache, CachedTable, Contents, Table, read_entry};

impl Cache {
    /// Opens the table under `key` without reading its columns; `None` when there is none.
    ///
    /// The view keeps seeing this very entry while others replace or remove it. Damage that shows only
    /// when a column is read is an error of that read, and the entry is removed, so that the next open
    /// is a miss.
    ///
    /// # Errors
    ///
    /// See [`Cache`]. [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the entry is intact but no table.
    pub async fn open_table(&self, key: impl Into<Key>) -> Result<Option<CachedTable>> {
        let key = key.into();
        let Some(entry) = self.open_entry(&key).await? else {
            return Ok(None);
        };
        let opened = TableReader::open(Arc::clone(&entry), self.shared.verification).await;
        let opened = self.settle(&key, &*entry, opened).await?;
        Ok(opened.map(|reader| CachedTable::new(Arc::clone(&self.shared), key, entry, reader)))
    }

    /// The whole table under `key`; `None` when there is none.
    ///
    /// # Memory
    ///
    /// The table once. From a store that maps, uncompressed columns stay where they are.
    ///
    /// # Errors
    ///
    /// As [`Cache::open_table`].
    pub async fn get_table(&self, key: impl Into<Key>) -> Result<Option<Table>> {
        let key = key.into();
        let Some(entry) = self.open_entry(&key).await? else {
            return Ok(None);
        };
        let read = self.shared.read_table(Arc::clone(&entry)).await;
        self.settle(&key, &*entry, read).await
    }

    /// The bytes under `key`, verified; `None` when there are none.
    ///
    /// An entry that another writer made, of any format but Arrow, is handed out as its raw payload.
    /// Nothing proves such a payload intact.
    ///
    /// # Memory
    ///
    /// The bytes once. From a store that maps, they stay in the mapping.
    ///
    /// # Errors
    ///
    /// See [`Cache`]. [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the entry is a table, or encrypted.
    pub async fn get_bytes(&self, key: impl Into<Key>) -> Result<Option<Bytes>> {
        let key = key.into();
        let Some(entry) = self.open_entry(&key).await? else {
            return Ok(None);
        };
        let read = self.shared.read_bytes(&*entry).await;
        self.settle(&key, &*entry, read).await
    }

    /// Reads every byte of the entry under `key` and checks all that is known of it; `false` when there
    /// is none. Nothing is removed.
    ///
    /// # Errors
    ///
    /// See [`Cache`]. [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the entry is damaged, and
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when it is of a kind that cannot be checked.
    pub async fn verify(&self, key: impl Into<Key>) -> Result<bool> {
        let key = key.into();
        let Some(entry) = self.shared.backend.open(&key).await? else {
            return Ok(false);
        };
        let verified = async {
            match read_entry(entry, self.shared.verification).await? {
                Contents::Table(table) => table.verify().await,
                Contents::Bytes { .. } => Ok(()),
            }
        };
        verified.await.map_err(with_key(&key))?;
        Ok(true)
    }

    /// Opens the entry for a get; `None`, and counted, when there is none.
    async fn open_entry(&self, key: &Key) -> Result<Option<Arc<dyn EntryReader>>> {
        let entry = self.shared.backend.open(key).await.map_err(with_key(key))?;
        if entry.is_none() {
            self.shared.counters.misses.add(1);
        }
        Ok(entry)
    }

    /// Counts what a get made of an entry. Damage is a miss.
    async fn settle<T>(
        &self,
        key: &Key,
        entry: &dyn EntryReader,
        read: Result<T>,
    ) -> Result<Option<T>> {
        match read {
            Ok(value) => {
                self.shared.counters.hits.add(1);
                Ok(Some(value))
            }
            Err(error) if is_corrupt(&error) => {
                self.shared.counters.misses.add(1);
                self.shared.discard(key, entry, &error).await;
                Ok(None)
            }
            Err(error) => Err(with_key(key)(error)),
        }
    }
}

impl Shared {
    async fn read_table(&self, entry: Arc<dyn EntryReader>) -> Result<Table> {
        let reader = TableReader::open(entry, self.verification).await?;
        let batches = reader.read_all().await?;
        Table::new(reader.schema(), batches)
    }

    async fn read_bytes(&self, entry: &dyn EntryReader) -> Result<Bytes> {
        // A store that maps hands out its own memory.
        let held = if entry.contiguous().is_some() {
            0
        } else {
            entry.len()
        };
        let _reservation = self.budget.reserve(held).await?;
        Ok(read_bytes(entry).await?.1)
    }
}
