//! The cache over real servers: what it keeps, what it moves over the wire, and what it does without them.
#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use ck_cache::blocking::Cache;
use ck_cache::{
    CacheBuilder, Compression, Error, ErrorKind, LoadOptions, Outcome, PutOptions, Rejection,
    StoreFailure, Table, open_store,
};
use testkit::{Memcached, Proxy, RedisServer};

/// A server, and a proxy before it.
struct Server {
    scheme: &'static str,
    proxy: Proxy,
    process: Process,
}

enum Process {
    Redis(RedisServer),
    Memcached(Memcached),
}

impl Server {
    fn redis() -> Self {
        let server = RedisServer::start();
        Self {
            scheme: "redis",
            proxy: Proxy::start(server.addr()),
            process: Process::Redis(server),
        }
    }

    fn memcached() -> Self {
        let server = Memcached::start_with(&["-m", "256"]);
        Self {
            scheme: "memcached",
            proxy: Proxy::start(server.addr()),
            process: Process::Memcached(server),
        }
    }

    fn both() -> [Self; 2] {
        [Self::redis(), Self::memcached()]
    }

    fn url(&self) -> String {
        format!("{}://{}?timeout=1s", self.scheme, self.proxy.addr())
    }

    fn cache(&self) -> Cache {
        Cache::open(&self.url()).unwrap()
    }

    fn builder(&self) -> CacheBuilder {
        ck_cache::Cache::builder(open_store(&self.url()).unwrap())
    }

    fn kill(&mut self) {
        match &mut self.process {
            Process::Redis(server) => server.kill(),
            Process::Memcached(server) => server.kill(),
        }
    }

    fn restart(&mut self) {
        match &mut self.process {
            Process::Redis(server) => server.restart(),
            Process::Memcached(server) => server.restart(),
        }
    }
}

/// `columns` of numbers, each row different, and one of text.
fn wide(columns: i64, rows: i64) -> RecordBatch {
    let number = |column: i64| {
        let values = (0..rows).map(|row| row * columns + column);
        let array: ArrayRef = Arc::new(values.collect::<Int64Array>());
        (format!("n{column}"), array)
    };
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..rows).map(|row| format!("row {row}")),
    ));
    let numbers = (0..columns).map(number);
    RecordBatch::try_from_iter(numbers.chain([("text".to_owned(), text)])).unwrap()
}

/// In small batches.
fn options(compression: Compression) -> PutOptions {
    PutOptions::new()
        .with_compression(compression)
        .with_batch_bytes(256 << 10)
}

fn concat(batches: &[RecordBatch]) -> RecordBatch {
    arrow_select::concat::concat_batches(&batches[0].schema(), batches).unwrap()
}

/// Waits until what was read ahead has ended.
fn assert_nothing_is_held(cache: &Cache) {
    let start = Instant::now();
    while cache.memory_budget().used() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the budget leaks"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_table_comes_back_whole_by_batches_by_columns_and_by_rows() {
    for server in Server::both() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd(3)] {
            let cache = server.cache();
            let table = wide(20, 40_000);
            let outcome = cache.put_table("t", table.clone(), &options(compression));
            assert!(outcome.unwrap().is_stored());

            let whole = cache.get_table("t").unwrap().unwrap();
            assert_eq!(concat(whole.batches()), table);
            let opened = cache.open_table("t").unwrap().unwrap();
            let batches: Vec<_> = opened.batches().map(Result::unwrap).collect();
            assert!(batches.len() > 20);
            assert_eq!(concat(&batches), table);
            let view = opened.select(&["n7", "text"]).unwrap();
            let view = view.rows(5_000..30_001).unwrap().read_all().unwrap();
            let expected = table.project(&[7, 20]).unwrap().slice(5_000, 25_001);
            assert_eq!(concat(&view), expected);
            assert_nothing_is_held(&cache);
        }
    }
}

