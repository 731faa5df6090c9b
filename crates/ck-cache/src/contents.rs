use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ck_arrow::{TableReader, Verification};
use ck_codec::bytestorage;
use ck_core::{EntryReader, Error, ErrorKind, Result, offload};
use ck_frame::{Envelope, Frame, Header, Probe};
use serde_json::Value;

use crate::cache::{EXTENSION, LISTED_HEAD_BYTES};
use crate::draft::hash;

/// The serializer name of entries that hold plain bytes.
pub(crate) const BYTES: &str = "bytes";
/// The serializer name of entries that hold a typed value.
pub(crate) const VALUE: &str = "value";
/// The serializer name of entries that are encrypted in chunks.
pub(crate) const ENCRYPTED: &str = "ck-encrypted";
/// The serializer name of entries that say that there is no value.
pub(crate) const ABSENT: &str = "absent";

/// The names under which the Python client records its default serializer: by name, and as an object.
pub(crate) const PYTHON_DEFAULT: [&str; 2] = ["default", "StandardSerializer"];

/// What an entry holds.
#[derive(Debug, Clone)]
pub enum Contents {
    /// A table, nothing of which has been read yet.
    Table(TableReader),
    /// A value of the Python client's default serializer: a MessagePack document, checked and decompressed.
    /// [`ck_codec::bytestorage`] shows it as JSON.
    MessagePack(Bytes),
    /// Anything else, as bytes.
    Bytes {
        /// What made the bytes: `bytes` for [`Cache::put_bytes`](crate::Cache::put_bytes).
        serializer: String,
        /// The payload of the entry.
        bytes: Bytes,
    },
}

