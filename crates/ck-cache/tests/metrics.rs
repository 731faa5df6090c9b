//! Guards the feature `metrics`: what `Stats` counts reaches the program's recorder.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use ck_cache::{Cache, PutOptions};
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
