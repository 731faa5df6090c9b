use std::sync::Arc;
use std::time::Duration;

use ck_cache::{Cache, Error, LoadOptions, PutOptions, Table};
use tokio::runtime::Handle;

use super::map_store::MapStore;
use super::support::{Source, both_tiers, over, table};

fn stale_options() -> LoadOptions {
    let put = PutOptions::new().with_stale_for(Duration::from_secs(600));
    LoadOptions::new().with_put(put.with_ttl(Duration::from_secs(600)))
}

/// Waits until `cache` has stored `count` values.
async fn until_stored(cache: &Cache, count: u64) {
    for _ in 0..2000 {
        if cache.stats().stored == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{:?}", cache.stats());
}

#[tokio::test]
async fn an_expired_value_is_handed_out_once_more_while_a_fresh_one_is_made() {
    for l1_bytes in [64 << 20, 0] {
        let dir = tempfile::tempdir().unwrap();
        let cache = over(&dir, l1_bytes);
        let source = Source::default();
        let options = stale_options();
        source.load(&cache, "k", &options, table(0, 1)).await;
        assert!(cache.expire("k").await.unwrap());
        assert_eq!(cache.get_table("k").await.unwrap(), None, "plain gets");
        let stale = source.load(&cache, "k", &options, table(1, 1)).await;
        assert_eq!(stale, table(0, 1));
        until_stored(&cache, 2).await;
        let fresh = source.load(&cache, "k", &options, table(2, 1)).await;
        assert_eq!(fresh, table(1, 1));
        assert_eq!((source.calls(), cache.stats().stale_hits), (2, 1));
    }
}

#[tokio::test]
async fn an_entry_that_may_not_be_stale_is_removed_when_it_is_told_to_expire() {
    let (_dir, cache) = both_tiers();
    let _ = cache
        .put_table("k", table(0, 1), &PutOptions::new())
        .await
        .unwrap();
    assert!(cache.expire("k").await.unwrap());
    assert!(cache.stat("k").await.unwrap().is_none());
    assert!(!cache.expire("k").await.unwrap());
}

#[tokio::test]
async fn without_a_store_too_an_entry_that_may_not_be_stale_is_removed_when_it_is_told_to_expire() {
    let cache = Cache::in_process(1 << 20);
    let put = PutOptions::new().with_ttl(Duration::from_secs(600));
    let outcome = cache.put_table("k", table(0, 1), &put).await.unwrap();
    assert!(outcome.is_stored());
    assert!(cache.expire("k").await.unwrap());
    assert!(!cache.expire("k").await.unwrap());
    let source = Source::default();
    let options = LoadOptions::new();
    let loaded = source.load(&cache, "k", &options, table(1, 1)).await;
    assert_eq!(loaded, table(1, 1));
}

#[tokio::test]
async fn a_value_is_made_anew_before_its_time_is_over() {
    let (_dir, cache) = both_tiers();
    let source = Source::default();
    let put = PutOptions::new().with_ttl(Duration::from_secs(500));
    let options = LoadOptions::new().with_put(put);
    source.load(&cache, "k", &options, table(0, 1)).await;
    let early = options.with_refresh_ahead(Duration::from_secs(1000));
    let found = source.load(&cache, "k", &early, table(1, 1)).await;
    assert_eq!(found, table(0, 1), "nobody waits");
    until_stored(&cache, 2).await;
    assert_eq!(cache.get_table("k").await.unwrap(), Some(table(1, 1)));
}

#[tokio::test]
async fn a_value_is_stored_though_the_one_before_was_over_while_it_was_made() {
    let (_dir, cache) = both_tiers();
    let source = Source::default();
    let short = PutOptions::new().with_ttl(Duration::from_secs(1));
    let put = cache.put_table("k", table(0, 1), &short).await;
    assert!(put.unwrap().is_stored());
    let options = stale_options().with_refresh_ahead(Duration::from_secs(1000));
    let slow = source.clone();
    // Stores count in whole seconds.
    let loader = move || slow.after(Duration::from_millis(2500), table(1, 1));
    let found = cache.get_or_load_table("k", &options, loader).await;
    assert_eq!(found.unwrap(), Some(table(0, 1)));
    until_stored(&cache, 2).await;
    assert_eq!(cache.stats().rejected, 0);
    assert!(cache.stat("k").await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_no_more_is_not_handed_out_again_where_the_process_alone_has_it_either() {
    // After so many operations the store fails.
    for operations in 0.. {
        let store = MapStore::default();
        let builder = Cache::builder(Arc::new(store.clone()));
        let cache = builder.l1_bytes(1 << 20).build();
        let put = PutOptions::new().with_stale_for(Duration::from_secs(600));
        let options = LoadOptions::new().with_put(put.with_ttl(Duration::from_millis(1)));
        store.fail_after(Some(operations));
        let something = || async { Ok::<_, Error>(Some(table(0, 1))) };
        let _ = cache.get_or_load_table("k", &options, something).await;
        if cache.stats().store_failures == 0 {
            // It has taken the value, and counts in whole seconds.
            assert!(operations > 4);
            return;
        }
        store.fail_after(None);
        tokio::time::sleep(Duration::from_millis(5)).await;

        let nothing = || async { Ok::<Option<Table>, Error>(None) };
        let stale = cache.get_or_load_table("k", &options, nothing).await;
        assert!(stale.unwrap().is_none_or(|stale| stale == table(0, 1)));
        while Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let found = cache.get_or_load_table("k", &options, nothing).await;
        assert_eq!(found.unwrap(), None, "after {operations} operations");
    }
}

#[tokio::test]
async fn that_there_is_no_value_is_remembered_for_its_own_time() {
    let (dir, cache) = both_tiers();
    let nothing = || async { Ok::<Option<Table>, Error>(None) };
    let options = LoadOptions::new().with_absent_ttl(Duration::from_secs(60));
    for _ in 0..3 {
        let found = cache.get_or_load_table("k", &options, nothing).await;
        assert_eq!(found.unwrap(), None);
    }
    assert_eq!(cache.stats().loads, 1);
    let other = over(&dir, 0);
    let found = other.get_or_load_table("k", &options, nothing).await;
    assert_eq!(found.unwrap(), None);
    assert_eq!(other.stats().loads, 0, "the store knows");
    assert_eq!(other.get_table("k").await.unwrap(), None);
    assert_eq!(other.get_bytes("k").await.unwrap(), None);

    let _ = cache
        .put_table("k", table(0, 1), &PutOptions::new())
        .await
        .unwrap();
    assert_eq!(cache.get_table("k").await.unwrap(), Some(table(0, 1)));
    let forgetful = LoadOptions::new();
    for _ in 0..2 {
        let found = cache.get_or_load_table("x", &forgetful, nothing).await;
        assert_eq!(found.unwrap(), None);
    }
    assert_eq!(cache.stats().loads, 3);
}

#[tokio::test]
async fn a_stale_value_is_gone_once_the_loader_has_said_that_there_is_none() {
    for l1_bytes in [64 << 20, 0] {
        let dir = tempfile::tempdir().unwrap();
        let cache = over(&dir, l1_bytes);
        let options = stale_options();
        Source::default()
            .load(&cache, "k", &options, table(0, 1))
            .await;
        assert!(cache.expire("k").await.unwrap());
        let nothing = || async { Ok::<Option<Table>, Error>(None) };
        let found = cache.get_or_load_table("k", &options, nothing).await;
        assert_eq!(found.unwrap(), Some(table(0, 1)), "stale");
        for _ in 0..2000 {
            if cache.stat("k").await.unwrap().is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let found = cache.get_or_load_table("k", &options, nothing).await;
        assert_eq!(found.unwrap(), None);
    }
}

#[tokio::test]
async fn a_plain_get_finds_the_fresh_value_in_the_store_behind_a_stale_one_in_the_process() {
    let (dir, cache) = both_tiers();
    let other = over(&dir, 0);
    let options = stale_options();
    Source::default()
        .load(&cache, "k", &options, table(0, 1))
        .await;
    assert!(cache.expire("k").await.unwrap());
    assert_eq!(cache.get_table("k").await.unwrap(), None);
    let put = other.put_table("k", table(1, 1), &PutOptions::new()).await;
    assert!(put.unwrap().is_stored());
    assert_eq!(cache.get_table("k").await.unwrap(), Some(table(1, 1)));
}

#[tokio::test]
async fn a_value_that_another_process_has_made_anew_is_not_made_once_more() {
    let (dir, cache) = both_tiers();
    let other = over(&dir, 0);
    let ttl = |seconds| PutOptions::new().with_ttl(Duration::from_secs(seconds));
    let put = cache.put_table("k", table(0, 1), &ttl(100)).await;
    assert!(put.unwrap().is_stored());
    let put = other.put_table("k", table(1, 1), &ttl(10_000)).await;
    assert!(put.unwrap().is_stored());

    let source = Source::default();
    let options = LoadOptions::new().with_refresh_ahead(Duration::from_secs(1000));
    let found = source.load(&cache, "k", &options, table(2, 1)).await;
    assert_eq!(found, table(0, 1));
    for _ in 0..2000 {
        if cache.get_table("k").await.unwrap() != Some(table(0, 1)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(cache.get_table("k").await.unwrap(), Some(table(1, 1)));
    assert_eq!(source.calls(), 0);
}

#[tokio::test]
async fn a_refresh_that_fails_is_not_tried_again_at_every_hit() {
    let (_dir, cache) = both_tiers();
    let options = stale_options();
    let source = Source::default();
    source.load(&cache, "k", &options, table(0, 1)).await;
    assert!(cache.expire("k").await.unwrap());
    let failing = || async { Err::<Option<Table>, _>("the source is down") };
    for round in 0..200 {
        let stale = cache.get_or_load_table("k", &options, failing).await;
        assert_eq!(stale.unwrap(), Some(table(0, 1)));
        while round == 0 && cache.stats().load_failures == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // One more when the second was over, on a machine that slow.
    assert!(cache.stats().load_failures <= 2, "{:?}", cache.stats());
}
