//! The cache for threads that may block: the same methods without `async`.
//!
//! Works inside and outside of async runtimes. Inside one it blocks the thread that calls it, so call it
//! where blocking is allowed (`spawn_blocking` of tokio). Never on the only thread of a current-thread
//! runtime whose tasks use the same cache: a call may wait for a load or a read that one of those tasks
//! leads, and that task cannot go on before the call returns.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use ck_codec::CacheKey;
use ck_core::{
    Backend, Cursor, EntryInfo, Key, MemoryBudget, Outcome, Page, Pruned, Result, Usage, block_on,
    offload,
};

use crate::{Batches, LoadOptions, PutOptions, Stats, Table};

/// The blocking twin of [`crate::Cache`], whose methods are described there.
#[derive(Debug, Clone)]
pub struct Cache {
    inner: crate::Cache,
}

impl Cache {
    pub(crate) fn new(inner: crate::Cache) -> Self {
        Self { inner }
    }

    /// See [`crate::Cache::open`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open(url: &str) -> Result<Self> {
        crate::Cache::open(url).map(Self::new)
    }

    /// The same cache, async.
    #[must_use]
    pub fn async_cache(&self) -> &crate::Cache {
        &self.inner
    }

    /// See [`crate::Cache::backend`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn backend(&self) -> Result<&Arc<dyn Backend>> {
        self.inner.backend()
    }

    /// See [`crate::Cache::watch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn watch(&self) -> Result<()> {
        self.inner.watch()
    }

    /// The budget of bytes in flight.
    #[must_use]
    pub fn memory_budget(&self) -> &MemoryBudget {
        self.inner.memory_budget()
    }

    /// What the cache has counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// See [`crate::Cache::put_table`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put_table(
        &self,
        key: impl Into<Key>,
        table: impl Into<Table>,
        options: &PutOptions,
    ) -> Result<Outcome> {
        block_on(self.inner.put_table(key, table, options))
    }

    /// See [`crate::Cache::put_reader`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put_reader(
        &self,
        key: impl Into<Key>,
        reader: impl RecordBatchReader + Send + 'static,
        options: &PutOptions,
    ) -> Result<Outcome> {
        block_on(self.inner.put_reader(key, reader, options))
    }

    /// See [`crate::Cache::put_bytes`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put_bytes(
        &self,
        key: impl Into<Key>,
        bytes: impl Into<Bytes>,
        options: &PutOptions,
    ) -> Result<Outcome> {
        block_on(self.inner.put_bytes(key, bytes, options))
    }

    /// See [`crate::Cache::put`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put<K: CacheKey>(
        &self,
        key: &K,
        value: impl Into<Arc<K::Value>>,
        options: &PutOptions,
    ) -> Result<Outcome> {
        block_on(self.inner.put(key, value, options))
    }

    /// See [`crate::Cache::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get<K: CacheKey>(&self, key: &K) -> Result<Option<Arc<K::Value>>> {
        block_on(self.inner.get(key))
    }

    /// See [`crate::Cache::get_or_load_table`]. The loader may block.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_or_load_table<F, E>(
        &self,
        key: impl Into<Key>,
        options: &LoadOptions,
        loader: F,
    ) -> Result<Option<Table>>
    where
        F: FnOnce() -> Result<Option<Table>, E> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let loader = move || offload(loader);
        block_on(self.inner.get_or_load_table(key, options, loader))
    }

    /// See [`crate::Cache::get_or_load`]. The loader may block.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_or_load<K, F, V, E>(
        &self,
        key: &K,
        options: &LoadOptions,
        loader: F,
    ) -> Result<Option<Arc<K::Value>>>
    where
        K: CacheKey,
        F: FnOnce() -> Result<Option<V>, E> + Send + 'static,
        V: Into<Arc<K::Value>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let loader = move || offload(loader);
        block_on(self.inner.get_or_load(key, options, loader))
    }

    /// See [`crate::Cache::namespace`].
    #[must_use]
    pub fn namespace(&self, name: &str) -> Self {
        Self::new(self.inner.namespace(name))
    }

    /// See [`crate::Cache::invalidate`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn invalidate(&self) -> Result<()> {
        block_on(self.inner.invalidate())
    }

    /// See [`crate::Cache::expire`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn expire(&self, key: impl Into<Key>) -> Result<bool> {
        block_on(self.inner.expire(key))
    }

    /// See [`crate::Cache::open_table`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_table(&self, key: impl Into<Key>) -> Result<Option<CachedTable>> {
        Ok(block_on(self.inner.open_table(key))?.map(|inner| CachedTable { inner }))
    }

    /// See [`crate::Cache::get_table`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_table(&self, key: impl Into<Key>) -> Result<Option<Table>> {
        block_on(self.inner.get_table(key))
    }

    /// See [`crate::Cache::get_bytes`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get_bytes(&self, key: impl Into<Key>) -> Result<Option<Bytes>> {
        block_on(self.inner.get_bytes(key))
    }

    /// See [`crate::Cache::verify`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn verify(&self, key: impl Into<Key>) -> Result<bool> {
        block_on(self.inner.verify(key))
    }

    /// See [`crate::Cache::stat`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn stat(&self, key: impl Into<Key>) -> Result<Option<EntryInfo>> {
        block_on(self.inner.stat(key))
    }

    /// See [`crate::Cache::touch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn touch(&self, key: impl Into<Key>, ttl: Option<Duration>) -> Result<bool> {
        block_on(self.inner.touch(key, ttl))
    }

    /// See [`crate::Cache::remove`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn remove(&self, key: impl Into<Key>) -> Result<bool> {
        block_on(self.inner.remove(key))
    }

    /// See [`crate::Cache::list`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn list(&self, cursor: Option<Cursor>) -> Result<Page> {
        block_on(self.inner.list(cursor))
    }

    /// See [`crate::Cache::usage`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn usage(&self) -> Result<Usage> {
        block_on(self.inner.usage())
    }

    /// See [`crate::Cache::prune`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn prune(&self) -> Result<Pruned> {
        block_on(self.inner.prune())
    }
}

