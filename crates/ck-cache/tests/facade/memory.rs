use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ck_cache::{Cache, Compression, ErrorKind, MemoryBudget, PutOptions};

use super::support::{Fixture, batch, store_in};

const BATCH_BYTES: usize = 64 << 10;

fn options() -> PutOptions {
    PutOptions::new()
        .with_compression(Compression::Lz4)
        .with_batch_bytes(BATCH_BYTES)
        .with_workers(2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_operations_never_hold_more_than_the_budget_and_all_succeed() {
    let fixture = Fixture::new();
    // Room for one put and a little more.
    let budget = MemoryBudget::new(5 * BATCH_BYTES as u64);
    let store = store_in(&fixture.dir, "read=pread");
    let cache = Cache::builder(store).memory_budget(budget.clone()).build();
    let done = Arc::new(AtomicBool::new(false));
    let sampler = std::thread::spawn({
        let (budget, done) = (budget.clone(), Arc::clone(&done));
        move || {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = budget.used().max(most);
                std::thread::yield_now();
            }
            most
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6_i64 {
        let cache = cache.clone();
        tasks.spawn(async move {
            let key = format!("t{task}");
            assert!(
                cache
                    .put_table(&*key, batch(task, 50_000), &options())
                    .await
                    .unwrap()
                    .is_stored()
            );
            let table = cache.open_table(&*key).await.unwrap().unwrap();
            assert_eq!(table.read_all().await.unwrap().len(), table.num_batches());
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let most = sampler.join().unwrap();
    assert!(most > 0 && most <= budget.limit(), "{most}");
    assert_eq!(budget.used(), 0);
}

#[test]
fn options_beyond_the_whole_budget_are_refused_at_once() {
    let fixture = Fixture::new();
    let store = store_in(&fixture.dir, "");
    let cache = Cache::builder(store)
        .memory_budget_bytes(BATCH_BYTES as u64)
        .build()
        .blocking();
    let error = cache
        .put_table("t", batch(0, 50_000), &options())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(cache.list(None).unwrap().entries.is_empty());
    // A table smaller than that holds no more than itself.
    assert!(
        cache
            .put_table("t", batch(0, 100), &options())
            .unwrap()
            .is_stored()
    );
    assert!(cache.get_table("t").unwrap().is_some());
}

#[test]
fn a_table_is_copied_within_a_cache_whose_budget_has_room_for_one_put_alone() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            let store = store_in(&fixture.dir, "read=pread");
            let cache = Cache::builder(store)
                .memory_budget_bytes(4 * BATCH_BYTES as u64)
                .build();
            let put = cache.put_table("t", batch(0, 50_000), &options()).await;
            assert!(put.unwrap().is_stored());
            let table = cache.open_table("t").await.unwrap().unwrap();
            let copied = cache.put_reader("u", table.batches(), &options()).await;
            assert!(copied.unwrap().is_stored());
            let copied = cache
                .put_stream("v", table.schema(), table.stream(), &options())
                .await;
            assert!(copied.unwrap().is_stored());
            assert_eq!(cache.memory_budget().used(), 0);
            let copy = cache.get_table("v").await.unwrap().unwrap();
            done.send(copy.num_rows()).unwrap();
        });
    });
    // It takes milliseconds, or for ever.
    let waited = is_done.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(waited, Ok(50_000));
}
