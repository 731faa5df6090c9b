//! The smallest store: entries in a map, with the default `put` of the trait, and the budget that
//! operations on it share.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use ck_core::{
    Backend, BoxFuture, Capabilities, Cursor, EntryInfo, EntryReader, EntryWriter, Error,
    ErrorKind, Expiry, Key, MemoryBudget, MemoryEntry, Outcome, Page, Pruned, Rejection, Result,
    Usage, Version, WriteMode, WriteOptions, block_on,
};

#[derive(Debug, Clone, Default)]
struct MemoryStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Stored>,
    /// How many entries were stored so far.
    stored: u128,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: MemoryEntry,
    version: Version,
}

impl MemoryStore {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Whether a write of this mode may be published under `key`.
    fn admits(&self, key: &Key, mode: WriteMode) -> bool {
        let present = self.entries.get(key).map(|entry| entry.version);
        match mode {
            WriteMode::Overwrite => true,
            WriteMode::Create => present.is_none(),
            WriteMode::Update(version) => present == Some(version),
        }
    }
}

impl EntryReader for Stored {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    fn expiry(&self) -> Expiry {
        Expiry::NEVER
    }

    fn version(&self) -> Version {
        self.version
    }

    fn contiguous(&self) -> Option<&Bytes> {
        self.bytes.contiguous()
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.bytes.read(range)
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Backend for MemoryStore {
    fn url(&self) -> String {
        "memory:".into()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().with_maps(true)
    }

    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>> {
        let found = self.with(|state| state.entries.get(key).cloned());
        ready(found.map(|entry| Arc::new(entry) as Arc<dyn EntryReader>))
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        ready(ControlFlow::Continue(Box::new(Writer {
            store: self.clone(),
            key: key.clone(),
            options,
            body: BytesMut::new(),
        })))
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        let bytes = self.with(|state| state.entries.get(key).map(Stored::len));
        ready(bytes.map(|bytes| EntryInfo::new(key.as_str(), bytes)))
    }

    fn touch<'a>(&'a self, key: &'a Key, _expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        ready(self.with(|state| state.entries.contains_key(key)))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        ready(self.with(|state| state.entries.remove(key).is_some()))
    }

    fn list(&self, _cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>> {
        let info = |(key, entry): (&Key, &Stored)| {
            let head = entry.contiguous().map(|bytes| {
                let len = bytes.len().min(head_bytes);
                bytes.slice(..len)
            });
            EntryInfo::new(key.as_str(), entry.len())
                .with_key(key.clone())
                .with_head(head.unwrap_or_default())
        };
        let entries = self.with(|state| state.entries.iter().map(info).collect());
        ready(Page {
            entries,
            next: None,
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        let mut usage = Usage::new();
        self.with(|state| {
            usage.entries = state.entries.len() as u64;
            usage.bytes = state.entries.values().map(Stored::len).sum();
        });
        ready(usage)
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        ready(Pruned::new())
    }
}

struct Writer {
    store: MemoryStore,
    key: Key,
    options: WriteOptions,
    body: BytesMut,
}

impl EntryWriter for Writer {
    fn write(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>> {
        for part in parts {
            self.body.extend_from_slice(&part);
        }
        ready(ControlFlow::Continue(()))
    }

    fn commit(self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>> {
        if head.len() != self.options.head_len {
            let error = Error::new(
                ErrorKind::Misuse,
                "the head has another length than promised",
            );
            return Box::pin(std::future::ready(Err(error)));
        }
        let bytes = MemoryEntry::new([&head[..], &self.body].concat());
        let len = bytes.len();
        let Self {
            store,
            key,
            options,
            ..
        } = *self;
        ready(store.with(|state| {
            if !state.admits(&key, options.mode) {
                return Outcome::Rejected(Rejection::Superseded);
            }
            state.stored += 1;
            let version = Version(state.stored);
            state.entries.insert(key, Stored { bytes, version });
            Outcome::Stored { bytes: len }
        }))
    }
}

fn main() -> Result<()> {
    let store = MemoryStore::default();
    let budget = MemoryBudget::new(1 << 20);
    let key = Key::new("greeting");

    let value = Bytes::from("hello");
    let in_flight = budget.reserve_blocking(value.len() as u64)?;
    let stored = block_on(store.put(&key, Bytes::new(), vec![value], WriteOptions::new()))?;
    drop(in_flight);
    println!("{stored:?}");

    let entry = block_on(store.open(&key))?;
    let entry = entry.ok_or_else(|| Error::new(ErrorKind::Corrupt, "just stored, and gone"))?;
    println!("{:?}", block_on(entry.read(0..entry.len()))?);
    Ok(())
}
