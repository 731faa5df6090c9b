//! Guards what is told of the store as a whole: which entries there are, what they use, and what an entry
//! that is refused leaves behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use ck_core::{
    Backend, Cursor, EntryInfo, ErrorKind, Expiry, Key, Outcome, Rejection, WriteMode,
    WriteOptions, block_on,
};
use common::{builder, get, open, pattern, put, put_until, store};
use testkit::Memcached;

fn line_of(server: &Memcached, command: &str) -> String {
    let mut stream = BufReader::new(TcpStream::connect(server.addr()).unwrap());
    stream.get_mut().write_all(command.as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// All entries by their names, and the number of pages.
fn list(backend: &dyn Backend, head_bytes: usize) -> (BTreeMap<String, EntryInfo>, usize) {
    let (mut entries, mut pages, mut cursor) = (BTreeMap::new(), 0, None);
    loop {
        let page = block_on(backend.list(cursor, head_bytes)).unwrap();
        pages += 1;
        for info in page.entries {
            let twice = entries.insert(info.id.clone(), info);
            assert!(twice.is_none(), "{twice:?} is listed twice");
        }
        cursor = page.next;
        if cursor.is_none() {
            return (entries, pages);
        }
    }
}

#[test]
fn entries_are_listed_without_chunks_leases_and_what_is_not_theirs() {
    let servers = [(); 2].map(|()| Memcached::start_with(&["-m", "128"]));
    let backend = builder(&servers).key_prefix("p:").build().unwrap();
    let expiry = Expiry::after(Duration::from_secs(1_000)).unwrap();
    let (small, large) = (pattern(1, 100), pattern(2, 3_000_000));
    let odd = Key::new("a key with spaces");
    for (key, value) in [
        (Key::new("small"), &small),
        (Key::new("100%:x"), &small),
        (odd.clone(), &small),
        (Key::new("large"), &large),
    ] {
        assert!(
            put_until(&backend, &key, value, expiry)
                .unwrap()
                .is_stored()
        );
    }
    let _lease = block_on(backend.lease(&Key::new("small"), Duration::from_secs(60))).unwrap();
    // An entry of somebody else, one that is over, and one on a server where nobody looks for it.
    let others = builder(&servers).key_prefix("q:").build().unwrap();
    assert!(
        put(&others, &Key::new("small"), &small)
            .unwrap()
            .is_stored()
    );
    for server in &servers {
        assert_eq!(line_of(server, "set p:stray 0 0 1\r\nx\r\n"), "STORED");
        assert_eq!(line_of(server, "set p:over 0 -1 1\r\nx\r\n"), "STORED");
    }

    let (entries, _) = list(&backend, 10);
    let names: Vec<&str> = entries.keys().map(String::as_str).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    for (name, key, value) in [
        ("p:small", Some("small"), &small),
        ("p:100%:x", Some("100%:x"), &small),
        ("p:large", Some("large"), &large),
        ("p:stray", Some("stray"), &Bytes::from_static(b"x")),
    ] {
        let info = &entries[name];
        assert_eq!(info.key.as_ref().map(Key::as_str), key);
        assert_eq!(info.bytes, value.len() as u64);
        assert_eq!(info.head, value.slice(..10.min(value.len())));
        if name != "p:stray" {
            assert_eq!(info.expiry, expiry);
        }
        let age = info.last_used.unwrap().elapsed().unwrap_or_default();
        assert!(age < Duration::from_secs(60), "{age:?}");
    }
    // The key of this one stands in what our own entries begin with.
    let hashed = entries.iter().find(|(name, _)| name.starts_with("p:ckh:"));
    let (_, info) = hashed.unwrap();
    assert_eq!((info.key.as_ref(), &info.head[..]), (None, &small[..10]));

    let usage = block_on(backend.usage()).unwrap();
    assert_eq!((usage.entries, usage.bytes), (5, 301 + 3_000_000));
    assert_eq!(usage.limit_bytes, Some(256 << 20));
}

#[test]
fn a_listing_has_pages_and_is_no_use_of_the_entries() {
    let servers = [Memcached::start(), Memcached::start()];
    let backend = store(&servers);
    for index in 0..90 {
        let key = Key::new(format!("k{index}"));
        assert!(
            put(&backend, &key, &pattern(index, 50))
                .unwrap()
                .is_stored()
        );
    }
    let (entries, pages) = list(&backend, 1 << 20);
    assert_eq!(entries.len(), 90);
    // 16 entries each, because the heads might be large.
    assert!((6..=8).contains(&pages), "{pages} pages");
    let (entries, pages) = list(&backend, 0);
    assert_eq!((entries.len(), pages), (90, 2));
    assert!(block_on(backend.stat(&Key::new("k0"))).unwrap().is_some());
    for server in &servers {
        for name in entries.keys() {
            let hit = line_of(server, &format!("mg {name} u h\r\n"));
            assert!(["HD h0", "EN"].contains(&&*hit), "{name}: {hit}");
        }
    }
}

#[test]
fn a_torn_entry_is_not_listed_and_others_listings_are_waited_for() {
    let server = Memcached::start_with(&["-m", "128"]);
    let backend = builder(std::slice::from_ref(&server))
        .single_value_bytes(1_000)
        .chunk_bytes(1_000)
        .build()
        .unwrap();
    for key in ["torn", "whole"] {
        assert!(
            put(&backend, &Key::new(key), &pattern(1, 10_000))
                .unwrap()
                .is_stored()
        );
    }
    let raw = open(&backend, &Key::new("torn")).unwrap().unwrap();
    let generation = raw.version().0;
    assert_eq!(
        line_of(
            &server,
            &format!("md ckc:{}\r\n", ck_frame::chunk_name(generation, 0))
        ),
        "HD"
    );
    assert_eq!(
        list(&backend, 1_500).0.into_keys().collect::<Vec<_>>(),
        ["whole"]
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(list(&backend, 0).0.len(), 2);
                }
            });
        }
    });
}

