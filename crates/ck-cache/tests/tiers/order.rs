use std::time::Duration;

use ck_cache::{Cache, LoadOptions, PutOptions};

use super::support::{Source, both_tiers, table};

/// Starts a load and waits until its loader runs.
async fn begin(cache: &Cache, source: &Source) -> tokio::task::JoinHandle<ck_cache::Table> {
    let task = tokio::spawn({
        let (cache, source) = (cache.clone(), source.clone());
        async move {
            let loader = move || source.after(Duration::from_millis(40), table(0, 1));
            let options = LoadOptions::new();
            let loaded = cache.get_or_load_table("k", &options, loader).await;
            loaded.unwrap().unwrap()
        }
    });
    while source.calls() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    task
}

#[tokio::test]
async fn a_load_does_not_overwrite_what_was_put_while_it_ran() {
    for has_store in [true, false] {
        let (_dir, both) = both_tiers();
        let cache = if has_store {
            both
        } else {
            Cache::in_process(1 << 20)
        };
        let source = Source::default();
        let loading = begin(&cache, &source).await;
        let newer = table(100, 1);
        let outcome = cache
            .put_table("k", newer.clone(), &PutOptions::new())
            .await;
        assert!(outcome.unwrap().is_stored());
        assert_eq!(loading.await.unwrap(), table(0, 1), "its callers get it");
        assert_eq!(cache.get_table("k").await.unwrap(), Some(newer.clone()));
        if has_store {
            let stored = cache.open_table("k").await.unwrap().unwrap();
            assert_eq!(stored.read_all().await.unwrap(), newer.batches());
        }
    }
}

#[tokio::test]
async fn a_load_does_not_bring_back_what_was_removed_while_it_ran() {
    let (_dir, cache) = both_tiers();
    let source = Source::default();
    let loading = begin(&cache, &source).await;
    cache.remove("k").await.unwrap();
    loading.await.unwrap();
    assert_eq!(cache.get_table("k").await.unwrap(), None);
    assert!(cache.open_table("k").await.unwrap().is_none());
}

#[tokio::test]
async fn a_call_after_a_removal_does_not_wait_for_a_load_from_before() {
    let (_dir, cache) = both_tiers();
    let source = Source::default();
    let loading = begin(&cache, &source).await;
    cache.remove("k").await.unwrap();
    let newer = Source::default();
    let options = LoadOptions::new().without_lease();
    let found = newer.load(&cache, "k", &options, table(9, 1)).await;
    assert_eq!(found, table(9, 1));
    loading.await.unwrap();
    assert_eq!(cache.get_table("k").await.unwrap(), Some(table(9, 1)));
}
