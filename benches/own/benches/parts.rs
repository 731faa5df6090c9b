//! What each part costs, by size: `cargo bench -p own [-- FILTER]` in the folder `benches`.
//!
//! Bytes are those of the values, so that a figure in bytes a second compares between the parts.

/// What is no part of what its crate offers.
#[allow(dead_code, reason = "a part of it is measured")]
#[path = "../../../crates/ck-arrow/src/hash.rs"]
mod hash;
#[allow(dead_code, reason = "a part of it is measured")]
#[path = "../../../crates/ck-arrow/src/measure.rs"]
mod measure;
#[allow(dead_code, unused_imports, reason = "its tests run in its crate")]
#[path = "../../../crates/ck-arrow/src/slice.rs"]
mod slice;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, Encoder, TableReader, Verification};
use ck_cache::{Compression, PutOptions, Table};
use ck_core::{Key, MemoryEntry, block_on};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use own::stores::{Kind, Store};
use own::tables;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZES: [usize; 5] = [KIB, 16 * KIB, 256 * KIB, 4 * MIB, 64 * MIB];

fn main() {
    divan::Divan::default()
        .max_time(Duration::from_secs(1))
        .config_with_args()
        .main();
}

/// The head of an entry.
mod frame {
    use ck_frame::{Header, read};

    use super::*;

    fn header() -> Header {
        Header::new("arrow")
            .with_metadata("format", "arrow")
            .with_metadata("encoding", "utf-8")
            .with_metadata("compressed", false)
            .with_extension("ck", serde_json::json!({"layout": 1, "key": "features/1"}))
    }

    #[divan::bench(sample_size = 1000)]
    fn write(bencher: Bencher) {
        let header = header();
        let bytes = header.encode_aligned(64, 22).expect("a header").len();
        bencher
            .counter(BytesCount::new(bytes))
            .bench(|| header.encode_aligned(64, 22).expect("a header"));
    }

    #[divan::bench(sample_size = 1000)]
    fn read_header(bencher: Bencher) {
        let entry = header().encode_aligned(64, 22).expect("a header");
        bencher
            .counter(BytesCount::new(entry.len()))
            .bench(|| read(&entry).expect("a frame"));
    }
}

/// Cutting a batch of 64 MiB into batches of so many bytes.
#[divan::bench(args = SIZES)]
fn slice_into(bencher: Bencher, size: usize) {
    let table = table(64 * MIB);
    let batch = &table.batches()[0];
    bencher
        .counter(BytesCount::new(64 * MIB))
        .bench(|| slice::Slicer::new(batch.clone(), size).count());
}

/// Both hashes of an entry's bytes, as a put takes them.
#[divan::bench(args = SIZES)]
fn hash_twice(bencher: Bencher, size: usize) {
    let bytes = vec![7_u8; size];
    bencher.counter(BytesCount::new(size)).bench(|| {
        let mut hashes = hash::Hashes::new();
        hashes.add_to_unit(&bytes);
        (hashes.end_unit(), hashes.whole())
    });
}

/// The hash of a column, as a get takes it.
#[divan::bench(args = SIZES)]
fn hash_once(bencher: Bencher, size: usize) {
    let bytes = vec![7_u8; size];
    bencher
        .counter(BytesCount::new(size))
        .bench(|| hash::xxh3(&bytes));
}

mod encode {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn none(bencher: Bencher, size: usize) {
        bench(bencher, Codec::None, size);
    }

    #[divan::bench(args = SIZES)]
    fn lz4(bencher: Bencher, size: usize) {
        bench(bencher, Codec::Lz4, size);
    }

    #[divan::bench(args = SIZES)]
    fn zstd(bencher: Bencher, size: usize) {
        bench(bencher, Codec::Zstd(3), size);
    }

    fn bench(bencher: Bencher, codec: Codec, size: usize) {
        let table = table(size);
        bencher
            .counter(BytesCount::new(size))
            .bench(|| entry_of(&table, codec));
    }
}

mod decode {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn none(bencher: Bencher, size: usize) {
        bench(bencher, Codec::None, size);
    }

    #[divan::bench(args = SIZES)]
    fn lz4(bencher: Bencher, size: usize) {
        bench(bencher, Codec::Lz4, size);
    }

    #[divan::bench(args = SIZES)]
    fn zstd(bencher: Bencher, size: usize) {
        bench(bencher, Codec::Zstd(3), size);
    }

