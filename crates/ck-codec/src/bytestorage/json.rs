//! A MessagePack document as JSON text.

use std::fmt::{self, Display, Write};

use ck_core::Result;
use serde_core::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Number;

use crate::error::unsupported;
use crate::messagepack::from_slice_seed;

/// A MessagePack document as JSON, as the client's default serializer means it.
///
/// Integers of 64 bits and floats are exact. Dates and times are maps of two keys, such as
/// `{"__datetime__": true, "value": "2025-11-14T10:30:00+00:00"}`, and stay so.
///
/// # Memory
///
/// That of the longest text in it. The document is read once to see that there is JSON for all of it, and
/// again when that is written.
///
/// # Errors
///
/// [`Unsupported`](ck_core::ErrorKind::Unsupported) for what JSON does not have: bytes, NaN and the
/// infinities, keys that are not text, MessagePack extensions, and values nested more than 128 deep.
/// [`Corrupt`](ck_core::ErrorKind::Corrupt) for bytes that are no MessagePack document.
///
/// # Examples
///
/// ```
/// use ck_codec::bytestorage;
///
/// let document = bytestorage::from_json(br#"{"a": [1, 2.5, null]}"#)?;
/// assert_eq!(bytestorage::to_json(&document)?.to_string(), r#"{"a":[1,2.5,null]}"#);
/// # Ok::<(), ck_core::Error>(())
/// ```
pub fn to_json(document: &[u8]) -> Result<Json<'_>> {
    let mut text = Text {
        out: &mut Nowhere,
        lacks: None,
    };
    from_slice_seed(text.value(), document)?;
    match text.lacks {
        None => Ok(Json(document)),
        Some(because) => {
            Err(unsupported("the value cannot be written as JSON").with("because", because))
        }
    }
}

/// A MessagePack document that has a JSON text, which is how it is displayed: on one line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Json<'a>(&'a [u8]);

impl Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text {
            out: f,
            lacks: None,
        };
        // The document has been read before: only writing fails.
        from_slice_seed(text.value(), self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// Takes text and keeps nothing.
struct Nowhere;

impl Write for Nowhere {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}

/// JSON text on its way out.
struct Text<'w> {
    out: &'w mut dyn Write,
    /// The first thing that JSON does not have. What follows is still read: the document may be damaged.
    lacks: Option<&'static str>,
}

impl<'w> Text<'w> {
    fn value(&mut self) -> Part<'_, 'w> {
        self.part("", false)
    }

    fn part(&mut self, before: &'static str, is_key: bool) -> Part<'_, 'w> {
        Part {
            text: self,
            before,
            is_key,
        }
    }

    fn put<E: Error>(&mut self, what: impl Display) -> Result<(), E> {
        write!(self.out, "{what}").map_err(E::custom)
    }
}

/// The next value or key, if there is one.
struct Part<'t, 'w> {
    text: &'t mut Text<'w>,
    /// What is written in front of it.
    before: &'static str,
    is_key: bool,
}

impl Part<'_, '_> {
    fn lacks(&mut self, because: &'static str) {
        self.text.lacks.get_or_insert(because);
    }

    /// Something that is no text.
    fn put<E: Error>(mut self, what: impl Display) -> Result<(), E> {
        self.refuse_as_key();
        self.text.put(what)
    }

    fn refuse_as_key(&mut self) {
        if self.is_key {
            self.lacks("it has a key that is not text");
        }
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.text.put(self.before)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MessagePack value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.put("null")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.put(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.put(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.put(value)
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        match Number::from_f64(value) {
            Some(number) => self.put(number),
            None => {
                self.lacks("it holds a number that is not finite");
                Ok(())
            }
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.text
            .put(serde_json::to_string(value).map_err(E::custom)?)
    }

    fn visit_bytes<E>(mut self, _: &[u8]) -> Result<(), E> {
        self.lacks("it holds bytes, or text that is not UTF-8");
        Ok(())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(mut self, extension: D) -> Result<(), D::Error> {
        self.lacks("it holds a MessagePack extension");
        serde_core::Deserialize::deserialize(extension).map(|IgnoredAny| ())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.refuse_as_key();
        self.text.put("[")?;
        let mut before = "";
        while seq
            .next_element_seed(self.text.part(before, false))?
            .is_some()
        {
            before = ",";
        }
        self.text.put("]")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.refuse_as_key();
        self.text.put("{")?;
        let mut before = "";
        while map.next_key_seed(self.text.part(before, true))?.is_some() {
            map.next_value_seed(self.text.part(":", false))?;
            before = ",";
        }
        self.text.put("}")
    }
}
