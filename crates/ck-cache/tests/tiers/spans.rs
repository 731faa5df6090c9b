//! Guards the spans that show where an operation spends its time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ck_cache::{LoadOptions, PutOptions};
use tracing::span::{Attributes, Id};
use tracing::{Subscriber, subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use super::support::{Source, both_tiers, over, table};

/// Notes each span with the names of those around it.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let names: Vec<&str> = span.scope().from_root().map(|span| span.name()).collect();
        self.0.lock().unwrap().push(names.join("/"));
    }
}

impl Notes {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn operations_and_their_stages_are_spans_within_each_other() {
    let (dir, cache) = both_tiers();
    let notes = Notes::default();
    let _guard = subscriber::set_default(Registry::default().with(notes.clone()));

    let options = PutOptions::new();
    let put = cache.put_table("a", table(0, 10), &options);
    put.await.unwrap().stored().unwrap();
    assert_eq!(
        notes.take(),
        ["ck.put", "ck.put/ck.encode", "ck.put/ck.publish"]
    );

    cache.get_table("a").await.unwrap().unwrap();
    assert_eq!(notes.take(), ["ck.get"]);
    over(&dir, 1 << 20).get_table("a").await.unwrap().unwrap();
    assert_eq!(notes.take(), ["ck.get", "ck.get/ck.read"]);

    let source = Source::default();
    let options = LoadOptions::new().without_lease();
    source.load(&cache, "b", &options, table(0, 10)).await;
    assert_eq!(
        notes.take(),
        [
            "ck.load",
            // Before the load, and again when nobody else can begin one.
            "ck.load/ck.read",
            "ck.load/ck.read",
            "ck.load/ck.loader",
            "ck.load/ck.encode",
            "ck.load/ck.publish",
        ]
    );
}

#[tokio::test]
async fn a_refresh_is_no_part_of_the_call_that_started_it() {
    let (_dir, cache) = both_tiers();
    let source = Source::default();
    let put = PutOptions::new()
        .with_ttl(Duration::from_secs(3600))
        .with_stale_for(Duration::from_secs(3600));
    let options = LoadOptions::new().with_put(put).without_lease();
    source.load(&cache, "a", &options, table(0, 10)).await;
    cache.expire("a").await.unwrap();

    let notes = Notes::default();
    let _guard = subscriber::set_default(Registry::default().with(notes.clone()));
    source.load(&cache, "a", &options, table(1, 10)).await;
    while source.calls() < 2 || cache.stats().stored < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seen = notes.take();
    assert_eq!(seen[0], "ck.load");
    assert!(
        seen.contains(&"ck.refresh/ck.loader".to_owned()),
        "{seen:?}"
    );
    assert!(!seen.contains(&"ck.load/ck.loader".to_owned()), "{seen:?}");
}
