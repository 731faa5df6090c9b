//! Guards against inputs nobody thought of: arbitrary bytes, damaged envelopes, arbitrary headers
//! and alignments.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::{Bytes, BytesMut};
use ck_frame::{Envelope, Frame, FrameError, Header, PREFIX_LEN, Probe, probe, read};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bytes_are_an_envelope_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..256),
    ) {
        outcome(&bytes.into())?;
    }

    #[test]
    fn arbitrary_text_behind_a_good_prefix_is_a_frame_or_an_error(
        text in "[ \t\n]{0,2}[{\"smv:,0-9a-z\\\\\\[\\]} ]{0,64}",
        payload in prop::collection::vec(any::<u8>(), 0..16),
    ) {
        outcome(&entry(&prefix(3, text.len()), text.as_bytes(), &payload))?;
    }

    #[test]
    fn arbitrary_json_objects_are_an_envelope_or_an_error(
        fields in prop::collection::vec((field_name(), json()), 0..6),
    ) {
        let object: Map<String, Value> = fields.into_iter().collect();
        let text = Value::from(object).to_string();
        outcome(&entry(&prefix(3, text.len()), text.as_bytes(), b"payload"))?;
        outcome(&text.into())?;
    }

    #[test]
    fn a_damaged_frame_is_a_frame_or_an_error(
        header in header(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = entry(&header.encode().unwrap(), b"", b"payload").to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        outcome(&bytes.into())?;
    }

    #[test]
    fn a_header_length_beyond_the_entry_is_refused(claimed in any::<u32>(), rest in 0..100_usize) {
        let bytes = entry(&prefix(3, usize::try_from(claimed).unwrap()), &vec![b' '; rest], b"");
        let error = read(&bytes).unwrap_err();
        if u64::from(claimed) > rest as u64 {
            prop_assert_eq!(error, FrameError::HeaderPastEnd { claimed, available: rest as u64 });
        } else {
            let is_not_json = matches!(error, FrameError::NotJson { .. });
            prop_assert!(is_not_json);
        }
    }

    #[test]
    fn a_header_round_trips_and_the_payload_is_not_copied(
        header in header(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let head = header.encode().unwrap();
        let bytes = entry(&head, b"", &payload);
        let frame = outcome(&bytes)?.unwrap();
        prop_assert_eq!(&frame.header, &header);
        prop_assert_eq!(&frame.payload, &payload);
        if !payload.is_empty() {
            prop_assert_eq!(frame.payload.as_ptr(), bytes[head.len()..].as_ptr());
        }
        prop_assert_eq!(frame.header.encode().unwrap(), head);
    }

    #[test]
    fn an_aligned_header_ends_where_it_must_with_the_least_padding(
        header in header(),
        alignment in 1..4096_usize,
        offset in any::<u64>(),
    ) {
        let plain = header.encode().unwrap();
        let head = header.encode_aligned(alignment, offset).unwrap();
        prop_assert_eq!((u128::from(offset) + head.len() as u128) % alignment as u128, 0);
        prop_assert!(head.len() - plain.len() < alignment);
        prop_assert_eq!(&head[PREFIX_LEN..plain.len()], &plain[PREFIX_LEN..]);
        prop_assert!(head[plain.len()..].iter().all(|&byte| byte == b' '));
        prop_assert_eq!(outcome(&head)?.unwrap().header, header);
    }

    #[test]
    fn a_patched_header_keeps_its_reserved_length(
        header in header(),
        alignment in 1..4096_usize,
        offset in any::<u64>(),
        value in any::<u64>(),
    ) {
        let placeholder = format!("{:016x}", 0);
        let placeheld = header.clone().with_extension("ck", placeholder);
        let reserved = placeheld.reserve(alignment, offset).unwrap();
        let len = reserved.len();
        let value = format!("{value:016x}");
        let head = reserved.patch("ck", value.clone()).unwrap();
        prop_assert_eq!(head.len(), len);
        prop_assert_eq!((u128::from(offset) + len as u128) % alignment as u128, 0);
        prop_assert_eq!(read(&head).unwrap().header, header.with_extension("ck", value));
    }
}

/// Cases come from a fixed seed, so that a failure is found again.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x434b),
        ..ProptestConfig::with_cases(512)
    }
}

