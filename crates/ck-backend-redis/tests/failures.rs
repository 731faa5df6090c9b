//! Guards what happens when the server refuses, is away, is full or forgets: the kind of the error, the
//! deadline, what remains stored, and that everything works again afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_redis::{RedisBackend, RedisBackendBuilder};
use ck_core::{Backend, ErrorKind, Expiry, Key, Outcome, Rejection, WriteMode, WriteOptions};
use common::{get, open, pattern, put, stored};
use pollster::block_on;
use testkit::RedisServer;

const SHORT: Duration = Duration::from_millis(300);

fn key() -> Key {
    Key::new("table")
}

fn quick(server: &RedisServer) -> RedisBackendBuilder {
    RedisBackend::builder(server.url()).timeout(SHORT)
}

/// A store that cuts entries of more than 1 MiB into chunks of that.
fn in_chunks(server: &RedisServer) -> RedisBackend {
    let builder = RedisBackend::builder(server.url()).single_value_bytes(1 << 20);
    builder.chunk_bytes(1 << 20).build().unwrap()
}

#[test]
fn wrong_credentials_are_an_authentication_failure_that_names_the_remedy() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]);
    for user in ["", ":wrong@"] {
        let url = format!("redis://{user}{}", server.addr());
        let store = RedisBackend::open(url).unwrap();
        let error = open(&store, &key()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error:?}");
        assert!(
            error.to_string().contains("password in the store's URL"),
            "{error}"
        );
        assert!(!error.to_string().contains("wrong"), "{error}");
        assert!(put(&store, &key(), &pattern(1, 100)).is_err());
    }
    let url = format!("redis://:secret@{}", server.addr());
    let store = RedisBackend::open(url).unwrap();
    assert!(put(&store, &key(), &pattern(1, 100)).unwrap().is_stored());
    assert!(!store.url().contains("secret") && !format!("{store:?}").contains("secret"));
}

#[test]
fn after_an_outage_the_next_operation_works() {
    let mut server = RedisServer::start();
    let store = quick(&server).build().unwrap();
    for size in [1_000, 3 << 20] {
        let bytes = pattern(1, size);
        stored(put(&store, &key(), &bytes));
        assert_eq!(get(&store, &key()).unwrap(), Some(bytes.clone()));
        let reader = open(&store, &key()).unwrap().unwrap();

        server.kill();
        let start = Instant::now();
        let error = open(&store, &key()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}");
        assert!(error.to_string().contains("table"), "{error}");
        let error = put(&store, &key(), &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}");
        if size > 100_000 {
            let error = block_on(reader.read(0..reader.len())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}");
        }
        assert!(start.elapsed() < 20 * SHORT);

        server.restart();
        assert_eq!(get(&store, &key()).unwrap(), None, "the server is empty");
        // Connections that broke while nobody used them are replaced.
        stored(put(&store, &key(), &bytes));
        server.kill();
        server.restart();
        assert!(put(&store, &key(), &bytes).is_ok() || put(&store, &key(), &bytes).is_ok());
        assert_eq!(get(&store, &key()).unwrap(), Some(bytes));
    }
}

#[test]
fn a_silent_server_is_a_timeout_within_the_deadline() {
    let server = RedisServer::start();
    let store = quick(&server).build().unwrap();
    let bytes = pattern(1, 3 << 20);
    stored(put(&store, &key(), &bytes));
    let reader = open(&store, &key()).unwrap().unwrap();
    server.pause();
    let timed_out = |error: ck_core::Error, start: Instant| {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        // The deadline of three megabytes at 50 MB/s, and as much again for a busy machine.
        assert!(start.elapsed() < 4 * SHORT, "{:?}", start.elapsed());
    };
    let start = Instant::now();
    timed_out(open(&store, &key()).unwrap_err(), start);
    let start = Instant::now();
    timed_out(block_on(reader.read(0..reader.len())).unwrap_err(), start);
    let start = Instant::now();
    timed_out(
        put(&store, &key(), &pattern(2, 3 << 20)).unwrap_err(),
        start,
    );
    let start = Instant::now();
    timed_out(block_on(store.lease(&key(), SHORT)).unwrap_err(), start);
    server.resume();
    assert_eq!(get(&store, &key()).unwrap(), Some(bytes));
}

