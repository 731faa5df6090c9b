use std::fmt;

use bytes::Bytes;

use crate::{Envelope, FrameError, Header, Probe, legacy, probe};

/// An envelope taken apart.
#[derive(Clone, PartialEq)]
pub struct Frame {
    /// What made the payload and what describes it.
    pub header: Header,
    /// The value's bytes: a slice of the input for a v3 frame, decoded for a legacy envelope.
    pub payload: Bytes,
}

/// Reads a whole entry, a v3 frame or a legacy envelope.
///
/// `"CK"` begins a frame and `{`, after optional JSON white space, a legacy envelope.
///
/// # Memory
///
/// The payload of a frame is not copied. That of a legacy envelope is one allocation of three
/// quarters of its base64 text (more, by a copy of the text, if that holds JSON escapes, which no
/// writer puts there). A header takes a few hundred bytes; hostile JSON can make it 80 times its
/// length, which [`MAX_HEADER_LEN`](crate::MAX_HEADER_LEN) bounds.
///
/// # Errors
///
/// [`FrameError`] for anything malformed; [`FrameError::NotAnEnvelope`] if the bytes are something
/// else.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
///
/// let old = Bytes::from(r#"{"data": "cGF5bG9hZA==", "metadata": {}, "serializer": "default"}"#);
/// let frame = ck_frame::read(&old)?;
/// assert_eq!(frame.header.serializer(), "default");
/// assert_eq!(frame.payload, "payload");
/// # Ok::<(), ck_frame::FrameError>(())
/// ```
pub fn read(bytes: &Bytes) -> Result<Frame, FrameError> {
    let total_len = bytes.len() as u64;
    match probe(bytes, total_len)? {
        Probe::Ready(Envelope::V3 {
            header,
            payload_offset,
        }) => {
            let start =
                usize::try_from(payload_offset).map_or(bytes.len(), |at| at.min(bytes.len()));
            Ok(Frame {
                header,
                payload: bytes.slice(start..),
            })
        }
        Probe::Ready(Envelope::Legacy) => legacy::read(bytes),
        Probe::NeedBytes(expected) => Err(FrameError::Truncated {
            found: total_len,
            expected,
        }),
    }
}

impl fmt::Debug for Frame {
    /// Shows the length of the payload, not its bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .field("payload_len", &self.payload.len())
            .finish()
    }
}
