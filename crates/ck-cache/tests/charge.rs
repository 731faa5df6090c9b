//! Guards the promise that what the in-process tier charges is what the process has allocated for it, within a
//! tenth, for tables of many shapes and all that a cache keeps around them.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

use std::sync::Arc;
use std::time::Duration;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatch,
    StringArray, StringViewArray,
};
use ck_cache::{
    Cache, Compression, Encrypted, EncryptionOptions, Keyring, MasterKey, PutOptions, Table,
    open_store,
};
use testkit::heap::{CountingAllocator, alone, live};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

/// Enough for what a tier sets up once to count for nothing.
const ENTRIES: usize = 2000;

fn text(n: usize) -> Vec<String> {
    (0..n)
        .map(|i| format!("a text that is not inlined, number {i}"))
        .collect()
}

fn of_columns(columns: Vec<(String, ArrayRef)>) -> Table {
    RecordBatch::try_from_iter(columns).unwrap().into()
}

fn numbers(rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(0..rows as i64))
}

/// Makes the table of an entry by its number.
type Make = Box<dyn Fn(usize) -> Table>;

fn shapes() -> Vec<(&'static str, Make)> {
    vec![
        (
            "no rows",
            Box::new(|_| of_columns(vec![("a".into(), numbers(0)), ("b".into(), numbers(0))])),
        ),
        (
            "three rows under a schema of their own",
            Box::new(|n| {
                of_columns(
                    (0..3)
                        .map(|c| (format!("column {c} of {n}"), numbers(3)))
                        .collect(),
                )
            }),
        ),
        (
            "one of a few schemas",
            Box::new(|n| {
                of_columns(
                    (0..20)
                        .map(|c| (format!("column {c} of {}", n % 5), numbers(3)))
                        .collect(),
                )
            }),
        ),
        (
            "one row of 2,000",
            Box::new(|n| {
                let columns: Vec<(&str, ArrayRef)> = vec![
                    ("n", numbers(2_000)),
                    (
                        "s",
                        Arc::new(StringArray::from_iter_values(
                            (0..2_000).map(|i| i.to_string()),
                        )),
                    ),
                    ("f", Arc::new(Float64Array::from(vec![0.5; 2_000]))),
                ];
                Table::from(RecordBatch::try_from_iter(columns).unwrap().slice(n, 1))
            }),
        ),
        (
            "views of few rows of many",
            Box::new(|n| {
                let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(text(500)));
                let batch = RecordBatch::try_from_iter([("v", views)]).unwrap();
                Table::from(batch.slice(n % 400, 20))
            }),
        ),
        (
            "a dictionary shared by batches",
            Box::new(|_| {
                let column: DictionaryArray<Int32Type> =
                    text(60).iter().map(String::as_str).collect();
                let column: ArrayRef = Arc::new(column);
                let batch = RecordBatch::try_from_iter([("d", column)]).unwrap();
                let batches = (0..6).map(|part| batch.slice(part * 10, 10)).collect();
                Table::new(batch.schema(), batches).unwrap()
            }),
        ),
        (
            "lists and flags with nulls",
            Box::new(|_| {
                let lists = (0..50).map(|n| (n % 3 > 0).then(|| vec![Some(n), None]));
                let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
                let flags: BooleanArray =
                    (0..50).map(|n| (n % 2 > 0).then_some(n % 4 > 0)).collect();
                of_columns(vec![
                    ("l".into(), Arc::new(lists)),
                    ("b".into(), Arc::new(flags)),
                ])
            }),
        ),
    ]
}

#[test]
fn what_is_charged_for_tables_is_what_is_allocated_within_a_tenth() {
    let _alone = alone();
    let mut misfits = Vec::new();
    for ttl in [None, Some(Duration::from_secs(3600))] {
        let options = ttl.map_or(PutOptions::new(), |ttl| PutOptions::new().with_ttl(ttl));
        for (name, make) in shapes() {
            let before = live();
            let cache = Cache::in_process(1 << 30).blocking();
            for n in 0..ENTRIES {
                let outcome = cache.put_table(format!("entry {n}"), make(n), &options);
                outcome.unwrap().stored().unwrap();
            }
            let charged = cache.stats().l1.unwrap();
            let share = charged.bytes as f64 / (live() - before) as f64;
            assert_eq!(charged.entries, ENTRIES as u64);
            println!(
                "{name}, {ttl:?}: {share:.3}, {} bytes each",
                charged.bytes / ENTRIES as u64
            );
            if !(0.9..=1.1).contains(&share) {
                misfits.push(format!(
                    "{name}, {ttl:?}: {share:.3} of {}",
                    live() - before
                ));
            }
        }
    }
    assert!(misfits.is_empty(), "{}", misfits.join("\n"));
}

