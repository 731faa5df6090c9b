use std::time::{Duration, Instant};

use super::{holds, is_missing, pattern, store, supported};
use crate::{Backend, ErrorKind, Key, Lease};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_millis(100);
/// What the clocks of two machines, rounded, may differ by.
const SLACK: Duration = Duration::from_millis(20);
/// After so long something will not happen any more. The suite's own tests wait for what never does.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });

pub(super) async fn run(backend: &dyn Backend) {
    if !backend.capabilities().leases {
        let refused = backend.lease(&Key::new("leases/none"), LONG).await;
        let error = refused.expect_err("the store says that it has no leases");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        return;
    }
    a_lease_has_one_holder_until_it_is_given_up(backend).await;
    a_lease_ends_with_its_term(backend).await;
    a_renewed_lease_lasts_another_term(backend).await;
    a_lease_is_no_entry_and_stops_no_writer(backend).await;
}

async fn a_lease_has_one_holder_until_it_is_given_up(backend: &dyn Backend) {
    let [key, other] = ["leases/one", "leases/other"].map(Key::new);
    let mut lease = take(backend, &key).await;
    for _ in 0..2 {
        assert!(is_held(backend, &key).await, "a lease has two holders");
    }
    let independent = take(backend, &other).await;
    assert!(lease.renew().await.unwrap(), "the lease was not lost");

    lease.release().await.unwrap();
    let lease = take(backend, &key).await;
    assert!(
        is_held(backend, &other).await,
        "another key's lease was released"
    );
    drop(lease);
    // A store behind a wire gives up what is dropped a little later.
    let lease = take_in_time(backend, &key).await;
    lease.release().await.unwrap();
    independent.release().await.unwrap();
}

async fn a_lease_ends_with_its_term(backend: &dyn Backend) {
    let key = Key::new("leases/term");
    let start = Instant::now();
    let lost = backend.lease(&key, SHORT).await.unwrap();
    let mut lost = lost.expect("nobody has the lease");
    let lease = take_in_time(backend, &key).await;
    assert!(
        start.elapsed() + SLACK >= SHORT,
        "the lease ended before its term"
    );
    assert!(!lost.renew().await.unwrap(), "somebody else has the lease");
    assert!(is_held(backend, &key).await, "a lost lease was renewed");
    lost.release().await.unwrap();
    assert!(is_held(backend, &key).await, "a lost lease was released");
    lease.release().await.unwrap();

    // Nobody waits for the next one either.
    let lost = backend.lease(&key, SHORT).await.unwrap();
    let lease = take_in_time(backend, &key).await;
    drop(lost);
    assert!(is_held(backend, &key).await, "a lost lease was dropped");
    lease.release().await.unwrap();
}

async fn a_renewed_lease_lasts_another_term(backend: &dyn Backend) {
    let key = Key::new("leases/renewed");
    for _ in 0..100 {
        let start = Instant::now();
        let lease = backend.lease(&key, SHORT).await.unwrap();
        let mut lease = lease.expect("nobody has the lease");
        std::thread::sleep(SHORT * 6 / 10);
        let renewed = Instant::now();
        if !lease.renew().await.unwrap() {
            assert!(
                start.elapsed() + SLACK >= SHORT,
                "a lease was lost in its term"
            );
            // This test was too slow.
            lease.release().await.unwrap();
            continue;
        }
        let next = take_in_time(backend, &key).await;
        assert!(
            renewed.elapsed() + SLACK >= SHORT,
            "a renewed lease ended before its term"
        );
        next.release().await.unwrap();
        return;
    }
    panic!("no lease could be renewed in time");
}

async fn a_lease_is_no_entry_and_stops_no_writer(backend: &dyn Backend) {
    let key = Key::new("leases/entry");
    supported(backend.prune().await);
    let before = supported(backend.usage().await);
    let lease = take(backend, &key).await;
    assert!(is_missing(backend, &key).await);
    assert!(backend.stat(&key).await.unwrap().is_none());
    if let Some(before) = before {
        let usage = backend.usage().await.unwrap();
        assert_eq!(
            (usage.entries, usage.bytes),
            (before.entries, before.bytes),
            "a lease is counted"
        );
    }
    for size in [100, 200_000] {
        store(backend, &key, &pattern(1, size)).await;
        holds(backend, &key, &pattern(1, size)).await;
    }
    assert!(backend.remove(&key).await.unwrap());
    if let Some(pruned) = supported(backend.prune().await) {
        assert_eq!((pruned.entries, pruned.orphans), (0, 0));
    }
    assert!(
        is_held(backend, &key).await,
        "a lease does not depend on an entry"
    );
    lease.release().await.unwrap();
}

/// The lease, which nobody has.
async fn take(backend: &dyn Backend, key: &Key) -> Box<dyn Lease> {
    let lease = backend.lease(key, LONG).await.expect("the store answers");
    lease.expect("nobody has the lease")
}

/// The lease, which is about to end.
async fn take_in_time(backend: &dyn Backend, key: &Key) -> Box<dyn Lease> {
    let start = Instant::now();
    loop {
        if let Some(lease) = backend.lease(key, LONG).await.expect("the store answers") {
            return lease;
        }
        assert!(start.elapsed() < PATIENCE, "the lease does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether somebody has the lease.
async fn is_held(backend: &dyn Backend, key: &Key) -> bool {
    let lease = backend.lease(key, LONG).await.expect("the store answers");
    lease.is_none()
}
