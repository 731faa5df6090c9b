use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{FRAME_VERSION, FrameError, MAGIC, MAX_HEADER_LEN, PREFIX_LEN, text};

/// Names of the header's own fields.
const FIELDS: [&str; 3] = ["s", "m", "v"];

/// What an envelope says of its payload.
///
/// # Examples
///
/// ```
/// use ck_frame::Header;
///
/// let header = Header::new("arrow")
///     .with_metadata("format", "arrow")
///     .with_extension("ck", serde_json::json!({"layout": 1}));
/// assert_eq!(header.metadata()["format"], "arrow");
/// assert_eq!(
///     &header.encode()?[7..],
///     br#"{"s": "arrow", "m": {"format": "arrow"}, "v": "2.0", "ck": {"layout": 1}}"#
/// );
/// # Ok::<(), ck_frame::FrameError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    serializer: String,
    metadata: Map<String, Value>,
    version: String,
    extensions: Map<String, Value>,
}

impl Header {
    /// A header for a payload made by this serializer: version `"2.0"`, no metadata, no extensions.
    pub fn new(serializer: impl Into<String>) -> Self {
        Self::from_parts(serializer.into(), Map::new(), "2.0".to_owned(), Map::new())
    }

    /// Sets a metadata value, replacing one of that name.
    ///
    /// Existing readers promise nothing about metadata names they do not know: use an extension for
    /// those.
    #[must_use]
    pub fn with_metadata(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Sets an extension, a value beside `s`, `m` and `v` that existing readers ignore, replacing
    /// one of that name.
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.into(), value.into());
        self
    }

    /// The name of the serializer that made the payload. Never empty in a header that was read.
    #[must_use]
    pub fn serializer(&self) -> &str {
        &self.serializer
    }

    /// The metadata, in the order of the text.
    #[must_use]
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// The version of the header's vocabulary. Empty if the entry records none, and JSON text if it
    /// is no string there.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The extension of this name.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&Value> {
        self.extensions.get(name)
    }

    /// Encodes prefix and header: a frame up to its payload.
    ///
    /// # Errors
    ///
    /// [`FrameError`] for what readers would refuse: an empty serializer name, an extension named
    /// `s`, `m` or `v`, nesting deeper than 127, a header longer than [`MAX_HEADER_LEN`].
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let head = self.unpadded()?;
        let len = head.len() as u64;
        pad(head, len)
    }

    /// Encodes prefix and header, padded so that the payload is aligned.
    ///
    /// Spaces are added to the header until `offset` plus the length returned is a multiple of
    /// `alignment`. `offset` counts the bytes outside of this envelope's head that lie before the
    /// place to align: what stands before the frame, and what stands between the header and that
    /// place. For an Arrow file behind an 8-byte checksum in a file with a 14-byte header it is 22.
    ///
    /// # Errors
    ///
    /// As [`Header::encode`], the padding counted, and [`FrameError::ZeroAlignment`].
    pub fn encode_aligned(&self, alignment: usize, offset: u64) -> Result<Bytes, FrameError> {
        let head = self.unpadded()?;
        let alignment = alignment as u128;
        let end = u128::from(offset) + head.len() as u128;
        let beyond = end
            .checked_rem(alignment)
            .ok_or(FrameError::ZeroAlignment)?;
        let padding = if beyond == 0 { 0 } else { alignment - beyond };
        let len = u64::try_from(head.len() as u128 + padding).unwrap_or(u64::MAX);
        pad(head, len)
    }

    /// Encodes prefix and header into exactly `len` bytes, by adding spaces to the header.
    ///
    /// # Errors
    ///
    /// As [`Header::encode`], the padding counted, and [`FrameError::DoesNotFit`] if `len` bytes
    /// are not enough.
    pub fn encode_padded_to(&self, len: usize) -> Result<Bytes, FrameError> {
        let head = self.unpadded()?;
        if head.len() > len {
            return Err(FrameError::DoesNotFit {
                needed: head.len(),
                reserved: len,
            });
        }
        pad(head, len as u64)
    }

    pub(crate) fn from_parts(
        serializer: String,
        metadata: Map<String, Value>,
        version: String,
        extensions: Map<String, Value>,
    ) -> Self {
        Self {
            serializer,
            metadata,
            version,
            extensions,
        }
    }

    pub(crate) fn extensions(&self) -> &Map<String, Value> {
        &self.extensions
    }

    /// Prefix and header; the length in the prefix is still zero.
    fn unpadded(&self) -> Result<Vec<u8>, FrameError> {
        if self.serializer.is_empty() {
            return Err(FrameError::EmptySerializerName);
        }
        if let Some(name) = FIELDS
            .into_iter()
            .find(|&name| self.extensions.contains_key(name))
        {
            return Err(FrameError::ExtensionNameTaken {
                name: name.to_owned(),
            });
        }
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(&MAGIC);
        head.push(FRAME_VERSION);
        head.extend_from_slice(&[0; 4]);
        text::write(self, &mut head)?;
        Ok(head)
    }
}

