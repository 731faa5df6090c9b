//! Entries that are not what a holder of the key has stored there.

use std::error::Error as _;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use ck_core::{BoxFuture, EntryReader, Error, ErrorKind, Expiry, Key, Result, Version};
use ck_crypto::WrongTag;

use super::Shared;
use super::options::Tampering;
use crate::cache::{is_corrupt, with_key};

/// A stored entry of which not everything has been proven, and what was found so far.
pub(super) struct Unproven {
    pub(super) stored: Arc<dyn EntryReader>,
    shared: Arc<Shared>,
    key: Key,
    found: AtomicU8,
}

/// What was found.
const NOTHING: u8 = 0;
/// The store says that it is damaged. Part of it may just have been evicted.
const DAMAGED: u8 = 1;
/// It is plain, or of another key: somebody else's.
const FOREIGN: u8 = 2;
/// Its tag was tried and does not fit, or not all of it is there.
const FORGED: u8 = 3;

/// The source of errors about entries whose head was proven, and which do not have the length that it says.
#[derive(Debug)]
pub(super) struct NotWhole;

impl fmt::Display for NotWhole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its head is intact")
    }
}

impl std::error::Error for NotWhole {}

impl Unproven {
    pub(super) fn new(shared: &Arc<Shared>, key: &Key, stored: &Arc<dyn EntryReader>) -> Self {
        Self {
            stored: Arc::clone(stored),
            shared: Arc::clone(shared),
            key: key.clone(),
            found: AtomicU8::new(NOTHING),
        }
    }

    /// Remembers that the store found damage, if it is that, in what it read of the entry.
    pub(super) fn failed(&self, error: Error) -> Error {
        if is_corrupt(&error) {
            self.found.fetch_max(DAMAGED, Ordering::Relaxed);
        }
        error
    }

    /// Counts the entry, once, and says what its reader is told.
    pub(super) fn tampered(&self, error: Error) -> Error {
        let is_forged = |source: &(dyn std::error::Error + 'static)| {
            source.is::<WrongTag>() || source.is::<NotWhole>()
        };
        let is_forged = error.source().is_some_and(is_forged);
        let found = if is_forged { FORGED } else { FOREIGN };
        let error = with_key(&self.key)(error);
        // What is put in its place by others is not to be waited for.
        drop(self.shared.changing(&self.key));
        if self.found.fetch_max(found, Ordering::Relaxed) < FOREIGN {
            self.shared.tampered.add(1);
            let store = self.shared.store.url();
            tracing::warn!(store, %error, "an encrypted entry was tampered with");
        }
        match self.shared.options.tampering() {
            Tampering::Error => error,
            // The cache's word for a miss.
            Tampering::Miss => {
                Error::new(ErrorKind::Corrupt, "the entry is not used").with_source(error)
            }
        }
    }

    /// Removes the entry, unless it is somebody else's or evidence.
    pub(super) async fn discard(&self) -> Result<bool> {
        let stays = match self.found.load(Ordering::Relaxed) {
            NOTHING => false,
            DAMAGED | FORGED => self.shared.options.keeps_evidence(),
            _ => true,
        };
        if stays {
            return Ok(false);
        }
        self.stored.discard().await
    }
}

/// An entry that cannot be read, and why.
pub(super) struct Refused {
    entry: Unproven,
    error: Error,
}

impl Refused {
    pub(super) fn new(entry: Unproven, error: Error) -> Self {
        Self { entry, error }
    }
}

impl EntryReader for Refused {
    fn len(&self) -> u64 {
        self.entry.stored.len()
    }

    fn expiry(&self) -> Expiry {
        self.entry.stored.expiry()
    }

    fn version(&self) -> Version {
        self.entry.stored.version()
    }

    fn read(&self, _range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(std::future::ready(Err(self.error.clone())))
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.entry.discard())
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("stored", &self.entry.stored)
            .field("error", &self.error)
            .finish()
    }
}
