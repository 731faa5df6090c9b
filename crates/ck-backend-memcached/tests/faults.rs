//! Guards against servers that hang, are gone or are none, and against answers that come late. What the network
//! does at random is in `random_faults.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, ErrorKind, Key, block_on};
use common::{get, pattern, put, store};
use testkit::{Action, Direction, Fault, Memcached, Proxy};

#[test]
fn a_server_that_hangs_is_given_up_in_time_and_works_when_it_goes_on() {
    let server = Memcached::start();
    let backend = MemcachedBackend::builder([server.addr().to_string()])
        .timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let (key, value) = (Key::new("k"), Bytes::from_static(b"value"));
    assert!(put(&backend, &key, &value).unwrap().is_stored());
    server.pause();
    // The signal takes a moment to reach all of the server's threads.
    while get(&backend, &key).is_ok() {}
    for _ in 0..3 {
        let start = Instant::now();
        let error = get(&backend, &key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
        assert!(start.elapsed() >= Duration::from_millis(90));
    }
    server.resume();
    assert_eq!(get(&backend, &key).unwrap().unwrap(), value);
}

#[test]
fn with_one_server_down_the_entries_of_the_other_are_there() {
    let mut servers = [Memcached::start(), Memcached::start()];
    let backend = store(&servers);
    let keys: Vec<Key> = (0..40).map(|i| Key::new(format!("k{i}"))).collect();
    for key in &keys {
        assert!(put(&backend, key, &pattern(1, 100)).unwrap().is_stored());
    }
    servers[0].kill();
    let (mut there, mut errors) = (0, 0);
    for key in &keys {
        match get(&backend, key) {
            Ok(value) => {
                assert!(value.unwrap() == pattern(1, 100));
                there += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}");
                assert!(error.to_string().contains(&servers[0].addr().to_string()));
                errors += 1;
            }
        }
    }
    assert!(there > 5 && errors > 5, "{there} there, {errors} errors");
    servers[0].restart();
    for key in &keys {
        assert!(put(&backend, key, &pattern(2, 100)).unwrap().is_stored());
        assert!(get(&backend, key).unwrap().unwrap() == pattern(2, 100));
    }
}

#[test]
fn what_is_no_memcached_is_told_apart() {
    let server = testkit::RedisServer::start();
    let backend = MemcachedBackend::open([server.addr().to_string()]).unwrap();
    let error = get(&backend, &Key::new("k")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent, "{error:?}");
    assert!(block_on(backend.remove(&Key::new("k"))).is_err());
}

#[test]
fn a_late_answer_is_not_taken_for_that_to_another_question() {
    let server = Memcached::start();
    let proxy = Proxy::start(server.addr());
    let keys = ["k0", "k1", "k2"].map(Key::new);
    let values = [0, 1, 2].map(|seed| pattern(seed, 100));
    let open = || {
        let builder = MemcachedBackend::builder([proxy.addr().to_string()]);
        builder.timeout(Duration::from_millis(400)).build().unwrap()
    };
    let first = open();
    for (key, value) in keys.iter().zip(&values) {
        assert!(put(&first, key, value).unwrap().is_stored());
    }
    // What a connection has brought down after its greeting and one answer.
    let before = proxy.bytes_down();
    assert!(get(&open(), &keys[0]).unwrap().unwrap() == values[0]);
    let at = proxy.bytes_down() - before;
    proxy.script(vec![Fault {
        direction: Direction::Down,
        at,
        action: Action::Delay(Duration::from_millis(600)),
    }]);
    let backend = open();
    assert!(get(&backend, &keys[0]).unwrap().unwrap() == values[0]);
    let error = get(&backend, &keys[1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    // On the old connection the answer to the question before would come now.
    assert!(get(&backend, &keys[2]).unwrap().unwrap() == values[2]);
}
