use std::sync::Arc;
use std::time::Duration;

use ck_cache::{Cache, Error, ErrorKind, LoadOptions, Table};

use super::support::{Source, both_tiers, over, table};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_tasks_that_want_a_cold_key_make_one_load_and_share_its_memory() {
    let (_dir, cache) = both_tiers();
    let source = Source::default();
    let tasks: Vec<_> = (0..1000)
        .map(|_| {
            let (cache, source) = (cache.clone(), source.clone());
            tokio::spawn(async move {
                let loader = move || source.after(Duration::from_millis(50), table(0, 1000));
                let options = LoadOptions::new();
                cache.get_or_load_table("cold", &options, loader).await
            })
        })
        .collect();
    let mut first: Option<Table> = None;
    for task in tasks {
        let found = task.await.unwrap().unwrap().unwrap();
        let first = first.get_or_insert_with(|| found.clone());
        assert!(Arc::ptr_eq(
            first.batches()[0].column(0),
            found.batches()[0].column(0)
        ));
    }
    assert_eq!(source.calls(), 1);
    assert_eq!(cache.stats().loads, 1);
    assert_eq!(
        cache.open_table("cold").await.unwrap().unwrap().num_rows(),
        1000
    );
}

#[tokio::test]
async fn two_caches_over_one_store_make_one_load() {
    let (dir, one) = both_tiers();
    let other = over(&dir, 0);
    let source = Source::default();
    let options = LoadOptions::new();
    let load = |cache: Cache| {
        let (source, options) = (source.clone(), options.clone());
        async move {
            let loader = move || source.after(Duration::from_millis(60), table(5, 10));
            cache.get_or_load_table("k", &options, loader).await
        }
    };
    let (a, b) = tokio::join!(load(one), load(other));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(source.calls(), 1);
}

#[tokio::test]
async fn all_who_wait_are_told_of_a_failure_and_the_next_one_tries_again() {
    let (_dir, cache) = both_tiers();
    let options = LoadOptions::new();
    let failing = || async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err::<Option<Table>, _>(Error::new(
            ErrorKind::Timeout,
            "no answer from the warehouse",
        ))
    };
    let (a, b) = tokio::join!(
        cache.get_or_load_table("k", &options, failing),
        cache.get_or_load_table("k", &options, failing),
    );
    for error in [a.unwrap_err(), b.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("warehouse"), "{error}");
    }
    assert_eq!(cache.stats().load_failures, 1);
    let source = Source::default();
    source.load(&cache, "k", &options, table(0, 3)).await;
    assert_eq!(source.calls(), 1);
}

#[tokio::test]
async fn a_loader_that_panics_is_an_error() {
    let (_dir, cache) = both_tiers();
    let loader = || async {
        if true {
            panic!("out of cheese");
        }
        Ok::<_, Error>(Some(table(0, 1)))
    };
    let options = LoadOptions::new();
    let error = cache.get_or_load_table("k", &options, loader).await;
    assert!(error.unwrap_err().to_string().contains("out of cheese"));
    Source::default()
        .load(&cache, "k", &options, table(0, 1))
        .await;
}

#[tokio::test]
async fn a_leader_that_goes_away_hands_over_to_one_who_waits() {
    let (_dir, cache) = both_tiers();
    let (slow, quick) = (Source::default(), Source::default());
    let options = LoadOptions::new();
    let leader = tokio::spawn({
        let (cache, slow, options) = (cache.clone(), slow.clone(), options.clone());
        async move {
            let loader = move || slow.after(Duration::from_secs(600), table(0, 1));
            cache.get_or_load_table("k", &options, loader).await
        }
    });
    while slow.calls() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let waiter = tokio::spawn({
        let (cache, quick, options) = (cache.clone(), quick.clone(), options.clone());
        async move { quick.load(&cache, "k", &options, table(7, 1)).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(quick.calls(), 0, "there is a leader");
    leader.abort();
    assert_eq!(waiter.await.unwrap(), table(7, 1));
    assert_eq!(quick.calls(), 1);
}

#[test]
fn blocking_callers_load_too() {
    let (_dir, cache) = both_tiers();
    let cache = cache.blocking();
    let options = LoadOptions::new();
    let load = || Ok::<_, Error>(Some(table(1, 2)));
    assert_eq!(
        cache.get_or_load_table("k", &options, load).unwrap(),
        Some(table(1, 2))
    );
    assert_eq!(cache.get_table("k").unwrap(), Some(table(1, 2)));
    assert_eq!(cache.stats().loads, 1);
}

#[tokio::test]
async fn keys_that_are_loaded_at_the_same_time_do_not_keep_each_other_out() {
    let cache = Cache::in_process(64 << 20);
    let source = Source::default();
    let loading: Vec<_> = (0..600)
        .map(|n| {
            let (cache, source) = (cache.clone(), source.clone());
            tokio::spawn(async move {
                let loader = move || source.after(Duration::from_millis(20), table(n, 1));
                let options = LoadOptions::new();
                let loaded = cache.get_or_load_table(format!("k{n}"), &options, loader);
                assert_eq!(loaded.await.unwrap(), Some(table(n, 1)));
            })
        })
        .collect();
    for load in loading {
        load.await.unwrap();
    }
    let stats = cache.stats();
    assert_eq!((stats.stored, stats.rejected), (600, 0));
}

#[tokio::test]
async fn a_lease_may_have_any_term() {
    let (_dir, cache) = both_tiers();
    let source = Source::default();
    for (key, term) in [("zero", Duration::ZERO), ("long", Duration::MAX)] {
        let options = LoadOptions::new().with_lease_term(term);
        let loaded = source.load(&cache, key, &options, table(1, 1)).await;
        assert_eq!(loaded, table(1, 1));
    }
    assert_eq!((source.calls(), cache.stats().store_failures), (2, 0));
}
