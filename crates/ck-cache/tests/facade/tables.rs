use std::time::Duration;

use arrow_array::cast::AsArray;
use ck_cache::{Compression, ErrorKind, PutOptions, Table};
use ck_core::block_on;

use super::support::{Fixture, batch, numbers, plain, table};

#[test]
fn a_table_comes_back_as_it_was_put_whatever_the_compression() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let table = table(10_000, 3);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(3)] {
        let options = PutOptions::new().with_compression(compression);
        assert!(cache.put_table("t", &table, &options).unwrap().is_stored());
        let found = cache.get_table("t").unwrap().unwrap();
        assert_eq!(found.schema(), table.schema());
        assert_eq!(numbers(found.batches()), numbers(table.batches()));
        let text = |table: &Table| -> Vec<String> {
            let columns = table
                .batches()
                .iter()
                .map(|batch| batch.column(1).as_string::<i32>());
            columns.flatten().flatten().map(str::to_owned).collect()
        };
        assert_eq!(text(&found), text(&table));
    }
    assert_eq!(cache.stats().stored, 3);
    assert_eq!(cache.stats().hits, 3);
}

#[test]
fn an_empty_table_keeps_its_schema() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let empty = Table::new(batch(0, 1).schema(), Vec::new()).unwrap();
    assert!(
        cache
            .put_table("empty", &empty, &PutOptions::new())
            .unwrap()
            .is_stored()
    );
    let found = cache.get_table("empty").unwrap().unwrap();
    assert_eq!((found.schema(), found.num_rows()), (empty.schema(), 0));
}

#[test]
fn views_read_the_columns_and_rows_they_show() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let _ = cache.put_table("t", table(10_000, 4), &plain()).unwrap();
    let table = cache.open_table("t").unwrap().unwrap();
    assert_eq!(table.num_rows(), 40_000);
    let view = table
        .select(&["text", "number"])
        .unwrap()
        .rows(9_990..10_010)
        .unwrap();
    assert_eq!(view.schema().field(0).name(), "text");
    assert_eq!(
        numbers(&view.read_all().unwrap()),
        (9_990..10_010).collect::<Vec<_>>()
    );
    let view = table.project(&[0]).unwrap();
    let streamed: Vec<_> = view.batches().map(Result::unwrap).collect();
    assert_eq!(streamed.len(), view.num_batches());
    assert_eq!(numbers(&streamed), (0..40_000).collect::<Vec<_>>());
    assert!(streamed.iter().all(|batch| batch.num_columns() == 1));

    assert_eq!(
        table.select(&["price"]).unwrap_err().kind(),
        ErrorKind::Misuse
    );
    assert_eq!(table.rows(0..40_001).unwrap_err().kind(), ErrorKind::Misuse);
}

#[test]
fn an_open_table_outlives_its_replacement_and_removal() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let _ = cache.put_table("t", batch(0, 50_000), &plain()).unwrap();
    let old = cache.open_table("t").unwrap().unwrap();
    let _ = cache.put_table("t", batch(7, 50_000), &plain()).unwrap();
    assert!(cache.remove("t").unwrap());
    assert_eq!(
        numbers(&old.read_all().unwrap()),
        (0..50_000).collect::<Vec<_>>()
    );
    assert!(cache.get_table("t").unwrap().is_none());
    assert_eq!(cache.stats().misses, 1);
}

#[test]
fn listings_tell_keys_and_stat_touch_and_remove_work_on_them() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let long = "k".repeat(1024);
    let keys = ["a", "größe/ключ 🗝", "", &long];
    for key in keys {
        let _ = cache
            .put_table(key, batch(0, 10), &PutOptions::new())
            .unwrap();
    }
    let _ = cache.put_bytes("bytes", "b", &PutOptions::new()).unwrap();
    let page = cache.list(None).unwrap();
    let mut found: Vec<_> = page
        .entries
        .iter()
        .map(|entry| entry.key.clone().unwrap().as_str().to_owned())
        .collect();
    found.sort();
    let mut expected = [&keys[..], &["bytes"]].concat();
    expected.sort_unstable();
    assert_eq!(found, expected);

    let info = cache.stat("a").unwrap().unwrap();
    assert!(info.expiry.is_never());
    assert!(cache.touch("a", Some(Duration::from_secs(100))).unwrap());
    assert!(!cache.touch("missing", None).unwrap());
    let left = cache
        .stat("a")
        .unwrap()
        .unwrap()
        .expiry
        .remaining()
        .unwrap();
    assert!((90..=100).contains(&left.as_secs()), "{left:?}");
    assert!(cache.touch("a", None).unwrap());
    assert!(cache.stat("a").unwrap().unwrap().expiry.is_never());
    assert_eq!(
        cache.touch("a", Some(Duration::ZERO)).unwrap_err().kind(),
        ErrorKind::Misuse
    );

    assert!(cache.verify("a").unwrap());
    assert!(!cache.verify("missing").unwrap());
    assert_eq!(cache.usage().unwrap().entries, 5);
    assert!(cache.remove("a").unwrap());
    assert!(!cache.remove("a").unwrap());
    assert!(cache.stat("a").unwrap().is_none());
    let _ = cache.prune().unwrap();
    assert_eq!(cache.usage().unwrap().entries, 4);
}

#[test]
fn keys_beyond_one_kib_work_but_are_not_listed() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let table_key = "t".repeat(1025);
    let bytes_key = "b".repeat(100_000);
    let _ = cache
        .put_table(&*table_key, batch(0, 10), &plain())
        .unwrap();
    let _ = cache.put_bytes(&*bytes_key, "b", &plain()).unwrap();
    assert!(cache.get_table(&*table_key).unwrap().is_some());
    assert!(cache.get_bytes(&*bytes_key).unwrap().is_some());
    let page = cache.list(None).unwrap();
    assert_eq!(page.entries.len(), 2);
    assert!(page.entries.iter().all(|entry| entry.key.is_none()));
}

#[test]
fn a_time_to_live_ends_the_entry() {
    let fixture = Fixture::new();
    let options = PutOptions::new().with_ttl(Duration::from_secs(1));
    let outcome = block_on(fixture.cache.put_table("t", batch(0, 10), &options)).unwrap();
    assert!(outcome.is_stored());
    let expiry = block_on(fixture.cache.stat("t")).unwrap().unwrap().expiry;
    while !expiry.is_expired() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(block_on(fixture.cache.get_table("t")).unwrap().is_none());
}

#[test]
fn batches_of_another_schema_are_refused() {
    let other = batch(0, 1).project(&[0]).unwrap();
    let error = Table::new(batch(0, 1).schema(), vec![batch(0, 1), other]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert!(error.to_string().contains("batch: 1"), "{error}");
}
