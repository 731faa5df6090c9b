use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use ck_cache::{ErrorKind, GuardOptions};
use ck_core::{Backend, WriteOptions};

use super::support::{
    Mood, all, bytes_of, create, eventually, everywhere, guarded, key, kind_of, lease, options,
    put, wait_until,
};

fn hurried() -> GuardOptions {
    options()
        .with_deadline(Duration::from_millis(30))
        .without_breaker()
}

#[test]
fn a_late_lease_is_released() {
    everywhere(|| async {
        let (guard, watch) = guarded(hurried());
        watch.set(Mood::Blocks);
        // Given up before it was begun, it would show nothing.
        while watch.calls() == 0 {
            let late = guard.lease(&key(), Duration::from_secs(9)).await;
            assert_eq!(kind_of(late), ErrorKind::Timeout);
        }
        watch.gate.open();
        wait_until("it is granted", || watch.granted.load(SeqCst) == 1);
        wait_until("it is released", || watch.leases.load(SeqCst) == 0);
    });
}

#[test]
fn a_lease_whose_renewal_is_late_ends_with_its_holder() {
    everywhere(|| async {
        let (guard, watch) = guarded(hurried());
        let mut held = lease(&guard).await;
        assert_eq!(watch.leases.load(SeqCst), 1);
        watch.set(Mood::Blocks);
        assert_eq!(kind_of(held.renew().await), ErrorKind::Timeout);
        drop(held);
        watch.gate.open();
        wait_until("it is released", || watch.leases.load(SeqCst) == 0);
    });
}

#[test]
fn a_late_writer_is_dropped_and_the_old_entry_stays() {
    everywhere(|| async {
        let (guard, watch) = guarded(hurried());
        assert!(eventually(|| put(&guard, b"old")).await.is_stored());
        let mut writer = create(&guard).await;
        watch.set(Mood::Blocks);
        let created = guard.create(&key(), WriteOptions::new()).await;
        assert_eq!(kind_of(created), ErrorKind::Timeout);
        let written = writer.write(vec![Bytes::from("new")]).await;
        assert_eq!(kind_of(written), ErrorKind::Timeout);
        watch.gate.open();
        // The writer in the caller's hands holds nothing any more.
        wait_until("both are dropped", || watch.alive() == 0);
        watch.set(Mood::Well);
        assert_eq!(bytes_of(&guard).await, "old");
        let usage = eventually(|| guard.usage()).await;
        assert_eq!((usage.entries, usage.reserved_bytes), (1, 0));
        drop(writer);
    });
}

#[test]
fn a_thousand_timeouts_leave_nothing_behind() {
    let (guard, watch) = guarded(hurried());
    watch.set(Mood::Blocks);
    let key = key();
    let results = ck_core::block_on(all((0..1000).map(|_| guard.stat(&key))));
    assert!(
        results
            .into_iter()
            .all(|result| kind_of(result) == ErrorKind::Timeout)
    );
    assert_eq!(guard.stats().timeouts, 1000);
    // Each thread hangs; what found none was never begun.
    let stats = guard.stats();
    assert!((1..=128).contains(&stats.threads), "{stats:?}");
    assert!((1..=128).contains(&watch.calls()), "{}", watch.calls());
    watch.set(Mood::Well);
    watch.gate.open();
    wait_until("the threads come back", || watch.alive() == 0);
    ck_core::block_on(eventually(|| guard.stat(&key)));
    wait_until("the threads end", || guard.stats().threads == 0);
    assert!(watch.calls() < 500, "{}", watch.calls());
}

#[test]
fn a_thousand_timeouts_of_tasks_leave_nothing_behind() {
    let (guard, watch) = guarded(hurried());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    watch.set(Mood::Silent);
    runtime.block_on(async {
        let key = key();
        let results = all((0..1000).map(|_| guard.stat(&key))).await;
        assert!(
            results
                .into_iter()
                .all(|result| kind_of(result) == ErrorKind::Timeout)
        );
        assert_eq!((watch.calls(), watch.alive()), (1000, 0));
        watch.set(Mood::Well);
        eventually(|| guard.stat(&key)).await;
    });
    assert_eq!(guard.stats().threads, 0);
}
