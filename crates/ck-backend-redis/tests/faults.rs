//! Guards against a network that breaks anywhere and servers that are killed at any moment: never a wrong
//! value, never a wait far beyond the deadline, and everything works again afterwards. `CK_FAULT_RUNS` says how
//! many runs there are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_core::{ErrorKind, Key};
use common::network::{break_network, runs};
use common::{get, next, pattern, put, stored, stream};
use testkit::RedisServer;

#[test]
fn a_network_that_breaks_anywhere_yields_no_wrong_value() {
    thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn(move || break_network(&RedisServer::start(), seed, runs() / 4));
        }
    });
}

#[test]
fn a_server_that_is_killed_at_any_moment_yields_no_wrong_value() {
    let mut server = RedisServer::start();
    let store = RedisBackend::builder(server.url())
        .timeout(Duration::from_secs(2))
        .single_value_bytes(4 << 20)
        .chunk_bytes(1 << 20)
        .build()
        .unwrap();
    let key = Key::new("table");
    let mut random = 7;
    // Entries of one value, of one that is put together from parts, and of chunks.
    let sorts = [(0, false), (0, true), (2 << 20, false), (4 << 20, true)];
    for (run, (more, in_parts)) in (0..runs() / 25).zip(sorts.into_iter().cycle()) {
        let values: [Bytes; 2] = [2 * run, 2 * run + 1].map(|seed| pattern(seed, (3 << 20) + more));
        let known = |bytes: &Bytes| values.contains(bytes);
        stored(put(&store, &key, &values[0]).or_else(|_| put(&store, &key, &values[0])));
        random = next(random);
        let pause = Duration::from_micros(random % 15_000);
        thread::scope(|scope| {
            let reading = scope.spawn(|| (0..5).map(|_| get(&store, &key)).collect::<Vec<_>>());
            let writing = scope.spawn(|| match in_parts {
                true => stream(&store, &key, &values[1], Some(1_000_000)),
                false => put(&store, &key, &values[1]),
            });
            thread::sleep(pause);
            server.kill();
            server.restart();
            let _ = writing.join().unwrap();
            for read in reading.join().unwrap() {
                match read {
                    Ok(found) => assert!(found.as_ref().is_none_or(known), "{run}: a wrong value"),
                    Err(error) => {
                        let kind = error.kind();
                        let fine = [ErrorKind::Transient, ErrorKind::Timeout, ErrorKind::Corrupt];
                        assert!(fine.contains(&kind), "{run}: {error:?}");
                    }
                }
            }
        });
        let found = get(&store, &key).or_else(|_| get(&store, &key)).unwrap();
        assert!(found.as_ref().is_none_or(known), "{run}: a wrong value");
    }
}
