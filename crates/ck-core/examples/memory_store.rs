//! The smallest store: entries in a map, with the default `put` of the trait, and the budget that
//! operations on it share.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use ck_core::{
    Backend, BoxFuture, Capabilities, Cursor, EntryInfo, EntryReader, EntryWriter, Error,
    ErrorKind, Expiry, Key, MemoryBudget, MemoryEntry, Outcome, Page, Pruned, Rejection, Result,
    Usage, WriteOptions, block_on,
};

type Map = Arc<Mutex<HashMap<Key, Bytes>>>;

#[derive(Debug, Default)]
struct MemoryStore {
    entries: Map,
}

impl MemoryStore {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Key, Bytes>) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
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
        let found = self.with(|entries| entries.get(key).cloned());
        ready(found.map(|bytes| Arc::new(MemoryEntry::new(bytes)) as Arc<dyn EntryReader>))
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        ready(ControlFlow::Continue(Box::new(Writer {
            entries: Arc::clone(&self.entries),
            key: key.clone(),
            head_len: options.head_len,
            body: BytesMut::new(),
        })))
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        let bytes = self.with(|entries| entries.get(key).map(Bytes::len));
        ready(bytes.map(|bytes| EntryInfo::new(key.as_str(), bytes as u64)))
    }

    fn touch<'a>(&'a self, key: &'a Key, _expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        ready(self.with(|entries| entries.contains_key(key)))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        ready(self.with(|entries| entries.remove(key).is_some()))
    }

    fn list(&self, _cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>> {
        let info = |(key, bytes): (&Key, &Bytes)| {
            EntryInfo::new(key.as_str(), bytes.len() as u64)
                .with_key(key.clone())
                .with_head(bytes.slice(..bytes.len().min(head_bytes)))
        };
        let entries = self.with(|entries| entries.iter().map(info).collect());
        ready(Page {
            entries,
            next: None,
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        let mut usage = Usage::new();
        self.with(|entries| {
            usage.entries = entries.len() as u64;
            usage.bytes = entries.values().map(|bytes| bytes.len() as u64).sum();
        });
        ready(usage)
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        ready(Pruned::new())
    }
}

struct Writer {
    entries: Map,
    key: Key,
    head_len: usize,
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
        if head.len() != self.head_len {
            let error = Error::new(
                ErrorKind::Misuse,
                "the head has another length than promised",
            );
            return Box::pin(std::future::ready(Err(error)));
        }
        let entry = Bytes::from([&head[..], &self.body].concat());
        let bytes = entry.len() as u64;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(self.key, entry);
        ready(Outcome::Stored { bytes })
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
