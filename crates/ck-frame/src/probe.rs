use crate::{FRAME_VERSION, FrameError, Header, MAGIC, MAX_HEADER_LEN, PREFIX_LEN, text};

/// What an entry turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Envelope {
    /// A v3 frame.
    V3 {
        /// Its header.
        header: Header,
        /// Where the payload begins, in bytes from the start of the frame. The payload ends with
        /// the entry.
        payload_offset: u64,
    },
    /// A legacy envelope, not parsed yet: its payload is spread over the whole entry, so fetch all
    /// of it and call [`read`](crate::read).
    Legacy,
}

/// The answer of [`probe`].
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// The leading bytes were enough.
    Ready(Envelope),
    /// Ask again with this many leading bytes: more than were given, never more than the entry has.
    NeedBytes(u64),
}

/// Parses the header of an entry of `total_len` bytes from its leading bytes.
///
/// For readers that fetch ranges, so that the payload stays where it is. Any length of `head` will
/// do to begin with; 512 bytes hold the header of most entries, so that one fetch is enough.
///
/// # Errors
///
/// [`FrameError`] for anything malformed, as soon as the given bytes show it. Lengths are checked
/// against `total_len` before more bytes are asked for.
///
/// # Examples
///
/// ```
/// use ck_frame::{Envelope, FrameError, Header, Probe, probe};
///
/// /// `fetch(n)` gives the first `n` bytes of the entry.
/// fn open<'a>(fetch: impl Fn(u64) -> &'a [u8], total_len: u64) -> Result<Envelope, FrameError> {
///     let mut len = total_len.min(16);
///     loop {
///         match probe(fetch(len), total_len)? {
///             Probe::Ready(envelope) => return Ok(envelope),
///             Probe::NeedBytes(more) => len = more,
///         }
///     }
/// }
///
/// let mut entry = Header::new("arrow").encode()?.to_vec();
/// let payload_offset = entry.len() as u64;
/// entry.extend_from_slice(b"payload");
///
/// let envelope = open(|len| &entry[..len as usize], entry.len() as u64)?;
/// assert_eq!(envelope, Envelope::V3 { header: Header::new("arrow"), payload_offset });
/// # Ok::<(), FrameError>(())
/// ```
pub fn probe(head: &[u8], total_len: u64) -> Result<Probe, FrameError> {
    let head = match usize::try_from(total_len) {
        Ok(total_len) => &head[..head.len().min(total_len)],
        Err(_) => head,
    };
    let may_be_frame = head
        .iter()
        .zip(MAGIC)
        .all(|(&found, expected)| found == expected);
    if may_be_frame {
        probe_frame(head, total_len)
    } else {
        probe_legacy(head, total_len)
    }
}

fn probe_frame(head: &[u8], total_len: u64) -> Result<Probe, FrameError> {
    let found = head.len() as u64;
    let prefix_len = PREFIX_LEN as u64;
    let Some((&[_, _, version, a, b, c, d], rest)) = head.split_first_chunk::<PREFIX_LEN>() else {
        return if found == total_len {
            Err(FrameError::Truncated {
                found,
                expected: prefix_len,
            })
        } else {
            Ok(Probe::NeedBytes(prefix_len.min(total_len)))
        };
    };
    if version != FRAME_VERSION {
        return Err(FrameError::UnknownVersion { found: version });
    }
    let claimed = u32::from_be_bytes([a, b, c, d]);
    let available = total_len - prefix_len;
    if u64::from(claimed) > available {
        return Err(FrameError::HeaderPastEnd { claimed, available });
    }
    if u64::from(claimed) > MAX_HEADER_LEN as u64 {
        return Err(FrameError::HeaderBeyondLimit {
            found: u64::from(claimed),
        });
    }
    let payload_offset = prefix_len + u64::from(claimed);
    match usize::try_from(claimed)
        .ok()
        .and_then(|len| rest.get(..len))
    {
        Some(text) => {
            let header = text::parse(text)?;
            Ok(Probe::Ready(Envelope::V3 {
                header,
                payload_offset,
            }))
        }
        None => Ok(Probe::NeedBytes(payload_offset)),
    }
}

