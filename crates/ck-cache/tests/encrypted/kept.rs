//! Entries that the process keeps as they are stored.

use std::sync::Arc;
use std::time::Duration;

use ck_backend_file::ReadMode;
use ck_cache::{Encrypted, Key, PutOptions, open_store};
use ck_core::{Backend, Expiry, WriteMode, WriteOptions, block_on, conformance};
use testkit::{Proxy, RedisServer};

use super::support::{Fixture, TENANT, cache, in_chunks, keys, pattern, put, read};

fn kept(raw: Arc<dyn Backend>, bytes: u64) -> Encrypted {
    let options = in_chunks().with_memory(bytes, Duration::from_secs(60));
    Encrypted::new(raw, keys(1, &[], TENANT), options).unwrap()
}

#[test]
fn a_store_that_keeps_entries_conforms() {
    let server = RedisServer::start();
    let store = kept(open_store(&server.url()).unwrap(), 64 << 20);
    block_on(conformance::run_contents(Arc::new(store)));
}

#[test]
fn what_is_kept_is_read_without_the_store() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr());
    let store = kept(
        open_store(&format!("redis://{}", proxy.addr())).unwrap(),
        1 << 20,
    );
    let plain = pattern(1, 200_000);
    put(&store, "key", b"head", &plain);
    assert_eq!(&read(&store, "key").unwrap()[4..], plain);
    let before = proxy.bytes_down();
    assert_eq!(&read(&store, "key").unwrap()[4..], plain);
    assert_eq!(proxy.bytes_down(), before);
    // One that would drive out all others is not kept.
    let large = pattern(2, 300_000);
    put(&store, "large", b"head", &large);
    assert_eq!(&read(&store, "large").unwrap()[4..], large);
    let before = proxy.bytes_down();
    assert_eq!(&read(&store, "large").unwrap()[4..], large);
    assert!(proxy.bytes_down() - before > 300_000);
}

#[test]
fn changes_of_all_kinds_are_seen() {
    let server = RedisServer::start();
    let store = kept(open_store(&server.url()).unwrap(), 1 << 20);
    let key = Key::new("key");
    put(&store, "key", b"head", b"old");
    assert_eq!(read(&store, "key").unwrap(), b"headold");
    put(&store, "key", b"head", b"new");
    assert_eq!(read(&store, "key").unwrap(), b"headnew");

    // By a writer, which is dropped at first.
    let begin = || {
        let options = WriteOptions::new().with_mode(WriteMode::Overwrite);
        block_on(store.create(&key, options))
            .unwrap()
            .continue_value()
            .unwrap()
    };
    drop(begin());
    assert_eq!(read(&store, "key").unwrap(), b"headnew");
    let mut writer = begin();
    let _ = block_on(writer.write(vec![pattern(3, 10_000).into()])).unwrap();
    block_on(writer.commit(bytes::Bytes::new()))
        .unwrap()
        .stored()
        .unwrap();
    assert_eq!(read(&store, "key").unwrap(), pattern(3, 10_000));

    let expiry = Expiry::after(Duration::from_secs(100)).unwrap();
    assert!(block_on(store.touch(&key, expiry)).unwrap());
    let opened = block_on(store.open(&key)).unwrap().unwrap();
    assert_eq!(opened.expiry(), expiry);
    assert!(block_on(store.remove(&key)).unwrap());
    assert_eq!(read(&store, "key"), None);
}

#[test]
fn an_entry_that_expires_is_not_read_any_more() {
    let server = RedisServer::start();
    let store = kept(open_store(&server.url()).unwrap(), 1 << 20);
    let cache = cache(&store);
    let options = PutOptions::new().with_ttl(Duration::from_secs(1));
    cache
        .put_bytes("key", "value", &options)
        .unwrap()
        .stored()
        .unwrap();
    assert_eq!(cache.get_bytes("key").unwrap().unwrap(), "value");
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(cache.get_bytes("key").unwrap(), None);
}