#[test]
fn a_full_server_rejects_the_entry_and_keeps_the_old_one() {
    let server = RedisServer::start_with(&["--maxmemory", "24mb"]);
    let store = RedisBackend::open(server.url()).unwrap();
    let old = pattern(1, 1 << 20);
    stored(put(&store, &key(), &old));
    let outcome = put(&store, &key(), &pattern(2, 40 << 20)).unwrap();
    let Outcome::Rejected(Rejection::StoreFull { bytes, limit }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(bytes > 10 << 20);
    assert_eq!(limit, 24 << 20);
    assert_eq!(get(&store, &key()).unwrap(), Some(old));
    let fits = pattern(3, 2 << 20);
    assert!(wait_for(|| put(&store, &key(), &fits).unwrap().is_stored()));
    assert_eq!(get(&store, &key()).unwrap(), Some(fits));
    assert_eq!(parts(&server), "");
}

#[test]
fn a_read_only_replica_is_read_and_refuses_writes() {
    let primary = RedisServer::start();
    let replica = RedisServer::start();
    let store = RedisBackend::open(primary.url()).unwrap();
    let bytes = pattern(1, 1 << 20);
    stored(put(&store, &key(), &bytes));
    let port = primary.addr().port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]);
    assert!(wait_for(
        || replica.command(&["EXISTS", "table"]).text() == "1"
    ));

    let store = RedisBackend::open(replica.url()).unwrap();
    assert_eq!(get(&store, &key()).unwrap(), Some(bytes));
    for size in [100, 3 << 20] {
        let error = put(&store, &key(), &pattern(2, size)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permanent, "{error:?}");
        assert!(error.to_string().contains("primary"), "{error}");
    }
    // It becomes the primary.
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    assert!(
        put(&store, &key(), &pattern(2, 3 << 20))
            .unwrap()
            .is_stored()
    );
}

#[test]
fn what_is_being_written_dies_by_itself_unless_its_writer_lives() {
    let server = RedisServer::start();
    let ttl = Duration::from_secs(1);
    let store = RedisBackend::builder(server.url())
        .temp_ttl(ttl)
        .build()
        .unwrap();
    let bytes = pattern(1, 17 << 20);
    let mut writer = block_on(store.create(&key(), WriteOptions::new()))
        .unwrap()
        .continue_value()
        .unwrap();
    let _ = block_on(writer.write(vec![bytes.clone()])).unwrap();
    let written = parts(&server);
    assert_eq!(written.lines().count(), 4);
    for part in written.lines() {
        let left: i64 = server.command(&["PTTL", part]).text().parse().unwrap();
        assert!((1..=1_000).contains(&left), "{left}");
    }
    // Longer than what is written would live.
    std::thread::sleep(ttl + ttl / 2);
    assert!(block_on(writer.commit(Bytes::new())).unwrap().is_stored());
    assert_eq!(get(&store, &key()).unwrap(), Some(bytes));
    assert_eq!(server.command(&["PTTL", "table"]).text(), "-1");
    assert!(wait_for(|| parts(&server).is_empty()));
}

#[test]
fn parts_live_on_when_those_before_them_are_gone() {
    let server = RedisServer::start();
    let ttl = Duration::from_secs(1);
    let builder = RedisBackend::builder(server.url()).temp_ttl(ttl);
    let store = builder.chunk_bytes(1 << 20).build().unwrap();
    let writer = block_on(store.create(&key(), WriteOptions::new())).unwrap();
    let mut writer = writer.continue_value().unwrap();
    let _ = block_on(writer.write(vec![pattern(1, 17 << 20)])).unwrap();
    let written = parts(&server);
    assert_eq!(written.lines().count(), 17);
    for part in written.lines().take(16) {
        server.command(&["DEL", part]);
    }
    std::thread::sleep(ttl + ttl / 2);
    assert_eq!(parts(&server).lines().count(), 1);
    drop(writer);
    assert!(wait_for(|| parts(&server).is_empty()));
}

#[test]
fn an_entry_that_was_evicted_while_it_was_written_is_not_published() {
    let server = RedisServer::start();
    let store = RedisBackend::open(server.url()).unwrap();
    let old = pattern(1, 1_000);
    stored(put(&store, &key(), &old));
    for more in [0, 2 << 20] {
        let options = WriteOptions::new().with_head_len(16);
        let writer = block_on(store.create(&key(), options)).unwrap();
        let mut writer = writer.continue_value().unwrap();
        let _ = block_on(writer.write(vec![pattern(2, 17 << 20)])).unwrap();
        let written = parts(&server);
        assert_eq!(written.lines().count(), 4);
        let lost = written.lines().nth(usize::from(more > 0)).unwrap();
        server.command(&["DEL", lost]);
        let result = block_on(async {
            let _ = writer.write(vec![pattern(3, more)]).await?;
            writer.commit(pattern(4, 16)).await
        });
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}");
        assert_eq!(get(&store, &key()).unwrap(), Some(old.clone()));
    }
    assert!(wait_for(|| parts(&server).is_empty()));
}

