use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_core::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::text::Fields;
use crate::{Frame, FrameError, MAX_HEADER_LEN};

const PART: &str = "the legacy envelope";

/// Reads a legacy envelope. See the crate's documentation for its form.
pub(crate) fn read(bytes: &[u8]) -> Result<Frame, FrameError> {
    let text = std::str::from_utf8(bytes).map_err(|error| FrameError::NotUtf8 {
        part: PART,
        valid_up_to: error.valid_up_to(),
    })?;
    let raw: RawFields<'_> = serde_json::from_str(text).map_err(not_json)?;

    let small = [raw.serializer, raw.metadata, raw.version];
    let len: usize = small.iter().flatten().map(|field| field.get().len()).sum();
    if len > MAX_HEADER_LEN {
        return Err(FrameError::HeaderBeyondLimit { found: len as u64 });
    }
    let header = Fields {
        serializer: parse(raw.serializer)?,
        metadata: parse(raw.metadata)?,
        version: parse(raw.version)?,
        ..Fields::default()
    }
    .check()?;
    Ok(Frame {
        header,
        payload: decode(raw.data)?,
    })
}

/// The fields as they stand in the text: nothing is copied before its length is known to be
/// harmless.
#[derive(Default)]
struct RawFields<'a> {
    data: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
    serializer: Option<&'a RawValue>,
    version: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for RawFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = RawFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = RawFields::default();
        while let Some(name) = map.next_key()? {
            let field = match name {
                Name::Data => &mut fields.data,
                Name::Metadata => &mut fields.metadata,
                Name::Serializer => &mut fields.serializer,
                Name::Version => &mut fields.version,
                Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(fields)
    }
}

enum Name {
    Data,
    Metadata,
    Serializer,
    Version,
    Other,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        Ok(match name {
            "data" => Name::Data,
            "metadata" => Name::Metadata,
            "serializer" => Name::Serializer,
            "version" => Name::Version,
            _ => Name::Other,
        })
    }
}

fn parse(field: Option<&RawValue>) -> Result<Option<Value>, FrameError> {
    field
        .map(|field| serde_json::from_str(field.get()))
        .transpose()
        .map_err(not_json)
}

fn decode(data: Option<&RawValue>) -> Result<Bytes, FrameError> {
    let json = data.ok_or(FrameError::NoPayload { found: "absent" })?.get();
    let text = json
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let text = text.ok_or(FrameError::NoPayload {
        found: describe(json),
    })?;
    let text = if text.contains('\\') {
        Cow::Owned(serde_json::from_str::<String>(json).map_err(not_json)?)
    } else {
        Cow::Borrowed(text)
    };
    let payload = STANDARD.decode(text.as_bytes());
    Ok(payload
        .map_err(|error| FrameError::BadBase64 {
            reason: error.to_string(),
        })?
        .into())
}

/// What a JSON text that is no string holds, without parsing it.
fn describe(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    }
}

fn not_json(error: serde_json::Error) -> FrameError {
    FrameError::NotJson {
        part: PART,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> FrameError {
        read(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn every_field_is_read() {
        let frame = read(
            br#"{"data": "AAH/", "metadata": {"format": "arrow", "n": [1.5]},
                "serializer": "auto", "version": "2.0"}"#,
        )
        .unwrap();
        let header = frame.header;
        assert_eq!((header.serializer(), header.version()), ("auto", "2.0"));
        assert_eq!(
            Value::from(header.metadata().clone()),
            serde_json::json!({"format": "arrow", "n": [1.5]})
        );
        assert_eq!(frame.payload, &[0, 1, 255][..]);
    }

    #[test]
    fn only_payload_and_serializer_are_mandatory_and_unknown_names_are_ignored() {
        let frame = read(b" \n{\"x\": [{}], \"serializer\": \"a\", \"data\": \"\", \"s\": 1}\r\n ")
            .unwrap();
        assert_eq!(frame.header.serializer(), "a");
        assert_eq!(frame.header.version(), "");
        assert!(frame.header.metadata().is_empty());
        assert_eq!(frame.header.extension("x"), None);
        assert!(frame.payload.is_empty());
    }

    #[test]
    fn escapes_in_names_and_payload_are_resolved_and_the_last_of_two_equal_names_holds() {
        let frame =
            read(br#"{"data": "*", "serializer": "a", "\u0064ata": "\u0041AH\/"}"#).unwrap();
        assert_eq!(frame.payload, &[0, 1, 255][..]);
    }

    #[test]
    fn a_missing_or_misplaced_payload_is_named() {
        for (data, found) in [
            ("", "absent"),
            (r#""data": null,"#, "null"),
            (r#""data": -1,"#, "a number"),
            (r#""data": true,"#, "a boolean"),
            (r#""data": ["AAAA"],"#, "an array"),
            (r#""data": {},"#, "an object"),
        ] {
            let text = format!(r#"{{{data} "serializer": "a"}}"#);
            assert_eq!(error(&text), FrameError::NoPayload { found });
        }
    }

    #[test]
    fn base64_must_be_of_its_alphabet_and_padded() {
        for data in [
            "***", "YQ", "YQ=", "YQ===", "YQ==YQ==", "Y Q==", "YR==", "-_-_", "YWJjY", "é",
        ] {
            let text = format!(r#"{{"data": "{data}", "serializer": "a"}}"#);
            assert!(
                matches!(error(&text), FrameError::BadBase64 { .. }),
                "{data}"
            );
        }
    }

    #[test]
    fn a_nameless_envelope_and_odd_metadata_are_refused() {
        let cases = [
            (
                r#"{"data": ""}"#,
                FrameError::NoSerializerName { found: "absent" },
            ),
            (
                r#"{"data": "", "serializer": ""}"#,
                FrameError::NoSerializerName {
                    found: "an empty string",
                },
            ),
            (
                r#"{"data": "", "serializer": 1}"#,
                FrameError::NoSerializerName { found: "a number" },
            ),
            (
                r#"{"data": "", "serializer": "a", "metadata": []}"#,
                FrameError::MetadataNotAnObject { found: "an array" },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), expected);
        }
    }

    #[test]
    fn text_that_is_not_utf8_or_not_json_says_where() {
        assert_eq!(
            read(b"{\"data\": \"\xff\"}").unwrap_err(),
            FrameError::NotUtf8 {
                part: PART,
                valid_up_to: 10
            }
        );
        for text in [
            "{",
            "{}x",
            r#"{"data": "AAAA"#,
            r#"{"data" "AAAA"}"#,
            r#"{data: 1}"#,
        ] {
            let error = error(text);
            assert!(matches!(error, FrameError::NotJson { .. }), "{text}");
            assert!(error.to_string().contains("line 1 column"), "{error}");
        }
    }

    #[test]
    fn fields_beside_the_payload_share_the_limit_of_a_header() {
        let text = |len: usize| {
            format!(
                r#"{{"data": "", "serializer": "a", "metadata": {{"m": "{}"}}}}"#,
                "m".repeat(len)
            )
        };
        let around = r#""a"{"m": ""}"#.len();
        assert!(read(text(MAX_HEADER_LEN - around).as_bytes()).is_ok());
        assert_eq!(
            error(&text(MAX_HEADER_LEN - around + 1)),
            FrameError::HeaderBeyondLimit {
                found: MAX_HEADER_LEN as u64 + 1
            }
        );
    }
}
