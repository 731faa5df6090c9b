use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ck_cache::{BreakerState, ErrorKind, Guard, GuardOptions};
use ck_core::Backend;

use super::support::{Mood, everywhere, guarded, key, kind_of, options, put, wait_until};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(1000);

fn breaks(failures: u32, open_for: Duration) -> GuardOptions {
    options().with_retries(0).with_breaker(failures, open_for)
}

#[test]
fn a_store_that_keeps_failing_is_not_asked() {
    everywhere(|| async {
        for kind in [ErrorKind::Transient, ErrorKind::Authentication] {
            let (guard, watch) = guarded(breaks(3, LONG));
            watch.set(Mood::Fails(kind, usize::MAX));
            for _ in 0..3 {
                assert_eq!(kind_of(guard.stat(&key()).await), kind);
            }
            assert_eq!(guard.stats().reads, BreakerState::Open);
            assert_eq!(guard.stats().openings, 1);
            for _ in 0..100 {
                let error = guard.open(&key()).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Transient);
                let text = error.to_string();
                for part in ["as told", "moody:", "since: ", "until: "] {
                    assert!(text.contains(part), "{text}");
                }
            }
            assert_eq!(watch.calls(), 3);
        }
    });
}

#[test]
fn retries_stop_when_the_breaker_opens() {
    let (guard, watch) = guarded(breaks(2, LONG).with_retries(100));
    watch.set(Mood::Fails(ErrorKind::Transient, usize::MAX));
    let error = ck_core::block_on(guard.stat(&key())).unwrap_err();
    assert_eq!(error.to_string(), "as told");
    assert_eq!(watch.calls(), 2);
}

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    everywhere(|| async {
        let (guard, watch) = guarded(breaks(3, LONG));
        assert!(put(&guard, b"old").await.unwrap().is_stored());
        watch.set(Mood::Fails(ErrorKind::Transient, 3));
        for _ in 0..4 {
            assert_eq!(kind_of(put(&guard, b"new").await), ErrorKind::Transient);
        }
        let stats = guard.stats();
        assert_eq!(
            (stats.writes, stats.reads),
            (BreakerState::Open, BreakerState::Closed)
        );
        assert_eq!(super::support::bytes_of(&guard).await, "old");
        assert_eq!(kind_of(guard.remove(&key()).await), ErrorKind::Transient);
        assert!(guard.stat(&key()).await.unwrap().is_some());
    });
}

#[test]
fn timeouts_open_the_breaker_and_then_no_more_threads_are_made() {
    let (guard, watch) = guarded(breaks(3, LONG).with_deadline(Duration::from_millis(20)));
    watch.set(Mood::Blocks);
    for round in 0..1000 {
        let kind = kind_of(ck_core::block_on(guard.stat(&key())));
        let expected = if round < 3 {
            ErrorKind::Timeout
        } else {
            ErrorKind::Transient
        };
        assert_eq!(kind, expected);
    }
    assert!(watch.calls() <= 3);
    assert!(guard.stats().threads <= 3);
    watch.gate.open();
    wait_until("the threads end", || guard.stats().threads == 0);
    assert_eq!(watch.alive(), 0);
}

/// A guard whose breaker has just become half-open.
fn half_open(watch_mood: Mood) -> (Guard, Arc<super::support::Watch>) {
    let (guard, watch) = guarded(breaks(1, SHORT).with_deadline(LONG));
    watch.set(Mood::Fails(ErrorKind::Permanent, 1));
    assert_eq!(
        kind_of(ck_core::block_on(guard.stat(&key()))),
        ErrorKind::Permanent
    );
    assert_eq!(guard.stats().reads, BreakerState::Open);
    thread::sleep(SHORT);
    watch.set(watch_mood);
    (guard, watch)
}

#[test]
fn one_of_sixteen_tasks_tries_whether_the_store_is_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap();
    let long = Duration::from_secs(1);
    let (guard, watch) = guarded(breaks(1, long).with_deadline(LONG));
    watch.set(Mood::Fails(ErrorKind::Permanent, 1));
    assert_eq!(
        kind_of(ck_core::block_on(guard.stat(&key()))),
        ErrorKind::Permanent
    );
    thread::sleep(long);
    watch.set(Mood::Blocks);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let guard = guard.clone();
            runtime.spawn(async move { guard.stat(&key()).await })
        })
        .collect();
    wait_until("all but one are refused", || {
        tasks.iter().filter(|task| task.is_finished()).count() == 15
    });
    assert_eq!(watch.calls(), 2);
    assert_eq!(guard.stats().reads, BreakerState::HalfOpen);
    watch.gate.open();
    let results = tasks
        .into_iter()
        .map(|task| runtime.block_on(task).unwrap());
    let (good, bad): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (1, 15));
    assert!(
        bad.into_iter()
            .all(|result| kind_of(result) == ErrorKind::Transient)
    );
    assert_eq!(guard.stats().reads, BreakerState::Closed);
    assert!(ck_core::block_on(guard.stat(&key())).is_ok());
}

#[test]
fn a_trial_that_fails_keeps_it_open_and_one_that_succeeds_closes_it() {
    let (guard, watch) = half_open(Mood::Fails(ErrorKind::Permanent, 1));
    let stat = || ck_core::block_on(guard.stat(&key()));
    assert_eq!(kind_of(stat()), ErrorKind::Permanent);
    assert_eq!(guard.stats().reads, BreakerState::Open);
    assert_eq!(watch.calls(), 2);
    thread::sleep(SHORT);
    assert!(stat().is_ok());
    assert_eq!(guard.stats().reads, BreakerState::Closed);
    assert_eq!(guard.stats().openings, 1);
    assert_eq!(watch.calls(), 3);
}

#[test]
fn a_trial_whose_caller_is_gone_leaves_the_next_one_free() {
    let (guard, watch) = half_open(Mood::Silent);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let trial = guard.clone();
        let trial = tokio::spawn(async move { trial.stat(&key()).await });
        while watch.calls() < 2 {
            tokio::task::yield_now().await;
        }
        trial.abort();
        assert!(trial.await.unwrap_err().is_cancelled());
        watch.set(Mood::Well);
        assert!(guard.stat(&key()).await.is_ok());
    });
    assert_eq!(guard.stats().reads, BreakerState::Closed);
}
