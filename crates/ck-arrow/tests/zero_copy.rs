//! Guards against copies of uncompressed columns, on the way into an entry and on the way out of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray,
};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, TableReader, Verification};
use ck_core::{MemoryEntry, block_on};
use common::generate::{Rng, batch};
use common::types;
use common::{Entry, assert_same_rows, encode_table, open};

type Region = Range<usize>;

fn region(bytes: &[u8]) -> Region {
    let start = bytes.as_ptr() as usize;
    start..start + bytes.len()
}

fn within(part: &Region, whole: &Region) -> bool {
    whole.start <= part.start && part.end <= whole.end
}

/// The non-empty buffers of an array and of what is inside, each with the type of its array.
fn buffers(data: &ArrayData, found: &mut Vec<(DataType, Region)>) {
    // Arrays of no rows need no bytes of their own, or make up the one offset they need.
    if data.is_empty() {
        return;
    }
    let validity = data
        .nulls()
        .filter(|nulls| nulls.null_count() > 0)
        .map(|nulls| nulls.buffer());
    for buffer in data
        .buffers()
        .iter()
        .chain(validity)
        .filter(|buffer| !buffer.is_empty())
    {
        found.push((data.data_type().clone(), region(buffer.as_slice())));
    }
    data.child_data()
        .iter()
        .for_each(|child| buffers(child, found));
}

fn buffers_of(batches: &[RecordBatch]) -> Vec<(DataType, Region)> {
    let mut found = Vec::new();
    batches
        .iter()
        .flat_map(RecordBatch::columns)
        .for_each(|column| buffers(&column.to_data(), &mut found));
    found
}

fn one_column(data_type: &DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("c", data_type.clone(), true)]))
}

fn encode(batch: &RecordBatch, batch_bytes: usize) -> Entry {
    let options = EncodeOptions::new().with_batch_bytes(batch_bytes);
    encode_table(&batch.schema(), std::slice::from_ref(batch), options).unwrap()
}

/// Bytes of the entry's segments that lie in none of these regions, padding left out.
fn copied(entry: &Entry, source: &[(DataType, Region)]) -> Vec<Bytes> {
    let is_copied = |segment: &&Bytes| {
        !source
            .iter()
            .any(|(_, whole)| within(&region(segment), whole))
            && segment.iter().any(|byte| *byte != 0)
    };
    entry.segments.iter().filter(is_copied).cloned().collect()
}

#[test]
fn whole_batches_go_into_the_segments_without_a_copy() {
    for data_type in types::all() {
        let name = data_type.to_string();
        // Their children may hold values that no row shows, so they are cut, and offsets into them moved.
        let is_cut = name.contains("ListView") || name.contains("Union(Dense");
        let batch = batch(&one_column(&data_type), 100, &mut Rng(1));
        let entry = encode(&batch, 8 << 20);
        let starts: Vec<usize> = entry
            .segments
            .iter()
            .map(|segment| segment.as_ptr() as usize)
            .collect();
        for (inner, buffer) in buffers_of(&[batch]) {
            // Dictionaries among runs are brought together, which rebuilds the runs.
            let is_rebuilt = name.starts_with("RunEndEncoded")
                && name.contains("Dictionary")
                && inner == DataType::Int32;
            assert!(
                is_cut || is_rebuilt || starts.contains(&buffer.start),
                "{name}: a buffer of {inner} was copied"
            );
        }
    }
}

#[test]
fn slices_copy_offsets_and_nothing_else() {
    let rows = 4096;
    let numbers: ArrayRef = Arc::new(
        (0..rows)
            .map(|i| (i % 5 > 0).then_some(i))
            .collect::<Int64Array>(),
    );
    let text: ArrayRef = Arc::new(
        (0..rows)
            .map(|i| Some(format!("text {i}")))
            .collect::<StringArray>(),
    );
    let lists = (0..rows).map(|i| Some(vec![Some(i), Some(-i)]));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<
        arrow_array::types::Int64Type,
        _,
        _,
    >(lists));
    let views: ArrayRef = Arc::new(
        (0..rows)
            .map(|i| Some(format!("{i}")))
            .collect::<StringViewArray>(),
    );
    let flags: ArrayRef = Arc::new(
        (0..rows)
            .map(|i| Some(i % 3 == 0))
            .collect::<arrow_array::BooleanArray>(),
    );
    let batch = RecordBatch::try_from_iter([
        ("numbers", numbers),
        ("text", text),
        ("lists", lists),
        ("views", views),
        ("flags", flags),
    ])
    .unwrap();
    let source = buffers_of(std::slice::from_ref(&batch));
    let entry = encode(&batch, 16 * 1024);
    let table = open(&entry.bytes, Verification::OnTouch).unwrap();
    let slices = table.num_batches();
    assert!(slices > 10, "{slices}");

    // Per slice: its metadata, and from the second on the offsets of text and of lists. Then the tail.
    let copied = copied(&entry, &source);
    assert!(
        copied.len() <= 1 + 3 * slices + 2,
        "{} copies",
        copied.len()
    );
    let bytes: usize = copied.iter().map(Bytes::len).sum();
    let layout = table.layout();
    let metadata: u64 = layout
        .batches
        .iter()
        .map(|batch| batch.metadata_bytes)
        .sum();
    let tail = entry.tail_len() as u64;
    let prelude = layout.batches[0].offset;
    let offsets = 2 * 4 * (rows as u64 + slices as u64);
    assert!(
        bytes as u64 <= prelude + metadata + offsets + tail + 8,
        "{bytes}"
    );
}

