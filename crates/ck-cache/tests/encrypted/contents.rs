use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use ck_cache::{
    Compression, Encrypted, EncryptionOptions, Key, LoadOptions, PutOptions, Table, open_store,
};
use ck_core::{Backend, block_on};
use proptest::prelude::*;
use testkit::{Memcached, RedisServer};

use super::support::{Fixture, TENANT, cache, in_chunks, keys, pattern, put, read};

const SECRET: &str = "a text that must not be seen";

fn table(rows: i64) -> Table {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let texts = (0..rows).map(|row| format!("{SECRET} {row}"));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    Table::from(RecordBatch::try_from_iter([("number", numbers), ("text", texts)]).unwrap())
}

fn one_batch(table: &Table) -> RecordBatch {
    arrow_select::concat::concat_batches(table.schema(), table.batches()).unwrap()
}

fn plain() -> PutOptions {
    PutOptions::new().with_compression(Compression::None)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn tables_of_all_sizes_come_back_and_nothing_of_them_is_stored() {
    let fixture = Fixture::new(EncryptionOptions::new());
    let cache = fixture.cache();
    for rows in [0, 1, 1_000, 100_000] {
        let options = plain().with_batch_bytes(1 << 20);
        cache
            .put_table("secret/key", table(rows), &options)
            .unwrap()
            .stored()
            .unwrap();
        let found = cache.get_table("secret/key").unwrap().unwrap();
        assert_eq!(one_batch(&found), one_batch(&table(rows)));
        let stored = fixture.stored("secret/key");
        for text in [SECRET, "secret/key", "number", "ARROW1"] {
            assert!(
                !contains(&stored, text),
                "{text} in an entry of {rows} rows"
            );
        }
        assert_eq!(contains(&stored[..100], "ck-encrypted"), rows == 100_000);
    }
}

/// The salt is in the header, which comes first, and its key encrypts chunk 0 and all after it.
#[test]
fn no_two_entries_in_chunks_have_the_same_key() {
    let fixture = Fixture::new(in_chunks());
    let body = pattern(1, 10_000);
    let entries: Vec<_> = (0..50)
        .map(|_| {
            put(&fixture.store, "key", b"head", &body);
            fixture.stored("key")
        })
        .collect();
    let salt = |entry: &[u8]| {
        let header = String::from_utf8_lossy(entry);
        let (_, salt) = header.split_once("\"salt\": \"").unwrap();
        salt[..64].to_owned()
    };
    let salts: HashSet<_> = entries.iter().map(|entry| salt(entry)).collect();
    assert_eq!(salts.len(), entries.len());
    // 16 bytes at a time, wherever they are in the encrypted part of an entry, stand in no other.
    let blocks = entries.iter().flat_map(|entry| {
        let header = 7 + u32::from_be_bytes(entry[3..7].try_into().unwrap()) as usize;
        entry[header..].chunks_exact(16)
    });
    let count = blocks.clone().count();
    assert!(count > 50 * 600);
    assert_eq!(blocks.collect::<HashSet<_>>().len(), count);
}

#[test]
fn nothing_of_a_table_is_stored_by_servers_either() {
    let (redis, memcached) = (RedisServer::start(), Memcached::start());
    for url in [redis.url(), memcached.url()] {
        let raw = open_store(&url).unwrap();
        let store = Encrypted::new(
            Arc::clone(&raw),
            keys(1, &[], TENANT),
            EncryptionOptions::new(),
        );
        let cache = cache(&store.unwrap());
        for rows in [10, 100_000] {
            let put = cache.put_table("key", table(rows), &plain()).unwrap();
            put.stored().unwrap();
            let found = cache.get_table("key").unwrap().unwrap();
            assert_eq!(one_batch(&found), one_batch(&table(rows)));
            let entry = block_on(raw.open(&Key::new("key"))).unwrap().unwrap();
            let stored = block_on(entry.read(0..entry.len())).unwrap();
            for text in [SECRET, "number", "ARROW1"] {
                assert!(!contains(&stored, text), "{text} in {url}, {rows} rows");
            }
        }
    }
}

#[test]
fn batches_columns_and_rows_are_read_alone() {
    let fixture = Fixture::new(EncryptionOptions::new());
    let cache = fixture.cache();
    for compression in [Compression::None, Compression::Lz4, Compression::ZSTD] {
        let options = PutOptions::new()
            .with_compression(compression)
            .with_batch_bytes(1 << 20);
        cache
            .put_table("table", table(100_000), &options)
            .unwrap()
            .stored()
            .unwrap();
        let opened = cache.open_table("table").unwrap().unwrap();
        let all: u64 = opened
            .batches()
            .map(|batch| batch.unwrap().num_rows() as u64)
            .sum();
        assert_eq!(all, 100_000);
        let columns = opened.select(&["number"]).unwrap().read_all().unwrap();
        let numbers = columns.iter().map(|batch| batch.num_rows()).sum::<usize>();
        assert_eq!((numbers, columns[0].num_columns()), (100_000, 1));
        let rows = opened.rows(50_000..50_003).unwrap().read_all().unwrap();
        assert_eq!(
            rows[0].column(0).as_primitive::<Int64Type>().value(0),
            50_000
        );
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    }
}

#[test]
fn bytes_absent_values_and_stale_ones_work_as_without_encryption() {
    let fixture = Fixture::new(EncryptionOptions::new());
    let cache = fixture.cache();
    for len in [0, 1, 65_535, 65_536, 65_537, 3 << 20] {
        let bytes = pattern(1, len);
        cache
            .put_bytes("bytes", bytes.clone(), &PutOptions::new())
            .unwrap()
            .stored()
            .unwrap();
        assert_eq!(cache.get_bytes("bytes").unwrap().unwrap(), bytes);
        assert!(contains(&fixture.stored("bytes")[..100], "ck-encrypted"));
    }
    let loading = ck_cache::Cache::builder(Arc::new(fixture.store.clone()))
        .l1_bytes(0)
        .build();
    let nothing = || async { Ok::<Option<Table>, ck_cache::Error>(None) };
    let options = LoadOptions::new().with_absent_ttl(Duration::from_secs(60));
    for _ in 0..2 {
        let found = block_on(loading.get_or_load_table("absent", &options, nothing));
        assert_eq!(found.unwrap(), None);
    }
    assert_eq!(loading.stats().loads, 1, "the store knows");
    assert!(contains(&fixture.stored("absent")[..100], "ck-encrypted"));
    let stale = PutOptions::new()
        .with_ttl(Duration::from_secs(60))
        .with_stale_for(Duration::from_secs(60));
    cache
        .put_table("stale", table(10), &stale)
        .unwrap()
        .stored()
        .unwrap();
    assert!(contains(&fixture.stored("stale")[..100], "ck-encrypted"));
    assert!(cache.expire("stale").unwrap());
    let stored = block_on(fixture.raw.stat(&Key::new("stale")))
        .unwrap()
        .unwrap();
    assert!(stored.expiry.remaining().unwrap() > Duration::from_secs(30));
}

#[test]
fn previous_keys_read_and_do_not_write() {
    let fixture = Fixture::new(EncryptionOptions::new());
    fixture
        .cache()
        .put_table("small", table(10), &plain())
        .unwrap()
        .stored()
        .unwrap();
    fixture
        .cache()
        .put_bytes("bytes", "plain", &plain())
        .unwrap()
        .stored()
        .unwrap();
    let rotated = fixture.with(keys(2, &[1], TENANT), EncryptionOptions::new());
    assert_eq!(
        cache(&rotated).get_table("small").unwrap().unwrap(),
        table(10)
    );
    assert_eq!(
        cache(&rotated).get_bytes("bytes").unwrap().unwrap(),
        "plain"
    );
    cache(&rotated)
        .put_bytes("bytes", "new", &plain())
        .unwrap()
        .stored()
        .unwrap();
    assert_eq!(read(&fixture.store, "bytes"), None);
    assert_eq!(rotated.stats().tampered, 0);
}

#[test]
fn any_range_of_an_entry_is_what_was_stored() {
    let fixture = Fixture::new(in_chunks());
    let plain: Vec<u8> = pattern(7, 5 * 4096 + 100);
    let ranges = || prop::collection::vec((0..plain.len(), 0..9000_usize), 1..6);
    proptest!(ProptestConfig::with_cases(200), |(head in 0..5000_usize, ranges in ranges())| {
        let (first, rest) = plain.split_at(head);
        put(&fixture.store, "key", first, rest);
        let entry = block_on(fixture.store.open(&Key::new("key"))).unwrap().unwrap();
        prop_assert_eq!(entry.len(), plain.len() as u64);
        let ranges: Vec<Range<usize>> = ranges
            .into_iter()
            .map(|(start, len)| start..(start + len).min(plain.len()))
            .collect();
        let wanted = ranges.iter().map(|range| range.start as u64..range.end as u64).collect();
        let parts = block_on(entry.read_ranges(wanted)).unwrap();
        for (range, part) in ranges.into_iter().zip(parts) {
            prop_assert!(part.is_empty() || part.as_ptr().align_offset(64) == 0);
            prop_assert_eq!(&part[..], &plain[range]);
        }
        let beyond = block_on(entry.read(1..entry.len() + 1));
        prop_assert!(beyond.is_err());
    });
}
