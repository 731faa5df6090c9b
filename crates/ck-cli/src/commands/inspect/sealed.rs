//! What an encrypted entry shows without its key.

use std::io::Write;

use ck_core::{EntryReader, block_on};
use ck_frame::{Envelope, Header, Probe};
use serde_json::{Value, json};

use super::{expires_unix_seconds, header_json};
use crate::args::KeyArgs;
use crate::failure::Failure;
use crate::human;

/// Bytes that a tag, and a nonce and a tag, take.
const TAG: u64 = 16;
const NONCE_AND_TAG: u64 = 28;

/// Bytes before the head in the first chunk.
const LENGTH: u64 = 8;

/// An encrypted entry.
pub(super) struct Sealed {
    header: Header,
    /// What it will have, decrypted, if its header tells the truth.
    plain_bytes: u64,
    /// Their number and size, when it is encrypted in chunks.
    chunks: Option<(u64, u64)>,
}

/// `None` when the entry does not say that it is encrypted.
pub(super) fn look_at(entry: &dyn EntryReader) -> Result<Option<Sealed>, Failure> {
    let mut wanted = entry.len().min(4096);
    loop {
        let head = block_on(entry.read(0..wanted))?;
        let probe = ck_frame::probe(&head, entry.len());
        match probe {
            Ok(Probe::NeedBytes(more)) => wanted = more,
            Ok(Probe::Ready(Envelope::V3 {
                header,
                payload_offset,
            })) => return Ok(Sealed::of(header, entry.len() - payload_offset)),
            Ok(Probe::Ready(Envelope::Legacy)) if wanted < entry.len() => wanted = entry.len(),
            Ok(Probe::Ready(Envelope::Legacy)) => {
                let frame = ck_frame::read(&head).map_err(ck_cache::Error::from)?;
                return Ok(Sealed::of(frame.header, frame.payload.len() as u64));
            }
            // What reads it says what is wrong.
            Err(_) => return Ok(None),
        }
    }
}

impl Sealed {
    fn of(header: Header, payload: u64) -> Option<Self> {
        if header.serializer() == "ck-encrypted" {
            let number = |name| header.extension("ck")?.get(name)?.as_u64();
            let (head, chunk) = (number("head")?, number("chunk")?.max(1));
            let first = head.checked_add(LENGTH + TAG)?;
            let body = payload.checked_sub(first)?;
            let chunks = body.div_ceil(chunk.checked_add(TAG)?);
            let plain_bytes = head + body - chunks.saturating_mul(TAG).min(body);
            return Some(Self {
                header,
                plain_bytes,
                chunks: Some((chunks, chunk)),
            });
        }
        let says = header.metadata().get("encrypted").and_then(Value::as_bool);
        (says == Some(true)).then(|| Self {
            header,
            plain_bytes: payload.saturating_sub(NONCE_AND_TAG),
            chunks: None,
        })
    }

    fn fingerprint(&self) -> Option<&str> {
        let own = self
            .header
            .extension("ck")
            .and_then(|own| own.get("key_fingerprint"));
        own.or_else(|| self.header.metadata().get("key_fingerprint"))?
            .as_str()
    }

    pub(super) fn print(
        &self,
        out: &mut impl Write,
        args: &KeyArgs,
        entry: &dyn EntryReader,
    ) -> Result<(), Failure> {
        let header = header_json(&self.header);
        if args.json {
            let found = json!({
                "key": args.key,
                "bytes": entry.len(),
                "expires_unix_seconds": expires_unix_seconds(entry),
                "encrypted": true,
                "key_fingerprint": self.fingerprint(),
                "plain_bytes": self.plain_bytes,
                "chunks": self.chunks.map(|(chunks, _)| chunks),
                "chunk_bytes": self.chunks.map(|(_, bytes)| bytes),
                "header": header,
            });
            writeln!(out, "{found:#}")?;
            return Ok(());
        }
        let bytes = |len: u64| format!("{} ({len} bytes)", human::bytes(len));
        let form = match self.chunks {
            None => "at once".to_owned(),
            Some((chunks, len)) => format!(
                "in {} of {len} bytes",
                human::count(chunks, "chunk", "chunks")
            ),
        };
        writeln!(out, "encrypted   {form}")?;
        let fingerprint = self.fingerprint().unwrap_or("none");
        writeln!(out, "key         {}", human::printable(fingerprint))?;
        writeln!(out, "size        {}", bytes(entry.len()))?;
        writeln!(out, "plain       {}", bytes(self.plain_bytes))?;
        writeln!(out, "expires in  {}", human::expires_in(entry.expiry()))?;
        writeln!(out, "header      {}", human::printable(&header.to_string()))?;
        writeln!(
            out,
            "nothing of this is proven without the key: --encrypt, with CACHEKIT_MASTER_KEY"
        )?;
        Ok(())
    }
}