#[test]
fn a_slice_at_an_odd_offset_copies_its_bitmaps_and_offsets_and_nothing_else() {
    let batch = batch(
        &Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new(
                "d",
                types::dictionary(DataType::Int16, DataType::Utf8),
                true,
            ),
            Field::new(
                "f",
                DataType::FixedSizeList(types::item(DataType::Float32, false), 4),
                true,
            ),
            Field::new(
                "s",
                types::structure(vec![DataType::Float64, DataType::Date32]),
                false,
            ),
        ])),
        10_000,
        &mut Rng(2),
    );
    let source = buffers_of(std::slice::from_ref(&batch));
    let slice = batch.slice(1003, 5001);
    let entry = encode(&slice, 8 << 20);
    let layout = open(&entry.bytes, Verification::OnTouch).unwrap().layout();
    let blocks = || layout.batches.iter().chain(&layout.dictionaries);
    let metadata: u64 = blocks().map(|block| block.metadata_bytes).sum();
    let prelude = blocks().map(|block| block.offset).min().unwrap();
    let bitmaps = 4 * 5001_u64.div_ceil(8) + 8;
    let bytes: usize = copied(&entry, &source).iter().map(Bytes::len).sum();
    let tail = entry.tail_len() as u64;
    assert!(
        (bytes as u64) <= prelude + metadata + bitmaps + tail + 8,
        "{bytes}"
    );
}

/// An entry at this many bytes behind a multiple of 64, as in a mapped file with something before it.
fn mapped(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    outer: u64,
    batch_bytes: usize,
) -> (Bytes, Region) {
    let options = EncodeOptions::new()
        .with_outer_offset(outer)
        .with_batch_bytes(batch_bytes);
    let entry = encode_table(schema, batches, options).unwrap();
    let file = common::aligned(&[&vec![7; outer as usize][..], &entry.bytes].concat());
    let bytes = file.slice(outer as usize..);
    let whole = region(&bytes);
    (bytes, whole)
}

#[track_caller]
fn assert_in_place(batches: &[RecordBatch], whole: &Region, what: &str) -> usize {
    let found = buffers_of(batches);
    for (inner, buffer) in &found {
        assert!(
            within(buffer, whole),
            "{what}: a buffer of {inner} was copied"
        );
    }
    found.len()
}

#[test]
fn every_buffer_of_every_type_lies_inside_the_mapping() {
    for outer in [0, 14] {
        for data_type in types::all() {
            let schema = one_column(&data_type);
            let batch = batch(&schema, 200, &mut Rng(3));
            for batch_bytes in [8 << 20, 2048] {
                let (bytes, whole) =
                    mapped(&schema, std::slice::from_ref(&batch), outer, batch_bytes);
                for verification in [Verification::OnTouch, Verification::Full, Verification::Off] {
                    let table = open(&bytes, verification).unwrap();
                    let batches = block_on(table.read_all()).unwrap();
                    let what = format!("{data_type} at {outer}");
                    let found = assert_in_place(&batches, &whole, &what);
                    assert!(
                        found > 0 || has_no_bytes(&data_type),
                        "{what}: nothing was checked"
                    );
                    assert_same_rows(&batches, std::slice::from_ref(&batch), &what);
                }
            }
        }
    }
}

fn has_no_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Null)
}

#[test]
fn projections_and_row_ranges_lie_inside_the_mapping() {
    let fields = types::all().into_iter().enumerate();
    let fields: Vec<Field> = fields
        .map(|(i, t)| Field::new(format!("c{i}"), t, true))
        .collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let batch = batch(&schema, 1000, &mut Rng(4));
    let (bytes, whole) = mapped(&schema, std::slice::from_ref(&batch), 14, 64 << 10);
    let table = open(&bytes, Verification::OnTouch).unwrap();
    assert!(table.num_batches() > 3);
    let columns = [70, 3, 12, 30, 5, 99];
    let part = table.project(&columns).unwrap().rows(111..777).unwrap();
    let batches = block_on(part.read_all()).unwrap();
    assert!(assert_in_place(&batches, &whole, "a part") > 0);
    assert_same_rows(
        &batches,
        &[batch.project(&columns).unwrap().slice(111, 666)],
        "a part",
    );
}