fn probe_legacy(head: &[u8], total_len: u64) -> Result<Probe, FrameError> {
    // White space is skipped within the limit of a header, or an entry of nothing else would be
    // fetched whole.
    let searched = &head[..head.len().min(MAX_HEADER_LEN)];
    match searched.iter().find(|&byte| !b" \t\n\r".contains(byte)) {
        Some(b'{') => Ok(Probe::Ready(Envelope::Legacy)),
        None if head.len() < MAX_HEADER_LEN && (head.len() as u64) < total_len => {
            Ok(Probe::NeedBytes(total_len.min(head.len() as u64 * 2)))
        }
        _ => Err(FrameError::not_an_envelope(head)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(version: u8, claimed: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b'C', b'K', version];
        bytes.extend_from_slice(&claimed.to_be_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn the_prefix_is_asked_for_first_then_the_header_and_no_more() {
        let entry = Header::new("arrow").encode().unwrap();
        let len = entry.len() as u64;
        assert_eq!(probe(b"", 1000).unwrap(), Probe::NeedBytes(7));
        assert_eq!(probe(&entry[..6], 1000).unwrap(), Probe::NeedBytes(7));
        assert_eq!(probe(&entry[..7], 1000).unwrap(), Probe::NeedBytes(len));
        assert_eq!(
            probe(&entry[..entry.len() - 1], 1000).unwrap(),
            Probe::NeedBytes(len)
        );
        let ready = Probe::Ready(Envelope::V3 {
            header: Header::new("arrow"),
            payload_offset: len,
        });
        assert_eq!(probe(&entry, 1000).unwrap(), ready);
        assert_eq!(probe(&entry, len).unwrap(), ready);
    }

    #[test]
    fn bytes_beyond_the_stated_total_are_not_looked_at() {
        let entry = Header::new("arrow").encode().unwrap();
        assert_eq!(
            probe(&entry, 5),
            Err(FrameError::Truncated {
                found: 5,
                expected: 7
            })
        );
    }

    #[test]
    fn an_entry_too_short_for_a_prefix_is_truncated() {
        for len in 0..7 {
            let head = &b"CK\x03\0\0\0\0"[..len];
            let found = len as u64;
            assert_eq!(
                probe(head, found),
                Err(FrameError::Truncated { found, expected: 7 })
            );
        }
        assert_eq!(probe(b"", 3).unwrap(), Probe::NeedBytes(3));
    }

    #[test]
    fn another_frame_version_is_refused_whatever_follows() {
        for version in (0..=255).filter(|&version| version != 3) {
            let entry = frame(version, u32::MAX, b"");
            assert_eq!(
                probe(&entry, 7),
                Err(FrameError::UnknownVersion { found: version })
            );
        }
    }

    #[test]
    fn a_header_length_is_checked_against_the_entry_then_against_the_limit() {
        let entry = frame(3, u32::MAX, b"{}");
        let past_end = FrameError::HeaderPastEnd {
            claimed: u32::MAX,
            available: 2,
        };
        assert_eq!(probe(&entry, 9), Err(past_end));
        assert_eq!(
            probe(&entry, u64::MAX),
            Err(FrameError::HeaderBeyondLimit {
                found: u64::from(u32::MAX)
            })
        );
        let limit = u32::try_from(MAX_HEADER_LEN).unwrap();
        assert_eq!(
            probe(&frame(3, limit + 1, b""), u64::MAX),
            Err(FrameError::HeaderBeyondLimit {
                found: u64::from(limit) + 1
            })
        );
        assert_eq!(
            probe(&frame(3, limit, b""), u64::MAX).unwrap(),
            Probe::NeedBytes(u64::from(limit) + 7)
        );
    }

    #[test]
    fn a_brace_begins_a_legacy_envelope_also_after_white_space() {
        for head in ["{", " {", "\r\n\t {\"data\""] {
            assert_eq!(
                probe(head.as_bytes(), 100).unwrap(),
                Probe::Ready(Envelope::Legacy)
            );
        }
        assert_eq!(probe(b"  ", 3).unwrap(), Probe::NeedBytes(3));
        assert_eq!(probe(b"  ", 100).unwrap(), Probe::NeedBytes(4));
    }

    #[test]
    fn white_space_is_followed_to_the_end_and_to_the_limit_only() {
        assert_eq!(
            probe(b"  ", 2),
            Err(FrameError::NotAnEnvelope {
                found: b"  ".to_vec()
            })
        );
        let mut blank = vec![b' '; MAX_HEADER_LEN];
        blank.push(b'{');
        for len in [MAX_HEADER_LEN, MAX_HEADER_LEN + 1] {
            let error = probe(&blank[..len], u64::MAX).unwrap_err();
            assert_eq!(
                error,
                FrameError::NotAnEnvelope {
                    found: b"        ".to_vec()
                }
            );
        }
    }

    #[test]
    fn anything_else_is_not_an_envelope_and_its_first_bytes_are_told() {
        let error = probe(b"ARROW1\0\0\xff", 1000).unwrap_err();
        assert_eq!(
            error,
            FrameError::NotAnEnvelope {
                found: b"ARROW1\0\0".to_vec()
            }
        );
        assert!(error.to_string().contains(r#""ARROW1\x00\x00""#), "{error}");
        for head in [&b"Cx"[..], b"x", b"[", b"\"", b"ck\x03", b"\xef\xbb\xbf{"] {
            let error = probe(head, 1000).unwrap_err();
            assert_eq!(
                error,
                FrameError::NotAnEnvelope {
                    found: head.to_vec()
                }
            );
        }
    }
}