/// Reads `bytes` at once and by probing prefix after prefix: both must agree, and probing must get
/// ahead.
fn outcome(bytes: &Bytes) -> Result<Option<Frame>, TestCaseError> {
    let whole = read(bytes);
    let total_len = bytes.len() as u64;
    let mut len = 0;
    let probed = loop {
        match probe(&bytes[..len], total_len) {
            Ok(Probe::NeedBytes(more)) => {
                prop_assert!(more > len as u64 && more <= total_len);
                len = usize::try_from(more).unwrap();
            }
            Ok(Probe::Ready(envelope)) => break Ok(envelope),
            Err(error) => break Err(error),
        }
    };
    match (&whole, probed) {
        (
            Ok(frame),
            Ok(Envelope::V3 {
                header,
                payload_offset,
            }),
        ) => {
            prop_assert_eq!(&header, &frame.header);
            prop_assert_eq!(payload_offset, total_len - frame.payload.len() as u64);
        }
        (_, Ok(envelope)) => prop_assert_eq!(envelope, Envelope::Legacy),
        // Fewer bytes were shown, so fewer can be told.
        (Err(FrameError::NotAnEnvelope { .. }), Err(FrameError::NotAnEnvelope { .. })) => {}
        (_, Err(error)) => prop_assert_eq!(Some(&error), whole.as_ref().err()),
    }
    Ok(whole.ok())
}

fn header() -> impl Strategy<Value = Header> {
    let fields = prop::collection::vec((".{0,8}", json()), 0..4);
    let extensions = prop::collection::vec((".{0,8}", json()), 0..4);
    (".{1,12}", fields, extensions).prop_map(|(serializer, metadata, extensions)| {
        let header = metadata
            .into_iter()
            .fold(Header::new(serializer), |header, (name, value)| {
                header.with_metadata(name, value)
            });
        extensions
            .into_iter()
            .filter(|(name, _)| !["s", "m", "v"].contains(&name.as_str()))
            .fold(header, |header, (name, value)| {
                header.with_extension(name, value)
            })
    })
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn field_name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "s",
            "m",
            "v",
            "data",
            "serializer",
            "metadata",
            "version"
        ])
        .prop_map(String::from),
        any::<String>(),
    ]
}

fn prefix(version: u8, header_len: usize) -> Bytes {
    let mut bytes = BytesMut::from(&[b'C', b'K', version][..]);
    bytes.extend_from_slice(&u32::try_from(header_len).unwrap().to_be_bytes());
    bytes.freeze()
}

fn entry(head: &[u8], text: &[u8], payload: &[u8]) -> Bytes {
    Bytes::from([head, text, payload].concat())
}

proptest! {
    #[test]
    fn a_manifest_comes_back(
        generation in any::<u128>(),
        lengths in proptest::collection::vec(1_u32.., 1..200),
    ) {
        let manifest = ck_frame::Manifest::new(generation, lengths.iter().copied()).unwrap();
        let bytes = manifest.encode().unwrap();
        prop_assert_eq!(bytes.len(), ck_frame::Manifest::encoded_len(lengths.len()));
        let read = ck_frame::Manifest::decode(&bytes).unwrap();
        prop_assert_eq!(read.as_ref(), Some(&manifest));
        let mut at = 0;
        for (index, &length) in lengths.iter().enumerate() {
            let chunk = manifest.chunk(index);
            prop_assert_eq!(&chunk, &(at..at + u64::from(length)));
            prop_assert_eq!(manifest.chunks_of(chunk.clone()), index..index + 1);
            at = chunk.end;
        }
        prop_assert_eq!(manifest.chunks_of(0..at), 0..lengths.len());
    }

    #[test]
    fn hostile_manifests_do_no_harm(
        fixed in proptest::collection::vec(any::<u8>(), 0..64),
        version in 0_u8..3,
        count in any::<u32>(),
        few in 0_u32..5,
        short in any::<bool>(),
    ) {
        let mut bytes = ck_frame::Header::new("ck-chunks").encode().unwrap().to_vec();
        if let Ok(Some(_)) = ck_frame::Manifest::decode(&[&bytes[..], &fixed].concat()) {
            prop_assert!(fixed.len() >= 33);
        }
        bytes.push(version);
        bytes.extend_from_slice(&[7; 24]);
        bytes.extend_from_slice(&if short { few } else { count }.to_be_bytes());
        bytes.extend_from_slice(&fixed);
        if let Ok(Some(read)) = ck_frame::Manifest::decode(&bytes) {
            prop_assert_eq!(read.encode().unwrap(), bytes);
        }
    }
}
