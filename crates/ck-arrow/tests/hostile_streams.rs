//! Guards against streams that make a reader panic, allocate what they merely claim, or give arrays that are
//! not valid: streams have no checksum of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use ck_arrow::{Table, decode_ipc_stream};
use ck_core::ErrorKind;
use common::counting::{Counting, peak_of};
use common::generate::{Rng, batch};
use common::types;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A small stream of two batches, in which dictionaries grow.
fn stream(data_type: &DataType, compression: Option<CompressionType>) -> Vec<u8> {
    let field = |name| Field::new(name, data_type.clone(), true);
    let schema = Arc::new(Schema::new(vec![field("a"), field("b")]));
    let whole = batch(&schema, 24, &mut Rng(1));
    let options = IpcWriteOptions::default().try_with_compression(compression);
    let options = options.unwrap();
    let options = options.with_dictionary_handling(DictionaryHandling::Delta);
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    writer.write(&whole.slice(0, 10)).unwrap();
    writer.write(&whole.slice(10, 14)).unwrap();
    writer.into_inner().unwrap()
}

/// Damages words the way an attacker would: with telling numbers, or with those of other places.
fn damage(bytes: &mut [u8], rng: &mut Rng) {
    const WORDS: [u64; 10] = [
        0,
        1,
        7,
        255,
        i32::MAX as u64,
        u32::MAX as u64,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
        1 << 63,
    ];
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(bytes.len());
        match rng.below(6) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = bytes[at].wrapping_add([1, 255, 4, 252][rng.below(4)]),
            2 | 3 => {
                let at = at - at % 4;
                let word = WORDS[rng.below(WORDS.len())].to_le_bytes();
                let len = [4, 8][rng.below(2)].min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&word[..len]);
            }
            4 => {
                let other = rng.below(bytes.len());
                let len = (1 + rng.below(32)).min(bytes.len() - at.max(other));
                bytes.copy_within(other..other + len, at);
            }
            _ => bytes[at] = 0,
        }
    }
}

/// Reads a stream and does with the table what a cache does; the number of its batches.
fn read(bytes: &Bytes) -> Result<usize, String> {
    let table = match decode_ipc_stream(bytes) {
        Ok(table) => table,
        Err(error) => {
            return match error.kind() {
                ErrorKind::Corrupt | ErrorKind::Unsupported => Ok(0),
                _ => Err(format!("an error of the wrong kind: {error:?}")),
            };
        }
    };
    let valid = |table: &Table| {
        let mut columns = table.batches().iter().flat_map(RecordBatch::columns);
        columns.try_for_each(|column| column.to_data().validate_full())
    };
    valid(&table).map_err(|error| format!("an invalid array: {error}"))?;
    let _ = table.num_rows();
    let _ = table.heap_bytes(None);
    if let Some(compacted) = table.compacted() {
        valid(&compacted).map_err(|error| format!("compacted, an invalid array: {error}"))?;
    }
    Ok(table.batches().len())
}

/// What a reader may allocate for a stream of this many bytes.
fn most(len: usize, compression: Option<CompressionType>) -> usize {
    // A block of LZ4 has up to 8 MiB, and its reader keeps two of them.
    let is_lz4 = compression == Some(CompressionType::LZ4_FRAME);
    len * 64 + (4 << 20) + if is_lz4 { 17 << 20 } else { 0 }
}

#[test]
fn thousands_of_damaged_streams_give_a_table_or_a_typed_error() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut failures = Vec::new();
    let (mut cases, mut whole) = (0, 0);
    for (i, data_type) in types::all().iter().enumerate() {
        for compression in [None, Some(CompressionType::LZ4_FRAME)] {
            let original = stream(data_type, compression);
            let mut rng = Rng(i as u64);
            for round in 0..100 {
                let mut bytes = original.clone();
                if round > 0 {
                    damage(&mut bytes, &mut rng);
                }
                let bytes = common::aligned(&bytes);
                let (peak, result) = peak_of(|| catch_unwind(AssertUnwindSafe(|| read(&bytes))));
                let what = format!("{data_type}, {compression:?}, round {round}");
                match result {
                    Ok(Ok(batches)) if round > 0 || batches == 2 => {
                        whole += usize::from(batches == 2);
                    }
                    Ok(Ok(batches)) => failures.push(format!("{what}: {batches} batches")),
                    Ok(Err(failure)) => failures.push(format!("{what}: {failure}")),
                    Err(panic) => failures.push(format!(
                        "{what}: a panic: {:?} {:?}",
                        panic.downcast_ref::<String>(),
                        panic.downcast_ref::<&str>()
                    )),
                }
                if peak > most(bytes.len(), compression) {
                    failures.push(format!(
                        "{what}: {peak} bytes for a stream of {}",
                        bytes.len()
                    ));
                }
                cases += 1;
            }
        }
    }
    std::panic::set_hook(hook);
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
    // Much damage is to values, and nothing guards those here.
    assert!(
        cases > 15_000 && whole > cases / 10 && whole < cases,
        "{whole} of {cases}"
    );
}
