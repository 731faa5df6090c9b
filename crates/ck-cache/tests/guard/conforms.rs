use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ck_backend_file::FileBackend;
use ck_cache::{BreakerState, ErrorKind, Guard, GuardOptions};
use ck_core::{Backend, conformance};

use super::support::{guarded, key, kind_of, options};

fn run(options: GuardOptions, execute: impl FnOnce(Arc<dyn Backend>)) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FileBackend::open(dir.path()).unwrap());
    let guard = Guard::new(Arc::<FileBackend>::clone(&store), options).unwrap();
    assert_eq!(guard.url(), store.url());
    assert_eq!(guard.capabilities(), store.capabilities());
    execute(Arc::new(guard.clone()));
    let stats = guard.stats();
    assert_eq!((stats.retries, stats.timeouts, stats.openings), (0, 0, 0));
    assert_eq!(stats.reads, BreakerState::Closed);
    assert_eq!(stats.writes, BreakerState::Closed);
}

#[test]
fn a_guarded_store_conforms_without_a_deadline() {
    run(GuardOptions::new(), |store| {
        pollster::block_on(conformance::run(store))
    });
    let off = GuardOptions::new().with_retries(0).without_breaker();
    run(off, |store| pollster::block_on(conformance::run(store)));
}

#[test]
fn a_guarded_store_conforms_with_a_deadline_in_every_executor() {
    let options = GuardOptions::new().with_deadline(Duration::from_secs(60));
    run(options.clone(), |store| {
        ck_core::block_on(conformance::run(store))
    });
    run(options.clone(), |store| {
        pollster::block_on(conformance::run(store))
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    run(options, |store| runtime.block_on(conformance::run(store)));
}

#[test]
fn without_a_deadline_operations_stay_on_the_thread() {
    let (guard, watch) = guarded(options());
    ck_core::block_on(guard.stat(&key())).unwrap();
    assert_eq!(watch.thread(), Some(thread::current().id()));
    assert_eq!(guard.stats().threads, 0);

    let (guard, watch) = guarded(options().with_deadline(Duration::from_secs(60)));
    ck_core::block_on(guard.stat(&key())).unwrap();
    assert_ne!(watch.thread(), Some(thread::current().id()));
    assert_eq!(guard.stats().threads, 1);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let (zero, second) = (Duration::ZERO, Duration::from_secs(1));
    let good = GuardOptions::new;
    for options in [
        good().with_deadline(zero),
        good().with_bytes_per_second(0),
        good().with_pauses(second, zero),
        good().with_breaker(0, second),
        good().with_breaker(1, zero),
    ] {
        let (store, _) = guarded(good());
        assert_eq!(
            kind_of(Guard::new(Arc::new(store), options)),
            ErrorKind::Misuse
        );
    }
}
