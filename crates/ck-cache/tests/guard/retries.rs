use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use ck_cache::ErrorKind;
use ck_core::{Backend, Expiry, WriteMode, WriteOptions};

use super::support::{
    Mood, bytes_of, create, everywhere, guarded, key, kind_of, lease, open, options, put, put_large,
};

#[test]
fn what_fails_twice_and_can_be_repeated_succeeds() {
    everywhere(|| async {
        for deadline in [None, Some(Duration::from_secs(60))] {
            let mut options = options().without_breaker();
            if let Some(deadline) = deadline {
                options = options.with_deadline(deadline);
            }
            let (guard, watch) = guarded(options);
            let key = key();
            let bytes = put_large(&guard).await;
            let entry = open(&guard).await;
            let mut held = lease(&guard).await;
            let calls = watch.calls();
            let fail = || watch.set(Mood::Fails(ErrorKind::Transient, 2));
            fail();
            assert_eq!(entry.read(1..9).await.unwrap(), bytes[1..9]);
            fail();
            let parts = entry.read_ranges(vec![1..9, 4..5]).await.unwrap();
            assert_eq!(parts, [&bytes[1..9], &bytes[4..5]]);
            fail();
            assert!(guard.open(&key).await.unwrap().is_some());
            fail();
            assert!(guard.stat(&key).await.unwrap().is_some());
            fail();
            assert!(guard.touch(&key, Expiry::NEVER).await.unwrap());
            fail();
            assert_eq!(guard.list(None, 0).await.unwrap().entries.len(), 1);
            fail();
            assert_eq!(guard.usage().await.unwrap().entries, 1);
            fail();
            guard.prune().await.unwrap();
            fail();
            assert!(held.renew().await.unwrap());
            fail();
            assert!(entry.discard().await.unwrap());
            fail();
            assert!(put(&guard, b"new").await.unwrap().is_stored());
            fail();
            assert!(
                guard
                    .create(&key, WriteOptions::new())
                    .await
                    .unwrap()
                    .is_continue()
            );
            watch.set(Mood::Well);
            assert_eq!(bytes_of(&guard).await, "new");
            watch.set(Mood::Fails(ErrorKind::Timeout, 2));
            assert!(guard.remove(&key).await.unwrap());
            assert_eq!(guard.stats().retries, 26);
            // Thirteen operations three times, the second range, and an entry opened and read.
            assert_eq!(watch.calls() - calls, 13 * 3 + 1 + 2);
        }
    });
}

#[test]
fn the_third_failure_is_told() {
    let (guard, watch) = guarded(options().without_breaker());
    watch.set(Mood::Fails(ErrorKind::Transient, 3));
    let key = key();
    let error = ck_core::block_on(guard.stat(&key)).unwrap_err();
    assert_eq!(error.to_string(), "as told");
    assert_eq!(watch.calls(), 3);
    assert!(ck_core::block_on(guard.stat(&key)).is_ok());
}

#[test]
fn what_will_fail_again_is_not_repeated() {
    use ErrorKind::{Authentication, Corrupt, Misuse, Permanent, TooLarge, Unsupported};
    let (guard, watch) = guarded(options().without_breaker());
    for kind in [
        Authentication,
        Corrupt,
        Misuse,
        Permanent,
        TooLarge,
        Unsupported,
    ] {
        watch.set(Mood::Fails(kind, 1));
        assert_eq!(kind_of(ck_core::block_on(guard.stat(&key()))), kind);
    }
    assert_eq!(watch.calls(), 6);
    assert_eq!(guard.stats().retries, 0);
}

#[test]
fn what_must_not_be_done_twice_is_not_repeated() {
    everywhere(|| async {
        let (guard, watch) = guarded(options().without_breaker());
        let key = key();
        assert!(put(&guard, b"old").await.unwrap().is_stored());
        let (mut writer, to_commit) = (create(&guard).await, create(&guard).await);
        let held = lease(&guard).await;
        let calls = watch.calls();

        watch.set(Mood::Fails(ErrorKind::Transient, usize::MAX));
        let options = WriteOptions::new().with_mode(WriteMode::Create);
        let body = vec![Bytes::from("new")];
        let kinds = [
            kind_of(guard.put(&key, Bytes::new(), body.clone(), options).await),
            kind_of(writer.write(body).await),
            kind_of(to_commit.commit(Bytes::new()).await),
            kind_of(guard.lease(&key, Duration::from_secs(9)).await),
            kind_of(held.release().await),
        ];
        assert_eq!(kinds, [ErrorKind::Transient; 5]);
        assert_eq!(watch.calls() - calls, 5);
        assert_eq!(guard.stats().retries, 0);
        // After an error the writer can only be dropped.
        assert_eq!(kind_of(writer.write(vec![]).await), ErrorKind::Misuse);
        watch.set(Mood::Well);
        assert_eq!(bytes_of(&guard).await, "old");
    });
}

#[test]
fn no_retry_begins_after_the_deadline() {
    everywhere(|| async {
        let long = Duration::from_secs(10);
        let options = options()
            .with_pauses(long, long)
            .with_deadline(Duration::from_secs(4));
        let (guard, watch) = guarded(options);
        watch.set(Mood::Fails(ErrorKind::Transient, 1));
        // It does not even wait for the deadline.
        assert_eq!(kind_of(guard.stat(&key()).await), ErrorKind::Transient);
        assert_eq!(watch.calls(), 1);
    });
}

#[test]
fn the_deadline_holds_for_all_attempts_together() {
    everywhere(|| async {
        let options = options().with_deadline(Duration::from_millis(300));
        let (guard, watch) = guarded(options);
        watch.set(Mood::FailsThenBlocks);
        let error = guard.stat(&key()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.source().unwrap().to_string(), "as told");
        assert_eq!(watch.calls(), 2);
        watch.gate.open();
    });
}
