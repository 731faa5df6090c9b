//! Guards against damage that goes unnoticed: whatever happens to the stored bytes, a reader gives the
//! table that was stored or an error, never another table.
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

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, TableReader, Verification};
use ck_core::{Error, ErrorKind, Key, block_on};
use common::generate::{Rng, batch};
use common::{
    Entry, MockEntry, assert_same_rows, encode_table, first_difference, open, read, types,
};

const CHECKED: [Verification; 2] = [Verification::OnTouch, Verification::Full];

/// A small table of every kind of column, in several batches, with a dictionary that grows.
fn table() -> (SchemaRef, Vec<RecordBatch>) {
    let fields = vec![
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("v", DataType::Utf8View, true),
        Field::new("d", types::dictionary(DataType::Int8, DataType::Utf8), true),
        Field::new(
            "l",
            DataType::List(types::item(DataType::Int16, true)),
            false,
        ),
        Field::new("b", DataType::Boolean, true),
    ];
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let mut rng = Rng(1);
    let batches = [20, 13, 30]
        .into_iter()
        .map(|rows| batch(&schema, rows, &mut rng))
        .collect();
    (schema, batches)
}

fn entry(codec: Codec) -> (Vec<RecordBatch>, Entry) {
    let (schema, batches) = table();
    let options = EncodeOptions::new().with_codec(codec).with_workers(1);
    let options = options.with_key(&Key::new("flights/2024"));
    let entry = encode_table(&schema, &batches, options).unwrap();
    (batches, entry)
}

fn is_typed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}

/// What a reader makes of these bytes: the same table (`true`) or an error of the right kind (`false`).
#[track_caller]
fn same_or_error(
    bytes: &Bytes,
    verification: Verification,
    expected: &[RecordBatch],
    what: &str,
) -> bool {
    match catch_unwind(AssertUnwindSafe(|| read(bytes, verification))) {
        Ok(Ok((schema, found))) => {
            assert_eq!(schema, expected[0].schema(), "{what}: another schema");
            if let Some(difference) = first_difference(&found, expected) {
                panic!("{what}: another table: {difference}");
            }
            true
        }
        Ok(Err(error)) => {
            assert!(is_typed(&error), "{what}: {error:?}");
            false
        }
        Err(_) => panic!("{what}: a panic"),
    }
}

fn flipped(bytes: &Bytes, at: usize, mask: u8) -> Bytes {
    let mut copy = bytes.to_vec();
    copy[at] ^= mask;
    common::aligned(&copy)
}

#[test]
fn no_flipped_byte_gives_another_table() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd(1)] {
        let (batches, entry) = entry(codec);
        let head = entry.encoded.head.len();
        let mut noticed = 0;
        for at in 0..entry.bytes.len() {
            // The head, which is text, in several ways.
            let masks = if at < head {
                &[0x01, 0x20, 0xff][..]
            } else {
                &[1 << (at % 8)]
            };
            for mask in masks {
                let damaged = flipped(&entry.bytes, at, *mask);
                for verification in CHECKED {
                    let what = format!("{codec:?}, {verification:?}, byte {at} ^ {mask:#x}");
                    let same = same_or_error(&damaged, verification, &batches, &what);
                    noticed += usize::from(!same);
                    // Beyond the head, `Full` has to notice every flip.
                    assert!(
                        !(same && verification == Verification::Full && at >= head),
                        "{what}: unnoticed"
                    );
                }
            }
        }
        assert!(
            noticed > entry.bytes.len(),
            "{noticed} of {}",
            entry.bytes.len()
        );
    }
}

#[test]
fn no_flipped_byte_gives_another_part_of_the_table() {
    let (batches, entry) = entry(Codec::None);
    let expected: Vec<RecordBatch> = batches
        .iter()
        .map(|batch| batch.project(&[5, 3]).unwrap())
        .collect();
    for at in 0..entry.bytes.len() {
        let damaged = flipped(&entry.bytes, at, 0x40);
        let part =
            open(&damaged, Verification::OnTouch).and_then(|table| table.select(&["b", "d"]));
        match part.and_then(|part| block_on(part.read_all())) {
            Ok(found) => assert_same_rows(&found, &expected, &format!("byte {at}")),
            // A damaged name is not found.
            Err(error) => assert!(is_typed(&error), "byte {at}: {error:?}"),
        }
    }
}

