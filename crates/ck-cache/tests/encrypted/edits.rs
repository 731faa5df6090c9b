//! Every single bit of small entries, and a hundred thousand edits of the structure of larger ones.

use std::cell::Cell;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use ck_cache::{EncryptionOptions, PutOptions, Table};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::support::{Fixture, in_chunks, pattern, put, read, read_parts};

/// Flips each bit of the entry under `key` in turn; none of them may be read.
pub(crate) fn no_flip_is_read(fixture: &Fixture, key: &str) {
    let good = fixture.stored(key);
    let plain = read(&fixture.store, key).unwrap();
    let mut bytes = good.clone();
    for bit in 0..8 * good.len() {
        bytes[bit / 8] ^= 1 << (bit % 8);
        fixture.forge(key, &bytes);
        let before = fixture.store.stats().tampered;
        assert_eq!(
            read(&fixture.store, key),
            None,
            "bit {bit} of {}",
            8 * good.len()
        );
        assert!(
            fixture.store.stats().tampered > before,
            "bit {bit} is not counted"
        );
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    fixture.forge(key, &good);
    assert_eq!(read(&fixture.store, key).unwrap(), plain);
}

#[test]
fn no_flipped_bit_of_a_table_encrypted_at_once_is_read() {
    let fixture = Fixture::new(EncryptionOptions::new());
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let table = Table::from(RecordBatch::try_from_iter([("n", numbers)]).unwrap());
    fixture
        .cache()
        .put_table("key", &table, &PutOptions::new())
        .unwrap()
        .stored()
        .unwrap();
    no_flip_is_read(&fixture, "key");
}

#[test]
fn no_flipped_bit_of_an_entry_in_chunks_is_read() {
    let fixture = Fixture::new(in_chunks());
    put(&fixture.store, "empty", b"", b"");
    no_flip_is_read(&fixture, "empty");
    put(&fixture.store, "key", b"head", &pattern(1, 100));
    no_flip_is_read(&fixture, "key");
}

/// The pieces of an entry in chunks of 4 KiB: header, then chunks with their tags.
fn pieces(entry: &[u8], head_len: usize) -> Vec<Vec<u8>> {
    let header = 7 + u32::from_be_bytes(entry[3..7].try_into().unwrap()) as usize;
    let first = header + 8 + head_len + 16;
    let mut pieces = vec![entry[..header].to_vec(), entry[header..first].to_vec()];
    pieces.extend(entry[first..].chunks(4096 + 16).map(<[u8]>::to_vec));
    pieces
}

#[derive(Debug, Clone)]
enum Edit {
    Swap(usize, usize),
    Duplicate(usize, usize),
    Remove(usize),
    /// A piece of another entry, or of an older one under the same key.
    Splice(usize, usize, usize),
    Cut(usize),
    Extend(Vec<u8>),
    Flip(usize),
    Header(&'static str, &'static str),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let any = || 0..1_000_000_usize;
    let fields = [
        ("\"chunk\": 4096", "\"chunk\": 8192"),
        ("\"chunk\": 4096", "\"chunk\": 4097"),
        ("\"head\": 12", "\"head\": 11"),
        ("\"head\": 12", "\"head\": 4"),
        ("\"layout\": 1", "\"layout\": 2"),
        ("AES-256-GCM", "AES-128-GCM"),
        ("ck-encrypted", "bytes"),
        ("ck-encrypted", "arrow"),
        ("\"m\": {}", "\"m\": {\"encrypted\": true}"),
        ("\"m\": {}", "\"m\":  {}"),
        ("\"v\": \"2.0\"", "\"v\": \"2.1\""),
    ];
    let edit = prop_oneof![
        (any(), any()).prop_map(|(a, b)| Edit::Swap(a, b)),
        (any(), any()).prop_map(|(a, b)| Edit::Duplicate(a, b)),
        any().prop_map(Edit::Remove),
        (any(), any(), any()).prop_map(|(from, a, b)| Edit::Splice(from, a, b)),
        any().prop_map(Edit::Cut),
        prop::collection::vec(prop::num::u8::ANY, 1..40).prop_map(Edit::Extend),
        any().prop_map(Edit::Flip),
        prop::sample::select(fields.to_vec()).prop_map(|(from, to)| Edit::Header(from, to)),
    ];
    prop::collection::vec(edit, 1..4)
}

fn apply(edits: &[Edit], entry: &[Vec<u8>], others: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut pieces = entry.to_vec();
    for edit in edits {
        let len = pieces.len().max(1);
        match edit {
            Edit::Swap(a, b) if !pieces.is_empty() => pieces.swap(a % len, b % len),
            Edit::Duplicate(a, b) if !pieces.is_empty() => {
                let piece = pieces[a % len].clone();
                pieces.insert(b % (len + 1), piece);
            }
            Edit::Remove(a) if !pieces.is_empty() => drop(pieces.remove(a % len)),
            Edit::Splice(from, a, b) if !pieces.is_empty() => {
                let other = &others[from % others.len()];
                pieces[b % len].clone_from(&other[a % other.len()]);
            }
            Edit::Cut(at) => {
                let mut all = pieces.concat();
                all.truncate(at % (all.len() + 1));
                pieces = vec![all];
            }
            Edit::Extend(bytes) => pieces.push(bytes.clone()),
            Edit::Flip(bit) => {
                let mut all = pieces.concat();
                let bits = 8 * all.len().max(1);
                if let Some(byte) = all.get_mut(bit % bits / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                pieces = vec![all];
            }
            Edit::Header(from, to) => {
                if let Some(header) = pieces.first_mut()
                    && let Ok(text) = std::str::from_utf8(&header[7.min(header.len())..])
                {
                    let text = text.replacen(from, to, 1);
                    let len = u32::try_from(text.len()).unwrap().to_be_bytes();
                    *header = [b"CK\x03", &len[..], text.as_bytes()].concat();
                }
            }
            _ => {}
        }
    }
    pieces.concat()
}

#[test]
fn no_edit_of_the_structure_of_an_entry_in_chunks_is_read() {
    let cases = 100_000;
    let fixture = Fixture::in_memory(in_chunks());
    let head = b"twelve bytes";
    let entry = |key: &str, seed: u64, len: usize| {
        put(&fixture.store, key, head, &pattern(seed, len));
        pieces(&fixture.stored(key), head.len())
    };
    let older = entry("key", 1, 4 * 4096 + 100);
    let other = entry("other", 2, 5 * 4096);
    let same = entry("key", 3, 4 * 4096 + 100);
    let good = entry("key", 3, 4 * 4096 + 100);
    let others = [older, other, same];
    // What lies under this key as it was once stored there is no forgery that can be told.
    let stored = [&others[0], &others[2], &good].map(|pieces| pieces.concat());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let plain = |seed: u64| [&head[..], &pattern(seed, 4 * 4096 + 100)].concat();
    let plain = [plain(3), plain(1)];
    let ends = prop::collection::vec(0..plain[0].len(), 4);
    let parts_read = Cell::new(0_usize);
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let run = runner.run(&(edits(), ends), |(edits, ends)| {
        let bytes = apply(&edits, &good, &others);
        prop_assume!(!stored.contains(&bytes));
        fixture.forge("key", &bytes);
        let before = fixture.store.stats().tampered;
        // Parts may lie in chunks that nobody has touched, or that all come from the older entry.
        let ranges = ends
            .chunks(2)
            .map(|ends| ends[0].min(ends[1])..ends[0].max(ends[1]));
        let stored_ranges = ranges
            .clone()
            .map(|range| range.start as u64..range.end as u64);
        if let Some(parts) = read_parts(&fixture.store, "key", stored_ranges.collect()) {
            parts_read.set(parts_read.get() + 1);
            let is_of = |plain: &Vec<u8>| {
                let expected = ranges.clone().map(|range| &plain[range]);
                expected.eq(parts.iter().map(|part| &part[..]))
            };
            prop_assert!(plain.iter().any(is_of));
        }
        prop_assert_eq!(read(&fixture.store, "key"), None);
        prop_assert!(fixture.store.stats().tampered > before);
        Ok(())
    });
    run.unwrap();
    assert!(parts_read.get() > cases as usize / 100);
}
