//! Guards against stored bytes that make a reader allocate more than they are: every allocation is
//! counted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use ck_frame::{Envelope, FrameError, Header, MAX_HEADER_LEN, Probe, probe, read};
use testkit::heap::{CountingAllocator, peak_here_of as peak_of};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[test]
fn a_claimed_header_of_4_gib_allocates_nothing_to_speak_of() {
    let bytes = Bytes::from_static(b"CK\x03\xff\xff\xff\xff{\"s\": \"arrow\"}");
    let (peak, result) = peak_of(|| read(&bytes));
    assert!(matches!(result, Err(FrameError::HeaderPastEnd { .. })));
    assert!(peak < KIB, "{peak}");

    let (peak, result) = peak_of(|| probe(&bytes, u64::MAX));
    assert!(matches!(result, Err(FrameError::HeaderBeyondLimit { .. })));
    assert!(peak < KIB, "{peak}");
}

#[test]
fn the_payload_of_a_frame_is_not_copied_whatever_its_size() {
    let head = Header::new("arrow")
        .with_metadata("format", "arrow")
        .encode()
        .unwrap();
    let mut entry = head.to_vec();
    entry.resize(32 * MIB, 7);
    let entry = Bytes::from(entry);
    let (peak, frame) = peak_of(|| read(&entry).unwrap());
    assert_eq!(frame.payload.len(), entry.len() - head.len());
    assert!(peak < 4 * KIB, "{peak}");
}

#[test]
fn a_legacy_payload_is_allocated_once() {
    let entry = legacy(&"QUJD".repeat(8 * MIB), "{}");
    let (peak, frame) = peak_of(|| read(&entry).unwrap());
    assert_eq!(frame.payload.len(), 24 * MIB);
    assert!(peak < 24 * MIB + 4 * KIB, "{peak}");
}

#[test]
fn bad_base64_allocates_no_more_than_the_good_one() {
    for end in ["*", "=", "QQ=", "\\u0000"] {
        let entry = legacy(&("QUJD".repeat(4 * MIB) + end), "{}");
        let (peak, result) = peak_of(|| read(&entry));
        assert!(
            matches!(result, Err(FrameError::BadBase64 { .. })),
            "{result:?}"
        );
        // An escape costs a copy of the text, which grows as it is made.
        let most = if end.starts_with('\\') {
            4 * entry.len()
        } else {
            entry.len() + 64 * KIB
        };
        assert!(peak < most, "{peak} for {end}");
    }
}

#[test]
fn huge_legacy_metadata_is_refused_by_its_length() {
    let entry = legacy("", &format!("{{\"m\": [0{}]}}", ",0".repeat(16 * MIB)));
    let (peak, result) = peak_of(|| read(&entry));
    assert!(matches!(result, Err(FrameError::HeaderBeyondLimit { .. })));
    assert!(peak < 64 * KIB, "{peak}");
}

#[test]
fn unknown_legacy_fields_are_skipped_without_being_kept() {
    let names: String = (0..100_000)
        .map(|i| format!("\"{i}\": [{{}}, {i}], "))
        .collect();
    let entry = Bytes::from(format!(
        "{{{names}\"serializer\": \"a\", \"data\": \"QUJD\"}}"
    ));
    let (peak, frame) = peak_of(|| read(&entry).unwrap());
    assert_eq!(frame.payload, "ABC");
    assert!(peak < 4 * KIB, "{peak}");
}

#[test]
fn nesting_a_million_deep_neither_overflows_the_stack_nor_multiplies_memory() {
    let deep = "[".repeat(MIB) + &"]".repeat(MIB);
    let nested = |field: &str| {
        Bytes::from(format!(
            r#"{{"data": "", "serializer": "a", "{field}": {deep}}}"#
        ))
    };
    for (field, expected) in [
        ("unknown", None),
        ("data", Some(FrameError::NoPayload { found: "an array" })),
        (
            "metadata",
            Some(FrameError::HeaderBeyondLimit {
                found: 2 * MIB as u64 + 3,
            }),
        ),
    ] {
        let entry = nested(field);
        let (peak, result) = peak_of(|| read(&entry));
        assert_eq!(result.err(), expected, "{field}");
        assert!(peak < 2 * entry.len(), "{peak}");
    }

    let text = format!(r#"{{"s": "a", "x": {}"#, "[".repeat(MAX_HEADER_LEN - 32));
    let mut entry = b"CK\x03".to_vec();
    entry.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    entry.extend_from_slice(text.as_bytes());
    let (peak, result) = peak_of(|| read(&Bytes::from(entry.clone())));
    assert!(
        matches!(result, Err(FrameError::NotJson { .. })),
        "{result:?}"
    );
    assert!(peak < entry.len() + 64 * KIB, "{peak}");
}

#[test]
fn the_worst_header_within_the_limit_is_parsed_in_bounded_memory() {
    let mut names = String::new();
    for i in 0.. {
        let field = format!(",\"{i:x}\":[]");
        if names.len() + field.len() > MAX_HEADER_LEN - 32 {
            break;
        }
        names.push_str(&field);
    }
    let zeros = format!(
        "{{\"s\":\"a\",\"x\":[0{}]}}",
        ",0".repeat(MAX_HEADER_LEN / 2 - 16)
    );
    let objects = format!(
        "{{\"s\":\"a\",\"x\":[0{}]}}",
        ",{\"\":0}".repeat(MAX_HEADER_LEN / 8)
    );
    let fields = format!("{{\"s\":\"a\"{names}}}");
    for text in [zeros, objects, fields] {
        let mut entry = b"CK\x03".to_vec();
        entry.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        entry.extend_from_slice(text.as_bytes());
        let (peak, result) = peak_of(|| probe(&entry, entry.len() as u64).unwrap());
        assert!(matches!(result, Probe::Ready(Envelope::V3 { .. })));
        println!("{} bytes of header: {peak} bytes at the peak", text.len());
        assert!(peak < 96 * MIB, "{peak}");
    }
}

fn legacy(data: &str, metadata: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"data": "{data}", "metadata": {metadata}, "serializer": "a"}}"#
    ))
}
