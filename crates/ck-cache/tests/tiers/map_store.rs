use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use ck_core::{
    Backend, BoxFuture, Capabilities, Cursor, EntryInfo, EntryReader, EntryWriter, Error,
    ErrorKind, Expiry, Key, MemoryEntry, Outcome, Page, Pruned, Rejection, Result, Usage, Version,
    WriteMode, WriteOptions, aligned_bytes,
};
use tokio::task::yield_now;

/// A store in a map that fails when it is told to, always before anything has happened. It maps nothing
/// and has no leases.
#[derive(Debug, Clone, Default)]
pub(crate) struct MapStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Stored>,
    stored: u128,
    /// How many operations work before all others fail.
    works_for: Option<usize>,
    pauses: Option<u64>,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Bytes,
    expiry: Expiry,
    version: Version,
}

impl MapStore {
    /// Fails after `operations` from now; never for `None`.
    pub(crate) fn fail_after(&self, operations: Option<usize>) {
        self.lock().works_for = operations;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Has each operation pause a few times before and after it works, as `seed` decides; not at all for
    /// `None`.
    pub(crate) fn pause(&self, seed: Option<u64>) {
        self.lock().pauses = seed;
    }

    /// Runs an operation, unless it is to fail.
    fn run<'a, T: Send + 'a>(
        &self,
        work: impl FnOnce(&mut State) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        let store = self.clone();
        Box::pin(async move {
            store.take_pause().await;
            let result = {
                let mut state = store.lock();
                match &mut state.works_for {
                    Some(0) => Err(Error::new(ErrorKind::Transient, "as told")),
                    left => {
                        if let Some(left) = left {
                            *left -= 1;
                        }
                        Ok(work(&mut state))
                    }
                }
            };
            store.take_pause().await;
            result
        })
    }

    async fn take_pause(&self) {
        let times = self.lock().pauses.as_mut().map_or(0, |pauses| {
            *pauses = pauses
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (*pauses >> 33) % 5
        });
        for _ in 0..times {
            yield_now().await;
        }
    }
}

impl State {
    fn live(&self, key: &Key) -> Option<&Stored> {
        let entry = self.entries.get(key);
        entry.filter(|entry| !entry.expiry.is_expired())
    }
}

impl Backend for MapStore {
    fn url(&self) -> String {
        "map:".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
    }

    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>> {
        self.run(|state| {
            let entry = state.live(key).cloned()?;
            let (store, key) = (self.clone(), key.clone());
            Some(Arc::new(Reader { store, key, entry }) as Arc<dyn EntryReader>)
        })
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        self.run(move |_| {
            ControlFlow::Continue(Box::new(Writer {
                store: self.clone(),
                key: key.clone(),
                options,
                body: BytesMut::new(),
            }) as Box<dyn EntryWriter>)
        })
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        self.run(|state| {
            let bytes = state.live(key)?.bytes.len() as u64;
            Some(EntryInfo::new(key.as_str(), bytes))
        })
    }

    fn touch<'a>(&'a self, key: &'a Key, expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        self.run(move |state| {
            let is_live = state.live(key).is_some();
            if let Some(entry) = state.entries.get_mut(key).filter(|_| is_live) {
                entry.expiry = expiry;
            }
            is_live
        })
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        self.run(|state| {
            let is_live = state.live(key).is_some();
            state.entries.remove(key);
            is_live
        })
    }

    fn list(&self, _: Option<Cursor>, _: usize) -> BoxFuture<'_, Result<Page>> {
        self.run(|_| Page {
            entries: Vec::new(),
            next: None,
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        self.run(|_| Usage::new())
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        self.run(|_| Pruned::new())
    }
}

#[derive(Debug)]
struct Reader {
    store: MapStore,
    key: Key,
    entry: Stored,
}

impl EntryReader for Reader {
    fn len(&self) -> u64 {
        self.entry.bytes.len() as u64
    }

    fn expiry(&self) -> Expiry {
        self.entry.expiry
    }

    fn version(&self) -> Version {
        self.entry.version
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let entry = MemoryEntry::new(self.entry.bytes.clone());
        let worked = self.store.run(|_| ());
        Box::pin(async move {
            worked.await?;
            let bytes = entry.read(range).await?;
            // Memory of its own, as what comes over a wire has.
            aligned_bytes(bytes.len(), |memory| {
                memory.copy_from_slice(&bytes);
                Ok(())
            })
        })
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        self.store.run(|state| {
            let present = state.entries.get(&self.key);
            let is_this = present.is_some_and(|entry| entry.version == self.entry.version);
            if is_this {
                state.entries.remove(&self.key);
            }
            is_this
        })
    }
}

struct Writer {
    store: MapStore,
    key: Key,
    options: WriteOptions,
    body: BytesMut,
}

impl EntryWriter for Writer {
    fn write(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>> {
        let Self { store, body, .. } = self;
        store.run(move |_| {
            parts.iter().for_each(|part| body.extend_from_slice(part));
            ControlFlow::Continue(())
        })
    }

    fn commit(self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>> {
        assert_eq!(head.len(), self.options.head_len);
        self.store.clone().run(move |state| {
            let present = state.live(&self.key).map(|entry| entry.version);
            let is_admitted = match self.options.mode {
                WriteMode::Overwrite => true,
                WriteMode::Create => present.is_none(),
                WriteMode::Update(version) => present == Some(version),
            };
            if !is_admitted {
                return Outcome::Rejected(Rejection::Superseded);
            }
            state.stored += 1;
            let entry = Stored {
                bytes: [&head[..], &self.body].concat().into(),
                expiry: self.options.expiry,
                version: Version(state.stored),
            };
            let bytes = entry.bytes.len() as u64;
            state.entries.insert(self.key, entry);
            Outcome::Stored { bytes }
        })
    }
}
