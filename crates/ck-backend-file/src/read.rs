use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use ck_core::{
    BoxFuture, EntryInfo, EntryReader, Expiry, Key, ReadMemory, Result, Version, offload,
};
use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

use crate::builder::ReadMode;
use crate::directory::{self, Stat, retry};
use crate::error::Fault;
use crate::layout::{HEADER_LEN, Header, Name};
use crate::mmap;
use crate::room;
use crate::store::{Opened, Store, remove_dead, still_there};
use crate::version::Origin;

/// Files of up to this many bytes are read when they are opened: mapping them costs as much at this
/// size even when nothing is touched, and twice as much when everything is.
const SMALL_FILE: u64 = 128 * 1024;

/// An open entry.
pub(crate) struct Entry {
    store: Arc<Store>,
    name: Name,
    expiry: Expiry,
    origin: Origin,
    /// Bytes of the entry, without the header.
    len: u64,
    body: Body,
}

enum Body {
    /// Read when it was opened.
    Small(Bytes),
    /// Mapped. The mapping keeps the file, so its inode is not given to another one.
    Mapped { bytes: Bytes, opened: Opened<()> },
    /// Read on demand.
    File(Arc<Opened<OwnedFd>>),
}

impl Entry {
    /// Opens the live entry `name`, and counts that as a use.
    pub(crate) fn open(store: &Arc<Store>, name: Name) -> Result<Option<Self>, Fault> {
        let fault = |errno| store.fault("read an entry", name, errno);
        let opened = store
            .dir
            .open_file(&name.to_string(), OFlags::RDONLY)
            .map_err(fault)?;
        let Some((file, stat)) = opened else {
            return Ok(None);
        };
        let size = directory::size(&stat);
        let bytes = read_aligned(&file, 0, first_read(size)).map_err(fault)?;
        let header = Header::parse(&bytes);
        let expiry = match header {
            Header::Known(expiry) if !expiry.is_expired() => expiry,
            Header::Foreign => return Ok(None),
            Header::Known(_) | Header::Damaged => {
                if header == Header::Damaged {
                    tracing::warn!(path = %store.dir.join(name).display(), "not an entry: removed");
                }
                // While somebody holds the lock, it is left to the next reader.
                if let Some(mut locked) = store.ledger.try_lock() {
                    remove_dead(&mut locked, &Opened::new(name, file, &stat));
                }
                return Ok(None);
            }
        };
        let entry = Self::of(store, name, (file, stat), expiry, bytes);
        store.set_warm();
        Ok(Some(entry))
    }

    /// As [`Entry::open`], without waiting for a disk or for others: `None` when that cannot be.
    ///
    /// What the kernel has in memory takes a fifth of the time that a hop to another thread takes.
    #[cfg(target_os = "linux")]
    pub(crate) fn open_at_once(store: &Arc<Store>, name: Name) -> Option<Option<Self>> {
        // The first use of a ledger may have to repair it.
        if !store.is_warm() {
            return None;
        }
        let Some((file, stat)) = store.dir.open_cached(&name.to_string()).ok()? else {
            return Some(None);
        };
        let bytes = read_at_once(&file, first_read(directory::size(&stat)))?;
        match Header::parse(&bytes) {
            Header::Known(expiry) if !expiry.is_expired() => {
                Some(Some(Self::of(store, name, (file, stat), expiry, bytes)))
            }
            // It may have to be removed.
            _ => None,
        }
    }

    /// An entry whose file was found intact, and with that used. `bytes` is what [`first_read`] asks
    /// for.
    fn of(
        store: &Arc<Store>,
        name: Name,
        (file, stat): (OwnedFd, Stat),
        expiry: Expiry,
        bytes: Bytes,
    ) -> Self {
        let origin = Origin::of(&stat);
        let (len, body) = if directory::size(&stat) <= SMALL_FILE {
            let bytes = bytes.slice(HEADER_LEN..);
            (bytes.len() as u64, Body::Small(bytes))
        } else {
            let len = directory::size(&stat) - HEADER_LEN as u64;
            (len, large(store, name, file, &stat))
        };
        store.record_use(name);
        Self {
            store: Arc::clone(store),
            name,
            expiry,
            origin,
            len,
            body,
        }
    }

    fn fault(&self, errno: Errno) -> Fault {
        self.store.fault("read an entry", self.name, errno)
    }
}

