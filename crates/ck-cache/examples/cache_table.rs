//! Caches a table in a directory, reads a part of it back, and shows what the cache counted.
//!
//! Run with `cargo run -p ck-cache --example cache_table`.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use ck_cache::blocking::Cache;
use ck_cache::{Compression, PutOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let cache = Cache::open(&format!("file:{}?limit_bytes=1GiB", dir.path().display()))?;

    // In a real program this is what takes long: a query, a download, a computation.
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000_000));
    let prices: ArrayRef = Arc::new(Float64Array::from_iter_values(
        (0..1_000_000).map(f64::from),
    ));
    let batch = RecordBatch::try_from_iter([("id", ids), ("price", prices)])?;

    let options = PutOptions::new()
        .with_ttl(Duration::from_secs(3600))
        .with_compression(Compression::Zstd(3));
    let bytes = cache.put_table("prices", batch, &options)?.stored()?;
    println!("stored {bytes} bytes");

    let table = cache.open_table("prices")?.ok_or("a miss")?;
    println!(
        "{} rows in {} batches",
        table.num_rows(),
        table.num_batches()
    );

    // Only the batches that hold these rows are read, and of them only this column.
    let mut sum = 0.0;
    for batch in table.select(&["price"])?.rows(500_000..600_000)?.batches() {
        sum += batch?
            .column(0)
            .as_primitive::<Float64Type>()
            .values()
            .iter()
            .sum::<f64>();
    }
    println!("the sum of 100,000 prices is {sum}");
    println!("{:?}", cache.stats());
    Ok(())
}
