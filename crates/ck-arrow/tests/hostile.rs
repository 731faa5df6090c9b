//! Guards against bytes that make a reader panic, allocate what they merely claim, or give arrays that
//! are not valid. No checksum stands in the way here: the bytes are bare Arrow files, or sealed anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, Verification};
use ck_core::{ErrorKind, block_on};
use common::generate::{Rng, batch};
use common::hostile::{Cases, damage, most, mostly_at_the_end, two_columns, write_options};
use common::{encode_table, open, types};
use proptest::prelude::*;
use testkit::heap::{CountingAllocator, alone, peak_of};
use testkit::{catch, quietly};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

/// Reads everything there is; an error has to have the right kind, an array to be valid.
fn read_hostile(bytes: &Bytes, verification: Verification) -> Result<usize, String> {
    let read = || {
        let table = open(bytes, verification)?;
        let batches = block_on(table.read_all())?;
        drop(table.layout());
        if table.num_rows() > 3 && table.schema().fields().len() > 1 {
            let part = table.project(&[1])?.rows(1..3)?;
            drop(block_on(part.read_all()));
        }
        Ok::<_, ck_core::Error>(batches)
    };
    let batches = match catch(read).map_err(|panic| format!("a panic: {panic}"))? {
        Ok(batches) => batches,
        Err(error) if [ErrorKind::Corrupt, ErrorKind::Unsupported].contains(&error.kind()) => {
            return Ok(0);
        }
        Err(error) => return Err(format!("an error of the wrong kind: {error:?}")),
    };
    for column in batches.iter().flat_map(RecordBatch::columns) {
        let failure = match catch(|| column.to_data().validate_full()) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => format!("is invalid: {error}"),
            Err(panic) => format!("panics: {panic}"),
        };
        return Err(format!("an array of {} {failure}", column.data_type()));
    }
    Ok(batches.len())
}

/// A small bare Arrow file with two batches.
fn file(data_type: &DataType, compression: Option<CompressionType>) -> Vec<u8> {
    let schema = two_columns(data_type);
    let whole = batch(&schema, 24, &mut Rng(1));
    written(
        &[whole.slice(0, 10), whole.slice(10, 14)],
        write_options(compression),
    )
}

