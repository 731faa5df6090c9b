//! JSON text as a MessagePack document.

use std::fmt;

use ck_core::Result;
use rmp::encode;
use serde_core::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::misuse;

/// The MessagePack document of a JSON text, which the client's default serializer reads.
///
/// Numbers are exact or refused, but for the digits beyond those of a float of 64 bits. Keys of objects come
/// in the order of the text.
///
/// # Memory
///
/// The document, and four bytes for each array and object. The text is read twice.
///
/// # Errors
///
/// [`Misuse`](ck_core::ErrorKind::Misuse) with line and column for text that is not JSON, for values nested
/// more than 127 deep, and for integers beyond 64 bits, which MessagePack does not have.
pub fn from_json(text: &[u8]) -> Result<Vec<u8>> {
    let mut lengths = Vec::new();
    read(text, Lengths(&mut lengths))?;
    if let Some(start) = integer_beyond_64_bits(text) {
        return Err(too_large(text, start));
    }
    let mut document = Vec::new();
    let mut lengths = lengths.into_iter();
    read(
        text,
        Document {
            out: &mut document,
            lengths: &mut lengths,
        },
    )?;
    Ok(document)
}

fn read<'a>(text: &'a [u8], seed: impl DeserializeSeed<'a>) -> Result<()> {
    let mut json = serde_json::Deserializer::from_slice(text);
    seed.deserialize(&mut json)
        .and_then(|_| json.end())
        .map_err(|error| misuse("the text is not JSON").with_source(error))
}

/// Collects the length of each array and object, in the order in which they begin: MessagePack has lengths
/// in front.
struct Lengths<'l>(&'l mut Vec<u32>);

impl Lengths<'_> {
    fn next(&mut self) -> Lengths<'_> {
        Lengths(self.0)
    }

    /// Makes room for the length of what begins here.
    fn begin(&mut self) -> usize {
        self.0.push(0);
        self.0.len() - 1
    }

    fn count_one<E: Error>(&mut self, place: usize) -> Result<(), E> {
        let length = self.0.get_mut(place);
        let next = length.as_deref().and_then(|length| length.checked_add(1));
        match (length, next) {
            (Some(length), Some(next)) => {
                *length = next;
                Ok(())
            }
            _ => Err(E::custom("more values side by side than MessagePack has")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Lengths<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Lengths<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let place = self.begin();
        while seq.next_element_seed(self.next())?.is_some() {
            self.count_one(place)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let place = self.begin();
        while map.next_key_seed(self.next())?.is_some() {
            map.next_value_seed(self.next())?;
            self.count_one(place)?;
        }
        Ok(())
    }
}

/// Writes MessagePack, each value in its shortest form.
struct Document<'d> {
    out: &'d mut Vec<u8>,
    lengths: &'d mut std::vec::IntoIter<u32>,
}

impl Document<'_> {
    fn next(&mut self) -> Document<'_> {
        Document {
            out: self.out,
            lengths: self.lengths,
        }
    }

    fn length<E: Error>(&mut self) -> Result<u32, E> {
        let length = self.lengths.next();
        length.ok_or_else(|| E::custom("the text has changed"))
    }
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        encode::write_nil(self.out).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        encode::write_bool(self.out, value).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        encode::write_sint(self.out, value)
            .map(drop)
            .map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        encode::write_uint(self.out, value)
            .map(drop)
            .map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        encode::write_f64(self.out, value).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        encode::write_str(self.out, value).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let length = self.length()?;
        encode::write_array_len(self.out, length).map_err(A::Error::custom)?;
        while seq.next_element_seed(self.next())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let length = self.length()?;
        encode::write_map_len(self.out, length).map_err(A::Error::custom)?;
        while map.next_key_seed(self.next())?.is_some() {
            map.next_value_seed(self.next())?;
        }
        Ok(())
    }
}

/// Where the first integer of a valid JSON text starts that neither `i64` nor `u64` holds. Readers of JSON
/// hand it out as a float.
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

fn too_large(text: &[u8], start: usize) -> ck_core::Error {
    let (before, number) = text.split_at(start);
    let line_start = before.iter().rposition(|byte| *byte == b'\n');
    let lines = before.iter().filter(|byte| **byte == b'\n').count();
    misuse("an integer has more than 64 bits; write it as text, or as a float, such as 1.0e30")
        .with("number", shown(number))
        .with("line", lines + 1)
        .with("column", start - line_start.map_or(0, |at| at + 1) + 1)
}

/// The number that `text` starts with, shortened to what a message can show.
fn shown(text: &[u8]) -> String {
    const MOST: usize = 40;
    let number = number(text);
    let start = String::from_utf8_lossy(&number[..number.len().min(MOST)]).into_owned();
    match number.len() {
        ..=MOST => start,
        len => format!("{start}… of {len} characters"),
    }
}
