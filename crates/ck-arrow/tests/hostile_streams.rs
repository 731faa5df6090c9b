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

use arrow_array::{Array, RecordBatch};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::DataType;
use bytes::Bytes;
use ck_arrow::{Table, decode_ipc_stream};
use ck_core::ErrorKind;
use common::generate::{Rng, batch};
use common::hostile::{Cases, damage, most, two_columns, write_options};
use common::types;
use testkit::heap::{CountingAllocator, peak_of};
use testkit::{catch, quietly};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

/// A small stream of two batches, in which dictionaries grow.
fn stream(data_type: &DataType, compression: Option<CompressionType>) -> Vec<u8> {
    let schema = two_columns(data_type);
    let whole = batch(&schema, 24, &mut Rng(1));
    let options = write_options(compression);
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    writer.write(&whole.slice(0, 10)).unwrap();
    writer.write(&whole.slice(10, 14)).unwrap();
    writer.into_inner().unwrap()
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

#[test]
fn thousands_of_damaged_streams_give_a_table_or_a_typed_error() {
    let mut cases = Cases::default();
    quietly(|| {
        for (i, data_type) in types::all().iter().enumerate() {
            for compression in [None, Some(CompressionType::LZ4_FRAME)] {
                let original = stream(data_type, compression);
                let mut rng = Rng(i as u64);
                for round in 0..100 {
                    let mut bytes = original.clone();
                    if round > 0 {
                        damage(&mut bytes, 0, &mut rng, Rng::below);
                    }
                    let bytes = common::aligned(&bytes);
                    let (peak, result) = peak_of(|| catch(|| read(&bytes)));
                    let result = result.unwrap_or_else(|panic| Err(format!("a panic: {panic}")));
                    let limit = most(bytes.len(), compression.is_some());
                    let what = format!("{data_type}, {compression:?}, round {round}");
                    cases.note(&what, round == 0, result, peak, limit);
                }
            }
        }
    });
    cases.assert_none_failed();
    // Much damage is to values, and nothing guards those here.
    let Cases {
        all, read, whole, ..
    } = cases;
    assert!(
        all > 15_000 && whole > all / 10 && read < all,
        "{read} of {all}, {whole} whole"
    );
}
