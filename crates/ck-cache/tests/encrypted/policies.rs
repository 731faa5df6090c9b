use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use ck_backend_file::ReadMode;
use ck_cache::{
    Compression, EncryptionOptions, ErrorKind, LoadOptions, PutOptions, Table, Tampering,
};
use ck_core::{Backend, Expiry, Key, WriteMode, WriteOptions, block_on};

use super::support::{Fixture, TENANT, cache, in_chunks, keys, pattern, put, read};

fn small_table(n: i64) -> Table {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![n; 100]));
    Table::from(RecordBatch::try_from_iter([("n", numbers)]).unwrap())
}

/// Entries of both forms, and what is wrong with them.
fn forgeries() -> Vec<(&'static str, Fixture, bool)> {
    let forms = [EncryptionOptions::new(), in_chunks()];
    let mut all = Vec::new();
    for options in forms {
        let new = || {
            let fixture = Fixture::new(options);
            fixture
                .cache()
                .put_table("key", small_table(1), &PutOptions::new())
                .unwrap()
                .stored()
                .unwrap();
            fixture
        };
        let plain = new();
        let plain_cache = ck_cache::Cache::builder(Arc::clone(&plain.raw))
            .l1_bytes(0)
            .build()
            .blocking();
        plain_cache
            .put_table("key", small_table(2), &PutOptions::new())
            .unwrap()
            .stored()
            .unwrap();
        all.push(("a plain table", plain, false));

        let tenant = new();
        let other = tenant.with(keys(1, &[], "another"), options);
        cache(&other)
            .put_table("key", small_table(2), &PutOptions::new())
            .unwrap()
            .stored()
            .unwrap();
        all.push(("another tenant's", tenant, false));

        let key = new();
        let other = key.with(keys(2, &[], TENANT), options);
        cache(&other)
            .put_table("key", small_table(2), &PutOptions::new())
            .unwrap()
            .stored()
            .unwrap();
        all.push(("of another master key", key, false));

        let moved = new();
        moved
            .cache()
            .put_table("elsewhere", small_table(2), &PutOptions::new())
            .unwrap()
            .stored()
            .unwrap();
        moved.forge("key", &moved.stored("elsewhere"));
        all.push(("moved from another key", moved, true));

        let changed = new();
        let mut bytes = changed.stored("key");
        *bytes.last_mut().unwrap() ^= 1;
        changed.forge("key", &bytes);
        all.push(("changed", changed, true));

        let cut = new();
        let bytes = cut.stored("key");
        cut.forge("key", &bytes[..bytes.len() - 10]);
        all.push(("cut", cut, true));

        let stripped = new();
        let bytes = stripped.stored("key");
        let header = 7 + u32::from_be_bytes(bytes[3..7].try_into().unwrap()) as usize;
        stripped.forge("key", &bytes[header..]);
        all.push(("without its header", stripped, false));

        let newer = new();
        let text = String::from_utf8_lossy(&newer.stored("key")).into_owned();
        if text.contains("\"layout\": 1") {
            let bytes = newer.stored("key");
            let at = text.find("\"layout\": 1").unwrap() + 10;
            let mut bytes = bytes;
            bytes[at] = b'2';
            newer.forge("key", &bytes);
            all.push(("of a later layout", newer, false));
        }

        let empty = new();
        empty.forge("key", b"");
        all.push(("empty", empty, false));
    }
    all
}

#[test]
fn what_was_tampered_with_is_a_miss_that_is_counted_and_only_ones_own_is_removed() {
    for (what, fixture, is_own) in forgeries() {
        assert_eq!(fixture.cache().get_table("key").unwrap(), None, "{what}");
        assert_eq!(fixture.store.stats().tampered, 1, "{what}");
        assert_eq!(fixture.find("key").is_none(), is_own, "{what}");
    }
}

