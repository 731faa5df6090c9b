use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ck_codec::bytestorage;
use ck_frame::{Frame, Header};
use serde_json::{Value, json};

use super::support::{Ck, batch, ipc_file};

/// What the Python client wrote, and what it means.
fn vectors() -> Vec<(PathBuf, Value)> {
    let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ck-codec/tests/vectors");
    let manifest = std::fs::read(set.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let vectors: Vec<_> = manifest["vectors"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|vector| vector["file"].as_str().unwrap().starts_with("bytestorage/"))
        .map(|vector| {
            let file = set.join(vector["file"].as_str().unwrap());
            (file, vector["expected_json"].clone())
        })
        .collect();
    assert_eq!(vectors.len(), 9);
    vectors
}

/// Has the store hold this frame under `key`, as if the client had put it there.
fn place(ck: &Ck, frame: &[u8]) {
    let done = ck.run_with_input(&["put", "key", "--json", "-"], b"0");
    assert_eq!(done.code, 0, "{}", done.err);
    let path = ck.entry_file();
    let mut file = std::fs::read(&path).unwrap();
    file.truncate(14);
    file.extend_from_slice(frame);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, file).unwrap();
}

/// The frame that the store holds.
fn stored(ck: &Ck) -> Frame {
    let file = Bytes::from(std::fs::read(ck.entry_file()).unwrap());
    ck_frame::read(&file.slice(14..)).unwrap()
}

/// A frame of the client's default serializer around a payload.
fn frame(payload: &[u8], compressed: bool) -> Vec<u8> {
    let header = Header::new("default")
        .with_metadata("format", "msgpack")
        .with_metadata("encoding", "utf-8")
        .with_metadata("compressed", compressed)
        .with_metadata("original_type", "msgpack");
    [&header.encode().unwrap()[..], payload].concat()
}

fn one_line(value: &Value) -> String {
    format!("{value}\n")
}

#[test]
fn a_value_of_the_python_client_is_printed_as_json() {
    let ck = Ck::new();
    for (file, expected) in vectors() {
        let frame = std::fs::read(&file).unwrap();
        place(&ck, &frame);
        assert_eq!(ck.ok(&["get", "key"]), one_line(&expected), "{file:?}");
        assert_eq!(ck.ok(&["get", "key", "-o", "-"]), one_line(&expected));
        ck.ok(&["get", "key", "-o", "out.json"]);
        let written = std::fs::read_to_string(ck.path("out.json")).unwrap();
        assert_eq!(written, one_line(&expected));
        ck.ok(&["verify", "key"]);
        assert_eq!(
            ck.ok(&["decode", file.to_str().unwrap()]),
            one_line(&expected)
        );

        let payload = ck_frame::read(&frame.into()).unwrap().payload;
        let envelope = json!({
            "data": STANDARD.encode(&payload),
            "metadata": {"format": "msgpack", "encoding": "utf-8", "compressed": true},
            "serializer": "default",
        });
        std::fs::write(ck.path("legacy"), envelope.to_string()).unwrap();
        assert_eq!(ck.ok(&["decode", "legacy"]), one_line(&expected));
    }
}

#[test]
fn a_json_value_is_stored_as_the_python_client_stores_it() {
    let ck = Ck::new();
    for (file, value) in vectors() {
        let input = value.to_string();
        let done = ck.run_with_input(&["put", "key", "--json", "-"], input.as_bytes());
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(done.err.starts_with("stored key: JSON, "), "{}", done.err);
        assert!(done.out.is_empty());
        let client = ck_frame::read(&std::fs::read(&file).unwrap().into()).unwrap();
        let ours = stored(&ck);
        assert_eq!(ours.payload, client.payload, "{file:?}");
        assert_eq!(ours.header.serializer(), client.header.serializer());
        assert_eq!(ours.header.metadata(), client.header.metadata());
        assert_eq!(ours.header.version(), client.header.version());
    }
    assert!(ck.ok(&["ls"]).contains("\nkey "), "the key is recorded");
}

#[test]
fn json_comes_back_as_it_was() {
    let ck = Ck::new();
    for text in [
        "null",
        "-1",
        "9223372036854775808",
        "18446744073709551615",
        "-9223372036854775808",
        "0.1",
        "1e+30",
        "-1.7976931348623157e+308",
        r#""ü漢\u0000\"\\""#,
        r#""123456789012345678901234567890""#,
        r#"["a\\",-1,{"\"1e":"99999999999999999999"},true]"#,
        r#"{"z":1,"a":{"b":[[],{},""]}}"#,
        r#"{"on":{"__date__":true,"value":"2025-11-14"}}"#,
    ] {
        std::fs::write(ck.path("in.json"), format!(" {text}\n")).unwrap();
        ck.ok(&["put", "key", "--json", "in.json", "--quiet"]);
        assert_eq!(ck.ok(&["get", "key"]), format!("{text}\n"));
    }
    let large = json!((0..200_000).collect::<Vec<_>>()).to_string();
    ck.run_with_input(&["put", "key", "--json", "-"], large.as_bytes());
    assert_eq!(ck.ok(&["get", "key"]), format!("{large}\n"));
}

