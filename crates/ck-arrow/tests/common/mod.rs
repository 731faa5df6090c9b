//! What the scenario files share: entries in memory, an entry that is read piece by piece, and the
//! comparison of tables.
#![allow(dead_code, reason = "each scenario file uses a part of it")]

pub(crate) mod generate;
pub(crate) mod hostile;
pub(crate) mod types;

use std::future::ready;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow_array::{Array, RecordBatch};
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, Encoded, Encoder, TableReader, Verification};
use ck_core::{BoxFuture, EntryReader, Error, ErrorKind, Expiry, MemoryEntry, Result, block_on};

/// An encoded table.
pub(crate) struct Entry {
    pub(crate) encoded: Encoded,
    /// As the encoder gave them.
    pub(crate) segments: Vec<Bytes>,
    /// Head and segments in one piece that starts at a multiple of 64.
    pub(crate) bytes: Bytes,
}

impl Entry {
    /// Bytes of the block index and the footer, which end the entry.
    pub(crate) fn tail_len(&self) -> usize {
        let starts = self.bytes.windows(4).rposition(|bytes| bytes == b"CKI1");
        self.bytes.len() - starts.expect("a block index")
    }
}

/// Encodes batches, drawing segments as early as possible.
pub(crate) fn encode_table(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    options: EncodeOptions,
) -> Result<Entry> {
    let measured = Encoder::measure(Arc::clone(schema), options.clone(), batches.to_vec());
    let mut encoder = Encoder::new(Arc::clone(schema), options)?;
    let is_plain = encoder.codec() == Codec::None;
    let mut segments = Vec::new();
    for batch in batches {
        encoder.push(batch.clone())?;
        while let Some(segment) = encoder.next_segment()? {
            segments.extend(segment);
        }
    }
    encoder.end();
    while let Some(segment) = encoder.next_segment()? {
        segments.extend(segment);
    }
    let encoded = encoder.finish()?;
    let bytes = aligned(&[&encoded.head[..], &segments.concat()].concat());
    assert_eq!(encoded.bytes, bytes.len() as u64);
    assert_eq!(measured?, is_plain.then_some(encoded.bytes));
    Ok(Entry {
        encoded,
        segments,
        bytes,
    })
}

/// The entry of batches that share a schema.
pub(crate) fn encode(batches: &[RecordBatch], options: EncodeOptions) -> Bytes {
    encode_table(&batches[0].schema(), batches, options)
        .expect("the table encodes")
        .bytes
}

/// The same bytes at a multiple of 64 in memory.
pub(crate) fn aligned(bytes: &[u8]) -> Bytes {
    let copied = ck_core::aligned_bytes(bytes.len(), |memory| {
        memory.copy_from_slice(bytes);
        Ok::<_, std::convert::Infallible>(())
    });
    copied.expect("copying cannot fail")
}

/// Opens an entry that lies in memory.
pub(crate) fn open(bytes: &Bytes, verification: Verification) -> Result<TableReader> {
    block_on(TableReader::open(
        Arc::new(MemoryEntry::new(bytes.clone())),
        verification,
    ))
}

/// Opens an entry that has to be read piece by piece.
pub(crate) fn open_mock(bytes: &Bytes) -> (Arc<MockEntry>, TableReader) {
    let entry = Arc::new(MockEntry::new(bytes.clone()));
    let table = block_on(TableReader::open(
        Arc::clone(&entry) as _,
        Verification::OnTouch,
    ));
    (entry, table.expect("the entry opens"))
}

/// All batches of an entry in memory, or what went wrong on the way to them.
pub(crate) fn read(
    bytes: &Bytes,
    verification: Verification,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let table = open(bytes, verification)?;
    Ok((table.schema(), block_on(table.read_all())?))
}

/// An entry behind a wire: every read is a copy of its own, at a multiple of 64 in memory, and counted.
#[derive(Debug)]
pub(crate) struct MockEntry {
    bytes: Mutex<Bytes>,
    reads: Mutex<Vec<Range<u64>>>,
}

impl MockEntry {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self {
            bytes: Mutex::new(bytes),
            reads: Mutex::default(),
        }
    }

    /// The ranges read since the last call.
    pub(crate) fn take_reads(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut *self.reads.lock().unwrap())
    }

    /// Bytes read since the last call.
    pub(crate) fn take_bytes(&self) -> u64 {
        self.take_reads()
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// Puts other bytes in place of these, as a store that replaces the entry would.
    pub(crate) fn replace(&self, bytes: Bytes) {
        *self.bytes.lock().unwrap() = bytes;
    }
}

impl EntryReader for MockEntry {
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn expiry(&self) -> Expiry {
        Expiry::NEVER
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let bytes = self.bytes.lock().unwrap();
        let found = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok());
        let found = found
            .and_then(|(start, end)| bytes.get(start..end))
            .map(aligned);
        self.reads.lock().unwrap().push(range);
        Box::pin(ready(found.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "read beyond the end")
        })))
    }
}

pub(crate) fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Fails unless both hold the same rows, however they are cut into batches; dictionaries count by
/// what they say.
#[track_caller]
pub(crate) fn assert_same_rows(found: &[RecordBatch], expected: &[RecordBatch], what: &str) {
    if let Some(difference) = first_difference(found, expected) {
        panic!("{what}: {difference}");
    }
}

/// Where two tables differ.
pub(crate) fn first_difference(found: &[RecordBatch], expected: &[RecordBatch]) -> Option<String> {
    if rows(found) != rows(expected) {
        return Some(format!(
            "{} rows instead of {}",
            rows(found),
            rows(expected)
        ));
    }
    let (mut i, mut j, mut at, mut from, mut row) = (0, 0, 0, 0, 0);
    while i < found.len() && j < expected.len() {
        let (a, b) = (&found[i], &expected[j]);
        let len = (a.num_rows() - at).min(b.num_rows() - from);
        if len > 0 {
            if a.num_columns() != b.num_columns() {
                return Some(format!(
                    "{} columns instead of {}",
                    a.num_columns(),
                    b.num_columns()
                ));
            }
            for (place, (x, y)) in a.columns().iter().zip(b.columns()).enumerate() {
                let (x, y) = (x.slice(at, len), y.slice(from, len));
                if x.data_type() != y.data_type() {
                    return Some(format!(
                        "column {place}: {} instead of {}",
                        x.data_type(),
                        y.data_type()
                    ));
                }
                // Equal also in what the validity says, which a union or a run-end array has only inside.
                if x.to_data() != y.to_data() || x.logical_null_count() != y.logical_null_count() {
                    return Some(format!(
                        "column {place}, rows {row}..+{len}:\n{x:?}\ninstead of\n{y:?}"
                    ));
                }
            }
        }
        (at, from, row) = (at + len, from + len, row + len);
        if at == a.num_rows() {
            (i, at) = (i + 1, 0);
        }
        if from == b.num_rows() {
            (j, from) = (j + 1, 0);
        }
    }
    None
}

/// Fails unless the schemas are equal in everything, dictionary order included.
#[track_caller]
pub(crate) fn assert_same_schema(found: &Schema, expected: &Schema, what: &str) {
    assert_eq!(found, expected, "{what}");
    for (a, b) in found.fields().iter().zip(expected.fields()) {
        assert_eq!(
            a.dict_is_ordered(),
            b.dict_is_ordered(),
            "{what}: order of {}",
            a.name()
        );
    }
}