/// What [`EntryReader::len`] and its siblings say of the live entry `name`, with its first bytes.
pub(crate) fn inspect(
    store: &Store,
    name: Name,
    head_bytes: usize,
) -> Result<Option<EntryInfo>, Fault> {
    let fault = |errno| store.fault("look at an entry", name, errno);
    let opened = store.dir.open_to_look(&name.to_string()).map_err(fault)?;
    let Some((file, stat)) = opened else {
        return Ok(None);
    };
    let Some(len) = directory::size(&stat).checked_sub(HEADER_LEN as u64) else {
        return Ok(None);
    };
    let head_bytes = usize::try_from(len).map_or(head_bytes, |len| len.min(head_bytes));
    let bytes = read_aligned(&file, 0, HEADER_LEN + head_bytes).map_err(fault)?;
    match Header::parse(&bytes) {
        Header::Known(expiry) if !expiry.is_expired() => Ok(Some(
            EntryInfo::new(name.to_string(), len)
                .with_expiry(expiry)
                .with_head(bytes.slice(HEADER_LEN..)),
        )),
        _ => Ok(None),
    }
}

/// As [`inspect`], with the key and the last use.
pub(crate) fn stat(store: &Store, key: &Key) -> Result<Option<EntryInfo>, Fault> {
    let name = Name::of(key);
    let Some(info) = inspect(store, name, 0)? else {
        return Ok(None);
    };
    let mut found = [(name, info.with_key(key.clone()))];
    add_last_uses(store, &mut found);
    let [(_, info)] = found;
    Ok(Some(info))
}

/// Adds the last use, where the ledger knows it and can be asked.
pub(crate) fn add_last_uses(store: &Store, found: &mut [(Name, EntryInfo)]) {
    let Ok(mut locked) = store.lock() else { return };
    for (name, info) in found {
        let record = locked.edit(|table| match table.find(*name)? {
            Some(slot) => table.record(slot).map(Some),
            None => Ok(None),
        });
        if let Ok(Some(record)) = record {
            let since = std::time::Duration::from_nanos(record.last_used);
            info.last_used = Some(std::time::UNIX_EPOCH + since);
        }
    }
}

impl EntryReader for Entry {
    fn len(&self) -> u64 {
        self.len
    }

    fn expiry(&self) -> Expiry {
        self.expiry
    }

    fn version(&self) -> Version {
        match &self.body {
            Body::Small(bytes) | Body::Mapped { bytes, .. } => self.origin.version(bytes),
            // It waits for no disk: the page was read with the header.
            Body::File(file) => self.origin.version_of(&file.file),
        }
    }

    fn contiguous(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Small(bytes) | Body::Mapped { bytes, .. } => Some(bytes),
            Body::File(_) => None,
        }
    }

    fn is_mapped(&self) -> bool {
        matches!(self.body, Body::Mapped { .. })
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let whole = Range {
                start: self.whole(range.start)?,
                end: self.whole(range.end)?,
            };
            if range.start > range.end || range.end > self.len {
                return Err(self.beyond(&range).into());
            }
            let file = match &self.body {
                Body::Small(bytes) | Body::Mapped { bytes, .. } => return Ok(bytes.slice(whole)),
                Body::File(file) => Arc::clone(file),
            };
            let offset = HEADER_LEN as u64 + range.start;
            let len = whole.len();
            let read = offload(move || read_aligned(&file.file, offset, len)).await;
            let bytes = read.map_err(|errno| self.fault(errno))?;
            if bytes.len() < len {
                return Err(Fault::Truncated {
                    path: self.store.dir.join(self.name),
                }
                .into());
            }
            Ok(bytes)
        })
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        let (store, name) = (Arc::clone(&self.store), self.name);
        let this = match &self.body {
            Body::Small(bytes) => This::Bytes(bytes.clone()),
            Body::Mapped { opened, bytes } => This::File {
                opened: *opened,
                _keep: Keep::Map(bytes.clone()),
            },
            Body::File(file) => This::File {
                opened: Opened {
                    file: (),
                    name,
                    id: file.id,
                },
                _keep: Keep::File(Arc::clone(file)),
            },
        };
        Box::pin(async move {
            offload(move || discard(&store, name, &this))
                .await
                .map_err(ck_core::Error::from)
        })
    }
}

