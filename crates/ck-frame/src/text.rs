use std::io;

use serde_core::ser::{Serialize, SerializeMap};
use serde_json::ser::Formatter;
use serde_json::{Map, Value};

use crate::{FrameError, Header};

/// How deep objects and arrays may nest, the header object counted: what serde_json follows when
/// reading.
pub(crate) const MAX_DEPTH: usize = 127;

const PART: &str = "the header";

/// Appends the JSON text of a header to `out`.
pub(crate) fn write(header: &Header, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let mut serializer = serde_json::Serializer::with_formatter(out, PythonLayout { depth: 0 });
    // Writing to memory fails for one reason: the layout refuses to go deeper.
    Text(header)
        .serialize(&mut serializer)
        .map_err(|_| FrameError::TooDeep { limit: MAX_DEPTH })
}

/// Parses the JSON text of a header, trailing spaces included.
pub(crate) fn parse(text: &[u8]) -> Result<Header, FrameError> {
    let text = std::str::from_utf8(text).map_err(|error| FrameError::NotUtf8 {
        part: PART,
        valid_up_to: error.valid_up_to(),
    })?;
    let value = serde_json::from_str(text).map_err(|error| FrameError::NotJson {
        part: PART,
        reason: error.to_string(),
    })?;
    let Value::Object(object) = value else {
        return Err(FrameError::HeaderNotAnObject {
            found: describe(Some(&value)),
        });
    };
    let mut fields = Fields::default();
    for (name, value) in object {
        match name.as_str() {
            "s" => fields.serializer = Some(value),
            "m" => fields.metadata = Some(value),
            "v" => fields.version = Some(value),
            _ => {
                fields.extensions.insert(name, value);
            }
        }
    }
    fields.check()
}

/// What a frame or a legacy envelope says of its payload, unchecked.
#[derive(Default)]
pub(crate) struct Fields {
    pub(crate) serializer: Option<Value>,
    pub(crate) metadata: Option<Value>,
    pub(crate) version: Option<Value>,
    pub(crate) extensions: Map<String, Value>,
}

impl Fields {
    pub(crate) fn check(self) -> Result<Header, FrameError> {
        let serializer = match self.serializer {
            Some(Value::String(name)) if !name.is_empty() => name,
            Some(Value::String(_)) => {
                return Err(FrameError::NoSerializerName {
                    found: "an empty string",
                });
            }
            other => {
                return Err(FrameError::NoSerializerName {
                    found: describe(other.as_ref()),
                });
            }
        };
        let metadata = match self.metadata {
            Some(Value::Object(metadata)) => metadata,
            None => Map::new(),
            other => {
                return Err(FrameError::MetadataNotAnObject {
                    found: describe(other.as_ref()),
                });
            }
        };
        let version = match self.version {
            Some(Value::String(version)) => version,
            None => String::new(),
            Some(other) => other.to_string(),
        };
        Ok(Header::from_parts(
            serializer,
            metadata,
            version,
            self.extensions,
        ))
    }
}

fn describe(value: Option<&Value>) -> &'static str {
    match value {
        None => "absent",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    }
}

struct Text<'a>(&'a Header);

impl Serialize for Text<'_> {
    fn serialize<S: serde_core::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let header = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("s", header.serializer())?;
        map.serialize_entry("m", header.metadata())?;
        map.serialize_entry("v", header.version())?;
        for (name, value) in header.extensions() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The layout of Python's `json.dumps`: one space after each comma and each colon.
struct PythonLayout {
    depth: usize,
}

impl PythonLayout {
    fn enter(&mut self) -> io::Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(io::Error::other("too deep"));
        }
        Ok(())
    }
}