#[test]
fn what_is_charged_for_tables_from_the_store_is_what_is_allocated_within_a_tenth() {
    let _alone = alone();
    let mut misfits = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file:{}", dir.path().display());
    let cache = Cache::new(open_store(&url).unwrap()).blocking();
    for (shape, (_, make)) in shapes().into_iter().enumerate() {
        for n in 0..ENTRIES {
            let put = cache.put_table(format!("{shape}/{n}"), make(n), &PutOptions::new());
            put.unwrap().stored().unwrap();
        }
    }
    for read in ["mapped", "pread"] {
        let url = format!("{url}?read={read}");
        for (shape, (name, _)) in shapes().into_iter().enumerate() {
            let cache = Cache::builder(open_store(&url).unwrap()).l1_bytes(1 << 30);
            let cache = cache.build().blocking();
            // What the first read sets up for good.
            cache.get_table(format!("{shape}/0")).unwrap().unwrap();
            let (before, charged) = (live(), cache.stats().l1.unwrap().bytes);
            for n in 1..ENTRIES {
                cache.get_table(format!("{shape}/{n}")).unwrap().unwrap();
            }
            let charged = cache.stats().l1.unwrap().bytes - charged;
            let share = charged as f64 / (live() - before) as f64;
            println!("{read}, {name}: {share:.3}");
            if !(0.9..=1.1).contains(&share) {
                misfits.push(format!("{read}, {name}: {share:.3} of {}", live() - before));
            }
        }
    }
    assert!(misfits.is_empty(), "{}", misfits.join("\n"));
}

/// Chunks begin and end where no batch does.
#[test]
fn what_is_charged_for_encrypted_tables_from_the_store_is_what_is_allocated_within_a_tenth() {
    let _alone = alone();
    let mut misfits = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file:{}?read=pread", dir.path().display());
    let keys = Keyring::new(&MasterKey::generate().unwrap(), &[], "acme").unwrap();
    let encrypted = |chunked_above| {
        let options = EncryptionOptions::new().with_chunked_above(chunked_above);
        let store = Encrypted::new(open_store(&url).unwrap(), keys.clone(), options).unwrap();
        Cache::builder(Arc::new(store)).l1_bytes(1 << 30)
    };
    let plain = PutOptions::new().with_compression(Compression::None);
    let forms = [("in chunks", 0), ("at once", 1 << 30)];
    for ((form, above), batches) in forms.into_iter().flat_map(|form| [(form, 1), (form, 4)]) {
        let cache = encrypted(above).l1_bytes(0).build().blocking();
        for rows in [1_000, 9_000, 17_000, 160_000] {
            let batch = RecordBatch::try_from_iter([("n", numbers(rows)), ("m", numbers(rows))]);
            let batch = batch.unwrap();
            let table = Table::new(batch.schema(), vec![batch; batches]).unwrap();
            // As above, of small tables more.
            let entries = (1_000_000 / rows).max(20);
            for n in 0..entries {
                let put = cache.put_table(format!("{batches}/{rows}/{n}"), &table, &plain);
                put.unwrap().stored().unwrap();
            }
            let cache = encrypted(above).build().blocking();
            // What the first read sets up for good.
            let key = |n| format!("{batches}/{rows}/{n}");
            cache.get_table(key(0)).unwrap().unwrap();
            let (before, charged) = (live(), cache.stats().l1.unwrap().bytes);
            for n in 1..entries {
                assert!(cache.get_table(key(n)).unwrap().unwrap() == table);
            }
            let charged = cache.stats().l1.unwrap().bytes - charged;
            let share = charged as f64 / (live() - before) as f64;
            let what = format!("{form}, {batches} batches of {rows} rows: {share:.3}");
            println!("{what}");
            if !(0.9..=1.1).contains(&share) {
                misfits.push(what);
            }
        }
    }
    assert!(misfits.is_empty(), "{}", misfits.join("\n"));
}

#[test]
fn what_is_charged_for_bytes_from_the_store_is_what_is_allocated_and_no_envelope_among_it() {
    let _alone = alone();
    let mut misfits = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file:{}", dir.path().display());
    let sizes = [0, 100, 1000, 10_000];
    let cache = Cache::new(open_store(&url).unwrap()).blocking();
    for size in sizes {
        for n in 0..ENTRIES {
            let put = cache.put_bytes(format!("{size}/{n}"), vec![7; size], &PutOptions::new());
            put.unwrap().stored().unwrap();
        }
    }
    for read in ["mapped", "pread"] {
        let url = format!("{url}?read={read}");
        let mut least = None;
        for size in sizes {
            let cache = Cache::builder(open_store(&url).unwrap()).l1_bytes(1 << 30);
            let cache = cache.build().blocking();
            // What the first read sets up for good.
            cache.get_bytes(format!("{size}/0")).unwrap().unwrap();
            let (before, charged) = (live(), cache.stats().l1.unwrap().bytes);
            for n in 1..ENTRIES {
                let bytes = cache.get_bytes(format!("{size}/{n}")).unwrap().unwrap();
                assert_eq!(bytes, vec![7; size]);
            }
            let charged = cache.stats().l1.unwrap().bytes - charged;
            let share = charged as f64 / (live() - before) as f64;
            let each = charged as usize / (ENTRIES - 1);
            println!("{read}, {size} bytes: {share:.3}, {each} each");
            if !(0.9..=1.1).contains(&share) {
                misfits.push(format!("{read}, {size} bytes: {share:.3}, {each} each"));
            }
            let least = *least.get_or_insert(each);
            if each > least + size + size / 8 + 16 {
                misfits.push(format!(
                    "{read}, {size} bytes: {each} each, {least} of none"
                ));
            }
        }
    }
    assert!(misfits.is_empty(), "{}", misfits.join("\n"));
}
