//! Guards against values of the Python client's default serializer that read or are written as others.
#![cfg(feature = "messagepack")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ck_codec::bytestorage::{self, decode, encode};
use ck_core::{ErrorKind, Result};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The integer 1, as the client wrote it: the compressed bytes, then their checksum.
const COMPRESSED: [u8; 2] = [0x10, 0x01];
const CHECKSUM: [u8; 8] = [0xe1, 0x2e, 0xf9, 0xd2, 0xeb, 0x86, 0xce, 0xeb];

fn to_json(document: &[u8]) -> Result<Value> {
    let json = bytestorage::to_json(document)?;
    Ok(serde_json::from_str(&json.to_string()).unwrap())
}

fn from_json(value: &Value) -> Result<Vec<u8>> {
    bytestorage::from_json(value.to_string().as_bytes())
}

fn ints(bytes: &[u8]) -> Vec<u8> {
    let mut array = vec![0xdc, 0, u8::try_from(bytes.len()).unwrap()];
    bytes.iter().for_each(|byte| array.extend([0xcc, *byte]));
    array
}

fn bin(bytes: &[u8]) -> Vec<u8> {
    [&[0xc4, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

fn text(text: &str) -> Vec<u8> {
    [
        &[0xa0 | u8::try_from(text.len()).unwrap()][..],
        text.as_bytes(),
    ]
    .concat()
}

#[test]
fn all_forms_of_the_payload_are_read() {
    let forms = [
        [
            vec![0x94],
            bin(&COMPRESSED),
            ints(&CHECKSUM),
            vec![1],
            text("msgpack"),
        ]
        .concat(),
        [
            vec![0x94],
            ints(&COMPRESSED),
            bin(&CHECKSUM),
            vec![0xcc, 1],
            text("msgpack"),
        ]
        .concat(),
        [
            vec![0x94],
            ints(&COMPRESSED),
            ints(&CHECKSUM),
            vec![0xcd, 0, 1],
            text("msgpack"),
        ]
        .concat(),
        // By name, in another order.
        [
            vec![0x84],
            [text("format"), text("msgpack")].concat(),
            [text("original_size"), vec![0xce, 0, 0, 0, 1]].concat(),
            [text("checksum"), bin(&CHECKSUM)].concat(),
            [text("compressed_data"), bin(&COMPRESSED)].concat(),
        ]
        .concat(),
    ];
    for form in forms {
        assert_eq!(decode(&form).unwrap(), [1], "{form:02x?}");
    }
}

#[test]
fn other_formats_missing_fields_and_wrong_checksums_are_refused() {
    let kind = |fields: &[Vec<u8>]| decode(&fields.concat()).unwrap_err().kind();
    let (data, sum, name) = (bin(&COMPRESSED), bin(&CHECKSUM), text("msgpack"));
    assert_eq!(
        kind(&[
            vec![0x94],
            data.clone(),
            sum.clone(),
            vec![1],
            text("pickle")
        ]),
        ErrorKind::Unsupported
    );
    let other = bin(&[0; 8]);
    assert_eq!(
        kind(&[vec![0x94], data.clone(), other, vec![1], name.clone()]),
        ErrorKind::Corrupt
    );
    let short = bin(&CHECKSUM[1..]);
    assert_eq!(
        kind(&[vec![0x94], data.clone(), short, vec![1], name.clone()]),
        ErrorKind::Corrupt
    );
    assert_eq!(
        kind(&[vec![0x94], data.clone(), sum.clone(), vec![2], name.clone()]),
        ErrorKind::Corrupt
    );
    // One field twice, another one not at all.
    let twice = [
        vec![0x84],
        [text("format"), name.clone()].concat(),
        [text("format"), name.clone()].concat(),
        [text("checksum"), sum.clone()].concat(),
        [text("compressed_data"), data.clone()].concat(),
    ];
    assert_eq!(kind(&twice), ErrorKind::Corrupt);
    // An integer that is no byte.
    assert_eq!(
        kind(&[vec![0x94, 0x91, 0xcd, 1, 0], sum, vec![1], name]),
        ErrorKind::Corrupt
    );
}

#[test]
fn numbers_are_exact_and_written_short() {
    for (value, document) in [
        (json!(127), &[0x7f][..]),
        (json!(128), &[0xcc, 0x80]),
        (json!(-32), &[0xe0]),
        (json!(-33), &[0xd0, 0xdf]),
        (json!(u64::MAX), b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
        (json!(i64::MIN), b"\xd3\x80\0\0\0\0\0\0\0"),
        (json!(1.0), b"\xcb\x3f\xf0\0\0\0\0\0\0"),
        (json!(0.1), b"\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a"),
        (json!("a"), b"\xa1a"),
        (json!({"b": null, "a": true}), b"\x82\xa1b\xc0\xa1a\xc3"),
    ] {
        assert_eq!(from_json(&value).unwrap(), document, "{value}");
        assert_eq!(to_json(document).unwrap(), value);
    }
    // A float of 32 bits is read at its exact value.
    assert_eq!(
        to_json(b"\xca\x3d\xcc\xcc\xcd").unwrap(),
        json!(f64::from(0.1_f32))
    );
    // Order is kept.
    let ordered = bytestorage::to_json(b"\x82\xa1b\x01\xa1a\x02");
    assert_eq!(ordered.unwrap().to_string(), r#"{"b":1,"a":2}"#);
}

#[test]
fn integers_of_json_text_are_exact_or_refused() {
    for text in [
        "0",
        "-0",
        "18446744073709551615",
        "-9223372036854775808",
        "1e30",
        "123456789012345678901234567890.0",
        r#"{"123456789012345678901": "\"123456789012345678901\\", "a": [1, -1]}"#,
    ] {
        let document = bytestorage::from_json(text.as_bytes()).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(to_json(&document).unwrap(), value, "{text}");
    }
    for (text, context) in [
        (
            "18446744073709551616",
            "number: 18446744073709551616, line: 1, column: 1",
        ),
        (
            "[1,\n-9223372036854775809]",
            "number: -9223372036854775809, line: 2, column: 1",
        ),
        (r#"{"\"":99999999999999999999}"#, "column: 7"),
    ] {
        let error = bytestorage::from_json(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.to_string().contains(context), "{error}");
    }
    for text in ["", "{", "nan", "1 2", "\"\\ud800\"", "\u{feff}1"] {
        let error = bytestorage::from_json(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.to_string().contains("line 1 column"), "{error}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(
        bytestorage::from_json(deep.as_bytes()).unwrap_err().kind(),
        ErrorKind::Misuse
    );
}

#[test]
fn what_json_does_not_have_is_said() {
    for (document, because) in [
        (&b"\xc4\x01x"[..], "bytes"),
        (b"\x92\x01\xc4\x01x", "bytes"),
        (b"\xa1\xff", "not UTF-8"),
        (b"\xcb\x7f\xf8\0\0\0\0\0\0", "not finite"),
        (b"\x91\xcb\x7f\xf0\0\0\0\0\0\0", "not finite"),
        (b"\x81\x01\x02", "key that is not text"),
        (b"\x82\x01\x02\xa1a\x03", "key that is not text"),
        (b"\x81\xc4\x01x\x02", "bytes"),
        (b"\xd6\xff\x01\x02\x03\x04", "extension"),
        (b"\x92\xd4\x05\x01\x02", "extension"),
    ] {
        let error = to_json(document).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(because), "{error}");
    }
    for damaged in [
        &b""[..],
        b"\x92\x01",
        b"\xa5abc",
        b"\xc1",
        b"\x01\x02",
        b"\xdd\xff\xff\xff\xff",
    ] {
        let error = to_json(damaged).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{damaged:02x?}: {error}");
    }
}

#[test]
fn deep_values_are_refused_both_ways() {
    let deep = |levels: usize| [vec![0x91; levels], vec![0xc0]].concat();
    to_json(&deep(100)).unwrap();
    assert_eq!(
        to_json(&deep(200)).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        to_json(&deep(1_000_000)).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    let nested = |levels: usize| (0..levels).fold(Value::Null, |value, _| json!([value]));
    assert_eq!(
        to_json(&from_json(&nested(100)).unwrap()).unwrap(),
        nested(100)
    );
    assert_eq!(
        from_json(&nested(200)).unwrap_err().kind(),
        ErrorKind::Misuse
    );
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            prop::collection::vec((".{0,8}", inner), 0..20)
                .prop_map(|pairs| pairs.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_come_back_as_they_were(value in values()) {
        let payload = encode(&from_json(&value).unwrap()).unwrap();
        prop_assert_eq!(to_json(&decode(&payload).unwrap()).unwrap(), value);
    }

    #[test]
    fn documents_of_any_length_come_back(len in 0_usize..70_000, step in 1_usize..300) {
        let document: Vec<u8> = (0..len).map(|at| (at * at / step).to_le_bytes()[0]).collect();
        prop_assert_eq!(decode(&encode(&document).unwrap()).unwrap(), document);
    }
}
