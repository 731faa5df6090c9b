//! Guards stores of several servers and stores behind TLS: primaries die, slots move, and entries stay what
//! they are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ck_backend_redis::RedisBackend;
use ck_core::{ErrorKind, Key};
use common::{get, open, pattern, put, stored, stream};
use testkit::RedisServer;

/// What a failover may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// What `work` gives as soon as it does not fail for a reason that passes.
fn in_the_end<T>(mut work: impl FnMut() -> ck_core::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match work() {
            Ok(value) => return value,
            Err(error) => {
                let passing = [ErrorKind::Transient, ErrorKind::Timeout, ErrorKind::Corrupt];
                // A primary that was demoted takes no writes.
                let demoted = error.to_string().contains("read-only replica");
                assert!(passing.contains(&error.kind()) || demoted, "{error:?}");
                assert!(start.elapsed() < PATIENCE, "{error:?}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Waits until the replica has all that its primary has now.
fn wait_for_replica(primary: &RedisServer) {
    // The role, the place in the stream of changes, and the address and the place of the replica.
    let places = || {
        let role = primary.command(&["ROLE"]).text();
        let place = |line| {
            role.lines()
                .nth(line)
                .map_or(0, |n| n.parse::<u64>().unwrap())
        };
        [place(1), place(4)]
    };
    let [now, _] = places();
    let start = Instant::now();
    while places()[1] < now {
        assert!(start.elapsed() < PATIENCE, "the replica does not follow");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_store_follows_the_primary_that_the_sentinels_choose() {
    let mut primary = RedisServer::start();
    let port = primary.addr().port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", &format!("127.0.0.1 {port}")]);
    let sentinels: Vec<_> = (0..3)
        .map(|_| RedisServer::start_sentinel("tables", &primary, 2))
        .collect();
    let knows_all = |sentinel: &RedisServer| {
        let info = sentinel.command(&["INFO", "sentinel"]).text();
        info.contains("slaves=1,sentinels=3")
    };
    let start = Instant::now();
    while !sentinels.iter().all(knows_all) {
        assert!(
            start.elapsed() < PATIENCE,
            "the sentinels do not find each other"
        );
        thread::sleep(Duration::from_millis(10));
    }

    let hosts: Vec<_> = sentinels.iter().map(|s| s.addr().to_string()).collect();
    let url = format!("redis-sentinel://{}/tables?db=1", hosts.join(","));
    let builder = RedisBackend::builder(&url).timeout(Duration::from_secs(2));
    let store = builder.build().unwrap();
    let (small, large) = (Key::new("small"), Key::new("large"));
    let (few, many) = (pattern(1, 1_000), pattern(2, 3 << 20));
    stored(put(&store, &small, &few));
    stored(put(&store, &large, &many));
    assert_eq!(get(&store, &large).unwrap(), Some(many.clone()));
    assert_eq!(
        primary.command(&["DBSIZE"]).text(),
        "0",
        "it is in the other database"
    );
    wait_for_replica(&primary);

    primary.kill();
    let error = open(&store, &small).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Transient | ErrorKind::Timeout),
        "{error:?}"
    );
    assert_eq!(in_the_end(|| get(&store, &small)), Some(few));
    assert_eq!(in_the_end(|| get(&store, &large)), Some(many));
    let next = pattern(3, 3 << 20);
    assert!(in_the_end(|| put(&store, &large, &next)).is_stored());
    assert_eq!(get(&store, &large).unwrap(), Some(next));
    assert!(replica.command(&["ROLE"]).text().starts_with("master"));

    let unknown = RedisBackend::open(format!("redis-sentinel://{}/other", hosts[1])).unwrap();
    let error = open(&unknown, &small).unwrap_err();
    assert!(
        error.to_string().contains("no primary of this name"),
        "{error}"
    );
}

#[test]
fn tls_needs_the_right_certificates_and_does_the_same() {
    let (server, tls) = RedisServer::start_tls(&[]);
    let key = Key::new("table");
    for url in [tls.url(), format!("{}/?protocol=resp3", tls.url())] {
        let trusting = || RedisBackend::builder(&url).root_certificates(tls.authority.as_str());
        let store = trusting()
            .client_certificate(tls.certificate.as_str(), tls.key.as_str())
            .build()
            .unwrap();
        for size in [100, 100_000, 3 << 20] {
            let bytes = pattern(size as u64, size);
            stored(put(&store, &key, &bytes));
            assert_eq!(get(&store, &key).unwrap(), Some(bytes.clone()));
            let plain = RedisBackend::open(server.url()).unwrap();
            assert_eq!(get(&plain, &key).unwrap(), Some(bytes));
        }
        // Written in parts and put together.
        let bytes = pattern(1, 18 << 20);
        stored(stream(&store, &key, &bytes, None));
        assert!(get(&store, &key).unwrap() == Some(bytes));
        // The server does not know this client, and this client does not know the server.
        assert!(open(&trusting().build().unwrap(), &key).is_err());
        assert!(open(&RedisBackend::open(&url).unwrap(), &key).is_err());
    }
    let nonsense = RedisBackend::builder(tls.url()).root_certificates("nonsense");
    match nonsense.build() {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Misuse),
        // Nothing is trusted then.
        Ok(store) => assert!(open(&store, &key).is_err()),
    }
}

#[test]
fn an_entry_of_unknown_length_is_one_value_of_a_cluster() {
    let cluster = testkit::RedisCluster::start();
    let store = RedisBackend::open(cluster.url()).unwrap();
    let bytes = pattern(1, 25 << 20);
    for key in ["table", "a{b}c", "{}", "{x"] {
        let key = Key::new(key);
        stored(stream(&store, &key, &bytes, None));
        assert!(get(&store, &key).unwrap().as_ref() == Some(&bytes));
    }
    let keys = || {
        let nodes = cluster.nodes().iter();
        let keys = nodes.map(|node| node.command(&["DBSIZE"]).text().parse::<u64>().unwrap());
        keys.sum::<u64>()
    };
    let start = Instant::now();
    while keys() != 4 {
        assert!(start.elapsed() < PATIENCE, "parts stay");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_cluster_whose_node_dies_goes_on_with_its_replica() {
    let mut cluster = testkit::RedisCluster::start_with(1);
    let builder = RedisBackend::builder(cluster.url()).timeout(Duration::from_secs(2));
    let builder = builder.single_value_bytes(1 << 20).chunk_bytes(300_000);
    let store = builder.build().unwrap();
    let entries: Vec<_> = (0..12_u64)
        .map(|seed| {
            let len = if seed % 3 == 0 { 2 << 20 } else { 5_000 };
            (Key::new(format!("entry/{seed}")), pattern(seed, len))
        })
        .collect();
    for (key, bytes) in &entries {
        stored(put(&store, key, bytes));
    }
    for node in cluster.nodes() {
        if node.command(&["ROLE"]).text().starts_with("master") {
            wait_for_replica(node);
        }
    }
    let dead = (cluster.nodes().iter())
        .position(|node| node.command(&["ROLE"]).text().starts_with("master"))
        .unwrap();
    cluster.nodes_mut()[dead].kill();
    for (key, bytes) in &entries {
        let found = in_the_end(|| get(&store, key));
        assert!(found.as_ref() == Some(bytes), "{key:?} was lost");
    }
    for (key, bytes) in &entries {
        assert!(in_the_end(|| put(&store, key, bytes)).is_stored());
        assert_eq!(in_the_end(|| get(&store, key)).as_ref(), Some(bytes));
    }
}

#[test]
fn entries_are_read_and_written_while_their_slots_move() {
    let cluster = testkit::RedisCluster::start();
    let builder = RedisBackend::builder(cluster.url());
    let builder = builder.single_value_bytes(1 << 20).chunk_bytes(300_000);
    let store = builder.build().unwrap();
    let entries: Vec<_> = (0..60_u64)
        .map(|seed| {
            let len = if seed % 6 == 0 { 2 << 20 } else { 5_000 };
            (Key::new(format!("entry/{seed}")), pattern(seed, len))
        })
        .collect();
    for (key, bytes) in &entries {
        stored(put(&store, key, bytes));
    }
    let keys = |node: &RedisServer| node.command(&["DBSIZE"]).text().parse::<u64>().unwrap();
    let before = keys(&cluster.nodes()[0]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let using = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) || rounds == 0 {
                for (key, bytes) in &entries {
                    let found = in_the_end(|| get(&store, key));
                    assert!(found.as_ref() == Some(bytes), "{key:?} was lost");
                    assert!(in_the_end(|| put(&store, key, bytes)).is_stored());
                }
                rounds += 1;
            }
        });
        cluster.reshard(3_000);
        done.store(true, Ordering::SeqCst);
        using.join().unwrap();
    });
    assert!(
        keys(&cluster.nodes()[0]) < before,
        "no slot with keys has moved"
    );
    for (key, bytes) in &entries {
        assert_eq!(get(&store, key).unwrap().as_ref(), Some(bytes));
    }
}
