//! Guards against stored bytes that make a reader panic, or take memory for what they merely claim.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::hash::Hasher;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{CacheCodec, Flm, Order, Sections, SectionsWriter, Tensor, bytestorage};
use ck_core::{ErrorKind, Result};
use common::{aligned, batch, loaded, placed, stored, tensor};
use testkit::heap::{CountingAllocator, alone, peak_of};
use testkit::quietly;

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

/// Runs tests that measure one after the other, with panics that do not reach the terminal: reading may
/// catch one of the Arrow decoder, and one that escapes fails the test.
fn measured(work: impl FnOnce()) {
    let _alone = alone();
    quietly(work);
}

/// What a reader may take beyond a few times the bytes it is given.
const SLACK: usize = 256 << 10;

/// Reads what may be damaged. It may not panic, nor take much more memory than it was given.
fn read<T>(bytes: &Bytes, read: impl FnOnce(&Bytes) -> Result<T>) -> Result<()> {
    let (peak, result) = peak_of(|| read(bytes).map(drop));
    assert!(
        peak < 16 * bytes.len() + SLACK,
        "{peak} bytes for {}",
        bytes.len()
    );
    if let Err(error) = &result {
        let kinds = [
            ErrorKind::Corrupt,
            ErrorKind::Unsupported,
            ErrorKind::TooLarge,
        ];
        assert!(kinds.contains(&error.kind()), "{error:?}");
    }
    result
}

/// Reads all truncations, which must fail, and all damages of one byte.
fn damage<T>(bytes: &[u8], lead: usize, reader: impl Fn(&Bytes) -> Result<T>) {
    measured(|| {
        read(&placed(bytes, lead), &reader).unwrap();
        for cut in 0..bytes.len() {
            let cut_off = placed(&bytes[..cut], lead);
            assert!(
                read(&cut_off, &reader).is_err(),
                "cut at {cut} of {}",
                bytes.len()
            );
        }
        let longer = placed(&[bytes, b"!"].concat(), lead);
        assert!(read(&longer, &reader).is_err(), "a byte more");
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= flip;
                // Content that no hash of ours covers may read as other content.
                let _ = read(&placed(&damaged, lead), &reader);
            }
        }
    });
}

/// Reads a table; what a damaged one gives must be sound all the same.
fn sound_table(bytes: &Bytes) -> Result<Table> {
    let table: Table = loaded(bytes)?;
    for column in table.batches().iter().flat_map(RecordBatch::columns) {
        column.to_data().validate_full().unwrap();
    }
    Ok(table)
}

fn small_table() -> Table {
    let columns = [0, 1, 3].map(|column| batch().column(column).clone());
    let names = ["n", "w", "v"];
    let batch = RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap();
    Table::new(batch.schema(), vec![batch.clone(), batch.slice(1, 2)]).unwrap()
}

fn sections() -> Vec<u8> {
    let mut written = Vec::new();
    let mut sections = SectionsWriter::new(&mut written, b"header").unwrap();
    sections.tensor(&tensor()).unwrap();
    sections.bytes(b"").unwrap();
    sections.bytes(b"raw").unwrap();
    sections.finish().unwrap();
    written
}

#[test]
fn damaged_typed_values_are_refused() {
    damage(&stored(small_table()), 0, sound_table);
    damage(&stored(batch()), 0, loaded::<RecordBatch>);
    damage(&stored(tensor()), 0, loaded::<Tensor>);
    let column = batch().column(5).clone();
    damage(&stored::<ArrayRef>(column), 0, loaded::<ArrayRef>);
}

