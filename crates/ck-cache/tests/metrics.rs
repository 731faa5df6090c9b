//! Guards the feature `metrics`: what `Stats` counts reaches the program's recorder.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ck_cache::{
    Backend, Cache, Encrypted, EncryptionOptions, Guard, GuardOptions, Key as CacheKey, Keyring,
    MasterKey, PutOptions, open_store,
};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

#[derive(Default)]
struct Counted(Mutex<BTreeMap<String, Arc<Value>>>);

#[derive(Default)]
struct Value(AtomicU64);

impl CounterFn for Value {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, SeqCst);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, SeqCst);
    }
}

impl Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut values = self.0.lock().unwrap();
        let value = values.entry(key.name().to_owned()).or_default();
        Counter::from_arc(Arc::clone(value))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn every_figure_is_a_counter_of_the_recorder() {
    let recorder = Counted::default();
    let cache = metrics::with_local_recorder(&recorder, || Cache::in_process(1 << 20).blocking());
    let options = PutOptions::new();
    cache
        .put_bytes("a", "value", &options)
        .unwrap()
        .stored()
        .unwrap();
    cache.get_bytes("a").unwrap().unwrap();
    cache.get_bytes("a").unwrap().unwrap();
    assert!(cache.get_bytes("b").unwrap().is_none());

    let stats = cache.stats();
    let values = recorder.0.lock().unwrap();
    let value = |name: &str| values[&format!("ck_cache_{name}_total")].0.load(SeqCst);
    assert_eq!((value("hits"), stats.hits), (2, 2));
    assert_eq!((value("misses"), stats.misses), (1, 1));
    assert_eq!((value("stored"), stats.stored), (1, 1));
    assert_eq!(value("stored_bytes"), stats.stored_bytes);
    assert_eq!(values.len(), 13);
}

#[test]
fn so_are_those_of_stores_around_others() {
    let recorder = Counted::default();
    let value = |name: &str| {
        let values = recorder.0.lock().unwrap();
        values[&format!("ck_cache_{name}_total")].0.load(SeqCst)
    };

    // Nobody listens there.
    let store = open_store("memcached://127.0.0.1:1").unwrap();
    let options = GuardOptions::new()
        .with_retries(2)
        .with_breaker(3, Duration::from_secs(60));
    let guard = metrics::with_local_recorder(&recorder, || Guard::new(store, options).unwrap());
    assert!(pollster::block_on(guard.open(&CacheKey::new("a"))).is_err());
    let stats = guard.stats();
    assert_eq!((value("retries"), stats.retries), (2, 2));
    assert_eq!((value("timeouts"), stats.timeouts), (0, 0));
    assert_eq!((value("breaker_openings"), stats.openings), (1, 1));

    let dir = tempfile::tempdir().unwrap();
    let store = open_store(&format!("file:{}", dir.path().display())).unwrap();
    let plain = Cache::new(Arc::clone(&store)).blocking();
    let put = plain.put_bytes("a", "value", &PutOptions::new());
    put.unwrap().stored().unwrap();
    let master = MasterKey::from_hex(&"5e".repeat(32)).unwrap();
    let keys = Keyring::new(&master, &[], "tenant").unwrap();
    let encrypted = metrics::with_local_recorder(&recorder, || {
        Arc::new(Encrypted::new(store, keys, EncryptionOptions::new()).unwrap())
    });
    let cache = Cache::new(Arc::clone(&encrypted) as Arc<dyn Backend>).blocking();
    assert!(cache.get_bytes("a").unwrap().is_none());
    assert_eq!((value("tampered"), encrypted.stats().tampered), (1, 1));
}
