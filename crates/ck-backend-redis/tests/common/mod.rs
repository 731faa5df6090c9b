//! What the tests of this crate share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test uses its part, and reports by panicking"
)]

pub(crate) mod network;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_core::{Backend, EntryReader, Key, Outcome, Result, WriteOptions};
use pollster::block_on;

/// Bytes that depend on `seed` and differ at every place.
pub(crate) fn pattern(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = next(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// A xorshift generator.
pub(crate) fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

/// Stores `bytes`, the first 16 as the head, the others in parts.
pub(crate) fn put(store: &RedisBackend, key: &Key, bytes: &Bytes) -> Result<Outcome> {
    let options = WriteOptions::new().with_head_len(16);
    let body = bytes.slice(16..);
    let parts = (0..body.len()).step_by(100_000);
    let parts = parts.map(|at| body.slice(at..body.len().min(at + 100_000)));
    block_on(store.put(key, bytes.slice(..16), parts.collect(), options))
}

/// Stores `bytes` like [`put`], but as they come: the store is told `hint` about how many there will be.
pub(crate) fn stream(
    store: &RedisBackend,
    key: &Key,
    bytes: &Bytes,
    hint: Option<u64>,
) -> Result<Outcome> {
    let options = WriteOptions::new().with_head_len(16).with_size_hint(hint);
    block_on(async {
        let mut writer = match store.create(key, options).await? {
            ControlFlow::Continue(writer) => writer,
            ControlFlow::Break(rejection) => return Ok(Outcome::Rejected(rejection)),
        };
        for at in (16..bytes.len()).step_by(100_000) {
            let part = bytes.slice(at..bytes.len().min(at + 100_000));
            if let ControlFlow::Break(rejection) = writer.write(vec![part]).await? {
                return Ok(Outcome::Rejected(rejection));
            }
        }
        writer.commit(bytes.slice(..16)).await
    })
}

#[track_caller]
pub(crate) fn stored(outcome: Result<Outcome>) {
    assert!(outcome.unwrap().is_stored());
}

pub(crate) fn open(store: &RedisBackend, key: &Key) -> Result<Option<Arc<dyn EntryReader>>> {
    block_on(store.open(key))
}

/// All bytes of the entry, if there is one.
pub(crate) fn get(store: &RedisBackend, key: &Key) -> Result<Option<Bytes>> {
    match open(store, key)? {
        Some(entry) => block_on(entry.read(0..entry.len())).map(Some),
        None => Ok(None),
    }
}
