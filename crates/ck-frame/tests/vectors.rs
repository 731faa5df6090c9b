//! Guards against envelopes of existing writers that are not read as they were meant, and against
//! malformed ones that are taken for something. `tests/vectors` holds real output of cachekit
//! 0.24.1 and 0.6.1; the full collection beside the repository is read too where it exists, and
//! must exist in CI.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ck_frame::{Envelope, Frame, FrameError, Header, Probe, probe, read};
use serde_json::Value;

/// Bytes before the frame in a file of the file store.
const FILE_HEADER_LEN: usize = 14;

#[test]
fn malformed_envelopes_give_the_error_they_deserve() {
    for (name, expected) in malformed() {
        let bytes = load(&copies().join("bad").join(name));
        assert_eq!(read(&bytes).unwrap_err(), expected, "{name}");
    }
}

#[test]
fn frames_of_the_python_writer_are_taken_apart_without_copying() {
    // File, bytes before the frame, serializer, where the payload begins in the frame.
    for (name, skip, serializer, payload_offset) in [
        ("frames/empty.none.ck", 0, "arrow", 127),
        ("frames/empty.zstd.ck", 0, "arrow", 126),
        ("encrypted/default.ck", 0, "default", 298),
        (
            "filedir/e1c5466fad4140fd12d70c618d7566f7",
            FILE_HEADER_LEN,
            "arrow",
            170,
        ),
    ] {
        let bytes = load(&copies().join(name)).slice(skip..);
        let frame = check_frame(&bytes);
        assert_eq!(frame.header.serializer(), serializer);
        assert_eq!(frame.header.version(), "2.0");
        assert_eq!(bytes.len() - frame.payload.len(), payload_offset, "{name}");
    }
}

#[test]
fn legacy_envelopes_are_decoded() {
    let raw = read(&load(&copies().join("legacy/empty.raw.json"))).unwrap();
    assert_eq!(raw.header, arrow_header(false));
    assert_eq!(raw.payload.len(), 1838);
    assert!(raw.payload.starts_with(b"ARROW1\0\0") && raw.payload.ends_with(b"ARROW1"));

    let checksummed = read(&load(&copies().join("legacy/empty.checksummed.json"))).unwrap();
    assert_eq!(checksummed.header, arrow_header(false));
    assert_eq!(
        checksummed.payload[..8],
        [0x5e, 0xf6, 0x66, 0x0d, 0x25, 0x08, 0x3f, 0x60]
    );
    assert_eq!(checksummed.payload[8..], raw.payload);

    let encrypted = read(&load(&copies().join("legacy/encrypted.default.json"))).unwrap();
    assert_eq!(encrypted.header.serializer(), "default");
    assert_eq!(
        encrypted.header.metadata()["encryption_algorithm"],
        "AES-256-GCM"
    );
    assert_eq!(encrypted.payload.len(), 83);
    assert!(encrypted.payload.starts_with(&[0xdc, 0x49, 0xd8, 0xc5]));
}

