use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use ck_cache::{Cache, CacheCodec, CacheKey, Error, Key, LoadOptions, Table, open_store};
use ck_codec::MessagePack;
use tempfile::TempDir;

/// A cache with both tiers, and the directory of its store.
pub(crate) fn both_tiers() -> (TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = over(&dir, 64 << 20);
    (dir, cache)
}

/// Another cache over the same store, as another process has one.
pub(crate) fn over(dir: &TempDir, l1_bytes: u64) -> Cache {
    let store = open_store(&format!("file:{}", dir.path().display())).unwrap();
    Cache::builder(store).l1_bytes(l1_bytes).build()
}

/// A table of the numbers from `first` on.
pub(crate) fn table(first: i64, rows: i64) -> Table {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows));
    RecordBatch::try_from_iter([("number", numbers)])
        .unwrap()
        .into()
}

/// Counts how often it is asked.
#[derive(Clone, Default)]
pub(crate) struct Source(Arc<AtomicUsize>);

impl Source {
    pub(crate) fn calls(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Gives `table` after a while.
    pub(crate) async fn after(self, wait: Duration, table: Table) -> Result<Option<Table>, Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(wait).await;
        Ok(Some(table))
    }

    pub(crate) async fn load(
        &self,
        cache: &Cache,
        key: impl Into<Key>,
        options: &LoadOptions,
        table: Table,
    ) -> Table {
        let source = self.clone();
        let loader = move || source.after(Duration::from_millis(1), table);
        let loaded = cache.get_or_load_table(key, options, loader).await;
        loaded.unwrap().unwrap()
    }
}

/// Text that may be sent to the store.
pub(crate) struct Text(pub(crate) &'static str);

impl CacheKey for Text {
    type Value = MessagePack<String>;

    fn key(&self) -> Cow<'_, str> {
        self.0.into()
    }

    fn codec(&self) -> Option<CacheCodec> {
        Some(CacheCodec::of::<Self::Value>())
    }

    fn heap_bytes(value: &Self::Value, _mapping: Option<&Bytes>) -> u64 {
        value.0.capacity() as u64
    }
}

/// Text that stays in the process.
pub(crate) struct Private(pub(crate) &'static str);

impl CacheKey for Private {
    type Value = String;

    fn key(&self) -> Cow<'_, str> {
        self.0.into()
    }

    fn heap_bytes(value: &String, _mapping: Option<&Bytes>) -> u64 {
        value.capacity() as u64
    }
}