#[test]
fn by_option_it_is_an_error_that_removes_nothing() {
    for (what, fixture, _) in forgeries() {
        let options = EncryptionOptions::new().with_tampering(Tampering::Error);
        let store = fixture.with(keys(1, &[], TENANT), options);
        let before = fixture.find("key");
        let error = cache(&store).get_table("key").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tampered, "{what}: {error}");
        assert!(error.to_string().contains("key: key"), "{what}: {error}");
        assert_eq!(fixture.find("key"), before, "{what}");
        assert_eq!(store.stats().tampered, 1, "{what}");
    }
}

#[test]
fn by_option_evidence_is_kept() {
    for (what, fixture, _) in forgeries() {
        let options = EncryptionOptions::new().with_evidence_kept(true);
        let store = fixture.with(keys(1, &[], TENANT), options);
        let before = fixture.find("key");
        assert!(before.is_some());
        assert_eq!(cache(&store).get_table("key").unwrap(), None, "{what}");
        assert_eq!(fixture.find("key"), before, "{what}");
    }
}

#[test]
fn evidence_that_shows_late_is_kept_too() {
    for keep in [false, true] {
        let options = in_chunks().with_evidence_kept(keep);
        let fixture = Fixture::new(options);
        let table = small_table(3);
        fixture
            .cache()
            .put_table("key", &table, &PutOptions::new())
            .unwrap()
            .stored()
            .unwrap();
        put(&fixture.store, "bytes", b"head", &pattern(1, 9000));
        let mut bytes = fixture.stored("bytes");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fixture.forge("bytes", &bytes);
        let entry = block_on(fixture.store.open(&Key::new("bytes")))
            .unwrap()
            .unwrap();
        assert_eq!(&block_on(entry.read(0..104)).unwrap()[..4], b"head");
        let error = block_on(entry.read(9000..9004)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(block_on(entry.discard()).unwrap(), !keep);
        assert_eq!(fixture.find("bytes").is_some(), keep);
    }
}

#[test]
fn what_the_store_finds_damaged_is_not_counted_and_kept_as_evidence() {
    for keep in [false, true] {
        let options = in_chunks().with_evidence_kept(keep);
        let fixture = Fixture::reading(options, ReadMode::Pread);
        put(&fixture.store, "key", b"head", &pattern(1, 3 << 20));
        let entry = block_on(fixture.store.open(&Key::new("key")));
        let entry = entry.unwrap().unwrap();
        fixture.cut(1 << 20);
        let end = entry.len();
        let error = block_on(entry.read(end - 10..end)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(fixture.store.stats().tampered, 0);
        assert_eq!(block_on(entry.discard()).unwrap(), !keep);
        assert_eq!(fixture.find("key").is_some(), keep);
    }
}

#[test]
fn a_load_takes_the_place_of_what_was_tampered_with() {
    for keep in [false, true] {
        for (what, fixture, _) in forgeries() {
            let options = EncryptionOptions::new().with_evidence_kept(keep);
            let store = fixture.with(keys(1, &[], TENANT), options);
            let load = || async { Ok::<_, ck_cache::Error>(Some(small_table(9))) };
            let cache = ck_cache::Cache::builder(Arc::new(store.clone()))
                .l1_bytes(0)
                .build();
            let loaded = block_on(cache.get_or_load_table("key", &LoadOptions::new(), load));
            assert_eq!(loaded.unwrap().unwrap(), small_table(9), "{what}");
            let found = cache.blocking().get_table("key").unwrap();
            assert_eq!(found, Some(small_table(9)), "{what}, {keep}");
        }
    }
}

#[test]
fn nothing_of_the_keys_is_in_messages() {
    let fixture = Fixture::new(EncryptionOptions::new());
    put(&fixture.store, "key", b"head", b"body");
    let other = fixture.with(
        keys(0xab, &[0xcd], TENANT),
        EncryptionOptions::new().with_tampering(Tampering::Error),
    );
    let error = block_on(other.open(&Key::new("key"))).unwrap_err();
    let shown = format!("{error} {error:?} {other:?}");
    for secret in ["abab", "cdcd", "171, 171", "205, 205"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(read(&fixture.store, "key").is_some());
}

#[test]
fn a_namespace_whose_number_was_tampered_with_starts_anew() {
    for keep in [false, true] {
        let options = EncryptionOptions::new().with_evidence_kept(keep);
        let fixture = Fixture::new(options);
        let cache = fixture.cache();
        let space = cache.namespace("space");
        space
            .put_bytes("key", "value", &PutOptions::new())
            .unwrap()
            .stored()
            .unwrap();
        let mut number = fixture.stored("ck:namespace:space");
        let last = number.len() - 1;
        number[last] ^= 1;
        fixture.forge("ck:namespace:space", &number);
        let cache = fixture.cache();
        let space = cache.namespace("space");
        assert_eq!(space.get_bytes("key").unwrap(), None);
        space
            .put_bytes("key", "again", &PutOptions::new())
            .unwrap()
            .stored()
            .unwrap();
        assert_eq!(space.get_bytes("key").unwrap().unwrap(), "again");
    }
}

#[test]
fn verify_reports_what_was_tampered_with_and_removes_nothing() {
    for (what, fixture, _) in forgeries() {
        let before = fixture.find("key");
        let error = fixture.cache().verify("key").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert_eq!(fixture.find("key"), before, "{what}");
    }
}

#[test]
fn intact_entries_are_removed_though_evidence_is_kept() {
    let fixture = Fixture::new(in_chunks().with_evidence_kept(true));
    put(&fixture.store, "key", b"head", &pattern(1, 9000));
    let entry = block_on(fixture.store.open(&Key::new("key")))
        .unwrap()
        .unwrap();
    assert!(block_on(entry.discard()).unwrap());
    assert_eq!(fixture.find("key"), None);
}

#[test]
fn an_entry_under_a_prefix_belongs_there() {
    let server = testkit::RedisServer::start();
    let url = |prefix: &str| format!("{}?key_prefix={prefix}", server.url());
    let raw = |prefix: &str| ck_cache::open_store(&url(prefix)).unwrap();
    let store = |prefix: &str| {
        ck_cache::Encrypted::new(raw(prefix), keys(1, &[], TENANT), EncryptionOptions::new())
            .unwrap()
    };
    for head in [&b"head"[..], b"CK"] {
        put(&store("app:"), "key", head, b"body");
        // The same entry by its whole name.
        assert!(read(&store(""), "app:key").is_some());
        let entry = block_on(raw("app:").open(&Key::new("key")))
            .unwrap()
            .unwrap();
        let bytes = block_on(entry.read(0..entry.len())).unwrap();
        let (other, key) = (raw("other:"), Key::new("key"));
        let moved = other.put(
            &key,
            bytes::Bytes::new(),
            vec![bytes],
            ck_core::WriteOptions::new(),
        );
        block_on(moved).unwrap().stored().unwrap();
        assert_eq!(read(&store("other:"), "key"), None);
    }
}

#[test]
fn what_cannot_be_read_gets_no_other_time_to_live() {
    for (what, fixture, _) in forgeries() {
        let bytes = fixture.stored("key");
        let hour = Expiry::after(Duration::from_secs(3600)).unwrap();
        let options = WriteOptions::new().with_expiry(hour);
        let key = Key::new("key");
        let put = fixture
            .raw
            .put(&key, Bytes::new(), vec![bytes.into()], options);
        block_on(put).unwrap().stored().unwrap();
        let expiry = || block_on(fixture.raw.open(&key)).unwrap().unwrap().expiry();
        let before = expiry();
        let cache = fixture.cache();
        for ttl in [Some(Duration::from_secs(60)), None] {
            assert!(!cache.touch("key", ttl).unwrap(), "{what}");
        }
        assert!(!cache.expire("key").unwrap(), "{what}");
        assert_eq!(expiry(), before, "{what}");
    }
}

#[test]
fn where_nothing_may_be_replaced_what_was_tampered_with_is_counted_and_replaced_or_an_error() {
    for tampering in [Tampering::Miss, Tampering::Error] {
        for (what, fixture, _) in forgeries() {
            let options = in_chunks().with_tampering(tampering);
            let store = fixture.with(keys(1, &[], TENANT), options);
            let before = fixture.find("key");
            let options = WriteOptions::new().with_mode(WriteMode::Create);
            let body = vec![Bytes::from_static(b"new")];
            let put = block_on(store.put(&Key::new("key"), Bytes::new(), body, options));
            assert_eq!(store.stats().tampered, 1, "{what}");
            match tampering {
                Tampering::Miss => {
                    put.unwrap().stored().unwrap();
                    assert_eq!(read(&store, "key").unwrap(), b"new", "{what}");
                }
                Tampering::Error => {
                    let error = put.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Tampered, "{what}: {error}");
                    assert_eq!(fixture.find("key"), before, "{what}");
                }
            }
        }
    }
}

#[test]
fn what_is_too_long_to_be_proven_is_a_miss_that_is_counted_and_stays() {
    let at_once = || {
        let fixture = Fixture::new(EncryptionOptions::new());
        let cache = fixture.cache();
        let put = cache.put_table("key", small_table(1), &PutOptions::new());
        put.unwrap().stored().unwrap();
        fixture
    };
    let fixture = at_once();
    let bytes = 2 * fixture.stored("key").len() as u64;
    let enough = EncryptionOptions::new().with_whole_bytes(bytes);
    let store = fixture.with(keys(1, &[], TENANT), enough);
    assert!(cache(&store).get_table("key").unwrap().is_some());

    // Only all of it would tell that this is no entry in the Python client's old envelope.
    let plain = Fixture::new(EncryptionOptions::new());
    plain.forge("key", &[b'{'; 100_000]);
    for (what, fixture) in [("ours", at_once()), ("plain", plain)] {
        let before = fixture.stored("key");
        let options = EncryptionOptions::new().with_whole_bytes(bytes - 1);
        let store = fixture.with(keys(1, &[], TENANT), options);
        assert_eq!(cache(&store).get_table("key").unwrap(), None, "{what}");
        assert_eq!(store.stats().tampered, 1, "{what}");
        assert_eq!(fixture.stored("key"), before, "{what}");

        let options = options.with_tampering(Tampering::Error);
        let store = fixture.with(keys(1, &[], TENANT), options);
        let error = cache(&store).get_table("key").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tampered, "{what}: {error}");
        assert!(error.to_string().contains("whole_bytes"), "{what}: {error}");
    }
}

#[test]
fn nothing_is_stored_that_is_too_long_to_be_read_again() {
    let options = EncryptionOptions::new()
        .with_chunked_above(1 << 30)
        .with_whole_bytes(64 << 10);
    let fixture = Fixture::new(options);
    let longer = Table::from(
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..9999)) as _)])
            .unwrap(),
    );
    for (table, is_in_chunks) in [(small_table(1), false), (longer, true)] {
        let put = fixture.cache().put_table(
            "key",
            &table,
            &PutOptions::new().with_compression(Compression::None),
        );
        put.unwrap().stored().unwrap();
        assert_eq!(fixture.cache().get_table("key").unwrap(), Some(table));
        let stored = String::from_utf8_lossy(&fixture.stored("key")).into_owned();
        assert_eq!(stored.contains("ck-encrypted"), is_in_chunks);
    }

    // A value of the Python client is always encrypted at once.
    let header = ck_frame::Header::new("default")
        .with_metadata("format", "msgpack")
        .with_metadata("encoding", "utf-8")
        .with_metadata("compressed", false)
        .with_metadata("original_type", "bytes");
    let head = header.encode().unwrap();
    let put = |len: usize| {
        let options = WriteOptions::new().with_head_len(head.len());
        let body = vec![Bytes::from(pattern(1, len))];
        let key = Key::new("value");
        block_on(fixture.store.put(&key, head.clone(), body, options))
    };
    put(32_000).unwrap().stored().unwrap();
    let before = read(&fixture.store, "value").unwrap();
    let error = put(33_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("whole_bytes"), "{error}");
    assert_eq!(read(&fixture.store, "value").unwrap(), before);
}
