use std::sync::Arc;

use bytes::Bytes;
use ck_arrow::{TableReader, Verification};
use ck_core::{EntryReader, Error, ErrorKind, Result};
use ck_frame::Header;

use crate::cache::EXTENSION;
use crate::put::{BYTES, hash};

/// What an entry holds.
#[derive(Debug, Clone)]
pub enum Contents {
    /// A table, nothing of which has been read yet.
    Table(TableReader),
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
/// encrypted entries, and what the entry itself reports.
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
                Ok((header, bytes)) => Ok(Contents::Bytes {
                    serializer: header.serializer().to_owned(),
                    bytes,
                }),
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
    let bytes = match entry.contiguous() {
        Some(bytes) => bytes.clone(),
        None => entry.read(0..entry.len()).await?,
    };
    let frame = ck_frame::read(&bytes)?;
    refuse_tables(&frame.header)?;
    if frame.header.serializer() == BYTES && frame.header.extension(EXTENSION).is_some() {
        check(&frame.header, &frame.payload).await?;
    }
    Ok((frame.header, frame.payload))
}

/// Refuses what is not to be handed out as bytes.
fn refuse_tables(header: &Header) -> Result<()> {
    let metadata = header.metadata();
    let format = metadata.get("format").and_then(|value| value.as_str());
    if metadata.get("encrypted").and_then(|value| value.as_bool()) == Some(true) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the entry is encrypted, and encrypted entries cannot be read yet",
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
async fn check(header: &Header, payload: &Bytes) -> Result<()> {
    let extension = header.extension(EXTENSION);
    let field = |name| extension.and_then(|object| object.get(name));
    let (Some(length), Some(expected)) = (
        field("length").and_then(|value| value.as_u64()),
        field("xxh3").and_then(|value| value.as_str()),
    ) else {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the header of a byte entry lacks its length or hash",
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
    let found = format!("{:016x}", hash(payload).await);
    if expected != found {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the bytes do not have the hash in the header",
        )
        .with("expected", expected)
        .with("found", found));
    }
    Ok(())
}
