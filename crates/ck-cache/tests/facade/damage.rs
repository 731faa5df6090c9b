use ck_cache::{Cache, ErrorKind, Verification};

use super::support::{Fixture, batch, numbers, plain, store_in};

/// Puts a table of some hundred KiB and flips a bit in the middle, where the columns are.
fn damaged() -> Fixture {
    let fixture = Fixture::new();
    let _ = fixture
        .cache
        .blocking()
        .put_table("t", batch(0, 50_000), &plain())
        .unwrap();
    fixture.damage(|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
    });
    fixture
}

#[test]
fn a_damaged_table_is_a_miss_is_counted_and_removed() {
    let fixture = damaged();
    let cache = fixture.cache.blocking();
    assert!(cache.get_table("t").unwrap().is_none());
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.corrupt), (0, 1, 1));
    assert!(fixture.entry_files().is_empty());
    assert!(cache.get_table("t").unwrap().is_none());
    assert_eq!(cache.stats().corrupt, 1);
}

#[test]
fn damage_found_while_reading_is_an_error_and_removes_the_entry_once() {
    let fixture = damaged();
    let cache = fixture.cache.blocking();
    let table = cache.open_table("t").unwrap().unwrap();
    let first = table.rows(0..10).unwrap().read_all().unwrap();
    assert_eq!(numbers(&first), (0..10).collect::<Vec<_>>());
    for _ in 0..2 {
        let error = table.read_all().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("key: t"), "{error}");
    }
    assert_eq!(cache.stats().corrupt, 1);
    assert!(cache.open_table("t").unwrap().is_none());
}

#[test]
fn damage_to_a_replaced_entry_leaves_the_new_one() {
    let fixture = damaged();
    let cache = fixture.cache.blocking();
    let old = cache.open_table("t").unwrap().unwrap();
    let _ = cache.put_table("t", batch(9, 3), &plain()).unwrap();
    assert_eq!(old.read_all().unwrap_err().kind(), ErrorKind::Corrupt);
    let found = cache.get_table("t").unwrap().unwrap();
    assert_eq!(numbers(found.batches()), [9, 10, 11]);
}

#[test]
fn verify_reports_damage_and_removes_nothing() {
    let fixture = damaged();
    let cache = fixture.cache.blocking();
    let error = cache.verify("t").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(fixture.entry_files().len(), 1);
    assert_eq!(cache.stats().corrupt, 0);
}

#[test]
fn full_verification_finds_damage_when_the_table_is_opened() {
    let fixture = damaged();
    let store = store_in(&fixture.dir, "");
    let cache = Cache::builder(store)
        .verification(Verification::Full)
        .build()
        .blocking();
    assert!(cache.open_table("t").unwrap().is_none());
    assert_eq!(cache.stats().corrupt, 1);
}

#[test]
fn torn_zeroed_and_foreign_files_are_misses() {
    let changes: [fn(&mut Vec<u8>); 5] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.truncate(20),
        |bytes| bytes.fill(0),
        |bytes| bytes[14..].fill(0),
        |bytes| bytes.splice(14.., *b"something else").for_each(drop),
    ];
    for change in changes {
        let fixture = Fixture::new();
        let cache = fixture.cache.blocking();
        let _ = cache.put_table("t", batch(0, 50_000), &plain()).unwrap();
        fixture.damage(change);
        assert!(cache.get_table("t").unwrap().is_none());
        let _ = cache.put_bytes("t", vec![7; 100_000], &plain()).unwrap();
        fixture.damage(change);
        assert!(cache.get_bytes("t").unwrap().is_none());
        assert_eq!(cache.stats().misses, 2);
    }
}
