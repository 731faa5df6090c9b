use std::sync::Arc;

use ck_cache::{Cache, ErrorKind, LoadOptions, PutOptions, StoreFailure};

use super::map_store::MapStore;
use super::support::{Source, both_tiers, over, table};

async fn put(cache: &Cache, key: &str, text: &'static str) {
    let outcome = cache.put_bytes(key, text, &PutOptions::new()).await;
    assert!(outcome.unwrap().is_stored());
}

#[tokio::test]
async fn an_invalidated_namespace_is_empty_and_others_are_not() {
    let (dir, cache) = both_tiers();
    let names = ["features", "features/daily", "features//daily", ""];
    let spaces: Vec<_> = names.iter().map(|name| cache.namespace(name)).collect();
    for space in &spaces {
        put(space, "k", "old").await;
    }
    put(&cache, "k", "plain").await;
    spaces[0].invalidate().await.unwrap();
    assert_eq!(spaces[0].get_bytes("k").await.unwrap(), None);
    for other in spaces[1..]
        .iter()
        .chain([&cache.namespace("features").namespace("daily")])
    {
        put(other, "x", "new").await;
    }
    for other in &spaces[1..] {
        assert_eq!(other.get_bytes("k").await.unwrap().unwrap(), "old");
    }
    assert_eq!(cache.get_bytes("k").await.unwrap().unwrap(), "plain");

    // Another process finds the new one.
    let elsewhere = over(&dir, 0).namespace("features");
    assert_eq!(elsewhere.get_bytes("k").await.unwrap(), None);
    put(&spaces[0], "k", "new").await;
    assert_eq!(elsewhere.get_bytes("k").await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn a_namespace_whose_number_was_lost_is_empty() {
    let (_dir, cache) = both_tiers();
    put(&cache.namespace("n"), "k", "old").await;
    assert!(cache.remove("ck:namespace:n").await.unwrap());
    let again = cache.namespace("n");
    assert_eq!(again.get_bytes("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_namespace_works_without_a_store_and_the_whole_cache_is_none() {
    let cache = Cache::in_process(1 << 20);
    let space = cache.namespace("n");
    put(&space, "k", "old").await;
    assert_eq!(space.get_bytes("k").await.unwrap().unwrap(), "old");
    space.invalidate().await.unwrap();
    assert_eq!(space.get_bytes("k").await.unwrap(), None);
    assert_eq!(
        cache.invalidate().await.unwrap_err().kind(),
        ErrorKind::Misuse
    );
}

#[tokio::test]
async fn no_two_paths_of_names_give_one_namespace() {
    let cache = Cache::in_process(1 << 20);
    let paths: [&[&str]; 8] = [
        &["a/", "b"],
        &["a", "/b"],
        &["a", "b"],
        &["a/b"],
        &["a\\", "b"],
        &["a\\/b"],
        &["/"],
        &["", "", ""],
    ];
    let spaces = paths.map(|path| {
        let root = cache.clone();
        path.iter().fold(root, |outer, name| outer.namespace(name))
    });
    put(&spaces[0], "k", "first").await;
    for (space, path) in spaces.iter().zip(paths).skip(1) {
        assert_eq!(space.get_bytes("k").await.unwrap(), None, "{path:?}");
        put(space, "k", "another").await;
    }
    assert_eq!(spaces[0].get_bytes("k").await.unwrap().unwrap(), "first");
}

#[tokio::test]
async fn an_invalidation_that_fails_changes_nothing() {
    let store = MapStore::default();
    let space = Cache::new(Arc::new(store.clone())).namespace("n");
    put(&space, "k", "old").await;
    store.fail_after(Some(0));
    let error = space.invalidate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    store.fail_after(None);
    assert_eq!(space.get_bytes("k").await.unwrap().unwrap(), "old");
    put(&space, "x", "new").await;
    let other = Cache::new(Arc::new(store.clone())).namespace("n");
    assert_eq!(other.get_bytes("x").await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn what_was_known_before_an_invalidation_is_not_believed_after_it() {
    for seed in 0..200 {
        let store = MapStore::default();
        let cache = Cache::new(Arc::new(store.clone()));
        put(&cache.namespace("n"), "k", "old").await;
        // Knows no number yet, and reads it while it changes.
        let space = cache.namespace("n");
        store.pause(Some(seed));
        let reader = space.clone();
        let (read, invalidated) = tokio::join!(reader.get_bytes("k"), space.invalidate());
        invalidated.unwrap();
        read.unwrap();
        assert_eq!(space.get_bytes("k").await.unwrap(), None, "seed {seed}");
    }
}

#[tokio::test]
async fn a_namespace_in_a_store_that_fails_is_empty_where_failures_are_misses() {
    let store = MapStore::default();
    let cache = Cache::builder(Arc::new(store.clone()))
        .l1_bytes(1 << 20)
        .on_store_failure(StoreFailure::Miss)
        .build();
    put(&cache.namespace("n"), "k", "old").await;
    store.fail_after(Some(0));
    let space = cache.namespace("n");
    assert_eq!(space.get_bytes("k").await.unwrap(), None);
    let source = Source::default();
    let options = LoadOptions::new();
    for _ in 0..2 {
        let loaded = source.load(&space, "t", &options, table(0, 1)).await;
        assert_eq!(loaded, table(0, 1));
    }
    assert_eq!(source.calls(), 1, "the process keeps it for a while");
    let put_late = space.put_bytes("k", "lost", &PutOptions::new()).await;
    put_late.unwrap_err();
    space.invalidate().await.unwrap_err();
    // A put must not go where nobody will look, even if the store works by now.
    store.fail_after(None);
    put(&space, "k", "new").await;
    let other = Cache::new(Arc::new(store)).namespace("n");
    assert_eq!(other.get_bytes("k").await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_none_where_failures_are_misses() {
    let store = MapStore::default();
    let cache = Cache::builder(Arc::new(store.clone()))
        .on_store_failure(StoreFailure::Miss)
        .build();
    let put = cache.put_table("k", table(0, 1), &PutOptions::new()).await;
    assert!(put.unwrap().is_stored());
    store.fail_after(Some(1));
    assert!(cache.open_table("k").await.unwrap().is_none());
    assert_eq!(cache.stats().store_failures, 1);
}