/// The blocking twin of [`crate::CachedTable`], whose methods are described there.
#[derive(Debug, Clone)]
pub struct CachedTable {
    inner: crate::CachedTable,
}

impl CachedTable {
    /// The same table, async.
    #[must_use]
    pub fn async_table(&self) -> &crate::CachedTable {
        &self.inner
    }

    /// The columns of this view.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    /// The number of rows of this view.
    #[must_use]
    pub fn num_rows(&self) -> u64 {
        self.inner.num_rows()
    }

    /// The number of batches that hold rows of this view.
    #[must_use]
    pub fn num_batches(&self) -> usize {
        self.inner.num_batches()
    }

    /// See [`crate::CachedTable::project`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn project(&self, columns: &[usize]) -> Result<Self> {
        Ok(Self {
            inner: self.inner.project(columns)?,
        })
    }

    /// See [`crate::CachedTable::select`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn select(&self, names: &[&str]) -> Result<Self> {
        Ok(Self {
            inner: self.inner.select(names)?,
        })
    }

    /// See [`crate::CachedTable::rows`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn rows(&self, range: Range<u64>) -> Result<Self> {
        Ok(Self {
            inner: self.inner.rows(range)?,
        })
    }

    /// See [`crate::CachedTable::batch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn batch(&self, index: usize) -> Result<RecordBatch> {
        block_on(self.inner.batch(index))
    }

    /// See [`crate::CachedTable::read_all`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_all(&self) -> Result<Vec<RecordBatch>> {
        block_on(self.inner.read_all())
    }

    /// See [`crate::CachedTable::batches`].
    #[must_use]
    pub fn batches(&self) -> Batches {
        self.inner.batches()
    }

    /// See [`crate::CachedTable::verify`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn verify(&self) -> Result<()> {
        block_on(self.inner.verify())
    }
}
