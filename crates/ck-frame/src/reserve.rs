use bytes::Bytes;
use serde_json::Value;

use crate::{FrameError, Header};

/// A header whose length is settled before all of its values are known.
///
/// The payload's hashes stand in the header, and the header stands before the payload. So the
/// header is made once with placeholders *of the final width* (hex digits of zero, say), its
/// aligned length is reserved, and when the payload is complete the real values are patched in.
/// Values that came out shorter are made up for by trailing spaces.
///
/// # Examples
///
/// ```
/// use ck_frame::{Header, read};
///
/// let placeholder = serde_json::json!({"hash": format!("{:016x}", 0)});
/// let reserved = Header::new("arrow").with_extension("ck", placeholder).reserve(64, 22)?;
/// let len = reserved.len();
/// assert_eq!((22 + len) % 64, 0);
///
/// // .. the payload is written behind `len` bytes, and hashed ..
/// let hash = serde_json::json!({"hash": format!("{:016x}", 0x1234)});
/// let head = reserved.patch("ck", hash.clone())?;
/// assert_eq!(head.len(), len);
/// assert_eq!(read(&head)?.header.extension("ck"), Some(&hash));
/// # Ok::<(), ck_frame::FrameError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ReservedHeader {
    header: Header,
    len: usize,
}

impl Header {
    /// Reserves room for this header: as many bytes as [`Header::encode_aligned`] gives.
    ///
    /// # Errors
    ///
    /// As [`Header::encode_aligned`].
    pub fn reserve(self, alignment: usize, offset: u64) -> Result<ReservedHeader, FrameError> {
        let len = self.encode_aligned(alignment, offset)?.len();
        Ok(ReservedHeader { header: self, len })
    }
}

#[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
impl ReservedHeader {
    /// Bytes reserved, prefix and padding included: the payload begins behind them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Sets one extension to its final value and encodes the header into exactly
    /// [`ReservedHeader::len`] bytes.
    ///
    /// # Errors
    ///
    /// [`FrameError::DoesNotFit`] if the value is wider than its placeholder and the padding
    /// together, and as [`Header::encode`].
    pub fn patch(
        self,
        name: impl Into<String>,
        value: impl Into<Value>,
    ) -> Result<Bytes, FrameError> {
        self.header
            .with_extension(name, value)
            .encode_padded_to(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patched_value_of_the_reserved_width_changes_nothing_else() {
        let header = Header::new("arrow")
            .with_extension("ck", "0000")
            .with_extension("z", 1);
        let before = header.encode_aligned(64, 22).unwrap();
        let after = header.reserve(64, 22).unwrap().patch("ck", "abcd").unwrap();
        let text = String::from_utf8(before[7..].to_vec())
            .unwrap()
            .replace("0000", "abcd");
        assert_eq!(before[..7], after[..7]);
        assert_eq!(text.as_bytes(), &after[7..]);
    }

    #[test]
    fn a_shorter_value_is_padded_and_a_longer_one_may_use_the_padding() {
        let reserved = Header::new("arrow")
            .with_extension("ck", "0000")
            .reserve(64, 0)
            .unwrap();
        assert_eq!(reserved.len(), 64);
        let longest = 4 + 64
            - Header::new("arrow")
                .with_extension("ck", "0000")
                .encode()
                .unwrap()
                .len();
        for width in 0..=longest {
            let patched = reserved.clone().patch("ck", "x".repeat(width)).unwrap();
            assert_eq!(patched.len(), 64);
            let header = crate::read(&patched).unwrap().header;
            assert_eq!(header.extension("ck"), Some(&"x".repeat(width).into()));
        }
        assert_eq!(
            reserved.patch("ck", "x".repeat(longest + 3)),
            Err(FrameError::DoesNotFit {
                needed: 67,
                reserved: 64
            })
        );
    }

    #[test]
    fn a_field_of_the_header_cannot_be_patched() {
        let reserved = Header::new("arrow").reserve(64, 0).unwrap();
        assert_eq!(
            reserved.patch("s", "x"),
            Err(FrameError::ExtensionNameTaken { name: "s".into() })
        );
    }
}