#[test]
fn the_copied_vectors_are_those_of_the_collection() {
    let Some(collection) = testkit::vectors() else {
        return;
    };
    let mut compared = 0;
    for folder in ["bad", "encrypted", "filedir", "frames", "legacy"] {
        for entry in std::fs::read_dir(copies().join(folder)).unwrap() {
            let name = Path::new(folder).join(entry.unwrap().file_name());
            assert_eq!(
                load(&copies().join(&name)),
                load(&collection.join(&name)),
                "{name:?}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 15);
}

#[test]
fn every_frame_of_the_collection_holds_what_its_manifest_says() {
    let Some(collection) = testkit::vectors() else {
        return;
    };
    let mut frames = 0;
    for vector in manifest(&collection, "manifest.json") {
        let skip = match vector["kind"].as_str().unwrap() {
            "ck-frame-v3" | "ck-frame-v3-encrypted" => 0,
            "file-backend-entry" => FILE_HEADER_LEN,
            _ => continue,
        };
        let file = vector["file"].as_str().unwrap();
        let header = check_frame(&load(&collection.join(file)).slice(skip..)).header;
        if let Some(serializer) = vector.get("serializer") {
            assert_eq!(header.serializer(), serializer, "{file}");
        }
        if let Some(metadata) = vector.get("metadata") {
            assert_eq!(Value::from(header.metadata().clone()), *metadata, "{file}");
        }
        frames += 1;
    }
    assert_eq!(frames, 54);
}

#[test]
fn every_legacy_envelope_of_the_collection_decodes_as_a_naive_decoder_does() {
    let Some(collection) = testkit::vectors() else {
        return;
    };
    let vectors = manifest(&collection, "manifest-legacy.json");
    assert_eq!(vectors.len(), 17);
    for vector in vectors {
        let bytes = load(&collection.join(vector["file"].as_str().unwrap()));
        let expected: Value = serde_json::from_slice(&bytes).unwrap();
        let frame = read(&bytes).unwrap();
        assert_eq!(frame.header.serializer(), expected["serializer"]);
        assert_eq!(frame.header.version(), expected["version"]);
        assert_eq!(
            Value::from(frame.header.metadata().clone()),
            expected["metadata"]
        );
        assert_eq!(
            frame.payload,
            naive_base64(expected["data"].as_str().unwrap())
        );
        assert_eq!(
            probe(&bytes[..1], bytes.len() as u64),
            Ok(Probe::Ready(Envelope::Legacy))
        );
        let arrow_at = match vector["payload"].as_str() {
            Some("arrow-ipc-raw") => 0,
            Some("arrow-ipc-checksummed") => 8,
            _ => continue,
        };
        assert!(frame.payload[arrow_at..].starts_with(b"ARROW1"));
    }
}

#[test]
fn every_malformed_vector_of_the_collection_has_its_typed_error() {
    let Some(collection) = testkit::vectors() else {
        return;
    };
    let vectors = manifest(&collection, "manifest.json");
    let listed: BTreeSet<_> = vectors
        .iter()
        .filter(|vector| vector["kind"] == "malformed")
        .map(|vector| vector["file"].as_str().unwrap().to_owned())
        .collect();
    let known: BTreeSet<_> = malformed()
        .iter()
        .map(|(name, _)| format!("bad/{name}"))
        .collect();
    assert_eq!(listed, known);
}

#[test]
fn a_flipped_bit_behind_the_header_changes_the_payload_and_nothing_else() {
    let Some(collection) = testkit::vectors() else {
        return;
    };
    let original = load(&collection.join("frames/strings.zstd.ck"));
    let payload_offset = original.len() - check_frame(&original).payload.len();
    let mut flips = 0;
    for vector in manifest(&collection, "manifest.json") {
        if vector["kind"] != "bitflip" {
            continue;
        }
        let at = usize::try_from(vector["at"].as_u64().unwrap()).unwrap();
        assert!(
            at >= payload_offset,
            "all flips of the collection are in the payload"
        );
        let frame = read(&load(&collection.join(vector["file"].as_str().unwrap()))).unwrap();
        assert_eq!(frame.header, arrow_header(true));
        let changed = original[payload_offset..].iter().zip(&frame.payload);
        let changed: Vec<_> = changed.enumerate().filter(|(_, (a, b))| a != b).collect();
        assert!(matches!(changed[..], [(i, _)] if i + payload_offset == at));
        flips += 1;
    }
    assert_eq!(flips, 39);
}

#[test]
fn a_flipped_bit_in_front_of_the_payload_is_an_error_or_a_readable_header() {
    let original = load(&copies().join("frames/empty.zstd.ck"));
    let head_len = original.len() - read(&original).unwrap().payload.len();
    for at in 0..head_len {
        for bit in 0..8 {
            let mut bytes = original.to_vec();
            bytes[at] ^= 1 << bit;
            match read(&Bytes::from(bytes)) {
                // A shorter or longer header is never JSON to its end.
                Ok(frame) => {
                    assert!(at >= 7, "byte {at} bit {bit}");
                    assert_eq!(frame.payload, original[head_len..]);
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

/// The malformed vectors, and what is wrong with each.
fn malformed() -> Vec<(&'static str, FrameError)> {
    vec![
        ("bad_version.ck", FrameError::UnknownVersion { found: 9 }),
        (
            "empty.ck",
            FrameError::Truncated {
                found: 0,
                expected: 7,
            },
        ),
        (
            "header_not_json.ck",
            FrameError::NotUtf8 {
                part: "the header",
                valid_up_to: 0,
            },
        ),
        (
            "header_overrun.ck",
            FrameError::HeaderPastEnd {
                claimed: 0x8000_0000,
                available: 110,
            },
        ),
        (
            "legacy_bad_base64.ck",
            FrameError::BadBase64 {
                reason: "Invalid symbol 42, offset 0.".into(),
            },
        ),
        (
            "no_serializer_name.ck",
            FrameError::NoSerializerName { found: "absent" },
        ),
        (
            "not_an_envelope.ck",
            FrameError::NotAnEnvelope {
                found: vec![0, 1, 2, 3],
            },
        ),
        (
            "truncated_prefix.ck",
            FrameError::Truncated {
                found: 5,
                expected: 7,
            },
        ),
    ]
}

/// Reads a frame in both ways, and writes its header again: the bytes must be those of the original
/// writer.
fn check_frame(bytes: &Bytes) -> Frame {
    let frame = read(bytes).unwrap();
    let payload_offset = bytes.len() - frame.payload.len();
    assert_eq!(frame.payload, bytes[payload_offset..]);
    assert_eq!(frame.payload.as_ptr(), bytes[payload_offset..].as_ptr());

    let head = &bytes[..payload_offset];
    let envelope = Envelope::V3 {
        header: frame.header.clone(),
        payload_offset: payload_offset as u64,
    };
    assert_eq!(probe(head, bytes.len() as u64), Ok(Probe::Ready(envelope)));
    assert_eq!(frame.header.encode_padded_to(payload_offset).unwrap(), head);
    frame
}

fn arrow_header(compressed: bool) -> Header {
    Header::new("arrow")
        .with_metadata("format", "arrow")
        .with_metadata("encoding", "utf-8")
        .with_metadata("compressed", compressed)
        .with_metadata("original_type", "arrow")
}

/// Base64 as its definition reads, bit by bit.
fn naive_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for symbol in text.trim_end_matches('=').chars() {
        bits = bits << 6 | u32::try_from(ALPHABET.find(symbol).unwrap()).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    out
}

fn copies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn manifest(collection: &Path, name: &str) -> Vec<Value> {
    let manifest: Value = serde_json::from_slice(&load(&collection.join(name))).unwrap();
    let vectors = manifest.get("vectors").unwrap_or(&manifest);
    vectors.as_array().unwrap().clone()
}

fn load(path: &Path) -> Bytes {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Bytes::from(bytes)
}
