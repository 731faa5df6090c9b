use std::pin::pin;

use ck_cache::{LoadOptions, PutOptions};
use futures_core::Stream;
use tokio::runtime::Builder;

use super::support::{Fixture, batch, numbers, plain};

/// A put, a get, a stream, bytes.
async fn exercise(fixture: &Fixture) {
    let cache = fixture.cache.clone();
    // Spawned, so that the futures are proved to be `Send`.
    tokio::spawn(async move {
        assert!(
            cache
                .put_table("t", batch(0, 30_000), &plain())
                .await
                .unwrap()
                .is_stored()
        );
        assert!(
            cache
                .put_bytes("b", "bytes", &plain())
                .await
                .unwrap()
                .is_stored()
        );
        let table = cache.open_table("t").await.unwrap().unwrap();
        let mut stream = pin!(table.rows(5..25_000).unwrap().stream());
        let mut batches = Vec::new();
        while let Some(batch) = std::future::poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
            batches.push(batch.unwrap());
        }
        assert_eq!(numbers(&batches), (5..25_000).collect::<Vec<_>>());
        assert_eq!(cache.get_bytes("b").await.unwrap().unwrap(), "bytes");
        assert!(cache.verify("t").await.unwrap());
        assert!(cache.remove("t").await.unwrap());
    })
    .await
    .unwrap();
}

#[test]
fn the_async_cache_works_in_both_kinds_of_runtime() {
    let fixture = Fixture::new();
    Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(exercise(&fixture));
    Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
        .block_on(exercise(&fixture));
}

#[test]
fn the_async_cache_works_without_a_runtime() {
    let fixture = Fixture::new();
    ck_core::block_on(async {
        assert!(
            fixture
                .cache
                .put_table("t", batch(0, 1000), &plain())
                .await
                .unwrap()
                .is_stored()
        );
        let table = fixture.cache.get_table("t").await.unwrap().unwrap();
        assert_eq!(numbers(table.batches()).len(), 1000);
    });
}

#[test]
fn the_blocking_cache_works_inside_a_runtime_however_often_it_is_called() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    // More calls than tokio lets one poll of a task make before it wants it to yield.
    let calls = || {
        for n in 0..300_i64 {
            assert!(
                cache
                    .put_bytes("b", n.to_string(), &PutOptions::new())
                    .unwrap()
                    .is_stored()
            );
            assert_eq!(cache.get_bytes("b").unwrap().unwrap(), n.to_string());
        }
        assert!(
            cache
                .put_table("t", batch(0, 30_000), &plain())
                .unwrap()
                .is_stored()
        );
        assert_eq!(cache.get_table("t").unwrap().unwrap().num_rows(), 30_000);
    };
    Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(async { calls() });
    Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap()
        .block_on(async { calls() });
}

#[test]
fn the_blocking_cache_works_while_a_runtime_shuts_down() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let (started, has_started) = std::sync::mpsc::channel();
    let (proceed, may_proceed) = std::sync::mpsc::channel::<()>();
    let call = runtime.spawn_blocking(move || {
        started.send(()).unwrap();
        // Closed by the shutdown below.
        let _ = may_proceed.recv();
        cache
            .put_bytes("b", "late", &PutOptions::new())
            .unwrap()
            .is_stored()
    });
    has_started.recv().unwrap();
    runtime.shutdown_background();
    drop(proceed);
    while !call.is_finished() {
        std::thread::yield_now();
    }
    assert_eq!(
        fixture.cache.blocking().get_bytes("b").unwrap().unwrap(),
        "late"
    );
}

#[test]
fn a_blocking_load_inside_a_runtime_waits_for_nothing_that_only_its_own_thread_could_do() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let fixture = Fixture::new();
        let cache = fixture.cache.blocking();
        let runtime = Builder::new_current_thread().build().unwrap();
        let loaded = runtime.block_on(async {
            let load = || Ok::<_, ck_cache::Error>(Some(batch(0, 10).into()));
            cache.get_or_load_table("k", &LoadOptions::new(), load)
        });
        done.send(loaded.unwrap().unwrap().num_rows()).unwrap();
    });
    // It takes milliseconds, or for ever.
    let waited = is_done.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(waited, Ok(10));
}