#[test]
fn no_flipped_byte_of_large_metadata_gives_another_table() {
    // Too many columns for the index to repeat the message: it is read from its place.
    let fields = (0..300).map(|i| Field::new(format!("c{i}"), DataType::Int32, i % 2 == 0));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batches = [batch(&schema, 3, &mut Rng(2))];
    let entry = encode_table(&schema, &batches, EncodeOptions::new()).unwrap();
    let layout = open(&entry.bytes, Verification::OnTouch).unwrap().layout();
    let block = &layout.batches[0];
    assert!(
        block.metadata_bytes > 8192 && block.compression.is_none(),
        "not repeated"
    );
    let start = entry.encoded.head.len() + block.offset as usize;
    for at in (start..start + block.metadata_bytes as usize).step_by(7) {
        let damaged = flipped(&entry.bytes, at, 1 << (at % 8));
        let what = format!("byte {at}");
        let same = same_or_error(&damaged, Verification::OnTouch, &batches, &what);
        assert!(!same, "{what}: unnoticed");
    }
}

#[test]
fn verify_finds_every_flip_in_the_payload() {
    for codec in [Codec::None, Codec::Zstd(1)] {
        let (_, entry) = entry(codec);
        // The checksum is the last 8 bytes of the head.
        for at in entry.encoded.head.len() - 8..entry.bytes.len() {
            let damaged = flipped(&entry.bytes, at, 0x10);
            for verification in [Verification::OnTouch, Verification::Full, Verification::Off] {
                let result =
                    open(&damaged, verification).and_then(|table| block_on(table.verify()));
                let error = result.expect_err("a flip");
                assert!(is_typed(&error), "{error:?}");
            }
        }
        assert!(block_on(open(&entry.bytes, Verification::OnTouch).unwrap().verify()).is_ok());
    }
}