/// Adds spaces up to `len` bytes in all, then fills in the header's length.
fn pad(mut head: Vec<u8>, len: u64) -> Result<Bytes, FrameError> {
    let header_len = len - PREFIX_LEN as u64;
    match (usize::try_from(len), u32::try_from(header_len)) {
        (Ok(len), Ok(header_len)) if len - PREFIX_LEN <= MAX_HEADER_LEN => {
            head.resize(len, b' ');
            head[PREFIX_LEN - 4..PREFIX_LEN].copy_from_slice(&header_len.to_be_bytes());
            Ok(head.into())
        }
        _ => Err(FrameError::HeaderTooLong { len: header_len }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_gives_the_bytes_of_the_python_writer() {
        // SerializationWrapper.wrap_prefix(.., align=64, offset=22) of cachekit 0.24.1.
        let header = Header::new("arrow")
            .with_metadata("format", "arrow")
            .with_metadata("encoding", "utf-8")
            .with_metadata("compressed", false)
            .with_metadata("original_type", "arrow");
        let mut expected = b"CK\x03\0\0\0\xa3".to_vec();
        expected
            .extend_from_slice(br#"{"s": "arrow", "m": {"format": "arrow", "encoding": "utf-8", "#);
        expected
            .extend_from_slice(br#""compressed": false, "original_type": "arrow"}, "v": "2.0"}"#);
        expected.resize(170, b' ');
        assert_eq!(header.encode_aligned(64, 22).unwrap(), expected);
        assert_eq!(header.encode_padded_to(170).unwrap(), expected);
    }

    #[test]
    fn an_aligned_header_is_not_padded() {
        let header = Header::new("arrow");
        let plain = header.encode().unwrap();
        assert_eq!(header.encode_aligned(1, u64::MAX).unwrap(), plain);
        assert_eq!(header.encode_aligned(plain.len() + 5, 5).unwrap(), plain);
        assert_eq!(header.encode_padded_to(plain.len()).unwrap(), plain);
    }

    #[test]
    fn a_header_that_readers_would_refuse_is_not_written() {
        let header = Header::new("arrow");
        assert_eq!(
            Header::new("").encode(),
            Err(FrameError::EmptySerializerName)
        );
        for name in ["s", "m", "v"] {
            let error = header.clone().with_extension(name, 1).encode().unwrap_err();
            assert_eq!(error, FrameError::ExtensionNameTaken { name: name.into() });
        }
        assert_eq!(header.encode_aligned(0, 0), Err(FrameError::ZeroAlignment));
    }

    #[test]
    fn the_limit_counts_padding_and_is_checked_before_padding_is_allocated() {
        let header = Header::new("arrow");
        let most = PREFIX_LEN + MAX_HEADER_LEN;
        assert_eq!(header.encode_padded_to(most).unwrap().len(), most);
        assert_eq!(
            header.encode_padded_to(most + 1),
            Err(FrameError::HeaderTooLong {
                len: MAX_HEADER_LEN as u64 + 1
            })
        );
        for (alignment, offset) in [
            (usize::MAX, 0),
            (1 << 40, 0),
            (1 << 40, u64::MAX),
            (usize::MAX, u64::MAX),
        ] {
            assert!(matches!(
                header.encode_aligned(alignment, offset),
                Err(FrameError::HeaderTooLong { .. })
            ));
        }
        let long = header.with_metadata("m", "m".repeat(MAX_HEADER_LEN));
        assert!(matches!(
            long.encode(),
            Err(FrameError::HeaderTooLong { .. })
        ));
    }

    #[test]
    fn a_header_that_does_not_fit_says_by_how_much() {
        let error = Header::new("arrow").encode_padded_to(40).unwrap_err();
        assert_eq!(
            error,
            FrameError::DoesNotFit {
                needed: 42,
                reserved: 40
            }
        );
        assert!(
            error.to_string().contains("2 more than the 40 reserved"),
            "{error}"
        );
    }

    #[test]
    fn a_value_set_twice_holds_the_second_one() {
        let header = Header::new("a").with_metadata("x", 1).with_metadata("x", 2);
        assert_eq!(header.metadata()["x"], 2);
        assert_eq!(header.metadata().len(), 1);
    }
}