#[test]
fn a_replaced_entry_is_never_mixed_with_its_successor() {
    let server = RedisServer::start();
    let store = RedisBackend::open(server.url()).unwrap();
    for size in [100_000, 3 << 20] {
        stored(put(&store, &key(), &pattern(1, size)));
        let reader = open(&store, &key()).unwrap().unwrap();
        stored(put(&store, &key(), &pattern(2, size)));
        for range in [0..reader.len(), 70_000..70_001, 99_000..100_000] {
            let error = block_on(reader.read(range)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        }
        server.command(&["DEL", "table"]);
        let error = block_on(reader.read(70_000..80_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        server.command(&["RPUSH", "table", "1"]);
        let error = block_on(reader.read(70_000..80_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(
            open(&store, &key()).unwrap().is_none(),
            "a list is no entry"
        );
    }
}

#[test]
fn an_entry_with_a_lost_chunk_is_a_miss() {
    let server = RedisServer::start();
    let store = in_chunks(&server);
    let bytes = pattern(1, 5 << 20);
    stored(put(&store, &key(), &bytes));
    assert_eq!(get(&store, &key()).unwrap(), Some(bytes));
    let names = parts(&server);
    assert_eq!(names.lines().count(), 5);
    let reader = open(&store, &key()).unwrap().unwrap();
    server.command(&["DEL", names.lines().nth(2).unwrap()]);
    let error = block_on(reader.read(0..reader.len())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(open(&store, &key()).unwrap().is_none());
}

#[test]
fn chunks_go_with_their_entry_and_orphans_are_pruned() {
    let server = RedisServer::start();
    let store = in_chunks(&server);
    let gone = || assert!(wait_for(|| parts(&server).is_empty()));
    let large = pattern(1, 3 << 20);
    stored(put(&store, &key(), &large));
    let info = block_on(store.stat(&key())).unwrap().unwrap();
    assert_eq!(info.bytes, 3 << 20);
    let page = block_on(store.list(None, 20)).unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].bytes, 3 << 20);
    assert_eq!(page.entries[0].head, large.slice(..20));
    stored(put(&store, &key(), &pattern(2, 100)));
    gone();
    stored(put(&store, &key(), &large));
    assert!(block_on(store.remove(&key())).unwrap());
    gone();
    stored(put(&store, &key(), &large));
    assert_eq!(block_on(store.prune()).unwrap().orphans, 0);
    server.command(&["DEL", "table"]);
    assert_eq!(block_on(store.prune()).unwrap().orphans, 3);
    assert_eq!(parts(&server), "");
}

#[test]
fn a_small_put_runs_no_script_and_replaces_whatever_is_there() {
    let server = RedisServer::start();
    let store = RedisBackend::open(server.url()).unwrap();
    let scripts = || {
        let stats = server.command(&["INFO", "commandstats"]);
        stats.text().contains("cmdstat_eval")
    };
    let soon = Expiry::after(Duration::from_secs(100)).unwrap();
    let put = |bytes: &Bytes, mode, expiry| {
        let options = WriteOptions::new().with_mode(mode).with_expiry(expiry);
        let body = vec![bytes.slice(..10), bytes.slice(10..)];
        block_on(store.put(&key(), Bytes::new(), body, options)).unwrap()
    };
    let holds = |bytes: &Bytes, expiry| {
        let entry = open(&store, &key()).unwrap().unwrap();
        assert_eq!(entry.expiry(), expiry);
        assert_eq!(get(&store, &key()).unwrap().as_ref(), Some(bytes));
    };
    let refused = Outcome::Rejected(Rejection::Superseded);
    let (first, second) = (pattern(1, 1_000), pattern(2, 60_000));
    assert!(put(&first, WriteMode::Create, soon).is_stored());
    holds(&first, soon);
    assert!(put(&second, WriteMode::Overwrite, Expiry::NEVER).is_stored());
    assert_eq!(put(&first, WriteMode::Create, soon), refused);
    holds(&second, Expiry::NEVER);
    assert!(put(&first, WriteMode::Overwrite, soon).is_stored());
    holds(&first, soon);
    assert!(!scripts());

    // Somebody else's list.
    server.command(&["DEL", "table"]);
    server.command(&["RPUSH", "table", "1"]);
    assert_eq!(put(&second, WriteMode::Create, soon), refused);
    assert!(put(&second, WriteMode::Overwrite, soon).is_stored());
    holds(&second, soon);
    assert!(scripts());
}

#[cfg(feature = "cluster")]
#[test]
fn a_node_of_a_cluster_taken_for_a_server_is_said_to_be_one() {
    let cluster = testkit::RedisCluster::start();
    let mut moved = 0;
    for node in cluster.nodes() {
        let store = RedisBackend::open(node.url()).unwrap();
        if let Err(error) = open(&store, &key()) {
            assert_eq!(error.kind(), ErrorKind::Permanent, "{error:?}");
            assert!(error.to_string().contains("redis-cluster://"), "{error}");
            moved += 1;
        }
    }
    assert_eq!(moved, 2);
}

fn parts(server: &RedisServer) -> String {
    server.command(&["KEYS", "ck:part:*"]).text()
}

/// Whether it becomes true soon.
fn wait_for(mut what: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !what() {
        if start.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