#[test]
fn only_what_is_touched_is_verified_on_touch() {
    let column =
        |start: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(start..start + 10_000)) };
    let batch =
        RecordBatch::try_from_iter([("a", column(0)), ("b", column(1)), ("c", column(2))]).unwrap();
    let entry = encode_table(
        &batch.schema(),
        std::slice::from_ref(&batch),
        EncodeOptions::new(),
    )
    .unwrap();
    let clean = open(&entry.bytes, Verification::OnTouch).unwrap();
    let units = &clean.layout().batches[0].units;
    assert_eq!(units.len(), 3, "a unit per column of 80 kB");
    let ipc = entry.encoded.head.len() as u64;
    let damaged = flipped(&entry.bytes, (ipc + units[1].offset + 777) as usize, 0x08);
    let table = open(&damaged, Verification::OnTouch).unwrap();
    let sound = block_on(table.select(&["c", "a"]).unwrap().read_all()).unwrap();
    assert_same_rows(&sound, &[batch.project(&[2, 0]).unwrap()], "sound columns");
    for names in [&["b"][..], &["a", "b"]] {
        let error = block_on(table.select(names).unwrap().read_all()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    assert_eq!(
        open(&damaged, Verification::Full).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

#[test]
fn without_verification_a_flipped_value_comes_through() {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
    let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
    let entry = encode_table(&batch.schema(), &[batch], EncodeOptions::new()).unwrap();
    let layout = open(&entry.bytes, Verification::OnTouch).unwrap().layout();
    let at = entry.encoded.head.len() as u64 + layout.batches[0].units[0].offset + 8 * 77;
    let damaged = flipped(&entry.bytes, at as usize, 0x80);
    let (_, found) = read(&damaged, Verification::Off).unwrap();
    assert_eq!(
        found[0].column(0).as_primitive::<Int64Type>().value(77),
        77 ^ 0x80
    );
    for verification in CHECKED {
        assert_eq!(
            read(&damaged, verification).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
}

#[test]
fn an_entry_cut_short_or_grown_is_an_error() {
    for codec in [Codec::None, Codec::Zstd(1)] {
        let (_, entry) = entry(codec);
        for len in 0..entry.bytes.len() {
            let short = common::aligned(&entry.bytes[..len]);
            for verification in [Verification::OnTouch, Verification::Full, Verification::Off] {
                let error = read(&short, verification).expect_err("a truncated entry");
                assert!(is_typed(&error), "{len} bytes: {error:?}");
            }
            let apart = block_on(TableReader::open(
                Arc::new(MockEntry::new(short)),
                Verification::OnTouch,
            ));
            assert!(
                is_typed(&apart.expect_err("a truncated entry")),
                "{len} bytes"
            );
        }
        for more in [1, 64, 5000] {
            let long = common::aligned(&[&entry.bytes[..], &vec![0; more]].concat());
            assert_eq!(
                read(&long, Verification::OnTouch).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
        for start in [entry.encoded.head.len(), entry.bytes.len() / 2] {
            let mut torn = entry.bytes.to_vec();
            torn[start..].fill(0);
            assert!(is_typed(
                &read(&common::aligned(&torn), Verification::OnTouch).unwrap_err()
            ));
        }
    }
}

#[test]
fn parts_of_two_entries_never_make_a_table() {
    // Entries of the same shape and of the same length, which differ in one value.
    let make = |value: i64| {
        let columns = (0..4).map(|column| {
            let values = (0..9000).map(|row| {
                if (column, row) == (2, 5000) {
                    value
                } else {
                    row
                }
            });
            (
                ["a", "b", "c", "d"][column],
                Arc::new(Int64Array::from_iter_values(values)) as ArrayRef,
            )
        });
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let entry = encode_table(
            &batch.schema(),
            std::slice::from_ref(&batch),
            EncodeOptions::new(),
        )
        .unwrap();
        (batch, entry)
    };
    let ((one, first), (two, second)) = (make(1), make(2));
    assert_eq!(first.bytes.len(), second.bytes.len());
    let len = first.bytes.len();
    let head = first.encoded.head.len();
    let layout = open(&first.bytes, Verification::OnTouch).unwrap().layout();
    let tail = first.tail_len();
    let cuts = [
        head,
        head + 100,
        head + layout.batches[0].units[2].offset as usize,
        len / 2,
        len - tail,
        len - 10,
    ];
    for cut in cuts {
        let spliced = common::aligned(&[&first.bytes[..cut], &second.bytes[cut..]].concat());
        for verification in CHECKED {
            let found = read(&spliced, verification);
            match found {
                Ok((_, found)) => {
                    let is_one = first_difference(&found, std::slice::from_ref(&one)).is_none();
                    assert!(
                        is_one && cut > len - tail,
                        "cut at {cut}, {verification:?}: a mixture"
                    );
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
        }
    }
    assert_same_rows(
        &read(&second.bytes, Verification::Full).unwrap().1,
        &[two],
        "the second",
    );
}

#[test]
fn an_entry_that_is_replaced_while_it_is_read_is_noticed() {
    let make = |value: i64| {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (0..50_000).map(|row| row * value),
        ));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let options = EncodeOptions::new().with_batch_bytes(64 << 10);
        encode_table(&batch.schema(), &[batch], options)
            .unwrap()
            .bytes
    };
    for verification in CHECKED {
        let entry = Arc::new(MockEntry::new(make(1)));
        let table = block_on(TableReader::open(Arc::clone(&entry) as _, verification)).unwrap();
        block_on(table.batch(0)).unwrap();
        entry.replace(make(2));
        // Also a batch that was found good before: its bytes are fetched again.
        for place in [0, 1] {
            let error = block_on(table.batch(place)).expect_err("another entry's batch");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{verification:?}");
        }
    }
}

#[test]
fn the_payload_begins_with_the_hash_of_all_that_follows() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd(3)] {
        let (_, entry) = entry(codec);
        let head = entry.encoded.head.len();
        let stored = u64::from_be_bytes(entry.bytes[head - 8..head].try_into().unwrap());
        assert_eq!(stored, twox_hash::XxHash3_64::oneshot(&entry.bytes[head..]));
    }
}

#[test]
fn each_unit_has_the_hash_of_its_bytes() {
    let (_, entry) = entry(Codec::None);
    let layout = open(&entry.bytes, Verification::OnTouch).unwrap().layout();
    assert!(layout.is_sealed);
    let ipc = entry.encoded.head.len();
    let mut seen = 0;
    for unit in layout
        .dictionaries
        .iter()
        .chain(&layout.batches)
        .flat_map(|block| &block.units)
    {
        let start = ipc + unit.offset as usize;
        assert_eq!(
            unit.xxh3,
            twox_hash::XxHash3_64::oneshot(&entry.bytes[start..start + unit.bytes as usize])
        );
        seen += 1;
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn two_entries_of_one_table_differ_in_their_generation_alone() {
    let (_, one) = entry(Codec::None);
    let (_, two) = entry(Codec::None);
    let generation = |entry: &Entry| {
        let layout = open(&entry.bytes, Verification::OnTouch).unwrap().layout();
        let header = layout.header.expect("a frame");
        header.extension("ck").unwrap()["generation"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_ne!(generation(&one), generation(&two));
    assert_eq!(generation(&one).len(), 16);
    let payload = |entry: &Entry| entry.bytes.slice(entry.encoded.head.len()..);
    assert_eq!(payload(&one), payload(&two));
}
