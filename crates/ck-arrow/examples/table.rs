//! A table as an entry and back: encode with zstd, reopen, read one column, look at the layout.
//!
//! `cargo run -p ck-arrow --example table`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use ck_arrow::{Codec, EncodeOptions, Encoder, TableReader, Verification};
use ck_core::{MemoryEntry, block_on};

const ROWS: u32 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let city = |row: u32| ["Oslo", "Lima", "Kyoto"][row as usize % 3];
    let cities: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(city)));
    let degrees = (0..ROWS).map(|row| f64::from(row % 400) / 10.0);
    let degrees: ArrayRef = Arc::new(Float64Array::from_iter_values(degrees));
    let table = RecordBatch::try_from_iter([("city", cities), ("degrees", degrees)])?;

    // A store would take the segments as they come; here they are gathered.
    let options = EncodeOptions::new()
        .with_codec(Codec::Zstd(3))
        .with_batch_bytes(512 << 10);
    let mut encoder = Encoder::new(table.schema(), options)?;
    encoder.push(table)?;
    encoder.end();
    let mut body = Vec::new();
    while let Some(segment) = encoder.next_segment()? {
        body.extend(segment);
    }
    let encoded = encoder.finish()?;
    let entry = [&encoded.head[..], &body.concat()].concat();
    println!(
        "{} rows in {} batches, {} bytes",
        encoded.rows,
        encoded.batches,
        entry.len()
    );

    let entry = Arc::new(MemoryEntry::new(entry));
    let table = block_on(TableReader::open(entry, Verification::OnTouch))?;
    println!("{}", table.schema());

    // Only this column is fetched, verified and decompressed, one batch at a time.
    let mut sum = 0.0;
    for batch in table.select(&["degrees"])?.batches() {
        sum += batch?
            .column(0)
            .as_primitive::<Float64Type>()
            .values()
            .iter()
            .sum::<f64>();
    }
    println!("sum of degrees: {sum:.1}");

    for (place, batch) in table.layout().batches.iter().enumerate() {
        let compression = batch.compression.unwrap_or("unknown");
        println!(
            "batch {place}: {} rows, {} bytes at {}, {compression}",
            batch.rows, batch.body_bytes, batch.offset
        );
        for unit in &batch.units {
            println!(
                "  columns {:?}: {} bytes, xxh3 {:016x}",
                unit.columns, unit.bytes, unit.xxh3
            );
        }
    }
    Ok(())
}
