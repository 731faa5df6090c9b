use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_cache::{ErrorKind, GuardOptions};
use ck_core::{Backend, Expiry, WriteOptions};

use super::support::{
    Mood, all, create, eventually, everywhere, guarded, key, kind_of, lease, open, options, put,
    put_large,
};

const SHORT: Duration = Duration::from_millis(30);

/// So much longer that a busy machine does not see both at once.
const SLOW: Duration = Duration::from_millis(300);

fn hurried() -> GuardOptions {
    options().with_deadline(SHORT).without_breaker()
}

/// Each test blocks for ten seconds unless the deadline works.
#[track_caller]
fn in_time(start: Instant) {
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_store_that_hangs_is_given_up_in_every_executor() {
    for mood in [Mood::Blocks, Mood::Silent] {
        everywhere(|| async move {
            let (guard, watch) = guarded(hurried());
            watch.set(mood);
            let start = Instant::now();
            let error = guard.open(&key()).await.unwrap_err();
            in_time(start);
            assert_eq!(error.kind(), ErrorKind::Timeout);
            let context: Vec<_> = error.context().collect();
            let expected = [
                ("store", "moody:"),
                ("operation", "open"),
                ("key", "key"),
                ("deadline", "30.0ms"),
            ];
            assert_eq!(context, expected);
            assert_eq!(guard.stats().timeouts, 1);
            assert!(watch.calls() <= 1);
            watch.gate.open();
        });
    }
}

#[test]
fn every_hurried_operation_has_a_deadline() {
    everywhere(|| async {
        let (guard, watch) = guarded(hurried());
        put_large(&guard).await;
        let entry = open(&guard).await;
        let key = key();
        let term = Duration::from_secs(9);
        let (mut held, to_release) = (lease(&guard).await, lease(&guard).await);
        let (mut writer, to_commit) = (create(&guard).await, create(&guard).await);
        let before = guard.stats().timeouts;
        watch.set(Mood::Blocks);
        let start = Instant::now();
        let kinds = [
            kind_of(guard.open(&key).await),
            kind_of(guard.create(&key, WriteOptions::new()).await),
            kind_of(put(&guard, b"new").await),
            kind_of(guard.stat(&key).await),
            kind_of(guard.touch(&key, Expiry::NEVER).await),
            kind_of(guard.remove(&key).await),
            kind_of(guard.usage().await),
            kind_of(guard.lease(&key, term).await),
            kind_of(held.renew().await),
            kind_of(to_release.release().await),
            kind_of(entry.read(0..9).await),
            kind_of(entry.read_ranges(vec![0..9, 1..2]).await),
            kind_of(entry.discard().await),
            kind_of(writer.write(vec![]).await),
            kind_of(to_commit.commit(Bytes::new()).await),
        ];
        in_time(start);
        assert_eq!(kinds, [ErrorKind::Timeout; 15]);
        assert_eq!(guard.stats().timeouts - before, 15);
        // A writer that was given up can only be dropped, and such a lease is lost.
        assert_eq!(kind_of(writer.write(vec![]).await), ErrorKind::Misuse);
        assert_eq!(
            kind_of(writer.commit(Bytes::new()).await),
            ErrorKind::Misuse
        );
        assert!(!held.renew().await.unwrap());
        watch.gate.open();
    });
}

#[test]
fn listing_and_pruning_are_not_hurried() {
    everywhere(|| async {
        let (guard, watch) = guarded(hurried());
        watch.set(Mood::Slow(SLOW));
        assert_eq!(kind_of(guard.usage().await), ErrorKind::Timeout);
        guard.list(None, 0).await.unwrap();
        guard.prune().await.unwrap();
    });
}

#[test]
fn bytes_take_their_time() {
    everywhere(|| async {
        // 1 MiB may take a minute.
        let (guard, watch) = guarded(hurried().with_bytes_per_second((1 << 20) / 60));
        watch.set(Mood::Slow(SLOW));
        assert_eq!(kind_of(put(&guard, b"").await), ErrorKind::Timeout);
        let bytes = put_large(&guard).await;
        watch.set(Mood::Well);
        let entry = open(&guard).await;
        let mut writer = create(&guard).await;
        watch.set(Mood::Slow(SLOW));
        assert_eq!(entry.read(0..1 << 20).await.unwrap(), bytes);
        assert_eq!(kind_of(entry.read(0..0).await), ErrorKind::Timeout);
        assert!(writer.write(vec![bytes]).await.unwrap().is_continue());
        // It counts what was written before.
        assert!(writer.commit(Bytes::new()).await.unwrap().is_stored());
    });
}

#[test]
fn bytes_at_hand_are_read_without_the_store() {
    let (guard, watch) = guarded(hurried());
    ck_core::block_on(async {
        assert!(eventually(|| put(&guard, b"small")).await.is_stored());
        let entry = open(&guard).await;
        let calls = watch.calls();
        // The double counts every read, so this asks it once, but on this very thread.
        assert_eq!(entry.read(0..5).await.unwrap(), "small");
        assert_eq!(watch.calls(), calls + 1);
        assert_eq!(watch.thread(), Some(std::thread::current().id()));
    });
}

#[test]
fn operations_polled_by_one_thread_hang_side_by_side() {
    let (guard, watch) = guarded(hurried().with_deadline(Duration::from_millis(100)));
    watch.set(Mood::Blocks);
    let key = key();
    let start = Instant::now();
    let results = ck_core::block_on(all((0..100).map(|_| guard.stat(&key))));
    in_time(start);
    assert!(
        results
            .into_iter()
            .all(|result| kind_of(result) == ErrorKind::Timeout)
    );
    watch.gate.open();
}

#[test]
fn a_panic_of_the_store_reaches_the_caller() {
    let (guard, watch) = guarded(hurried().with_deadline(Duration::from_secs(60)));
    watch.set(Mood::Panics);
    let key = key();
    let panic = catch_unwind(AssertUnwindSafe(|| ck_core::block_on(guard.stat(&key))));
    assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"as told"));
    watch.set(Mood::Well);
    assert_eq!(ck_core::block_on(guard.stat(&key)).unwrap(), None);
}

#[test]
fn the_runtime_of_the_caller_is_there_on_threads_of_the_guard() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let (guard, watch) = guarded(hurried().with_deadline(Duration::from_secs(60)));
    watch.set(Mood::NeedsTokio);
    runtime
        .block_on(async { ck_core::block_on(guard.stat(&key())) })
        .unwrap();
    assert_ne!(watch.thread(), Some(std::thread::current().id()));
}