/// A bare Arrow file as arrow-ipc writes it.
fn written(batches: &[RecordBatch], options: IpcWriteOptions) -> Vec<u8> {
    let schema = batches[0].schema();
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn tens_of_thousands_of_damaged_files_give_a_table_or_a_typed_error() {
    let _alone = alone();
    let mut cases = Cases::default();
    quietly(|| {
        for (i, data_type) in types::all().iter().enumerate() {
            for compression in [
                None,
                Some(CompressionType::LZ4_FRAME),
                Some(CompressionType::ZSTD),
            ] {
                let original = file(data_type, compression);
                let mut rng = Rng(i as u64);
                for round in 0..90 {
                    let mut bytes = original.clone();
                    if round > 0 {
                        damage(&mut bytes, 0, &mut rng, mostly_at_the_end);
                    }
                    let limit = most(bytes.len(), compression == Some(CompressionType::LZ4_FRAME));
                    let bytes = common::aligned(&bytes);
                    let (peak, result) = peak_of(|| read_hostile(&bytes, Verification::OnTouch));
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
        all > 20_000 && whole > all / 10 && read < all,
        "{read} of {all}, {whole} whole"
    );
}

/// Gives a damaged entry of ours the hashes of what it holds now, as one who means harm would.
fn sealed_anew(bytes: &mut [u8], head: usize) {
    let checksum = head - 8;
    let text = std::str::from_utf8(&bytes[7..checksum]).unwrap().to_owned();
    let tail = text.find(r#""tail": ["#).unwrap() + 9;
    let number =
        |i: usize| u64::from_str_radix(&text[tail + i * 20 + 1..][..16], 16).unwrap() as usize;
    let (start, len) = (number(0), number(1));
    let hash = twox_hash::XxHash3_64::oneshot(&bytes[head + start..head + start + len]);
    let at = 7 + tail + 2 * 20 + 1;
    bytes[at..at + 16].copy_from_slice(format!("{hash:016x}").as_bytes());
    let whole = twox_hash::XxHash3_64::oneshot(&bytes[head..]);
    bytes[checksum..head].copy_from_slice(&whole.to_be_bytes());
}

#[test]
fn damaged_entries_that_were_sealed_anew_give_a_table_or_a_typed_error() {
    let _alone = alone();
    let mut cases = Cases::default();
    quietly(|| {
        for (i, data_type) in types::all().iter().enumerate() {
            for codec in [Codec::None, Codec::Lz4, Codec::Zstd(1)] {
                let schema = two_columns(data_type);
                let whole = batch(&schema, 24, &mut Rng(1));
                let options = EncodeOptions::new().with_codec(codec).with_workers(1);
                let entry =
                    encode_table(&schema, &[whole.slice(0, 10), whole.slice(10, 14)], options)
                        .unwrap();
                let head = entry.encoded.head.len();
                let tail = entry.tail_len();
                let mut rng = Rng(1000 + i as u64);
                for round in 0..60 {
                    let mut bytes = entry.bytes.to_vec();
                    let from = if rng.one_in(4) {
                        head
                    } else {
                        bytes.len() - tail
                    };
                    let len = bytes.len();
                    if round > 0 {
                        damage(&mut bytes, from, &mut rng, mostly_at_the_end);
                        bytes.resize(len, 0);
                    }
                    sealed_anew(&mut bytes, head);
                    let bytes = common::aligned(&bytes);
                    let verification = if rng.one_in(2) {
                        Verification::Off
                    } else {
                        Verification::OnTouch
                    };
                    let (peak, result) = peak_of(|| read_hostile(&bytes, verification));
                    let what = format!("{data_type}, {codec:?}, round {round}");
                    let limit = most(len, codec == Codec::Lz4);
                    cases.note(&what, round == 0, result, peak, limit);
                }
            }
        }
    });
    cases.assert_none_failed();
    assert!(cases.read > 500, "{}", cases.read);
}

#[test]
fn units_that_overlap_or_lie_out_of_order_are_corrupt() {
    let _alone = alone();
    let column = |start: i64| -> arrow_array::ArrayRef {
        Arc::new(arrow_array::Int64Array::from_iter_values(
            start..start + 10_000,
        ))
    };
    let batch =
        RecordBatch::try_from_iter([("a", column(0)), ("b", column(1)), ("c", column(2))]).unwrap();
    let entry = encode_table(
        &batch.schema(),
        std::slice::from_ref(&batch),
        EncodeOptions::new(),
    )
    .unwrap();
    let head = entry.encoded.head.len();
    let tail = entry.bytes.len() - entry.tail_len();
    // Magic and two counts, the fixed part of the only block, then 28 bytes per unit, its offset at 4.
    let offset_of = |unit: usize| tail + 12 + 53 + 28 * unit + 4;
    let stored =
        |unit: usize| u64::from_le_bytes(entry.bytes[offset_of(unit)..][..8].try_into().unwrap());
    assert_eq!(
        [stored(0), stored(1), stored(2)],
        [0, 80_000, 160_000],
        "the layout of the index"
    );
    for offsets in [
        [0, 0, 80_000],
        [64, 0, 80_064],
        [0, 160_000, 80_000],
        [80_000, 0, 160_000],
        [0, 79_936, 160_000],
    ] {
        let mut bytes = entry.bytes.to_vec();
        for (unit, offset) in offsets.iter().enumerate() {
            bytes[offset_of(unit)..][..8].copy_from_slice(&u64::to_le_bytes(*offset));
        }
        sealed_anew(&mut bytes, head);
        let bytes = common::aligned(&bytes);
        let read = || {
            open(&bytes, Verification::OnTouch)
                .and_then(|table| block_on(table.project(&[0, 2])?.read_all()))
        };
        let result = read();
        assert_eq!(
            result.unwrap_err().kind(),
            ErrorKind::Corrupt,
            "{offsets:?}"
        );
    }
}

#[test]
fn huge_claims_of_plain_length_allocate_nothing_to_speak_of() {
    let _alone = alone();
    // Very many small buffers, each claiming as much as is believed of one: a view column in which each
    // row has a data buffer of its own.
    let views = (0..3000).map(|i| {
        let text = format!("a text of more than twelve bytes {i}");
        Arc::new(arrow_array::StringViewArray::from(vec![text.as_str()])) as arrow_array::ArrayRef
    });
    let views: Vec<_> = views.collect();
    let views: Vec<&dyn Array> = views.iter().map(|array| &**array).collect();
    let column = arrow_select::concat::concat(&views).unwrap();
    let batch = RecordBatch::try_from_iter([("v", column)]).unwrap();
    for compression in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let bytes = written(
            std::slice::from_ref(&batch),
            write_options(Some(compression)),
        );
        let layout = open(&common::aligned(&bytes), Verification::OnTouch)
            .unwrap()
            .layout();
        assert!(
            layout.batches[0].metadata_bytes > 3000 * 16,
            "a buffer per row"
        );
        let body = layout.batches[0].offset as usize + layout.batches[0].metadata_bytes as usize;
        for claim in [1_u64 << 20, 1 << 30, 1 << 45, i64::MAX as u64, u64::MAX - 1] {
            let mut hostile = bytes.clone();
            // Stored buffers start at multiples of 8 with their plain length; all of these have 36 to 40 bytes.
            let footer = bytes.len() - 4096.min(bytes.len() / 4);
            for at in (body..footer).step_by(8) {
                let stored = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                if (20..64).contains(&stored) || stored == u64::MAX {
                    hostile[at..at + 8].copy_from_slice(&claim.to_le_bytes());
                }
            }
            let hostile = common::aligned(&hostile);
            let (peak, result) = peak_of(|| read_hostile(&hostile, Verification::OnTouch));
            result.unwrap();
            assert!(
                peak <= most(hostile.len(), true),
                "{compression:?}, {claim}: {peak} bytes of {}",
                hostile.len()
            );
        }
    }
}

#[test]
fn buffers_that_share_their_bytes_are_corrupt_before_they_are_copied() {
    let _alone = alone();
    let schema: SchemaRef = Arc::new(Schema::new(
        (0..2000)
            .map(|i| Field::new(format!("c{i}"), DataType::Int64, true))
            .collect::<Vec<_>>(),
    ));
    let whole = batch(&schema, 100, &mut Rng(1));
    for compression in [None, Some(CompressionType::ZSTD)] {
        let bytes = written(std::slice::from_ref(&whole), write_options(compression));
        let block = open(&common::aligned(&bytes), Verification::OnTouch)
            .unwrap()
            .layout()
            .batches
            .remove(0);
        // Each buffer, an offset and a length in the metadata, becomes the whole body.
        let mut hostile = bytes.clone();
        let metadata = block.offset as usize..(block.offset + block.metadata_bytes) as usize;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let mut shared = 0;
        for at in metadata
            .clone()
            .step_by(8)
            .take_while(|at| at + 16 <= metadata.end)
        {
            let (offset, len) = (word(at), word(at + 8));
            if offset.is_multiple_of(64)
                && (300..=900).contains(&len)
                && offset + len <= block.body_bytes
            {
                hostile[at..at + 8].fill(0);
                hostile[at + 8..at + 16].copy_from_slice(&block.body_bytes.to_le_bytes());
                shared += 1;
            }
        }
        assert!(shared > 500, "{shared}");
        // At an odd place in memory, where buffers have to be moved.
        let hostile = common::aligned(&[&[0][..], &hostile].concat()).slice(1..);
        let read =
            || open(&hostile, Verification::OnTouch).and_then(|table| block_on(table.read_all()));
        let (peak, result) = peak_of(read);
        assert_eq!(result.map(|_| ()).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(
            peak <= most(hostile.len(), false),
            "{peak} bytes of {}",
            hostile.len()
        );
    }
}

#[test]
fn huge_claims_in_a_header_or_a_footer_allocate_nothing_to_speak_of() {
    let _alone = alone();
    let ipc = file(&DataType::Int64, None);
    for claim in [i32::MAX, i32::MIN, -1, 0, ipc.len() as i32, 1 << 20] {
        let mut bytes = ipc.clone();
        let at = bytes.len() - 10;
        bytes[at..at + 4].copy_from_slice(&claim.to_le_bytes());
        let bytes = common::aligned(&bytes);
        let (peak, result) = peak_of(|| open(&bytes, Verification::OnTouch));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(peak < 64 << 10, "{claim}: {peak} bytes");
    }
    let (peak, result) = peak_of(|| {
        open(
            &common::aligned(b"CK\x03\xff\xff\xff\xff{}"),
            Verification::OnTouch,
        )
    });
    assert!(result.is_err() && peak < 64 << 10, "{peak} bytes");
}

/// Pieces that give random bytes a chance to get past the first check.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        Just(b"ARROW1".to_vec()),
        Just(b"ARROW1\0\0".to_vec()),
        Just(b"CK\x03\0\0\0".to_vec()),
        Just(br#"{"s": "arrow", "m": {}, "v": "2.0"}"#.to_vec()),
        Just(vec![0xff; 4]),
        Just(vec![0; 8]),
        any::<u32>().prop_map(|n| n.to_le_bytes().to_vec()),
        any::<u8>().prop_map(|n| u32::from(n).to_le_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_refused_without_panic_or_large_memory(bytes in plausible()) {
        let _alone = alone();
        let bytes = common::aligned(&bytes);
        let (peak, result) = peak_of(|| read_hostile(&bytes, Verification::OnTouch));
        prop_assert_eq!(result, Ok(0));
        prop_assert!(peak <= most(bytes.len(), false));
    }
}