#[test]
fn columns_and_rows_move_little_more_than_their_own_bytes() {
    for server in Server::both() {
        let cache = server.cache();
        let table = wide(200, 40_000);
        let options = PutOptions::new().with_compression(Compression::None);
        cache
            .put_table("t", table, &options)
            .unwrap()
            .stored()
            .unwrap();
        let moved = |cache: &Cache, columns: &[&str], rows| {
            let before = server.proxy.bytes_down();
            let view = cache.open_table("t").unwrap().unwrap();
            let view = view.select(columns).unwrap().rows(rows).unwrap();
            assert!(view.batches().all(|batch| batch.is_ok()));
            server.proxy.bytes_down() - before
        };
        // Of 64 MiB in 8 batches.
        let bytes = moved(&cache, &["n3", "n90", "n199"], 0..40_000);
        assert!(bytes < 3 * 8 * 40_000 + (1 << 20), "{bytes}");
        let bytes = moved(&cache, &["n0"], 20_000..20_010);
        assert!(bytes < 512 << 10, "{bytes}");
    }
}

#[test]
fn narrow_batches_are_read_ahead_in_order_within_the_budget() {
    for server in Server::both() {
        let table = wide(20, 100_000);
        let cache = server.cache();
        let put = cache.put_table("t", table, &options(Compression::None));
        put.unwrap().stored().unwrap();
        for budget in [64 << 10, 64 << 20] {
            let builder = server.builder().memory_budget_bytes(budget);
            let cache = builder.build().blocking();
            let view = cache.open_table("t").unwrap().unwrap();
            let view = view.select(&["n1"]).unwrap();
            let mut row = 0;
            for batch in view.batches() {
                let batch = batch.unwrap();
                for value in batch.column(0).as_primitive::<Int64Type>().values() {
                    assert_eq!(*value, row * 20 + 1);
                    row += 1;
                }
                assert!(cache.memory_budget().used() <= budget);
            }
            assert_eq!(row, 100_000);
            assert_nothing_is_held(&cache);
            // A reader that stops early leaves nothing behind.
            let mut batches = view.batches();
            batches
                .by_ref()
                .take(3)
                .for_each(|batch| drop(batch.unwrap()));
            drop(batches);
            assert_nothing_is_held(&cache);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_loses_its_server_ends_with_an_error() {
    for mut server in Server::both() {
        let cache = server.builder().build();
        let table = wide(20, 100_000);
        let options = options(Compression::None);
        let put = cache.put_table("t", table, &options).await;
        put.unwrap().stored().unwrap();
        let view = cache.open_table("t").await.unwrap().unwrap();
        let mut stream = view.stream();
        let mut next = async || {
            std::future::poll_fn(|cx| {
                futures_core::Stream::poll_next(std::pin::Pin::new(&mut stream), cx)
            })
            .await
        };
        for _ in 0..3 {
            next().await.unwrap().unwrap();
        }
        let start = Instant::now();
        server.kill();
        server.proxy.cut_all();
        let error = loop {
            match next().await.expect("an error before the end") {
                Ok(_read_ahead) => {}
                Err(error) => break error,
            }
        };
        let kinds = [ErrorKind::Transient, ErrorKind::Timeout];
        assert!(kinds.contains(&error.kind()), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
        assert!(next().await.is_none());
    }
}

#[test]
fn two_processes_worth_of_caches_load_a_key_once() {
    for server in Server::both() {
        let loads = Arc::new(AtomicUsize::new(0));
        let caches: Vec<Cache> = (0..4).map(|_| server.cache()).collect();
        std::thread::scope(|scope| {
            for cache in &caches {
                scope.spawn(|| {
                    let loads = Arc::clone(&loads);
                    let load = move || {
                        loads.fetch_add(1, SeqCst);
                        std::thread::sleep(Duration::from_millis(200));
                        Ok::<_, Error>(Some(Table::from(wide(3, 1_000))))
                    };
                    let table = cache.get_or_load_table("t", &LoadOptions::new(), load);
                    assert_eq!(table.unwrap().unwrap().num_rows(), 1_000);
                });
            }
        });
        assert_eq!(loads.load(SeqCst), 1, "{}", server.scheme);
    }
}

#[test]
fn without_its_server_a_cache_fails_or_loads_as_it_was_told_and_recovers() {
    for mut server in Server::both() {
        let strict = server.cache();
        let lenient = server.builder().on_store_failure(StoreFailure::Miss);
        let lenient = lenient.build().blocking();
        let table = wide(2, 100);
        let put = |cache: &Cache| cache.put_table("t", table.clone(), &PutOptions::new());
        put(&strict).unwrap().stored().unwrap();
        server.kill();

        let error = strict.get_table("t").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        assert!(put(&strict).is_err() && put(&lenient).is_err());
        assert!(lenient.get_table("t").unwrap().is_none());
        let load = || Ok::<_, Error>(Some(Table::from(wide(2, 7))));
        let loaded = lenient.get_or_load_table("t", &LoadOptions::new(), load);
        assert_eq!(loaded.unwrap().unwrap().num_rows(), 7);

        server.restart();
        assert!(put(&strict).unwrap().is_stored());
        assert_eq!(lenient.get_table("t").unwrap().unwrap().num_rows(), 100);
    }
}

#[test]
fn a_value_that_the_store_refuses_for_its_size_leaves_no_older_one_in_the_process() {
    let server = Server::memcached();
    let store = open_store(&format!("{}&chunking=false", server.url())).unwrap();
    let builder = ck_cache::Cache::builder(store).l1_bytes(64 << 20);
    let cache = builder.build().blocking();
    let options = PutOptions::new().with_compression(Compression::None);
    let put = |rows| cache.put_table("t", wide(8, rows), &options).unwrap();
    assert!(put(100).is_stored());
    assert_eq!(cache.get_table("t").unwrap().unwrap().num_rows(), 100);
    let Outcome::Rejected(Rejection::ValueTooLarge { .. }) = put(100_000) else {
        panic!("it was taken");
    };
    assert!(cache.get_table("t").unwrap().is_none());
}

/// Waits for what another thread is about to do.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_cache_that_watches_its_store_lets_go_of_what_others_change() {
    let server = Server::redis();
    let watching = server.builder().l1_bytes(64 << 20).build().blocking();
    watching.watch().unwrap();
    assert_eq!(watching.watch().unwrap_err().kind(), ErrorKind::Misuse);
    let other = server.cache();
    let rows = |cache: &Cache| {
        cache
            .get_table("t")
            .unwrap()
            .map_or(0, |table| table.num_rows())
    };
    let put = |cache: &Cache, rows| {
        let put = cache.put_table("t", wide(3, rows), &PutOptions::new());
        put.unwrap().stored().unwrap();
    };
    let is_kept = || {
        let before = watching.stats().store_reads;
        rows(&watching);
        watching.stats().store_reads == before
    };

    put(&other, 10);
    eventually("it is kept", is_kept);
    for round in 0..50 {
        put(&other, 11 + round);
        eventually("the new one is seen", || {
            rows(&watching) == 11 + u64::try_from(round).unwrap()
        });
    }
    put(&watching, 5);
    assert_eq!(rows(&watching), 5);
    eventually("what was put is kept, too", is_kept);
    other.remove("t").unwrap();
    eventually("the removal is seen", || rows(&watching) == 0);

    // What changes while nobody tells is found once somebody tells again.
    put(&other, 100);
    eventually("it is kept", || rows(&watching) == 100 && is_kept());
    server.proxy.refuse(true);
    server.proxy.cut_all();
    let Process::Redis(process) = &server.process else {
        unreachable!()
    };
    let direct = Cache::open(&process.url()).unwrap();
    put(&direct, 200);
    server.proxy.refuse(false);
    eventually("the change is seen", || {
        watching
            .get_table("t")
            .is_ok_and(|table| table.is_some_and(|table| table.num_rows() == 200))
    });
    eventually("it is kept again", is_kept);
}

#[test]
fn a_store_that_cannot_tell_of_changes_says_so() {
    let server = Server::memcached();
    let error = server.cache().watch().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = ck_cache::Cache::in_process(1 << 20).watch().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