#[test]
fn json_lives_as_long_as_it_is_told_to() {
    let ck = Ck::new();
    let put = ["put", "key", "--json", "-", "--ttl", "1h"];
    assert_eq!(ck.run_with_input(&put, b"1").code, 0);
    let found: Value = serde_json::from_str(&ck.ok(&["stat", "key", "--json"])).unwrap();
    assert!(found["expires_unix_seconds"].is_u64(), "{found}");
}

#[test]
fn an_integer_beyond_64_bits_is_refused_by_name() {
    let ck = Ck::new();
    for (text, number, line, column) in [
        ("18446744073709551616", "18446744073709551616", 1, 1),
        ("-9223372036854775809", "-9223372036854775809", 1, 1),
        (
            "{\"a\": \"7\",\n \"b\": [1, 123456789012345678901]}",
            "123456789012345678901",
            2,
            11,
        ),
    ] {
        let done = ck.run_with_input(&["put", "key", "--json", "-"], text.as_bytes());
        assert_eq!(done.code, 1, "{}", done.err);
        for said in [
            format!("number: {number}"),
            format!("line: {line}"),
            format!("column: {column}"),
            "write it as text, or as a float".to_owned(),
        ] {
            assert!(done.err.contains(&said), "{said}: {}", done.err);
        }
    }
    let long = format!("[1{}]", "0".repeat(1_000_000));
    let done = ck.run_with_input(&["put", "key", "--json", "-"], long.as_bytes());
    assert_eq!(done.code, 1);
    assert!(done.err.len() < 1000, "{}", done.err.len());
    assert_eq!(ck.ok(&["ls"]), "");
}

#[test]
fn text_that_is_not_json_is_1_with_line_and_column() {
    let ck = Ck::new();
    for (text, line, column) in [
        ("", 1, 0),
        ("{\"a\": 1,\n \"b\": nope}", 2, 8),
        ("[1, 2", 1, 5),
        ("1 2", 1, 3),
        ("NaN", 1, 1),
        ("1e999", 1, 5),
        ("'single'", 1, 1),
    ] {
        std::fs::write(ck.path("in.json"), text).unwrap();
        let done = ck.run(&["put", "key", "--json", "in.json"]);
        assert_eq!(done.code, 1, "{text}: {}", done.err);
        let place = format!("line {line} column {column}");
        assert!(done.err.contains(&place), "{text}: {}", done.err);
        assert!(done.err.contains("in.json"), "{}", done.err);
    }
    assert_eq!(ck.run(&["put", "key", "--json", "no-such-file"]).code, 1);
    assert_eq!(ck.ok(&["ls"]), "");
}

#[test]
fn a_text_longer_than_a_value_can_be_is_refused_with_size_and_limit() {
    let ck = Ck::new();
    let file = std::fs::File::create(ck.path("long.json")).unwrap();
    file.set_len((512 << 20) + 1).unwrap();
    let done = ck.run(&["put", "key", "--json", "long.json"]);
    assert_eq!(done.code, 1);
    for said in ["long.json", "536870913", "536870912"] {
        assert!(done.err.contains(said), "{}", done.err);
    }
}