impl Formatter for PythonLayout {
    fn begin_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.enter()?;
        out.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        out.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.enter()?;
        out.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        out.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(header: &Header) -> String {
        let mut out = Vec::new();
        write(header, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_text_is_that_of_the_python_writer() {
        // json.dumps({"s": .., "m": .., "v": "2.0"}, ensure_ascii=False), as cachekit 0.24.1 calls
        // it.
        let header = Header::new("default")
            .with_metadata("format", "arrow")
            .with_metadata("encoding", "utf-8")
            .with_metadata("compressed", false)
            .with_metadata("original_type", Value::Null)
            .with_metadata(
                "t",
                "\u{fc}\u{4e2d}\u{1f600} \"q\" \\ / \x07\x08\x0c\n\r\t\x1f\x7f\u{2028}",
            )
            .with_metadata("n", json!([1, -2, 2.5, {"a": {}, "b": []}]));
        let expected = concat!(
            r#"{"s": "default", "m": {"format": "arrow", "encoding": "utf-8", "#,
            r#""compressed": false, "#,
            "\"original_type\": null, \"t\": \"\u{fc}\u{4e2d}\u{1f600} ",
            r#"\"q\" \\ / \u0007\b\f\n\r\t\u001f"#,
            "\x7f\u{2028}\", ",
            r#""n": [1, -2, 2.5, {"a": {}, "b": []}]}, "v": "2.0"}"#,
        );
        assert_eq!(text(&header), expected);
        assert_eq!(parse(expected.as_bytes()).unwrap(), header);
    }

    #[test]
    fn extensions_follow_the_fields_in_the_order_they_were_added() {
        let header = Header::new("a")
            .with_extension("z", 1)
            .with_extension("ck", json!({"layout": 1}));
        assert_eq!(
            text(&header),
            r#"{"s": "a", "m": {}, "v": "2.0", "z": 1, "ck": {"layout": 1}}"#
        );
    }

    #[test]
    fn a_header_needs_nothing_but_a_serializer_name() {
        let header = parse(b" {\"s\":\"a\"}  \n").unwrap();
        assert_eq!((header.serializer(), header.version()), ("a", ""));
        assert!(header.metadata().is_empty());
    }

    #[test]
    fn a_version_of_any_type_is_shown_as_its_text() {
        for (version, shown) in [("3", "3"), ("null", "null"), (r#"[1,"a"]"#, r#"[1,"a"]"#)] {
            let header = parse(format!(r#"{{"s": "a", "v": {version}}}"#).as_bytes()).unwrap();
            assert_eq!(header.version(), shown);
        }
    }

    #[test]
    fn the_last_of_two_equal_names_holds() {
        assert_eq!(parse(br#"{"s": 1, "s": "b"}"#).unwrap().serializer(), "b");
    }

    #[test]
    fn a_header_that_is_no_object_or_lacks_a_name_says_what_it_is() {
        for (text, found) in [
            ("null", "null"),
            ("true", "a boolean"),
            ("1", "a number"),
            ("\"s\"", "a string"),
            ("[]", "an array"),
        ] {
            assert_eq!(
                parse(text.as_bytes()),
                Err(FrameError::HeaderNotAnObject { found })
            );
        }
        for (text, found) in [
            ("{}", "absent"),
            (r#"{"s": ""}"#, "an empty string"),
            (r#"{"s": null}"#, "null"),
            (r#"{"s": {}}"#, "an object"),
        ] {
            assert_eq!(
                parse(text.as_bytes()),
                Err(FrameError::NoSerializerName { found })
            );
        }
        for (text, found) in [
            (r#"{"s": "a", "m": null}"#, "null"),
            (r#"{"s": "a", "m": "x"}"#, "a string"),
        ] {
            assert_eq!(
                parse(text.as_bytes()),
                Err(FrameError::MetadataNotAnObject { found })
            );
        }
    }

    #[test]
    fn text_that_is_not_utf8_or_not_json_says_where() {
        let error = parse(b"{\"s\": \"\xfe\"}").unwrap_err();
        assert_eq!(
            error,
            FrameError::NotUtf8 {
                part: PART,
                valid_up_to: 7
            }
        );
        for text in [
            "",
            "{",
            "{\"s\": \"a\"}x",
            "{\"s\": \"a\"}\0",
            "{\"s\": NaN}",
            r#"{"s": "\ud800"}"#,
            "{'s': 1}",
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(
                matches!(error, FrameError::NotJson { part: PART, .. }),
                "{text}"
            );
            assert!(error.to_string().contains("line 1 column"), "{error}");
        }
    }

    #[test]
    fn what_is_written_is_never_too_deep_to_be_read() {
        let nest = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let deepest = Header::new("a").with_extension("x", nest(MAX_DEPTH - 1));
        assert_eq!(parse(text(&deepest).as_bytes()).unwrap(), deepest);

        let wide = Header::new("a").with_extension("x", vec![json!([{}, [], [1]]); 2 * MAX_DEPTH]);
        assert_eq!(parse(text(&wide).as_bytes()).unwrap(), wide);

        let deeper = Header::new("a").with_extension("x", nest(MAX_DEPTH));
        let error = write(&deeper, &mut Vec::new()).unwrap_err();
        assert_eq!(error, FrameError::TooDeep { limit: MAX_DEPTH });
        let mut unchecked = br#"{"s": "a", "x": "#.to_vec();
        unchecked.extend_from_slice(nest(MAX_DEPTH).to_string().as_bytes());
        unchecked.push(b'}');
        assert!(matches!(parse(&unchecked), Err(FrameError::NotJson { .. })));
    }
}