impl Entry {
    fn beyond(&self, range: &Range<u64>) -> Fault {
        Fault::Range {
            start: range.start,
            end: range.end,
            len: self.len,
        }
    }

    fn whole(&self, offset: u64) -> Result<usize, Fault> {
        usize::try_from(offset).map_err(|_| self.beyond(&(offset..offset)))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("path", &self.store.dir.join(self.name))
            .field("len", &self.len)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

/// What makes an entry this very one and no other.
enum This {
    /// The descriptor of a small entry is closed, and its inode may be anybody's by now. But a file
    /// with the same bytes is damaged in the same way.
    Bytes(Bytes),
    File {
        opened: Opened<()>,
        /// Keeps the inode from being used again.
        _keep: Keep,
    },
}

#[expect(dead_code, reason = "held, not read")]
enum Keep {
    Map(Bytes),
    File(Arc<Opened<OwnedFd>>),
}

fn discard(store: &Store, name: Name, this: &This) -> Result<bool, Fault> {
    let fault = |errno| store.fault("discard a damaged entry", name, errno);
    let mut locked = store.lock()?;
    let same = match this {
        This::File { opened, .. } => still_there(&locked, opened),
        This::Bytes(bytes) => {
            let file = store.dir.open_to_look(&name.to_string()).map_err(fault)?;
            let size = (HEADER_LEN + bytes.len()) as u64;
            match file {
                Some((file, stat)) if directory::size(&stat) == size => {
                    let now = read_aligned(&file, HEADER_LEN as u64, bytes.len());
                    now.map_err(fault)? == bytes
                }
                _ => false,
            }
        }
    };
    if !same {
        return Ok(false);
    }
    tracing::warn!(path = %store.dir.join(name).display(), "a damaged entry is removed");
    // The table may be unusable; the file is removed all the same, or the error says why not.
    if locked.table().is_err() {
        return store.dir.unlink(&name.to_string()).map_err(fault);
    }
    match room::evict(&mut locked, name, 0)? {
        None => Ok(true),
        Some(errno) => Err(fault(errno)),
    }
}

/// A large entry: mapped if that is wanted and possible, else read on demand.
fn large(store: &Store, name: Name, file: OwnedFd, stat: &Stat) -> Body {
    let opened = Opened::new(name, file, stat);
    if store.settings.read_mode == ReadMode::Mapped
        && let Ok(size) = usize::try_from(directory::size(stat))
        // Too many mappings, or no address space: the file can still be read.
        && let Ok(map) = mmap::map_entry(&opened.file, size)
    {
        let bytes = map.slice(HEADER_LEN..);
        return Body::Mapped {
            bytes,
            opened: Opened {
                file: (),
                name,
                id: opened.id,
            },
        };
    }
    Body::File(Arc::new(opened))
}

/// How much of a file of `size` bytes is read when it is opened: a small one whole, else the header.
fn first_read(size: u64) -> usize {
    match usize::try_from(size) {
        Ok(len) if size <= SMALL_FILE => len,
        _ => HEADER_LEN,
    }
}

/// The first `len` bytes of the file, aligned as by [`read_aligned`], if the kernel has them in memory.
#[cfg(target_os = "linux")]
fn read_at_once(file: impl AsFd, len: usize) -> Option<Bytes> {
    let mut memory = ReadMemory::zeroed(len);
    let mut parts = [std::io::IoSliceMut::new(memory.as_mut_slice())];
    let read = rustix::io::preadv2(&file, &mut parts, 0, ReadWriteFlags::NOWAIT);
    (read == Ok(len)).then(|| memory.freeze())
}

/// Reads `len` bytes from `offset` on into memory that starts at a multiple of 64; fewer only at the
/// end of the file. The memory is not zeroed first; `len` was checked against the size of the file.
fn read_aligned(file: impl AsFd, offset: u64, len: usize) -> Result<Bytes, Errno> {
    if len == 0 {
        return Ok(Bytes::new());
    }
    let mut memory = ReadMemory::new(len);
    while memory.len() < len {
        let at = offset + memory.len() as u64;
        if retry(|| rustix::io::pread(&file, spare_capacity(memory.as_mut_vec()), at))? == 0 {
            break;
        }
    }
    // Where more memory was lent, more of the file has come.
    let mut bytes = memory.freeze();
    bytes.truncate(len);
    Ok(bytes)
}