#[test]
fn a_dictionary_in_one_block_lies_inside_the_mapping_and_one_in_several_is_joined_once() {
    let schema = one_column(&types::dictionary(DataType::Int32, DataType::Utf8));
    let mut rng = Rng(5);
    let first = batch(&schema, 500, &mut rng);
    let values = |batch: &RecordBatch| {
        region(
            batch
                .column(0)
                .as_any_dictionary()
                .values()
                .to_data()
                .buffers()[1]
                .as_slice(),
        )
    };

    let (bytes, whole) = mapped(&schema, std::slice::from_ref(&first), 14, 256);
    let batches = block_on(open(&bytes, Verification::OnTouch).unwrap().read_all()).unwrap();
    assert!(batches.len() > 1);
    assert!(batches.iter().all(|batch| within(&values(batch), &whole)));

    let second = batch(&schema, 500, &mut rng);
    let (bytes, whole) = mapped(&schema, &[first, second], 14, 256);
    let table = open(&bytes, Verification::OnTouch).unwrap();
    assert_eq!(table.layout().dictionaries.len(), 2);
    let batches = block_on(table.read_all()).unwrap();
    let joined = values(&batches[0]);
    assert!(!within(&joined, &whole));
    assert!(batches.iter().all(|batch| values(batch) == joined));
}

#[test]
fn arrays_keep_the_mapping_alive() {
    struct Watched(Vec<u8>, Arc<std::sync::atomic::AtomicBool>);
    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Watched {
        fn drop(&mut self) {
            self.1.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let schema = one_column(&DataType::Utf8);
    let source = batch(&schema, 100, &mut Rng(6));
    let entry = encode(&source, 8 << 20);
    let gone = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Room to start at a multiple of 64, wherever the memory lies.
    let mut memory = vec![0; entry.bytes.len() + 63];
    let start = memory.as_ptr().align_offset(64);
    memory[start..start + entry.bytes.len()].copy_from_slice(&entry.bytes);
    let bytes = Bytes::from_owner(Watched(memory, Arc::clone(&gone)))
        .slice(start..start + entry.bytes.len());
    let whole = region(&bytes);
    let table = block_on(TableReader::open(
        Arc::new(MemoryEntry::new(bytes)),
        Verification::OnTouch,
    ))
    .unwrap();
    let batches = block_on(table.read_all()).unwrap();
    drop(table);
    let is_gone = || gone.load(std::sync::atomic::Ordering::SeqCst);
    assert!(!is_gone());
    assert_in_place(&batches, &whole, "alive");
    assert_same_rows(&batches, &[source], "alive");
    drop(batches);
    assert!(is_gone());
}

#[test]
fn an_entry_that_is_not_aligned_is_copied_and_right() {
    for data_type in types::all() {
        let schema = one_column(&data_type);
        let batch = batch(&schema, 300, &mut Rng(7));
        let (bytes, _) = mapped(&schema, std::slice::from_ref(&batch), 0, 1 << 20);
        for shift in [1, 4, 8, 14] {
            let moved = common::aligned(&[&vec![0; shift][..], &bytes].concat()).slice(shift..);
            let batches =
                block_on(open(&moved, Verification::OnTouch).unwrap().read_all()).unwrap();
            assert_same_rows(
                &batches,
                std::slice::from_ref(&batch),
                &format!("{data_type} moved by {shift}"),
            );
        }
    }
}

#[test]
fn a_column_without_bytes_is_read_from_among_others_wherever_they_lie() {
    // A union in lists of no values: it has offsets, and they are empty.
    for data_type in types::all() {
        let lists = DataType::FixedSizeList(types::item(data_type.clone(), true), 0);
        let field = |name, data_type| Field::new(name, data_type, true);
        let fields = vec![field("lists", lists), field("numbers", DataType::Int32)];
        let schema = Arc::new(Schema::new(fields));
        let batch = batch(&schema, 7, &mut Rng(7));
        let (bytes, _) = mapped(&schema, std::slice::from_ref(&batch), 0, 1);
        for shift in 0..9 {
            let moved = common::aligned(&[&vec![0; shift][..], &bytes].concat()).slice(shift..);
            let table = open(&moved, Verification::OnTouch).unwrap();
            let found = block_on(table.project(&[0]).unwrap().read_all()).unwrap();
            let expected = batch.project(&[0]).unwrap();
            let what = format!("{data_type} moved by {shift}");
            assert_same_rows(&found, std::slice::from_ref(&expected), &what);
        }
    }
}

#[test]
fn compressed_columns_do_not_hold_on_to_the_mapping() {
    let schema = one_column(&DataType::Int64);
    let batch = batch(&schema, 3000, &mut Rng(8));
    let options = EncodeOptions::new().with_codec(Codec::Zstd(1));
    let entry = encode_table(&schema, std::slice::from_ref(&batch), options).unwrap();
    let batches = block_on(
        open(&entry.bytes, Verification::OnTouch)
            .unwrap()
            .read_all(),
    )
    .unwrap();
    let whole = region(&entry.bytes);
    assert!(
        buffers_of(&batches)
            .iter()
            .all(|(_, buffer)| !within(buffer, &whole))
    );
}
