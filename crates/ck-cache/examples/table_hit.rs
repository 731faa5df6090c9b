//! What a table costs when the process keeps it, beside decoding it out of the store each time.
//!
//! `cargo run --release -p ck-cache --example table_hit`
//!
//! Both are measured in turns within one run; the figures are medians, and the ratio is that of medians.
#![allow(clippy::print_stdout, reason = "an example shows what it finds")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use ck_cache::blocking::Cache;
use ck_cache::{Compression, PutOptions, Table, open_store};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 15;

/// Hits of one round: one alone is too short for the clock.
const HITS: u32 = 10_000;

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    println!(
        "{:>22}  {:>10}  {:>12}  {:>10}",
        "table", "hit", "decoding", "times"
    );
    for mib in [1, 16, 64] {
        for (name, compression) in [
            ("mapped", Compression::None),
            ("lz4", Compression::Lz4),
            ("zstd", Compression::Zstd(3)),
        ] {
            let url = format!("file:{}/{mib}-{name}", dir.path().display());
            let near = ck_cache::Cache::builder(open_store(&url)?).l1_bytes(1 << 30);
            let near = near.build().blocking();
            let far = Cache::open(&url)?;
            let options = PutOptions::new().with_compression(compression);
            near.put_table("table", mixed(mib << 20)?, &options)?
                .stored()?;
            let (hit, decoding) = compare(&near, &far)?;
            println!(
                "{:>22}  {:>7.0} ns  {:>9.1} us  {:>10.0}",
                format!("{mib} MiB, {name}"),
                hit,
                decoding / 1e3,
                decoding / hit
            );
        }
    }
    Ok(())
}

/// Nanoseconds of a hit and of a read.
fn compare(near: &Cache, far: &Cache) -> Result<(f64, f64)> {
    let mut hits = Vec::with_capacity(ROUNDS);
    let mut reads = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..HITS {
            black_box(near.get_table("table")?.ok_or("a miss")?);
        }
        hits.push(start.elapsed().as_nanos() as f64 / f64::from(HITS));
        let start = Instant::now();
        black_box(far.get_table("table")?.ok_or("a miss")?);
        reads.push(start.elapsed().as_nanos() as f64);
    }
    Ok((median(hits), median(reads)))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A table of about so many bytes: numbers and text.
fn mixed(bytes: usize) -> Result<Table> {
    let rows = i32::try_from(bytes / 40)?;
    let numbers = |n: i32| i64::from(n) * 7919 % 1_000_003;
    let columns: [(&str, ArrayRef); 3] = [
        (
            "id",
            Arc::new(Int64Array::from_iter_values((0..rows).map(numbers))),
        ),
        (
            "price",
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|n| f64::from(n % 10_007) / 100.0),
            )),
        ),
        (
            "name",
            Arc::new(StringArray::from_iter_values(
                (0..rows).map(|n| format!("customer #{:09}", numbers(n))),
            )),
        ),
    ];
    Ok(RecordBatch::try_from_iter(columns)?.into())
}
