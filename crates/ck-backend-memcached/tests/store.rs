//! Guards what is particular to memcached: how entries are laid out, limits, chunks, time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_core::{
    Backend, ErrorKind, Expiry, Key, Outcome, Rejection, WriteMode, WriteOptions, block_on,
};
use ck_frame::Manifest;
use common::{builder, get, open, pattern, put, put_until, store};
use testkit::{Memcached, Proxy};

/// Flags and value of an item.
fn raw(server: &Memcached, name: &str) -> Option<(u32, Vec<u8>)> {
    let mut stream = BufReader::new(TcpStream::connect(server.addr()).unwrap());
    let command = format!("get {name}\r\n");
    stream.get_mut().write_all(command.as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let mut words = line.trim_end().strip_prefix("VALUE ")?.split(' ').skip(1);
    let flags = words.next()?.parse().ok()?;
    let mut value = vec![0; words.next()?.parse().ok()?];
    stream.read_exact(&mut value).unwrap();
    Some((flags, value))
}

fn raw_command(server: &Memcached, command: &str) -> String {
    let mut stream = BufReader::new(TcpStream::connect(server.addr()).unwrap());
    stream.get_mut().write_all(command.as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn an_entry_up_to_the_limit_is_one_item_under_its_key() {
    let server = Memcached::start();
    let backend = store(std::slice::from_ref(&server));
    let limit = (1 << 20) - 512;
    for len in [0, 1, 100_000, limit] {
        let value = pattern(7, len);
        assert!(put(&backend, &Key::new("k"), &value).unwrap().is_stored());
        assert_eq!(raw(&server, "k"), Some((0, value.to_vec())), "{len} bytes");
    }
    // The longest name takes the most of it.
    let longest = Key::new("k".repeat(250));
    assert!(
        put(&backend, &longest, &pattern(1, limit))
            .unwrap()
            .is_stored()
    );
    assert_eq!(raw(&server, longest.as_str()).unwrap().1.len(), limit);
    let larger = pattern(7, limit + 1);
    assert!(put(&backend, &Key::new("k"), &larger).unwrap().is_stored());
    let (flags, value) = raw(&server, "k").unwrap();
    assert_eq!(flags, 1 << 31);
    let manifest = Manifest::decode(&value).unwrap().unwrap();
    assert_eq!(manifest.total_len(), larger.len() as u64);
    let mut whole = Vec::new();
    for index in 0..manifest.chunk_count() {
        let name = format!("ckc:{}", manifest.chunk_name(index));
        whole.extend(raw(&server, &name).unwrap().1);
    }
    assert!(whole == larger);
}

#[test]
fn what_another_client_stored_is_read() {
    let server = Memcached::start();
    let backend = store(std::slice::from_ref(&server));
    let key = Key::new("theirs");
    assert_eq!(
        raw_command(&server, "set theirs 0 100 3\r\nabc\r\n"),
        "STORED"
    );
    let entry = open(&backend, &key).unwrap().unwrap();
    assert_eq!(&entry.contiguous().unwrap()[..], b"abc");
    let left = entry.expiry().remaining().unwrap().as_secs();
    assert!((97..=101).contains(&left), "{left} seconds");
    // And what it touched.
    assert!(
        block_on(backend.touch(&key, Expiry::after(Duration::from_secs(50)).unwrap())).unwrap()
    );
    assert_eq!(raw_command(&server, "touch theirs 1000\r\n"), "TOUCHED");
    let left = open(&backend, &key).unwrap().unwrap().expiry().remaining();
    assert!((996..=1001).contains(&left.unwrap().as_secs()));
}

#[test]
fn without_chunks_a_large_value_is_rejected_and_the_stale_one_removed() {
    let server = Memcached::start_with(&["-I", "64k", "-o", "slab_chunk_max=32768"]);
    let servers = [server];
    let backend = builder(&servers).chunking(false).build().unwrap();
    let key = Key::new("k");
    let (small, large) = (pattern(1, 1_000), pattern(2, 80_000));
    let limit = 65_536 - 512;
    let hint = WriteOptions::new().with_size_hint(Some(80_000));
    for way in 0..3 {
        assert!(put(&backend, &key, &small).unwrap().is_stored());
        let rejection = match way {
            0 => match block_on(backend.create(&key, hint)).unwrap() {
                ControlFlow::Break(rejection) => rejection,
                ControlFlow::Continue(_) => panic!("the writer was started"),
            },
            1 => match put(&backend, &key, &large).unwrap() {
                Outcome::Rejected(rejection) => rejection,
                Outcome::Stored { .. } => panic!("the entry was stored"),
            },
            _ => match block_on(backend.create(&key, WriteOptions::new())).unwrap() {
                ControlFlow::Break(rejection) => rejection,
                ControlFlow::Continue(mut writer) => {
                    match block_on(writer.write(vec![large.clone()])).unwrap() {
                        ControlFlow::Break(rejection) => rejection,
                        ControlFlow::Continue(()) => panic!("the bytes were taken"),
                    }
                }
            },
        };
        assert_eq!(
            rejection,
            Rejection::ValueTooLarge {
                bytes: 80_000,
                limit
            }
        );
        assert!(rejection.to_string().contains("compress"), "{rejection}");
        assert_eq!(
            get(&backend, &key).unwrap(),
            None,
            "the stale entry is there"
        );
    }
}

#[test]
fn a_lost_chunk_is_corrupt_and_the_entry_can_be_discarded() {
    let server = Memcached::start();
    let backend = store(std::slice::from_ref(&server));
    let key = Key::new("k");
    let value = pattern(1, 3_000_000);
    assert!(put(&backend, &key, &value).unwrap().is_stored());
    let manifest = Manifest::decode(&raw(&server, "k").unwrap().1)
        .unwrap()
        .unwrap();
    let name = format!("ckc:{}", manifest.chunk_name(1));
    let entry = open(&backend, &key).unwrap().unwrap();

    // A chunk of another length.
    assert_eq!(
        raw_command(&server, &format!("set {name} 0 0 3\r\nabc\r\n")),
        "STORED"
    );
    let error = block_on(entry.read(0..entry.len())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    // None at all.
    assert_eq!(
        raw_command(&server, &format!("delete {name}\r\n")),
        "DELETED"
    );
    let error = block_on(entry.read(0..entry.len())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    // The others are still good.
    assert!(block_on(entry.read(0..1_000)).unwrap() == value[..1_000]);
    // An entry that is not whole is not prolonged.
    let later = Expiry::after(Duration::from_secs(9)).unwrap();
    assert!(!block_on(backend.touch(&key, later)).unwrap());
    assert_eq!(get(&backend, &key).unwrap(), None);

    assert!(put(&backend, &key, &value).unwrap().is_stored());
    let entry = open(&backend, &key).unwrap().unwrap();
    assert!(block_on(entry.discard()).unwrap());
    assert_eq!(get(&backend, &key).unwrap(), None);
    assert_eq!(server.stat("curr_items"), 0, "chunks are left behind");
}

#[test]
fn nothing_is_left_of_replaced_removed_and_dropped_entries() {
    let servers = [Memcached::start(), Memcached::start()];
    let items = || {
        servers
            .iter()
            .map(|server| server.stat("curr_items"))
            .sum::<u64>()
    };
    let backend = store(&servers);
    let key = Key::new("k");
    let value = pattern(1, 5_000_000);
    // A writer that is dropped.
    let writer = block_on(backend.create(&key, WriteOptions::new())).unwrap();
    let ControlFlow::Continue(mut writer) = writer else {
        panic!("no writer");
    };
    let written = block_on(writer.write(vec![value.clone()])).unwrap();
    assert_eq!(written, ControlFlow::Continue(()));
    assert!(items() > 0);
    drop(writer);
    let start = std::time::Instant::now();
    while items() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "chunks are left behind"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    // Chunks that belong to no entry any more live for seconds only.
    assert!(put(&backend, &key, &value).unwrap().is_stored());
    let entry = open(&backend, &key).unwrap().unwrap();
    let name = servers
        .iter()
        .find_map(|server| raw(server, "k"))
        .and_then(|(_, value)| Manifest::decode(&value).unwrap())
        .map(|manifest| format!("ckc:{}", manifest.chunk_name(0)))
        .unwrap();
    assert!(put(&backend, &key, &pattern(2, 10)).unwrap().is_stored());
    let ttl = servers
        .iter()
        .map(|server| raw_command(server, &format!("mg {name} t\r\n")))
        .find_map(|line| line.strip_prefix("HD t")?.parse::<i64>().ok());
    assert!((1..=30).contains(&ttl.unwrap()), "{ttl:?}");
    // Until then its readers can finish.
    assert!(block_on(entry.read(0..entry.len())).unwrap() == value);

    assert!(put(&backend, &key, &value).unwrap().is_stored());
    let before = items();
    assert!(block_on(backend.remove(&key)).unwrap());
    assert!(items() <= before - 6, "{before} items, then {}", items());
}

#[test]
fn chunks_live_as_long_as_their_entry() {
    let server = Memcached::start();
    let backend = store(std::slice::from_ref(&server));
    let (key, value) = (Key::new("k"), pattern(1, 2_500_000));
    let expiry = Expiry::after(Duration::from_secs(1_000)).unwrap();
    assert!(
        put_until(&backend, &key, &value, expiry)
            .unwrap()
            .is_stored()
    );
    let manifest = Manifest::decode(&raw(&server, "k").unwrap().1)
        .unwrap()
        .unwrap();
    let ttls = || -> Vec<i64> {
        (0..manifest.chunk_count())
            .map(|index| format!("mg ckc:{} t\r\n", manifest.chunk_name(index)))
            .map(|command| raw_command(&server, &command))
            .map(|line| line.strip_prefix("HD t").unwrap().parse().unwrap())
            .collect()
    };
    assert!(
        ttls().iter().all(|ttl| (1_000..=1_063).contains(ttl)),
        "{:?}",
        ttls()
    );
    assert!(block_on(backend.touch(&key, Expiry::NEVER)).unwrap());
    assert!(ttls().iter().all(|&ttl| ttl == -1), "{:?}", ttls());
    let month = Expiry::after(Duration::from_secs(40 * 86_400)).unwrap();
    assert!(block_on(backend.touch(&key, month)).unwrap());
    assert!(
        ttls()
            .iter()
            .all(|ttl| (40 * 86_400..40 * 86_400 + 70).contains(ttl))
    );
    assert_eq!(open(&backend, &key).unwrap().unwrap().expiry(), month);
}

#[test]
fn an_entry_that_the_server_cannot_hold_is_rejected_and_the_old_one_stays_away_from_it() {
    let server = Memcached::start_with(&["-m", "8"]);
    let backend = store(std::slice::from_ref(&server));
    let key = Key::new("k");
    match put(&backend, &key, &pattern(1, 40_000_000)).unwrap() {
        Outcome::Rejected(Rejection::StoreFull { bytes, limit }) => {
            assert_eq!((bytes, limit), (40_000_000, 8 << 20));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(get(&backend, &key).unwrap(), None);

    // And with a server that evicts nothing.
    let server = Memcached::start_with(&["-m", "8", "-M"]);
    let backend = store(std::slice::from_ref(&server));
    let full = put(&backend, &key, &pattern(1, 40_000_000));
    match full {
        Ok(Outcome::Rejected(Rejection::StoreFull { .. })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_column_is_read_without_its_neighbours() {
    let server = Memcached::start_with(&["-m", "256"]);
    let proxy = Proxy::start(server.addr());
    let backend = MemcachedBackend::open([proxy.addr().to_string()]).unwrap();
    let key = Key::new("columns");
    // 20 batches of 200 columns of 5 KiB, as the encoder hands them over: buffer, then padding.
    let column = 5_000;
    let mut writer = match block_on(backend.create(&key, WriteOptions::new().with_head_len(4_000)))
    {
        Ok(ControlFlow::Continue(writer)) => writer,
        other => panic!("{other:?}"),
    };
    let whole = pattern(3, 4_000 + 20 * 200 * 5_056);
    let mut at = 4_000;
    let mut places = Vec::new();
    for _ in 0..20 {
        let mut parts = Vec::new();
        for index in 0..200 {
            if index == 77 {
                places.push(at as u64..(at + column) as u64);
            }
            parts.push(whole.slice(at..at + column));
            parts.push(whole.slice(at + column..at + 5_056));
            at += 5_056;
        }
        let written = block_on(writer.write(parts)).unwrap();
        assert_eq!(written, ControlFlow::Continue(()));
    }
    assert!(
        block_on(writer.commit(whole.slice(..4_000)))
            .unwrap()
            .is_stored()
    );

    let entry = open(&backend, &key).unwrap().unwrap();
    assert_eq!(entry.len(), whole.len() as u64);
    let before = proxy.bytes_down();
    let parts = block_on(entry.read_ranges(places.clone())).unwrap();
    let moved = proxy.bytes_down() - before;
    for (place, part) in places.iter().zip(&parts) {
        let start = usize::try_from(place.start).unwrap();
        assert!(*part == whole[start..start + column]);
        assert_eq!(part.as_ptr() as usize % 64, 0);
    }
    let needed = 20 * column as u64;
    // What a new connection asks for first is about 3 KB.
    assert!(
        moved <= needed * 11 / 10 + 4 * 4_096,
        "{moved} bytes for {needed}"
    );
    assert!(block_on(entry.read(0..entry.len())).unwrap() == whole);
}

#[test]
fn leases_and_conditional_writes_hold_across_clients() {
    let servers = [Memcached::start()];
    let [one, two] = [store(&servers), store(&servers)];
    let key = Key::new("k");
    let term = Duration::from_secs(60);
    let lease = block_on(one.lease(&key, term)).unwrap().unwrap();
    assert!(block_on(two.lease(&key, term)).unwrap().is_none());
    block_on(lease.release()).unwrap();
    let _lease = block_on(two.lease(&key, term)).unwrap().unwrap();
    assert!(block_on(one.lease(&key, term)).unwrap().is_none());

    for len in [10, 3_000_000] {
        assert!(put(&one, &key, &pattern(1, len)).unwrap().is_stored());
        let version = open(&two, &key).unwrap().unwrap().version();
        assert!(put(&one, &key, &pattern(2, len)).unwrap().is_stored());
        let options = WriteOptions::new().with_mode(WriteMode::Update(version));
        let late = two.put(&key, Bytes::new(), vec![pattern(3, len)], options);
        let superseded = Outcome::Rejected(Rejection::Superseded);
        assert_eq!(block_on(late).unwrap(), superseded);
        assert!(get(&two, &key).unwrap().unwrap() == pattern(2, len));
    }
}

#[test]
fn a_pool_without_a_free_connection_waits_and_then_says_so() {
    let server = Memcached::start();
    let backend = MemcachedBackend::builder([server.addr().to_string()])
        .connections(1)
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let key = Key::new("k");
    assert!(put(&backend, &key, &pattern(1, 10)).unwrap().is_stored());
    // Many threads share the one connection.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert!(get(&backend, &key).unwrap().is_some());
                }
            });
        }
    });
    // It hangs, and whoever waits for it gives up.
    server.pause();
    // The signal takes a moment to reach all of the server's threads.
    while get(&backend, &key).is_ok() {}
    let errors: Vec<_> = std::thread::scope(|scope| {
        let threads = [(); 3].map(|()| scope.spawn(|| get(&backend, &key).unwrap_err()));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    server.resume();
    for error in &errors {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    }
    assert!(
        errors
            .iter()
            .any(|error| error.to_string().contains("were busy"))
    );
    assert!(get(&backend, &key).unwrap().is_some());
}

/// A server that wants a password; the test kit's asks for statistics without one.
struct Locked {
    process: std::process::Child,
    addr: std::net::SocketAddr,
    dir: std::path::PathBuf,
}

impl Locked {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("ck-memcached-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("users"), "user:secret\n").unwrap();
        for _ in 0..20 {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = free.local_addr().unwrap();
            drop(free);
            let mut process = std::process::Command::new("memcached")
                .args(["-U", "0", "-l", "127.0.0.1", "-u", "root", "-p"])
                .arg(addr.port().to_string())
                .arg("-Y")
                .arg(dir.join("users"))
                .spawn()
                .expect("memcached: install the Debian package `memcached`");
            while process.try_wait().unwrap().is_none() {
                if TcpStream::connect(addr).is_ok() {
                    return Self { process, addr, dir };
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        panic!("memcached does not start");
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_server_with_a_password_takes_the_right_one_only() {
    let server = Locked::start();
    let open = |password: Option<&str>| {
        let builder = MemcachedBackend::builder([server.addr.to_string()]);
        match password {
            Some(password) => builder.credentials("user", password),
            None => builder,
        }
        .build()
        .unwrap()
    };
    let key = Key::new("k");
    for password in [None, Some("wrong")] {
        let error = get(&open(password), &key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error:?}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    assert!(
        put(&open(Some("secret")), &key, &pattern(1, 9))
            .unwrap()
            .is_stored()
    );
}

#[test]
fn servers_describe_themselves() {
    let servers = [
        Memcached::start(),
        Memcached::start_with(&["-m", "100", "-I", "2m"]),
    ];
    let backend = store(&servers);
    let stats = block_on(backend.server_stats()).unwrap();
    assert_eq!(stats.len(), 2);
    assert_eq!(stats[1].server, servers[1].addr().to_string());
    assert_eq!(stats[1].limit_bytes, 100 << 20);
    assert_eq!(stats[1].item_limit_bytes, (2 << 20) - 512);
    assert!(!stats[0].version.is_empty());
}