/// Reads an entry wherever it lies: in a store, in memory, in a file of its own.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] for damage, [`ErrorKind::Unsupported`] for what cannot be read, such as
/// encrypted entries without their key, and what the entry itself reports.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use ck_cache::{Contents, Verification, read_entry};
/// use ck_core::{MemoryEntry, block_on};
///
/// let envelope = r#"{"data": "cGF5bG9hZA==", "metadata": {}, "serializer": "default"}"#;
/// let entry = Arc::new(MemoryEntry::new(envelope));
/// let Contents::Bytes { bytes, .. } = block_on(read_entry(entry, Verification::OnTouch))? else {
///     panic!("a table")
/// };
/// assert_eq!(bytes, "payload");
/// # Ok::<(), ck_cache::Error>(())
/// ```
pub async fn read_entry(
    entry: Arc<dyn EntryReader>,
    verification: Verification,
) -> Result<Contents> {
    match TableReader::open(Arc::clone(&entry), verification).await {
        Ok(table) => Ok(Contents::Table(table)),
        Err(no_table) if no_table.kind() == ErrorKind::Unsupported => {
            match read_bytes(&*entry).await {
                Ok((header, bytes)) => match python_document(&header, &bytes).await? {
                    Some(document) => Ok(Contents::MessagePack(document)),
                    None => Ok(Contents::Bytes {
                        serializer: header.serializer().to_owned(),
                        bytes,
                    }),
                },
                // A table after all, but one that cannot be read: the first error says why.
                Err(error) if error.kind() == ErrorKind::Unsupported => Err(no_table),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// The payload of an entry that is no table, checked as far as its writer left something to check.
pub(crate) async fn read_bytes(entry: &dyn EntryReader) -> Result<(Header, Bytes)> {
    let frame = read_payload(entry).await?;
    refuse_tables(&frame.header)?;
    if [BYTES, VALUE, ABSENT].contains(&frame.header.serializer())
        && frame.header.extension(EXTENSION).is_some()
    {
        check(&frame.header, &frame.payload).await?;
    }
    Ok((frame.header, frame.payload))
}

/// The MessagePack document in a payload of the Python client's default serializer; `None` for payloads of
/// others.
async fn python_document(header: &Header, payload: &Bytes) -> Result<Option<Bytes>> {
    let field = |name| header.metadata().get(name);
    if !PYTHON_DEFAULT.contains(&header.serializer())
        || field("format").and_then(Value::as_str) != Some("msgpack")
    {
        return Ok(None);
    }
    match field("compressed").and_then(Value::as_bool) {
        Some(true) => {
            let payload = payload.clone();
            let document = offload(move || bytestorage::decode(&payload)).await?;
            Ok(Some(document.into()))
        }
        Some(false) => Ok(Some(payload.clone())),
        None => Ok(None),
    }
}

/// Header and payload of a whole entry, unchecked.
pub(crate) async fn read_payload(entry: &dyn EntryReader) -> Result<Frame> {
    if let Some(bytes) = entry.contiguous() {
        return Ok(ck_frame::read(bytes)?);
    }
    let mut wanted = entry.len().min(LISTED_HEAD_BYTES as u64);
    while wanted < entry.len() {
        let head = entry.read(0..wanted).await?;
        match ck_frame::probe(&head, entry.len())? {
            Probe::NeedBytes(more) => wanted = more,
            Probe::Ready(Envelope::V3 {
                header,
                payload_offset,
            }) => {
                // Read apart from the header, it starts where what it holds is aligned.
                let payload = entry.read(payload_offset..entry.len()).await?;
                return Ok(Frame { header, payload });
            }
            Probe::Ready(Envelope::Legacy) => break,
        }
    }
    Ok(ck_frame::read(&entry.read(0..entry.len()).await?)?)
}

/// The header of an entry that this project wrote, of any kind; `None` for others and for damaged ones.
pub(crate) fn own_header(head: &[u8], entry_bytes: u64) -> Option<Header> {
    match ck_frame::probe(head, entry_bytes) {
        Ok(Probe::Ready(Envelope::V3 { header, .. })) => {
            header.extension(EXTENSION).is_some().then_some(header)
        }
        _ => None,
    }
}

/// As [`own_header`], from an open entry.
pub(crate) async fn read_own_header(entry: &dyn EntryReader) -> Result<Option<Header>> {
    let wanted = entry.len().min(LISTED_HEAD_BYTES as u64);
    Ok(own_header(&entry.read(0..wanted).await?, entry.len()))
}

/// How long before its expiry an entry of this project is stale.
pub(crate) fn stale_for(header: &Header) -> Duration {
    let seal = header.extension(EXTENSION);
    let seconds = seal.and_then(|seal| seal.get("stale"));
    Duration::from_secs(seconds.and_then(Value::as_u64).unwrap_or_default())
}

/// Refuses what is not to be handed out as bytes.
fn refuse_tables(header: &Header) -> Result<()> {
    let metadata = header.metadata();
    let format = metadata.get("format").and_then(Value::as_str);
    if metadata.get("encrypted").and_then(Value::as_bool) == Some(true)
        || header.serializer() == ENCRYPTED
    {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the entry is encrypted, and nobody gave its key",
        ));
    }
    if header.serializer() == "arrow" || format == Some("arrow") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the entry is a table; open it as one",
        ));
    }
    Ok(())
}

/// Compares the payload with the length and hash that the header promises.
pub(crate) async fn check(header: &Header, payload: &Bytes) -> Result<()> {
    let extension = header.extension(EXTENSION);
    let field = |name| {
        let text = extension
            .and_then(|object| object.get(name))
            .and_then(Value::as_str);
        text.filter(|text| text.len() == 16)
            .and_then(|text| u64::from_str_radix(text, 16).ok())
    };
    let (Some(length), Some(expected)) = (field("length"), field("xxh3")) else {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the header of the entry lacks its length or hash",
        ));
    };
    if length != payload.len() as u64 {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the entry has another length than its header says",
        )
        .with("expected", length)
        .with("found", payload.len()));
    }
    let found = hash(payload).await;
    if expected != found {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the bytes do not have the hash in the header",
        )
        .with("expected", format_args!("{expected:016x}"))
        .with("found", format_args!("{found:016x}")));
    }
    Ok(())
}
