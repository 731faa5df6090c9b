//! Entries encrypted at once, in the Python client's form.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ck_core::{
    BoxFuture, EntryReader, Error, Expiry, Key, MemoryEntry, Result, Version, aligned_bytes,
    offload,
};
use ck_crypto::{Context, OVERHEAD_BYTES};
use ck_frame::{Frame, Header};

use super::form::Described;
use super::{Shared, tampered};

/// Bytes between the header and what is aligned: the checksum of a table.
const CHECKSUM_BYTES: u64 = 8;

/// A whole entry that was decrypted when it was opened.
struct Opened {
    stored: Arc<dyn EntryReader>,
    plain: MemoryEntry,
}

/// Decrypts the whole entry, whose header is `header` where that is known before all of it is read.
///
/// # Memory
///
/// Twice the entry, within the store's budget until it is decrypted.
pub(super) async fn open(
    shared: &Arc<Shared>,
    key: &Key,
    stored: &Arc<dyn EntryReader>,
    header: Option<&Header>,
) -> Result<Arc<dyn EntryReader>> {
    // Another's is not read.
    if let Some(header) = header {
        let described = Described::read(header, &shared.keys)?;
        if !shared.keys.has(described.fingerprint) {
            return Err(
                tampered("the entry was encrypted with a key that is not here")
                    .with("key_fingerprint", described.fingerprint),
            );
        }
    }
    let reserved = shared.budget.reserve(stored.len().saturating_mul(2)).await;
    // Anybody can write what is so long, and we write nothing that is.
    let reserved = reserved.map_err(|error| {
        tampered("the entry is too long to be proven at once; if it is one that is wanted, raise whole_bytes")
            .with("bytes", stored.len())
            .with_source(error)
    })?;
    let bytes = match stored.contiguous() {
        Some(bytes) => bytes.clone(),
        None => stored.read(0..stored.len()).await?,
    };
    let (keys, name) = (shared.keys.clone(), shared.store.name_of(key));
    let plain = offload(move || {
        let frame = ck_frame::read(&bytes);
        drop(bytes);
        let Frame { header, payload } =
            frame.map_err(|error| tampered("the entry is not encrypted").with_source(error))?;
        let described = Described::read(&header, &keys)?;
        let context = described.context(&name);
        let mut sealed = payload
            .try_into_mut()
            .unwrap_or_else(|shared| shared[..].into());
        let payload = keys.open(described.fingerprint, &context, &mut sealed)?;
        let head = described.plain.encode_aligned(64, CHECKSUM_BYTES)?;
        let plain = aligned_bytes(head.len() + payload.len(), |memory| {
            let (start, rest) = memory.split_at_mut(head.len());
            start.copy_from_slice(&head);
            rest.copy_from_slice(payload);
            Ok::<_, Error>(())
        });
        drop((sealed, reserved));
        plain
    });
    Ok(Arc::new(Opened {
        plain: MemoryEntry::new(plain.await?),
        stored: Arc::clone(stored),
    }))
}

/// Encrypts a plain entry whose payload is the end of its head, then `body`; `None` when it would be too long to be
/// read again.
pub(super) fn seal(
    shared: &Shared,
    key: &Key,
    described: &Described,
    payload: &[&[u8]],
) -> Result<Option<(Bytes, Bytes)>> {
    let header = described.encode(&shared.keys)?;
    let payload_bytes: usize = payload.iter().map(|part| part.len()).sum();
    let bytes = (header.len() + payload_bytes + OVERHEAD_BYTES) as u64;
    if bytes.saturating_mul(2) > shared.options.whole_bytes() {
        return Ok(None);
    }
    let sealed = shared
        .keys
        .seal(&described.context(&shared.store.name_of(key)), payload)?;
    Ok(Some((header, sealed.into())))
}

impl Described {
    fn context<'a>(&'a self, cache_key: &'a str) -> Context<'a> {
        Context {
            cache_key,
            format: &self.format,
            compressed: self.compressed,
            original_type: self.original_type.as_deref(),
        }
    }
}

impl EntryReader for Opened {
    fn len(&self) -> u64 {
        self.plain.len()
    }

    fn expiry(&self) -> Expiry {
        self.stored.expiry()
    }

    fn version(&self) -> Version {
        self.stored.version()
    }

    fn contiguous(&self) -> Option<&Bytes> {
        self.plain.contiguous()
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.plain.read(range)
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        // All of it is proven: whoever removes it has a reason of his own.
        self.stored.discard()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("stored", &self.stored)
            .finish_non_exhaustive()
    }
}
