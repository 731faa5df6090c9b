use ck_core::{EntryReader, Result};
use ck_crypto::{OVERHEAD_BYTES, TAG_BYTES};
use ck_frame::{Envelope, Header, Probe};

use super::form::{LENGTH_BYTES, says_encrypted};
use super::read_head;
use crate::cache::EXTENSION;
use crate::contents::ENCRYPTED;

/// What an encrypted entry shows to those who have no key. Nothing of it is proven.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EncryptedInfo {
    /// Its header, as it stands.
    pub header: Header,
    /// The fingerprint of the key that it names.
    pub key_fingerprint: Option<String>,
    /// How many bytes it will have, decrypted.
    pub plain_bytes: u64,
    /// How many chunks it has beside the head, and the bytes of each, without tags; `None` when it is encrypted at once.
    pub chunks: Option<(u64, u64)>,
}

impl EncryptedInfo {
    /// Looks at an entry; `None` when it does not say that it is encrypted, or is damaged: what reads it says how.
    ///
    /// # Memory
    ///
    /// Its header; all of an entry in the legacy envelope, whose header is spread over it.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn read(entry: &dyn EntryReader) -> Result<Option<Self>> {
        let head = read_head(entry).await?;
        Ok(match ck_frame::probe(&head, entry.len()) {
            Ok(Probe::Ready(Envelope::V3 {
                header,
                payload_offset,
            })) => Self::of(header, entry.len().saturating_sub(payload_offset)),
            Ok(Probe::Ready(Envelope::Legacy)) => {
                let whole = entry.read(0..entry.len()).await?;
                let frame = ck_frame::read(&whole).ok();
                frame.and_then(|frame| Self::of(frame.header, frame.payload.len() as u64))
            }
            Ok(Probe::NeedBytes(_)) | Err(_) => None,
        })
    }

    fn of(header: Header, payload: u64) -> Option<Self> {
        const TAG: u64 = TAG_BYTES as u64;
        let own = |name| header.extension(EXTENSION)?.get(name);
        let (fingerprint, plain_bytes, chunks) = if header.serializer() == ENCRYPTED {
            let number = |name| own(name)?.as_u64();
            let (head, chunk) = (number("head")?, number("chunk")?.max(1));
            let first = head.checked_add(LENGTH_BYTES as u64 + TAG)?;
            let body = payload.checked_sub(first)?;
            let chunks = body.div_ceil(chunk.checked_add(TAG)?);
            let plain_bytes = head + body - chunks.saturating_mul(TAG).min(body);
            (own("key_fingerprint"), plain_bytes, Some((chunks, chunk)))
        } else if says_encrypted(&header) {
            let fingerprint = header.metadata().get("key_fingerprint");
            (
                fingerprint,
                payload.saturating_sub(OVERHEAD_BYTES as u64),
                None,
            )
        } else {
            return None;
        };
        Some(Self {
            key_fingerprint: fingerprint
                .and_then(|text| text.as_str())
                .map(str::to_owned),
            plain_bytes,
            chunks,
            header,
        })
    }
}
