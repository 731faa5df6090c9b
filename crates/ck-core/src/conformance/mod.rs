//! The behaviour suite: what every [`Backend`] and every wrapper of one must do.
//!
//! [`run`] checks the contract of every method on an empty store with generous limits, [`run_limits`]
//! what happens when an entry does not fit. Both panic at the first difference, so they belong in
//! tests. Methods that a store may refuse with [`ErrorKind::Unsupported`] (listing, usage, leases) are
//! skipped when it does.
//!
//! # Examples
//!
//! ```no_run
//! fn my_store_keeps_the_contract(store: std::sync::Arc<dyn ck_core::Backend>) {
//!     ck_core::block_on(ck_core::conformance::run(store));
//! }
//! ```
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a suite reports by panicking"
)]

mod catalogue;
mod leases;
mod limits;
mod modes;
mod reading;
mod writing;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Backend, EntryReader, EntryWriter, ErrorKind, Expiry, Key, Outcome, Result, WriteOptions,
    unix_now,
};

pub use limits::{Limits, run_limits};

/// Checks the contract of every method.
///
/// `backend` must be empty, hold 64 MiB and a thousand entries, and take entries of 8 MiB.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn run(backend: Arc<dyn Backend>) {
    run_contents(Arc::clone(&backend)).await;
    catalogue::run(&*backend).await;
}

/// Checks everything but what [`Backend::stat`], [`Backend::list`] and [`Backend::usage`] say of sizes and bytes: of a store
/// that keeps entries in another form than it gives them out, such as one that encrypts them.
///
/// # Panics
///
/// As [`run`].
pub async fn run_contents(backend: Arc<dyn Backend>) {
    let backend = &*backend;
    reading::run(backend).await;
    writing::run(backend).await;
    modes::run(backend).await;
    leases::run(backend).await;
}

/// Bytes that depend on `seed` and differ at every place, so that a shift or a mixture shows.
fn pattern(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

/// Stores `bytes` in one call.
async fn store(backend: &dyn Backend, key: &Key, bytes: &Bytes) {
    let options = WriteOptions::new();
    let outcome = backend
        .put(key, Bytes::new(), vec![bytes.clone()], options)
        .await;
    stored(outcome, bytes.len());
}

/// Checks that an entry of `len` bytes was taken.
#[track_caller]
fn stored(outcome: Result<Outcome>, len: usize) {
    match outcome.expect("the store takes the entry") {
        Outcome::Stored { bytes } => {
            assert!(
                bytes >= len as u64,
                "{bytes} bytes are counted for an entry of {len}"
            );
        }
        Outcome::Rejected(rejection) => panic!("an entry of {len} bytes was rejected: {rejection}"),
    }
}

/// Starts an entry that the store has room for.
async fn begin(backend: &dyn Backend, key: &Key, options: WriteOptions) -> Box<dyn EntryWriter> {
    match backend
        .create(key, options)
        .await
        .expect("the store starts an entry")
    {
        ControlFlow::Continue(writer) => writer,
        ControlFlow::Break(rejection) => panic!("an entry was rejected at once: {rejection}"),
    }
}

async fn append(writer: &mut dyn EntryWriter, parts: Vec<Bytes>) {
    match writer
        .write(parts)
        .await
        .expect("the store takes the bytes")
    {
        ControlFlow::Continue(()) => {}
        ControlFlow::Break(rejection) => panic!("an entry was rejected: {rejection}"),
    }
}

async fn open(backend: &dyn Backend, key: &Key) -> Arc<dyn EntryReader> {
    let entry = backend.open(key).await.expect("the store answers");
    entry.unwrap_or_else(|| panic!("no entry under {key:?}"))
}

async fn is_missing(backend: &dyn Backend, key: &Key) -> bool {
    backend
        .open(key)
        .await
        .expect("the store answers")
        .is_none()
}

/// All bytes of an entry.
async fn bytes_of(entry: &dyn EntryReader) -> Bytes {
    entry
        .read(0..entry.len())
        .await
        .expect("the entry can be read")
}

/// Checks that `key` leads to exactly `bytes`.
async fn holds(backend: &dyn Backend, key: &Key, bytes: &Bytes) {
    let entry = open(backend, key).await;
    assert_eq!(
        entry.len(),
        bytes.len() as u64,
        "length of the entry under {key:?}"
    );
    assert!(
        bytes_of(&*entry).await == bytes,
        "other bytes come back under {key:?}"
    );
}

/// A moment `seconds` from now.
fn in_seconds(seconds: u64) -> Expiry {
    Expiry::after(Duration::from_secs(seconds)).expect("a sensible time")
}

/// A moment that has passed.
fn expired() -> Expiry {
    let now = unix_now().as_secs();
    Expiry::from_unix_seconds(now.saturating_sub(5).max(1))
}

/// The value, or `None` when the store cannot do this at all.
#[track_caller]
fn supported<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::Unsupported => None,
        Err(error) => panic!("the store failed: {error:?}"),
    }
}
