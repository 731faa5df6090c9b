use std::sync::Arc;

use ck_core::{EntryReader, Error, ErrorKind, MemoryEntry, Result};
use ck_frame::{Envelope, FrameError, Header, Probe};
use serde_json::Value;

use crate::head::{CHECKSUM_LEN, SERIALIZER, Seal};
use crate::message::damaged;
use crate::output::END_MAGIC;

/// What is read of an entry first: enough for the header of any entry with a key of sane length.
const FIRST_READ: u64 = 4096;

/// The Python client files tables under its serializer's short name, or under the class name when it was
/// given an instance.
const SERIALIZERS: [&str; 2] = [SERIALIZER, "ArrowSerializer"];

/// Where the Arrow IPC file of an entry lies, and what proves it.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) entry: Arc<dyn EntryReader>,
    /// Where the IPC file starts in the entry; it ends with the entry.
    pub(crate) start: u64,
    /// xxh3-64 of the IPC file, where the writer recorded one.
    pub(crate) checksum: Option<u64>,
    pub(crate) seal: Option<Seal>,
    pub(crate) header: Option<Header>,
}

/// Finds the IPC file in a frame, a legacy envelope or a bare payload.
pub(crate) async fn locate(entry: Arc<dyn EntryReader>) -> Result<Located> {
    let mut wanted = FIRST_READ;
    loop {
        let head = entry.read(0..wanted.min(entry.len())).await?;
        match ck_frame::probe(&head, entry.len()) {
            Ok(Probe::NeedBytes(more)) if more > wanted => wanted = more,
            Ok(Probe::NeedBytes(_)) => return Err(damaged("the header of the entry does not end")),
            Ok(Probe::Ready(Envelope::V3 {
                header,
                payload_offset,
            })) => {
                check_is_table(&header)?;
                let seal = Seal::from_header(&header)?;
                return payload(entry, payload_offset, seal, Some(header)).await;
            }
            Ok(Probe::Ready(Envelope::Legacy)) => {
                let all = entry.read(0..entry.len()).await?;
                let frame = ck_frame::read(&all)?;
                check_is_table(&frame.header)?;
                let decoded: Arc<dyn EntryReader> = Arc::new(MemoryEntry::new(frame.payload));
                return payload(decoded, 0, None, Some(frame.header)).await;
            }
            Err(FrameError::NotAnEnvelope { .. }) if has_arrow(&head) => {
                return payload(entry, 0, None, None).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn has_arrow(payload: &[u8]) -> bool {
    payload
        .get(CHECKSUM_LEN..)
        .is_some_and(|rest| rest.starts_with(END_MAGIC))
        || payload.starts_with(END_MAGIC)
}

fn check_is_table(header: &Header) -> Result<()> {
    let unsupported = |message: &str| {
        Err(Error::new(ErrorKind::Unsupported, message).with("serializer", header.serializer()))
    };
    let says_encrypted = header.metadata().get("encrypted").and_then(Value::as_bool);
    if says_encrypted == Some(true) || header.serializer() == "ck-encrypted" {
        return unsupported("the entry is encrypted, and nobody gave its key");
    }
    if !SERIALIZERS.contains(&header.serializer()) {
        return unsupported("the entry holds another kind of value than an Arrow table");
    }
    Ok(())
}

/// The payload is the IPC file, or its checksum and then the file.
async fn payload(
    entry: Arc<dyn EntryReader>,
    offset: u64,
    seal: Option<Seal>,
    header: Option<Header>,
) -> Result<Located> {
    let sniffed = offset + (CHECKSUM_LEN + END_MAGIC.len()) as u64;
    let head = entry
        .read(offset..sniffed.min(entry.len()).max(offset))
        .await?;
    let (start, checksum) = match head.split_first_chunk::<CHECKSUM_LEN>() {
        Some((checksum, rest)) if rest == END_MAGIC => (
            offset + CHECKSUM_LEN as u64,
            Some(u64::from_be_bytes(*checksum)),
        ),
        _ if head.starts_with(END_MAGIC) => (offset, None),
        _ => {
            return Err(
                damaged("the payload is not an Arrow IPC file").with("payload_offset", offset)
            );
        }
    };
    if seal.is_some() && checksum.is_none() {
        return Err(damaged(
            "the payload lacks the checksum that its header promises",
        ));
    }
    Ok(Located {
        entry,
        start,
        checksum,
        seal,
        header,
    })
}
