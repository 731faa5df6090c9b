use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::{append, begin, holds, is_missing, pattern, store, supported};
use crate::{Backend, Key, Outcome, Rejection, WriteMode, WriteOptions};

/// The limits of a store under test.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes of one entry.
    pub value_bytes: usize,
    /// The most bytes of the whole store: at least two entries of `value_bytes`, at most 64 MiB.
    pub store_bytes: u64,
    /// Whether an entry that is refused for its size takes along the older one that it was to replace.
    pub removes_stale: bool,
}

/// Checks what happens to entries that do not fit. `backend` must be empty and have these limits.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn run_limits(backend: Arc<dyn Backend>, limits: Limits) {
    let backend = &*backend;
    a_value_beyond_the_limit_is_rejected(backend, limits).await;
    the_store_never_counts_more_than_its_limit(backend, limits).await;
}

async fn a_value_beyond_the_limit_is_rejected(backend: &dyn Backend, limits: Limits) {
    let key = Key::new("limits/value");
    let old = pattern(1, 40);
    let (fits, large) = (
        pattern(2, limits.value_bytes),
        pattern(3, limits.value_bytes + 1),
    );
    let hint = WriteOptions::new()
        .with_head_len(10)
        .with_size_hint(Some(large.len() as u64));

    // Known at once.
    store(backend, &key, &old).await;
    match backend.create(&key, hint).await.unwrap() {
        ControlFlow::Break(rejection) => check(&rejection, limits),
        ControlFlow::Continue(_) => panic!("the store starts an entry that is too large"),
    }
    refused(backend, &key, &old, limits).await;
    // In one call.
    store(backend, &key, &old).await;
    let put = backend
        .put(&key, large.slice(..10), vec![large.slice(10..)], hint)
        .await;
    match put.unwrap() {
        Outcome::Rejected(rejection) => check(&rejection, limits),
        Outcome::Stored { .. } => panic!("the store takes an entry that is too large"),
    }
    refused(backend, &key, &old, limits).await;
    // Found out while writing.
    store(backend, &key, &old).await;
    let mut writer = begin(backend, &key, WriteOptions::new().with_head_len(10)).await;
    append(&mut *writer, vec![large.slice(10..large.len() - 1)]).await;
    match writer
        .write(vec![large.slice(large.len() - 1..)])
        .await
        .unwrap()
    {
        ControlFlow::Break(rejection) => check(&rejection, limits),
        ControlFlow::Continue(()) => panic!("the store takes more bytes than its limit"),
    }
    drop(writer);
    refused(backend, &key, &old, limits).await;
    // What was to replace nothing takes nothing along.
    store(backend, &key, &old).await;
    let create = hint.with_mode(WriteMode::Create);
    assert!(backend.create(&key, create).await.unwrap().is_break());
    holds(backend, &key, &old).await;

    store(backend, &key, &fits).await;
    holds(backend, &key, &fits).await;
    assert!(backend.remove(&key).await.unwrap());
}

/// What is under the key after an entry was refused that was to replace `old`.
async fn refused(backend: &dyn Backend, key: &Key, old: &Bytes, limits: Limits) {
    if limits.removes_stale {
        assert!(is_missing(backend, key).await, "the stale entry is there");
    } else {
        holds(backend, key, old).await;
    }
}

#[track_caller]
fn check(rejection: &Rejection, limits: Limits) {
    let expected = limits.value_bytes as u64;
    match *rejection {
        Rejection::ValueTooLarge { bytes, limit } => {
            assert_eq!(limit, expected);
            assert!(bytes > limit);
        }
        ref other => panic!("rejected for another reason: {other}"),
    }
}

async fn the_store_never_counts_more_than_its_limit(backend: &dyn Backend, limits: Limits) {
    let size = limits.value_bytes / 3;
    let count = limits.store_bytes / size as u64 + 4;
    for i in 0..count {
        let key = Key::new(format!("limits/total/{i}"));
        store(backend, &key, &pattern(i, size)).await;
        holds(backend, &key, &pattern(i, size)).await;
        if let Some(usage) = supported(backend.usage().await) {
            assert!(
                usage.bytes <= limits.store_bytes,
                "{} bytes are counted",
                usage.bytes
            );
        }
    }
    // What makes room is what was used longest ago.
    let first = Key::new("limits/total/0");
    assert!(is_missing(backend, &first).await);
    let kept = Key::new(format!("limits/total/{}", count - 2));
    holds(backend, &kept, &pattern(count - 2, size)).await;
    for i in count..count + 3 {
        store(
            backend,
            &Key::new(format!("limits/total/{i}")),
            &pattern(i, size),
        )
        .await;
        holds(backend, &kept, &pattern(count - 2, size)).await;
    }
    let writer = begin(backend, &first, WriteOptions::new()).await;
    drop(writer);
    let outcome = backend
        .put(
            &first,
            Bytes::new(),
            vec![Bytes::new()],
            WriteOptions::new(),
        )
        .await;
    assert!(outcome.unwrap().is_stored());
}
