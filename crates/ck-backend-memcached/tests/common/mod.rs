//! What several tests need.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use bytes::Bytes;
use ck_backend_memcached::{MemcachedBackend, MemcachedBuilder};
use ck_core::{Backend, EntryReader, Expiry, Key, Outcome, Result, WriteOptions, block_on};
use testkit::Memcached;

pub(crate) fn builder(servers: &[Memcached]) -> MemcachedBuilder {
    MemcachedBackend::builder(servers.iter().map(|server| server.addr().to_string()))
}

pub(crate) fn store(servers: &[Memcached]) -> MemcachedBackend {
    builder(servers).build().unwrap()
}

/// Random numbers that come back with their seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Bytes that differ at every place and for every seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Bytes {
    let mut random = Random::new(seed + 1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

pub(crate) fn put(backend: &dyn Backend, key: &Key, bytes: &Bytes) -> Result<Outcome> {
    put_until(backend, key, bytes, Expiry::NEVER)
}

pub(crate) fn put_until(
    backend: &dyn Backend,
    key: &Key,
    bytes: &Bytes,
    expiry: Expiry,
) -> Result<Outcome> {
    let options = WriteOptions::new().with_expiry(expiry);
    block_on(backend.put(key, Bytes::new(), vec![bytes.clone()], options))
}

pub(crate) fn open(backend: &dyn Backend, key: &Key) -> Result<Option<Arc<dyn EntryReader>>> {
    block_on(backend.open(key))
}

/// All bytes of the entry, if there is one.
pub(crate) fn get(backend: &dyn Backend, key: &Key) -> Result<Option<Bytes>> {
    match open(backend, key)? {
        Some(entry) => block_on(entry.read(0..entry.len())).map(Some),
        None => Ok(None),
    }
}
