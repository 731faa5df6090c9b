//! Guards against the network: wherever a connection is cut, stalled or ended, and whenever a server is
//! killed, a reader gets the old value, the new one, a miss or an honest error, within the deadline; and
//! afterwards everything works again by itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, ErrorKind, Key, Outcome, Result, block_on};
use common::{Random, get, open, pattern, put, store};
use testkit::{Action, Direction, Fault, Memcached, Proxy};

const TIMEOUT: Duration = Duration::from_millis(150);
/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_millis(800);
/// One item, and several chunks.
const SIZES: [usize; 2] = [30_000, 900_000];

fn behind(proxies: &[Proxy]) -> MemcachedBackend {
    MemcachedBackend::builder(proxies.iter().map(|proxy| proxy.addr().to_string()))
        .timeout(TIMEOUT)
        .bytes_per_second(100_000_000)
        .value_bytes(100_000)
        .chunk_bytes(60_000)
        .build()
        .unwrap()
}

/// Does something, and checks that it ends.
fn in_time<T>(seed: u64, what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    // A put is three operations at most, start, write and commit, and a get two.
    let most = TIMEOUT * 3 + SLACK;
    assert!(start.elapsed() < most, "seed {seed}: {what} hung");
    done
}

/// Does something over a network that works. On a busy machine even that may be too slow at first.
fn in_the_end<T>(seed: u64, mut work: impl FnMut() -> Result<T>) -> T {
    let start = Instant::now();
    loop {
        match work() {
            Ok(done) => return done,
            Err(error) if error.kind() == ErrorKind::Timeout => {}
            Err(error) => panic!("seed {seed}: no recovery: {error:?}"),
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "seed {seed}: no recovery"
        );
    }
}

fn check_error<T>(seed: u64, outcome: &Result<T>) {
    if let Err(error) = outcome {
        let honest = [ErrorKind::Transient, ErrorKind::Timeout, ErrorKind::Corrupt];
        assert!(honest.contains(&error.kind()), "seed {seed}: {error:?}");
        assert!(error.to_string().contains("memcached://"), "{error}");
    }
}

fn random_fault(random: &mut Random, size: usize) -> Fault {
    let direction = [Direction::Up, Direction::Down][usize::try_from(random.below(2)).unwrap()];
    let actions = [
        Action::Cut,
        Action::Truncate,
        Action::Cut,
        Action::Truncate,
        Action::Delay(Duration::from_millis(5)),
        Action::Stall,
    ];
    // Near the start lie the greeting and the first commands.
    let reach = if random.below(3) == 0 {
        3_000
    } else {
        size as u64 + 20_000
    };
    Fault {
        direction,
        at: random.below(reach),
        action: actions[usize::try_from(random.below(6)).unwrap()],
    }
}

#[test]
fn no_fault_of_the_network_gives_a_wrong_value_or_hangs() {
    let servers = [(); 2].map(|()| Memcached::start_with(&["-m", "128"]));
    // Keys are spread by the addresses of the proxies, so those stay.
    let proxies = servers.each_ref().map(|server| Proxy::start(server.addr()));
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let backend = behind(&proxies);
        let size = SIZES[usize::try_from(random.below(2)).unwrap()];
        let key = Key::new(format!("faults/{}", seed % 5));
        let [old, new] = [1, 2].map(|part| pattern(seed * 2 + part, size));
        assert!(in_the_end(seed, || put(&backend, &key, &old)).is_stored());
        for proxy in &proxies {
            proxy.cut_all();
            for _ in 0..4 {
                proxy.script(vec![random_fault(&mut random, size)]);
            }
        }

        let written = in_time(seed, "a put", || put(&backend, &key, &new));
        check_error(seed, &written);
        let read = in_time(seed, "a get", || get(&backend, &key));
        check_error(seed, &read);
        if let Ok(Some(read)) = &read {
            assert!(*read == old || *read == new, "seed {seed}: a wrong value");
        }
        if matches!((&written, &read), (Ok(Outcome::Stored { .. }), Ok(Some(_)))) {
            assert!(read.unwrap().unwrap() == new, "seed {seed}: a stale value");
        }
        for proxy in &proxies {
            proxy.heal();
            proxy.cut_all();
        }
        assert!(in_the_end(seed, || put(&backend, &key, &new)).is_stored());
        assert!(
            in_the_end(seed, || get(&backend, &key)).unwrap() == new,
            "seed {seed}"
        );
        let other = behind(&proxies);
        assert!(
            in_the_end(seed, || get(&other, &key)).unwrap() == new,
            "seed {seed}"
        );
    }
}

#[test]
fn ranges_over_a_broken_network_are_right_or_errors() {
    let servers = [(); 2].map(|()| Memcached::start_with(&["-m", "128"]));
    let key = Key::new("faults/ranges");
    let bytes = pattern(1, 2_000_000);
    let proxies = servers.each_ref().map(|server| Proxy::start(server.addr()));
    let writer = behind(&proxies);
    assert!(in_the_end(0, || put(&writer, &key, &bytes)).is_stored());
    for seed in 0..200 {
        let mut random = Random::new(seed + 1_000);
        for proxy in &proxies {
            proxy.heal();
        }
        let backend = behind(&proxies);
        let entry = in_the_end(seed, || open(&backend, &key)).unwrap();
        for proxy in &proxies {
            proxy.cut_all();
            proxy.script(vec![random_fault(&mut random, 1_000_000)]);
            proxy.script(vec![random_fault(&mut random, 1_000_000)]);
        }
        let ranges: Vec<_> = (0..4)
            .map(|_| {
                let start = random.below(bytes.len() as u64);
                start..start + random.below(bytes.len() as u64 - start + 1)
            })
            .collect();
        for _ in 0..3 {
            let parts = in_time(seed, "a read", || {
                block_on(entry.read_ranges(ranges.clone()))
            });
            check_error(seed, &parts);
            for (range, part) in ranges.iter().zip(parts.into_iter().flatten()) {
                let start = usize::try_from(range.start).unwrap();
                let expected = &bytes[start..usize::try_from(range.end).unwrap()];
                assert!(part == expected, "seed {seed}: a wrong range");
            }
        }
    }
}

#[test]
fn a_server_killed_in_the_middle_costs_its_entries_and_nothing_else() {
    let mut servers = [(); 2].map(|()| Memcached::start_with(&["-m", "256"]));
    let backend = common::builder(&servers)
        .timeout(Duration::from_millis(500))
        .chunk_bytes(30_000)
        .build()
        .unwrap();
    let key = Key::new("killed");
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let bytes = pattern(seed, 40_000_000);
        let victim = usize::try_from(seed % 2).unwrap();
        let delay = Duration::from_micros(random.below(40_000));
        let stored = std::thread::scope(|scope| {
            let transfer = scope.spawn(|| put(&backend, &key, &bytes));
            std::thread::sleep(delay);
            servers[victim].kill();
            transfer.join().unwrap()
        });
        check_error(seed, &stored);
        servers[victim].restart();
        // What the other server has left of it is no entry.
        match get(&backend, &key) {
            Ok(Some(read)) => assert!(read == bytes, "seed {seed}: a wrong value"),
            Ok(None) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "seed {seed}: {error:?}"),
        }
        assert!(
            put(&backend, &key, &bytes).unwrap().is_stored(),
            "seed {seed}"
        );
        assert!(
            get(&backend, &key).unwrap().unwrap() == bytes,
            "seed {seed}"
        );
    }
}

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