#[test]
fn a_server_without_a_crawler_and_a_foreign_cursor_are_told_apart() {
    let server = Memcached::start_with(&["-o", "no_lru_crawler"]);
    let backend = store(std::slice::from_ref(&server));
    let error = block_on(backend.list(None, 0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.to_string().contains("crawler"), "{error}");
    let error = block_on(backend.usage()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    for cursor in [&b"x"[..], b"\0\0\0\x01"] {
        let cursor = Cursor(Bytes::from_static(cursor));
        let error = block_on(backend.list(Some(cursor), 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error:?}");
    }
}

#[test]
fn what_is_refused_takes_along_only_what_it_was_to_replace() {
    let server = Memcached::start();
    let backend = builder(std::slice::from_ref(&server))
        .chunking(false)
        .build()
        .unwrap();
    let key = Key::new("k");
    let (old, large) = (pattern(1, 1_000), pattern(2, 2_000_000));
    let too_large = |outcome| match outcome {
        Ok(Outcome::Rejected(Rejection::ValueTooLarge { bytes, limit })) => {
            assert_eq!((bytes, limit), (2_000_000, (1 << 20) - 512));
        }
        other => panic!("{other:?}"),
    };
    let put_with = |mode| {
        let options = WriteOptions::new().with_mode(mode);
        block_on(backend.put(&key, Bytes::new(), vec![large.clone()], options))
    };
    assert!(put(&backend, &key, &old).unwrap().is_stored());
    let version = open(&backend, &key).unwrap().unwrap().version();
    too_large(put_with(WriteMode::Create));
    assert_eq!(get(&backend, &key).unwrap().as_ref(), Some(&old));
    let newer = pattern(3, 1_000);
    assert!(put(&backend, &key, &newer).unwrap().is_stored());
    too_large(put_with(WriteMode::Update(version)));
    assert_eq!(get(&backend, &key).unwrap(), Some(newer));
    let version = open(&backend, &key).unwrap().unwrap().version();
    too_large(put_with(WriteMode::Update(version)));
    assert_eq!(get(&backend, &key).unwrap(), None);
}

#[test]
fn an_entry_of_more_chunks_than_a_manifest_describes_takes_the_stale_one_along() {
    let server = Memcached::start_with(&["-m", "128", "-I", "2k", "-o", "slab_chunk_max=1024"]);
    let backend = builder(std::slice::from_ref(&server)).build().unwrap();
    let key = Key::new("k");
    assert!(put(&backend, &key, &pattern(1, 1_000)).unwrap().is_stored());
    let writer = block_on(backend.create(&key, WriteOptions::new())).unwrap();
    let ControlFlow::Continue(mut writer) = writer else {
        panic!("no writer");
    };
    let written = block_on(writer.write(vec![pattern(2, 4_000_000)])).unwrap();
    match written {
        ControlFlow::Break(Rejection::ValueTooLarge { bytes, .. }) => assert_eq!(bytes, 4_000_000),
        other => panic!("{other:?}"),
    }
    drop(writer);
    assert_eq!(get(&backend, &key).unwrap(), None);
}