#[test]
fn a_damaged_value_is_a_miss_and_is_removed_and_verify_says_4() {
    let document =
        bytestorage::from_json(br#"{"text": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#).unwrap();
    let intact = frame(&bytestorage::encode(&document).unwrap(), true);
    let (mut misses, mut refused) = (0, 0);
    // The payload is the last part.
    let payload_len = bytestorage::encode(&document).unwrap().len();
    for at in intact.len() - payload_len..intact.len() {
        let mut damaged = intact.clone();
        damaged[at] ^= 0x10;
        let ck = Ck::new();
        place(&ck, &damaged);
        let verified = ck.run(&["verify", "key"]);
        assert_eq!(ck.run(&["stat", "key"]).code, 0, "verify removes nothing");
        let done = ck.run(&["get", "key"]);
        assert!(done.out.is_empty(), "byte {at}");
        match verified.code {
            4 => {
                misses += 1;
                assert_eq!(done.code, 3, "byte {at}: {}", done.err);
                assert!(done.err.contains("damaged and has been removed"));
                assert_eq!(ck.run(&["stat", "key"]).code, 3);
            }
            // Another format by name.
            _ => {
                refused += 1;
                assert_eq!((verified.code, done.code), (1, 1), "{}", done.err);
            }
        }
    }
    assert_eq!(misses + refused, payload_len);
    assert!(refused <= "msgpack".len(), "{refused}");

    let ck = Ck::new();
    std::fs::write(ck.path("entry"), &intact[..intact.len() - 1]).unwrap();
    assert_eq!(ck.run(&["decode", "entry"]).code, 4);
}

#[test]
fn a_value_beyond_the_limits_is_told_with_size_and_limit() {
    let ck = Ck::new();
    // 600 MiB in a block of 2 bytes.
    let mut payload = vec![0x94, 0xc4, 2, 0x10, 1, 0x98];
    payload.extend([0; 8]);
    payload.extend([0xce, 0x25, 0x80, 0, 0, 0xa7]);
    payload.extend(b"msgpack");
    place(&ck, &frame(&payload, true));
    let done = ck.run(&["get", "key"]);
    assert_eq!(done.code, 1, "{}", done.err);
    for said in ["629145600", "536870912", "key"] {
        assert!(done.err.contains(said), "{}", done.err);
    }
    // 100 MiB in a block of 2 bytes.
    payload[15..19].copy_from_slice(&[6, 0x40, 0, 0]);
    place(&ck, &frame(&payload, true));
    assert_eq!(ck.run(&["verify", "key"]).code, 4);
    assert_eq!(ck.run(&["get", "key"]).code, 3);
}

#[test]
fn a_value_without_json_is_an_error_that_says_why() {
    let ck = Ck::new();
    for (document, because) in [
        (&b"\xc4\x01x"[..], "bytes"),
        (b"\x81\x01\x02", "a key that is not text"),
        (b"\xd6\xff\x01\x02\x03\x04", "a MessagePack extension"),
        (b"\x91\xcb\x7f\xf8\0\0\0\0\0\0", "not finite"),
    ] {
        place(&ck, &frame(&bytestorage::encode(document).unwrap(), true));
        for args in [&["get", "key"][..], &["get", "key", "-o", "out.json"]] {
            let done = ck.run(args);
            assert_eq!(done.code, 1, "{}", done.err);
            assert!(done.err.contains("cannot be written as JSON"));
            assert!(done.err.contains(because), "{}", done.err);
            assert!(done.out.is_empty());
        }
        ck.ok(&["verify", "key"]);
    }
    assert!(!ck.path("out.json").exists());
}

#[test]
fn a_value_stored_without_compression_is_read() {
    let ck = Ck::new();
    place(&ck, &frame(b"\x92\x01\xa1a", false));
    assert_eq!(ck.ok(&["get", "key"]), "[1,\"a\"]\n");
    place(&ck, &frame(b"\x92\x01", false));
    assert_eq!(ck.run(&["get", "key"]).code, 3);
}

#[test]
fn payloads_of_other_serializers_stay_bytes() {
    let ck = Ck::new();
    let payload = bytestorage::encode(b"\x01").unwrap();
    let header = Header::new("auto").with_metadata("format", "msgpack");
    let head = header.with_metadata("compressed", true).encode().unwrap();
    place(&ck, &[&head[..], &payload].concat());
    assert!(ck.ok(&["get", "key"]).starts_with("no table: "));
    assert_eq!(ck.run(&["get", "key", "-o", "-"]).out, payload);
    assert!(
        ck.ok(&["inspect", "key"])
            .contains("bytes of the serializer \"auto\"")
    );
}

#[test]
fn inspect_says_what_the_entry_is() {
    let ck = Ck::new();
    ck.run_with_input(&["put", "key", "--json", "-"], b"[1,2,3]");
    let text = ck.ok(&["inspect", "key"]);
    for said in [
        "a value of the Python client's default serializer",
        "messagepack 4 B (4 bytes)",
        r#"header      {"s":"default","m":{"#,
    ] {
        assert!(text.contains(said), "{text}");
    }
    let found: Value = serde_json::from_str(&ck.ok(&["inspect", "key", "--json"])).unwrap();
    assert_eq!(found["serializer"], "default");
    assert_eq!(found["messagepack_bytes"], 4);
    assert_eq!(found["header"]["ck"]["key"], "key");
}

#[test]
fn json_and_tables_do_not_mix_on_the_command_line() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 10)]);
    std::fs::write(ck.path("in.json"), "1").unwrap();
    for args in [
        &["put", "key"][..],
        &["put", "key", "in.arrow", "--json", "in.json"],
        &["put", "key", "--json", "in.json", "--compression", "zstd"],
        &["put", "key", "--json"],
    ] {
        let done = ck.run(args);
        assert_eq!(done.code, 2, "{args:?}: {}", done.err);
    }
    assert_eq!(ck.ok(&["ls"]), "");
    ck.ok(&["put", "key", "--json", "in.json"]);
    for selection in [["--columns", "id"], ["--rows", "1..2"]] {
        let done = ck.run(&["get", "key", selection[0], selection[1]]);
        assert_eq!(done.code, 2, "{}", done.err);
        assert!(done.err.contains("neither columns nor rows"));
    }
    // Each replaces the other.
    ck.ok(&["put", "key", "in.arrow"]);
    assert!(ck.ok(&["get", "key"]).ends_with("10 rows × 3 columns\n"));
    ck.ok(&["put", "key", "--json", "in.json"]);
    assert_eq!(ck.ok(&["get", "key"]), "1\n");
    ck.ok(&["verify", "--all"]);
}
