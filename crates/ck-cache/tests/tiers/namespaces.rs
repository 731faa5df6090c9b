use ck_cache::{Cache, ErrorKind, PutOptions};

use super::support::{both_tiers, over};

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