    fn bench(bencher: Bencher, codec: Codec, size: usize) {
        let entry = Arc::new(MemoryEntry::new(entry_of(&table(size), codec).concat()));
        bencher.counter(BytesCount::new(size)).bench(|| {
            let entry = Arc::clone(&entry);
            let reader = TableReader::open(entry, Verification::OnTouch);
            let reader = block_on(reader).expect("a table");
            for batch in reader.batches() {
                black_box(batch.expect("a batch"));
            }
        });
    }
}

/// The tier in the process, whose cost is that of an entry and not of its bytes.
mod l1 {
    use ck_l1::{L1, Weigh, Weight};

    use super::*;

    struct Value(u64);

    impl Weigh for Value {
        fn weight(&self) -> Weight {
            Weight::heap(self.0)
        }
    }

    fn full() -> (L1<Value>, Vec<Key>, Arc<Value>) {
        let l1 = L1::builder(64 << 20).build();
        let keys: Vec<_> = (0..10_000).map(|i| Key::new(format!("key {i}"))).collect();
        let value = Arc::new(Value(1024));
        for key in &keys {
            assert_eq!(
                l1.insert(key.clone(), Arc::clone(&value), None),
                ck_l1::Insertion::Stored
            );
        }
        (l1, keys, value)
    }

    #[divan::bench(sample_size = 1000)]
    fn hit(bencher: Bencher) {
        let (l1, keys, _) = full();
        let mut at = 0;
        bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
            at = (at + 6151) % keys.len();
            l1.get(&keys[at]).expect("a hit")
        });
    }

    /// Replaces a value.
    #[divan::bench(sample_size = 1000)]
    fn insert(bencher: Bencher) {
        let (l1, keys, value) = full();
        let mut at = 0;
        bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
            at = (at + 6151) % keys.len();
            l1.insert(keys[at].clone(), Arc::clone(&value), None)
        });
    }
}

mod file {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn put(bencher: Bencher, size: usize) {
        bench_put(bencher, Kind::File, size);
    }

    #[divan::bench(args = SIZES)]
    fn get(bencher: Bencher, size: usize) {
        bench_get(bencher, Kind::File, size);
    }
}

mod redis {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn put(bencher: Bencher, size: usize) {
        bench_put(bencher, Kind::Redis, size);
    }

    #[divan::bench(args = SIZES)]
    fn get(bencher: Bencher, size: usize) {
        bench_get(bencher, Kind::Redis, size);
    }
}

mod memcached {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn put(bencher: Bencher, size: usize) {
        bench_put(bencher, Kind::Memcached, size);
    }

    #[divan::bench(args = SIZES)]
    fn get(bencher: Bencher, size: usize) {
        bench_get(bencher, Kind::Memcached, size);
    }
}

fn bench_put(bencher: Bencher, kind: Kind, size: usize) {
    let store = Store::start(kind, 1 << 30).expect("a store");
    let (cache, table) = (store.cache(), table(size));
    let options = PutOptions::new().with_compression(Compression::None);
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let put = cache.put_table("table", table.clone(), &options);
        put.and_then(|outcome| outcome.stored()).expect("a put")
    });
}

fn bench_get(bencher: Bencher, kind: Kind, size: usize) {
    let store = Store::start(kind, 1 << 30).expect("a store");
    let cache = store.cache();
    let options = PutOptions::new().with_compression(Compression::None);
    let put = cache.put_table("table", table(size), &options);
    put.and_then(|outcome| outcome.stored()).expect("a put");
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let table = cache.open_table("table").expect("an open");
        for batch in table.expect("an entry").batches() {
            black_box(batch.expect("a batch"));
        }
    });
}

fn table(bytes: usize) -> Table {
    tables::of_bytes(bytes).expect("a table")
}

/// The segments of an entry, head first.
fn entry_of(table: &Table, codec: Codec) -> Vec<Bytes> {
    let options = EncodeOptions::new().with_codec(codec);
    let encoder = Encoder::new(Arc::clone(table.schema()), options);
    let mut encoder = encoder.expect("an encoder");
    let mut entry = vec![Bytes::new()];
    let mut drain = |encoder: &mut Encoder| {
        while let Some(segment) = encoder.next_segment().expect("a segment") {
            entry.extend(segment);
        }
    };
    for batch in table.batches() {
        encoder.push(batch.clone()).expect("a batch");
        drain(&mut encoder);
    }
    encoder.end();
    drain(&mut encoder);
    entry[0] = encoder.finish().expect("a head").head;
    entry
}
