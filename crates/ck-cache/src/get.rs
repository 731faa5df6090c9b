use std::sync::Arc;

use bytes::Bytes;
use ck_arrow::TableReader;
use ck_codec::CacheKey;
use ck_core::{EntryReader, ErrorKind, Key, Result};
use tracing::{Instrument, debug_span, field};

use crate::batches::BatchSource;
use crate::cache::{Shared, is_corrupt, with_key};
use crate::contents::{ABSENT, read_own_header};
use crate::crew::Crew;
use crate::held::{Form, Held, Life, ValueForm};
use crate::trace::stage;
use crate::{Cache, CachedTable, Contents, Table, read_entry};

/// What verifying an entry holds that has to be fetched.
const VERIFY_BYTES: u64 = 8 << 20;

impl Cache {
    /// The whole table under `key`; `None` when there is none.
    ///
    /// # Memory
    ///
    /// The table once, shared with the in-process tier and with all who ask for it at the same time. From a
    /// store that maps, uncompressed columns stay where they are, and compressed ones are decoded as by
    /// [`CachedTable::read_all`].
    ///
    /// # Errors
    ///
    /// See [`Cache`]. [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the entry is intact but no table.
    pub async fn get_table(&self, key: impl Into<Key>) -> Result<Option<Table>> {
        let found = self.find(key.into(), Form::Table).await?;
        Ok(found.and_then(|held| held.table()))
    }

    /// The typed value under `key`; `None` when there is none, or one of another type or version.
    ///
    /// # Memory
    ///
    /// The value once, shared with all who ask for it. What its codec borrows from a store that maps stays
    /// where it is.
    ///
    /// # Errors
    ///
    /// See [`Cache`], and what the codec reports.
    pub async fn get<K: CacheKey>(&self, key: &K) -> Result<Option<Arc<K::Value>>> {
        let form = Form::Value(ValueForm::of(key));
        let found = self.find(Key::new(key.key()), form).await?;
        Ok(found.and_then(|held| held.value()))
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
        let found = self.find(key.into(), Form::Bytes).await?;
        Ok(found.and_then(|held| held.bytes()))
    }

    /// Opens the table under `key` in the store without reading its columns; `None` when there is none.
    ///
    /// The in-process tier takes no part in it. The view keeps seeing this very entry while others replace
    /// or remove it. Damage that shows only when a column is read is an error of that read, and the entry is
    /// removed, so that the next open is a miss.
    ///
    /// # Errors
    ///
    /// As [`Cache::get_table`]. Unsupported, too, when the cache has no store.
    pub async fn open_table(&self, key: impl Into<Key>) -> Result<Option<CachedTable>> {
        let key = self.resolve_to_find(key.into()).await?;
        let shared = &self.shared;
        let entry = match shared.store()?.open(&key).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(shared.missed()),
            Err(error) => return shared.store_failed(&key, error).map(|()| shared.missed()),
        };
        let reader = match TableReader::open(Arc::clone(&entry), shared.verification).await {
            Ok(reader) => reader,
            Err(error) if is_corrupt(&error) => {
                shared.discard(&key, &*entry, &error).await;
                return Ok(shared.missed());
            }
            Err(error) => {
                let error = match error.kind() {
                    ErrorKind::Unsupported => match is_absent(&*entry).await {
                        Ok(true) => return Ok(shared.missed()),
                        Ok(false) => error,
                        Err(failed) => failed,
                    },
                    _ => error,
                };
                return shared.store_failed(&key, error).map(|()| shared.missed());
            }
        };
        stage("get", &key, "opened");
        let life = Life::of_entry(&*entry, reader.stale_for());
        if life.fresh.is_some_and(|left| left.is_zero()) {
            return Ok(shared.missed());
        }
        shared.counters.hits.add(1);
        Ok(Some(CachedTable::new(
            Arc::clone(shared),
            key,
            entry,
            reader,
        )))
    }

    /// What plain gets may hand out: fresh, and not the knowledge that there is none.
    async fn find(&self, key: Key, form: Form) -> Result<Option<Arc<Held>>> {
        let span = debug_span!("ck.get", %key, kind = form.kind().name(), hit = field::Empty);
        let recorded = span.clone();
        let find = async move {
            let key = self.resolve_to_find(key).await?;
            let found = self.shared.lookup_fresh(&key, form).await?.found();
            let found = found.filter(|held| held.is_fresh() && !held.is_absent());
            match found {
                Some(_) => self.shared.counters.hits.add(1),
                None => self.shared.counters.misses.add(1),
            }
            recorded.record("hit", found.is_some());
            Ok(found)
        };
        find.instrument(span).await
    }

    /// Reads every byte of the entry under `key` and checks all that is known of it; `false` when there
    /// is none. Nothing is removed.
    ///
    /// # Errors
    ///
    /// See [`Cache`]. [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the entry is damaged, and
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when it is of a kind that cannot be checked.
    pub async fn verify(&self, key: impl Into<Key>) -> Result<bool> {
        let key = self.resolve(key.into()).await?;
        let opened = self.shared.store()?.open(&key).await;
        let Some(entry) = opened.map_err(with_key(&key))? else {
            return Ok(false);
        };
        // Hashed in steps.
        let held = if entry.contiguous().is_some() {
            0
        } else {
            entry.len().min(VERIFY_BYTES)
        };
        let _reservation = self
            .shared
            .budget
            .reserve(held.min(self.shared.budget.limit()))
            .await?;
        let verified = async {
            match read_entry(entry, self.shared.verification).await? {
                Contents::Table(table) => table.verify().await,
                Contents::MessagePack(_) | Contents::Bytes { .. } => Ok(()),
            }
        };
        verified.await.map_err(with_key(&key))?;
        Ok(true)
    }
}

/// Whether an entry says that there is no value.
async fn is_absent(entry: &dyn EntryReader) -> Result<bool> {
    let header = read_own_header(entry).await?;
    Ok(header.is_some_and(|header| header.serializer() == ABSENT))
}

impl Shared {
    /// Nothing, and counted.
    pub(crate) fn missed<T>(&self) -> Option<T> {
        self.counters.misses.add(1);
        None
    }

    /// All of a table whose index is open.
    pub(crate) async fn read_table(
        &self,
        entry: &Arc<dyn EntryReader>,
        reader: TableReader,
    ) -> Result<Table> {
        let source = BatchSource::new(reader.clone(), Arc::clone(entry), self.budget.clone());
        reader.table_of(Crew::new(source).read_all().await?)
    }
}