#[test]
fn what_is_tampered_with_is_not_kept() {
    for at_end in [false, true] {
        let fixture = Fixture::reading(in_chunks(), ReadMode::Pread);
        let store = kept(Arc::clone(&fixture.raw), 1 << 20);
        let options = PutOptions::new();
        cache(&store)
            .put_bytes("key", "value", &options)
            .unwrap()
            .stored()
            .unwrap();
        let good = fixture.stored("key");
        let mut bytes = good.clone();
        let at = if at_end {
            bytes.len() - 1
        } else {
            bytes.len() - 100
        };
        bytes[at] ^= 1;
        fixture.forge("key", &bytes);
        let fresh = kept(Arc::clone(&fixture.raw), 1 << 20);
        assert_eq!(cache(&fresh).get_bytes("key").unwrap(), None);
        assert_eq!(fresh.stats().tampered, 1);
        assert_eq!(fixture.find("key"), None);
        fixture.forge("key", &good);
        assert_eq!(cache(&fresh).get_bytes("key").unwrap().unwrap(), "value");
    }
}

#[test]
fn what_others_change_is_seen_after_a_while() {
    let server = RedisServer::start();
    let open = || {
        let raw = open_store(&server.url()).unwrap();
        let options = in_chunks().with_memory(1 << 20, Duration::from_millis(300));
        cache(&Encrypted::new(raw, keys(1, &[], TENANT), options).unwrap())
    };
    let (one, two) = (open(), open());
    let options = PutOptions::new();
    one.put_bytes("key", "old", &options)
        .unwrap()
        .stored()
        .unwrap();
    assert_eq!(two.get_bytes("key").unwrap().unwrap(), "old");
    one.put_bytes("key", "new", &options)
        .unwrap()
        .stored()
        .unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(two.get_bytes("key").unwrap().unwrap(), "new");
}

#[test]
fn numbers_of_namespaces_are_not_kept() {
    let server = RedisServer::start();
    let open = || cache(&kept(open_store(&server.url()).unwrap(), 1 << 20));
    let (one, two) = (open(), open());
    let options = PutOptions::new();
    let space = one.namespace("space");
    space
        .put_bytes("key", "old", &options)
        .unwrap()
        .stored()
        .unwrap();
    assert_eq!(
        two.namespace("space").get_bytes("key").unwrap().unwrap(),
        "old"
    );
    space.invalidate().unwrap();
    // A namespace asks for its number again after a second; entries are kept for a minute.
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(two.namespace("space").get_bytes("key").unwrap(), None);
}

#[test]
fn what_is_mapped_or_too_long_is_not_kept() {
    for (mode, bytes, is_kept) in [
        (ReadMode::Pread, 400_000, true),
        (ReadMode::Mapped, 400_000, false),
        // Short enough for the store to have it in one piece.
        (ReadMode::Pread, 100_000, true),
        (ReadMode::Mapped, 100_000, true),
        (ReadMode::Pread, 600_000, false),
    ] {
        let fixture = Fixture::reading(in_chunks(), mode);
        let store = kept(Arc::clone(&fixture.raw), 2 << 20);
        put(&store, "key", b"head", &pattern(1, bytes));
        assert!(read(&store, "key").is_some());
        assert!(block_on(fixture.raw.remove(&Key::new("key"))).unwrap());
        let found = read(&store, "key").is_some();
        assert_eq!(found, is_kept, "{bytes} bytes, {mode:?}");
    }
}

#[test]
fn nothing_is_left_of_a_store_that_is_dropped() {
    let fixture = Fixture::reading(in_chunks(), ReadMode::Pread);
    let store = kept(Arc::clone(&fixture.raw), 1 << 20);
    put(&store, "key", b"head", b"body");
    assert!(read(&store, "key").is_some());
    let before = Arc::strong_count(&fixture.raw);
    drop(store);
    assert_eq!(Arc::strong_count(&fixture.raw), before - 1);
}
