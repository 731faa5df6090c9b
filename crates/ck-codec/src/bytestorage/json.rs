use std::fmt;

use ck_core::Result;
use serde_core::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{misuse, unsupported};
use crate::messagepack::{MAX_DEPTH, from_slice, to_vec};

/// A MessagePack document as JSON, as the client's default serializer means it.
///
/// Integers of 64 bits and floats are exact. Dates and times are maps of two keys, such as
/// `{"__datetime__": true, "value": "2025-11-14T10:30:00+00:00"}`, and stay so.
///
/// # Errors
///
/// [`Unsupported`](ck_core::ErrorKind::Unsupported) for what JSON does not have: bytes, NaN and the
/// infinities, keys that are not text, MessagePack extensions, and values nested more than 128 deep.
/// [`Corrupt`](ck_core::ErrorKind::Corrupt) for bytes that are no MessagePack document.
pub fn to_json(document: &[u8]) -> Result<Value> {
    let Json(value) = from_slice(document)?;
    value.map_err(|because| {
        unsupported("the value cannot be written as JSON").with("because", because)
    })
}

/// The MessagePack document of a JSON value, which the client's default serializer reads.
///
/// Keys of objects come in the order of the map.
///
/// # Errors
///
/// [`Misuse`](ck_core::ErrorKind::Misuse) for a value nested more than 128 deep.
pub fn from_json(value: &Value) -> Result<Vec<u8>> {
    if depth(value, MAX_DEPTH).is_none() {
        return Err(misuse("the JSON value is nested too deeply").with("limit", MAX_DEPTH));
    }
    to_vec(value)
}

/// The MessagePack document of a JSON text.
///
/// As [`from_json`], but no integer is rounded: read into a [`Value`], one beyond 64 bits is a float.
///
/// # Memory
///
/// The value as a tree, which has many times the size of a text that is full of small numbers.
///
/// # Errors
///
/// [`Misuse`](ck_core::ErrorKind::Misuse) with line and column for text that is not JSON, for integers
/// beyond 64 bits, and as [`from_json`].
pub fn from_json_text(text: &[u8]) -> Result<Vec<u8>> {
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| misuse("the text is not JSON").with_source(error))?;
    if let Some(start) = integer_beyond_64_bits(text) {
        let (before, number) = text.split_at(start);
        let line_start = before.iter().rposition(|byte| *byte == b'\n');
        return Err(misuse(
            "an integer has more than 64 bits; write it as text, or as a float, such as 1.0e30",
        )
        .with("number", shown(number))
        .with(
            "line",
            before.iter().filter(|byte| **byte == b'\n').count() + 1,
        )
        .with(
            "column",
            start - line_start.map_or(0, |newline| newline + 1) + 1,
        ));
    }
    from_json(&value)
}

/// Where the first integer of a valid JSON text starts that neither `i64` nor `u64` holds.
fn integer_beyond_64_bits(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at += string_len(&text[at..]),
            b'-' | b'0'..=b'9' => {
                let number = number(&text[at..]);
                if !fits(number) {
                    return Some(at);
                }
                at += number.len();
            }
            _ => at += 1,
        }
    }
    None
}

/// The bytes of the string that `text` starts with, quotes included.
fn string_len(text: &[u8]) -> usize {
    let mut at = 1;
    loop {
        match text.get(at) {
            Some(b'\\') => at += 2,
            None | Some(b'"') => return at + 1,
            Some(_) => at += 1,
        }
    }
}

/// The number that `text` starts with.
fn number(text: &[u8]) -> &[u8] {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let len = text.iter().position(|byte| !is_part(byte));
    &text[..len.unwrap_or(text.len())]
}

/// Whether a number is no integer, or one of 64 bits.
fn fits(number: &[u8]) -> bool {
    let is_float = number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    // Whatever has up to 18 digits fits.
    is_float || number.len() <= 18 || {
        let text = std::str::from_utf8(number).unwrap_or_default();
        text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
    }
}

/// The number that `text` starts with, shortened to what a message can show.
fn shown(text: &[u8]) -> String {
    const MOST: usize = 40;
    let number = number(text);
    let start = String::from_utf8_lossy(&number[..number.len().min(MOST)]).into_owned();
    match number.len() {
        ..=MOST => start,
        digits => format!("{start}… of {digits} digits"),
    }
}

/// How many of `left` levels are over; `None` when there are more.
fn depth(value: &Value, left: usize) -> Option<()> {
    let left = left.checked_sub(1)?;
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| depth(value, left)),
        Value::Object(map) => map.values().try_for_each(|value| depth(value, left)),
        _ => Some(()),
    }
}

/// A value, or what it has that JSON does not.
struct Json(Result<Value, &'static str>);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(Self)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Result<Value, &'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MessagePack value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Ok(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Ok(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Ok(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Ok(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        let number = Number::from_f64(value).map(Value::Number);
        Ok(number.ok_or("it holds a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Ok(value.into()))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(Err("it holds bytes, or text that is not UTF-8"))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        extension: D,
    ) -> Result<Self::Value, D::Error> {
        IgnoredAny::deserialize(extension)?;
        Ok(Err("it holds a MessagePack extension"))
    }

    // What follows something that JSON does not have is still read: the document may be damaged.

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Ok(Vec::new());
        while let Some(Json(value)) = seq.next_element()? {
            match (&mut values, value) {
                (Ok(values), Ok(value)) => values.push(value),
                (Ok(_), Err(because)) => values = Err(because),
                (Err(_), _) => {}
            }
        }
        Ok(values.map(Value::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = Ok(Map::new());
        while let Some((Json(key), Json(value))) = access.next_entry()? {
            match (&mut map, key, value) {
                (Ok(map), Ok(Value::String(key)), Ok(value)) => {
                    map.insert(key, value);
                }
                (Ok(_), Err(because), _) | (Ok(_), Ok(Value::String(_)), Err(because)) => {
                    map = Err(because);
                }
                (Ok(_), Ok(_), _) => map = Err("it has a key that is not text"),
                (Err(_), ..) => {}
            }
        }
        Ok(map.map(Value::Object))
    }
}
