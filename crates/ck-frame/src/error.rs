use ck_core::{Error, ErrorKind};
use thiserror::Error as ThisError;

use crate::{FRAME_VERSION, MAX_HEADER_LEN};

/// Why bytes are not an envelope, or why a header cannot be written.
///
/// Converts into [`ck_core::Error`]: an unknown version is `Unsupported`, what the writing caller
/// did wrong is `Misuse`, the rest is `Corrupt`.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum FrameError {
    /// The entry ends before its prefix does.
    #[error("the entry has {found} bytes, expected at least {expected}")]
    Truncated {
        /// Bytes in the entry.
        found: u64,
        /// Bytes an envelope cannot do without.
        expected: u64,
    },
    /// Neither a frame nor a legacy envelope.
    #[error(
        "the entry begins with \"{}\", expected a frame (\"CK\") or a legacy envelope (\"{{\")",
        found.escape_ascii()
    )]
    NotAnEnvelope {
        /// The first bytes of the entry, at most 8.
        found: Vec<u8>,
    },
    /// A frame of another version. Version 1 is not a frame but the header of an entry file of the
    /// file store.
    #[error("frame version {found}, expected {FRAME_VERSION}")]
    UnknownVersion {
        /// The version byte.
        found: u8,
    },
    /// The header is said to be longer than the rest of the entry.
    #[error("a header of {claimed} bytes, but only {available} bytes follow the length")]
    HeaderPastEnd {
        /// The header length in the prefix.
        claimed: u32,
        /// Bytes of the entry after the prefix.
        available: u64,
    },
    /// The header of a stored entry is longer than anything this reader takes.
    #[error("a header of {found} bytes, expected at most {MAX_HEADER_LEN}")]
    HeaderBeyondLimit {
        /// The header length in the prefix, or the length of the legacy fields beside the payload.
        found: u64,
    },
    /// The JSON text is not UTF-8.
    #[error("{part} is UTF-8 for its first {valid_up_to} bytes only")]
    NotUtf8 {
        /// Which text.
        part: &'static str,
        /// How many bytes are well-formed.
        valid_up_to: usize,
    },
    /// The text is not JSON, or JSON beyond what is accepted.
    #[error("{part} is not JSON: {reason}")]
    NotJson {
        /// Which text.
        part: &'static str,
        /// What the parser found, and where.
        reason: String,
    },
    /// The header is JSON, but not an object.
    #[error("the header is {found}, expected a JSON object")]
    HeaderNotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// No serializer name: every writer records one, so the entry is malformed.
    #[error("the serializer name is {found}, expected a string that is not empty")]
    NoSerializerName {
        /// What stands in its place.
        found: &'static str,
    },
    /// The metadata is not an object.
    #[error("the metadata is {found}, expected a JSON object")]
    MetadataNotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// A legacy envelope without a payload.
    #[error("the payload of the legacy envelope is {found}, expected a base64 string")]
    NoPayload {
        /// What stands in its place.
        found: &'static str,
    },
    /// The payload of a legacy envelope is not base64.
    #[error("the payload of the legacy envelope is not base64: {reason}")]
    BadBase64 {
        /// What the decoder found, and where.
        reason: String,
    },

    /// Writing: the header has an empty serializer name, which every reader refuses.
    #[error("the serializer name of a header must not be empty")]
    EmptySerializerName,
    /// Writing: an extension is named like a field of the header.
    #[error(
        "an extension named {name:?}, but the header itself uses the names \"s\", \"m\" and \"v\""
    )]
    ExtensionNameTaken {
        /// The name.
        name: String,
    },
    /// Writing: values nested deeper than readers follow.
    #[error("the header nests objects and arrays deeper than {limit}")]
    TooDeep {
        /// The deepest nesting, the header object counted.
        limit: usize,
    },
    /// Writing: the header, padding included, is longer than readers take.
    #[error("the header would have {len} bytes, at most {MAX_HEADER_LEN} are allowed")]
    HeaderTooLong {
        /// Its length without the prefix.
        len: u64,
    },
    /// Writing: alignment to a multiple of zero.
    #[error("the alignment of a payload must be at least 1")]
    ZeroAlignment,
    /// Writing: the header needs more room than was reserved for it.
    #[error(
        "prefix and header need {needed} bytes, {} more than the {reserved} reserved",
        needed.saturating_sub(*reserved)
    )]
    DoesNotFit {
        /// Bytes of prefix and header without padding.
        needed: usize,
        /// Bytes there are.
        reserved: usize,
    },
}

impl FrameError {
    pub(crate) fn not_an_envelope(head: &[u8]) -> Self {
        Self::NotAnEnvelope {
            found: head[..head.len().min(8)].to_vec(),
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownVersion { .. } => ErrorKind::Unsupported,
            Self::EmptySerializerName
            | Self::ExtensionNameTaken { .. }
            | Self::TooDeep { .. }
            | Self::HeaderTooLong { .. }
            | Self::ZeroAlignment
            | Self::DoesNotFit { .. } => ErrorKind::Misuse,
            Self::Truncated { .. }
            | Self::NotAnEnvelope { .. }
            | Self::HeaderPastEnd { .. }
            | Self::HeaderBeyondLimit { .. }
            | Self::NotUtf8 { .. }
            | Self::NotJson { .. }
            | Self::HeaderNotAnObject { .. }
            | Self::NoSerializerName { .. }
            | Self::MetadataNotAnObject { .. }
            | Self::NoPayload { .. }
            | Self::BadBase64 { .. } => ErrorKind::Corrupt,
        }
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        let kind = error.kind();
        let message = match kind {
            ErrorKind::Misuse => "cannot write the header of the envelope",
            ErrorKind::Unsupported => "unsupported envelope",
            _ => "malformed envelope",
        };
        Self::new(kind, message).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_becomes_a_core_error_of_its_kind_that_still_says_what_was_found() {
        let cases = [
            (
                FrameError::UnknownVersion { found: 9 },
                ErrorKind::Unsupported,
                "frame version 9, expected 3",
            ),
            (
                FrameError::DoesNotFit {
                    needed: 70,
                    reserved: 64,
                },
                ErrorKind::Misuse,
                "6 more than the 64 reserved",
            ),
            (
                FrameError::NoSerializerName { found: "a number" },
                ErrorKind::Corrupt,
                "is a number, expected a string",
            ),
            (
                FrameError::Truncated {
                    found: 5,
                    expected: 7,
                },
                ErrorKind::Corrupt,
                "malformed envelope: the entry has 5 bytes, expected at least 7",
            ),
        ];
        for (error, kind, text) in cases {
            let core = Error::from(error.clone());
            assert_eq!(core.kind(), kind);
            assert!(core.to_string().contains(text), "{core}");
            let source = std::error::Error::source(&core)
                .and_then(|source| source.downcast_ref::<FrameError>());
            assert_eq!(source, Some(&error));
        }
    }
}