#[test]
fn a_tensor_whose_values_are_not_as_many_as_its_shape_needs_is_refused() {
    let bytes = stored(tensor());
    // Where its buffer lies: offset, then length.
    let buffer = [0_u64.to_le_bytes(), 240_u64.to_le_bytes()].concat();
    let found = |window: &[u8]| window == buffer;
    let at = bytes.windows(16).position(found).unwrap();
    for (offset, len) in [
        (0, 239),
        (0, 241),
        (1, 240),
        (u64::MAX, 240),
        (0, u64::MAX),
        (1 << 63, 240),
    ] {
        let mut damaged = bytes.to_vec();
        damaged[at..at + 8].copy_from_slice(&u64::to_le_bytes(offset));
        damaged[at + 8..at + 16].copy_from_slice(&u64::to_le_bytes(len));
        let error = loaded::<Tensor>(&aligned(&damaged)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{offset}, {len}");
    }
}

#[test]
fn a_tensor_in_no_order_is_unsupported_and_strides_that_mean_nothing_do_not_matter() {
    let with_strides = |tensor: Tensor, strides: [u64; 2]| {
        let bytes = stored(tensor.clone());
        let words = |strides: &[u64]| {
            strides
                .iter()
                .flat_map(|s| s.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let own: Vec<_> = tensor
            .strides()
            .into_iter()
            .map(|stride| stride as u64)
            .collect();
        let at = bytes
            .windows(16)
            .position(|window| window == words(&own))
            .unwrap();
        let changed = [&bytes[..at], &words(&strides), &bytes[at + 16..]].concat();
        loaded::<Tensor>(&aligned(&changed))
    };
    let tensor = |shape: [usize; 2]| {
        let values: Vec<i32> = (0..).take(shape[0] * shape[1]).collect();
        Tensor::from_values::<Int32Type>(values, shape, Order::RowMajor).unwrap()
    };
    assert_eq!(
        with_strides(tensor([3, 5]), [20, 4]).unwrap(),
        tensor([3, 5])
    );
    let turned = with_strides(tensor([3, 5]), [4, 12]).unwrap();
    assert_eq!(turned.order(), Order::ColumnMajor);
    for strides in [
        [40, 4],
        [4, 4],
        [20, 8],
        [0, 0],
        [20, u64::MAX],
        [1 << 63, 4],
    ] {
        let error = with_strides(tensor([3, 5]), strides).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{strides:?}");
    }
    for ignored in [0, 4, 60, u64::MAX] {
        assert_eq!(
            with_strides(tensor([5, 1]), [4, ignored]).unwrap(),
            tensor([5, 1])
        );
        assert_eq!(
            with_strides(tensor([1, 5]), [ignored, 4]).unwrap(),
            tensor([1, 5])
        );
        assert_eq!(
            with_strides(tensor([0, 5]), [ignored, 7]).unwrap(),
            tensor([0, 5])
        );
    }
}

#[test]
fn damaged_flm_payloads_are_refused() {
    for value in [
        Flm::Tensor(tensor()),
        Flm::Table(small_table()),
        Flm::Array(batch().column(4).clone()),
    ] {
        let payload = value.to_bytes().unwrap();
        let lead = payload.as_ptr() as usize % 64;
        // What is shorter than its marker, or has another one, is not ours to judge.
        damage(&payload, lead, |payload| match Flm::decode(payload) {
            Ok(Flm::Unmarked(_)) => Err(ck_core::Error::new(ErrorKind::Corrupt, "unmarked")),
            other => other,
        });
    }
}

#[test]
fn damaged_composite_values_are_refused() {
    damage(&sections(), 0, Sections::parse);
}

#[test]
fn damage_to_head_or_directory_of_a_composite_value_is_always_noticed() {
    let bytes = sections();
    let head = 0..12 + b"header".len();
    let directory = bytes.len() - (3 * 8 + 16)..bytes.len();
    for at in head.chain(directory) {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(
                Sections::parse(&aligned(&damaged)).is_err(),
                "byte {at}, bit {bit}"
            );
        }
    }
}

/// A composite value with an empty header, these parts and this directory, with the hash it needs.
fn forged(parts: &[u8], lengths: &[u64], count: u64) -> Bytes {
    let head = [&b"CKSC"[..], &1_u32.to_le_bytes(), &0_u32.to_le_bytes()].concat();
    let mut directory: Vec<u8> = lengths
        .iter()
        .flat_map(|length| length.to_le_bytes())
        .collect();
    directory.extend(count.to_le_bytes());
    let mut hash = twox_hash::XxHash3_64::new();
    hash.write(&head);
    hash.write(&directory);
    let mut bytes = head;
    bytes.resize(64, 0);
    bytes.extend_from_slice(parts);
    bytes.extend(directory);
    bytes.extend(hash.finish().to_le_bytes());
    aligned(&bytes)
}

#[test]
fn lengths_that_lie_are_refused_even_with_a_valid_hash() {
    measured(|| {
        let parts = [7; 128];
        assert!(read(&forged(&parts, &[64, 64], 2), Sections::parse).is_ok());
        assert!(read(&forged(&parts, &[1, 64], 2), Sections::parse).is_ok());
        let end = u64::MAX;
        for lengths in [
            // Around the end of what 64 bits can count.
            vec![end],
            vec![end, end],
            vec![end - 63],
            vec![end - 64],
            vec![end - 127, 128],
            vec![64, end],
            vec![64, end - 63],
            vec![64, end - 127],
            vec![64, end - 128],
            vec![i64::MAX as u64, 64],
            vec![1 << 63, 1 << 63],
            // Parts that do not fill the space, or need more.
            vec![],
            vec![64],
            vec![128, 64],
            vec![128, 1],
            vec![64, 65],
            vec![0, 0, 0],
        ] {
            let bytes = forged(&parts, &lengths, lengths.len() as u64);
            let error = read(&bytes, Sections::parse).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{lengths:?}");
        }
        for count in [0, 1, 3, 8, 1 << 61, (1 << 61) + 2, end / 8, end - 1, end] {
            let error = read(&forged(&parts, &[64, 64], count), Sections::parse).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{count}");
        }
    });
}

#[test]
fn a_later_version_of_the_container_is_unsupported() {
    let mut bytes = sections();
    bytes[4] = 2;
    let error = Sections::parse(&aligned(&bytes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_part_that_failed_cannot_be_finished() {
    let mut written = Vec::new();
    let mut sections = SectionsWriter::new(&mut written, b"").unwrap();
    let failure = ck_core::Error::new(ErrorKind::Unsupported, "no");
    assert!(sections.part(|_| Err(failure)).is_err());
    let error = sections.bytes(b"next").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!(sections.finish().unwrap_err().kind(), ErrorKind::Misuse);
    let mut written = Vec::new();
    let error = SectionsWriter::new(&mut written, &vec![0; (1 << 20) + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn a_part_that_is_not_there_is_damage() {
    let sections = Sections::parse(&aligned(&sections())).unwrap();
    assert_eq!(sections.num_parts(), 3);
    for error in [
        sections.part(3).unwrap_err(),
        sections.table(usize::MAX).unwrap_err(),
        sections.table(0).unwrap_err(),
        sections.tensor(1).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn damaged_bytestorage_payloads_are_refused() {
    let text = format!("{:?}", (0..300).collect::<Vec<_>>());
    let payload = bytestorage::encode(text.as_bytes()).unwrap();
    damage(&payload, 0, |payload| bytestorage::decode(payload));
    // Every bit counts: the checksum is of the plain bytes.
    for at in 0..payload.len() {
        let mut damaged = payload.clone();
        damaged[at] ^= 0x10;
        assert!(bytestorage::decode(&damaged).map_or(true, |plain| plain == text.as_bytes()));
    }
}

/// A payload with these fields, whatever they are.
fn storage(compressed: &[u8], checksum: u64, plain_len: u64) -> Bytes {
    let mut payload = vec![0x94, 0xc6];
    payload.extend((compressed.len() as u32).to_be_bytes());
    payload.extend(compressed);
    payload.extend([0xc4, 8]);
    payload.extend(checksum.to_be_bytes());
    payload.push(0xcf);
    payload.extend(plain_len.to_be_bytes());
    payload.extend(b"\xa7msgpack");
    payload.into()
}

#[test]
fn limits_of_bytestorage_hold_before_anything_is_allocated() {
    measured(|| {
        let refused = |payload: &Bytes| {
            let (peak, result) = peak_of(|| bytestorage::decode(payload));
            assert!(peak < 4096, "{peak}");
            result.unwrap_err().kind()
        };
        let thousand = [0; 1000];
        assert_eq!(
            refused(&storage(&thousand, 0, u64::MAX)),
            ErrorKind::TooLarge
        );
        assert_eq!(
            refused(&storage(&thousand, 0, (512 << 20) + 1)),
            ErrorKind::TooLarge
        );
        assert_eq!(
            refused(&storage(&thousand, 0, 512 << 20)),
            ErrorKind::Corrupt
        );
        assert_eq!(
            refused(&storage(&thousand, 0, 1_000_001)),
            ErrorKind::Corrupt
        );
        assert_eq!(refused(&storage(&[], 0, 1)), ErrorKind::Corrupt);
        // Within the limits the claim is believed, once: that much memory is taken and no more.
        let (peak, result) = peak_of(|| bytestorage::decode(&storage(&thousand, 0, 1_000_000)));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(peak < 1_000_000 + 8192, "{peak}");
        // An array of integers that claims more of them than there are bytes.
        let claims = Bytes::from_static(&[0x94, 0xdd, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert_eq!(refused(&claims), ErrorKind::Corrupt);
    });
}

#[test]
fn random_bytes_are_refused() {
    measured(|| {
        let mut state = 7_u64;
        for len in 0..400 {
            let noise = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            });
            let noise = aligned(&noise.take(len).collect::<Vec<_>>());
            for magic in [
                &b""[..],
                b"CKTV\x01\x08\0\0",
                b"CKSC\x01\0\0\0",
                b"FLM\x01",
                b"FLM\x02",
                b"\x94\xc4",
            ] {
                let bytes = aligned(&[magic, &noise].concat());
                assert!(
                    read(&bytes, |bytes| CacheCodec::of::<Table>().deserialize(bytes)).is_err()
                );
                assert!(read(&bytes, Sections::parse).is_err());
                assert!(read(&bytes, |bytes| bytestorage::decode(bytes)).is_err());
                if magic.starts_with(b"FLM") {
                    assert!(read(&bytes, Flm::decode).is_err());
                }
            }
        }
    });
}
