//! What all handles of one open store share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ck_core::Usage;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::builder::Settings;
use crate::directory::{Directory, FileId, Stat, retry};
use crate::error::Fault;
use crate::layout::{EXPIRY_OFFSET, HEADER_LEN, Header, Name};
use crate::ledger::{Ledger, Locked};
use crate::reconcile;
use crate::room;

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dir: Arc<Directory>,
    pub(crate) settings: Settings,
    pub(crate) ledger: Ledger,
    reconciling: AtomicBool,
    /// Whether an entry was opened, and with that the ledger.
    warm: AtomicBool,
}

/// A file of the directory, as opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened<F> {
    pub(crate) name: Name,
    pub(crate) file: F,
    pub(crate) id: FileId,
}

impl Store {
    pub(crate) fn open(path: &Path, settings: Settings) -> Result<Self, Fault> {
        let dir = Arc::new(Directory::open(path)?);
        let ledger = Ledger::new(Arc::clone(&dir));
        Ok(Self {
            dir,
            settings,
            ledger,
            reconciling: AtomicBool::new(false),
            warm: AtomicBool::new(false),
        })
    }

    pub(crate) fn lock(&self) -> Result<Locked<'_>, Fault> {
        self.ledger.lock(self.settings.lock_timeout)
    }

    pub(crate) fn is_warm(&self) -> bool {
        self.warm.load(Ordering::Acquire)
    }

    pub(crate) fn set_warm(&self) {
        self.warm.store(true, Ordering::Release);
    }

    /// A fault of an operation on one entry.
    pub(crate) fn fault(&self, action: &'static str, name: Name, errno: Errno) -> Fault {
        Fault::io(action, self.dir.join(name), errno)
    }

    /// Records a use of an entry, without waiting.
    pub(crate) fn record_use(self: &Arc<Self>, name: Name) {
        if self.ledger.record_use(name) {
            self.reconcile_aside();
        }
    }

    /// Compares directory and ledger on a thread of its own, unless that is going on already.
    pub(crate) fn reconcile_aside(self: &Arc<Self>) {
        if self.reconciling.swap(true, Ordering::AcqRel) {
            return;
        }
        let store = Arc::clone(self);
        let thread = std::thread::Builder::new().name("ck-reconcile".to_owned());
        let spawned = thread.spawn(move || {
            if let Err(fault) = reconcile::in_background(&store) {
                tracing::debug!(%fault, "the directory could not be reconciled");
            }
            store.reconciling.store(false, Ordering::Release);
        });
        if spawned.is_err() {
            self.reconciling.store(false, Ordering::Release);
        }
    }

    /// Gives the live entry a new expiry, in the eight bytes that hold it.
    pub(crate) fn touch(&self, name: Name, expiry: ck_core::Expiry) -> Result<bool, Fault> {
        const ACTION: &str = "change the expiry of an entry";
        let fault = |errno| self.fault(ACTION, name, errno);
        let deadline = std::time::Instant::now() + self.settings.lock_timeout;
        loop {
            let locked = self.lock()?;
            let opened = self
                .dir
                .open_file(&name.to_string(), OFlags::RDWR)
                .map_err(fault)?;
            let Some((file, _)) = opened else {
                return Ok(false);
            };
            match read_header(&file).map_err(fault)? {
                Header::Known(old) if !old.is_expired() => {}
                _ => return Ok(false),
            }
            // Readers of other systems hold a shared lock for as long as they read.
            let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            match retry(|| rustix::fs::flock(&file, exclusive)) {
                Ok(()) => {
                    let bytes = expiry.unix_seconds().to_be_bytes();
                    let written = retry(|| rustix::io::pwrite(&file, &bytes, EXPIRY_OFFSET));
                    if written.map_err(fault)? < bytes.len() {
                        return Err(fault(Errno::IO));
                    }
                    drop(locked);
                    if self.settings.durability == crate::Durability::Synced {
                        retry(|| rustix::fs::fdatasync(&file)).map_err(fault)?;
                    }
                    return Ok(true);
                }
                Err(Errno::WOULDBLOCK) if std::time::Instant::now() < deadline => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(Fault::EntryLocked {
                        path: self.dir.join(name),
                    });
                }
                Err(errno) => return Err(fault(errno)),
            }
            drop(locked);
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
    }

    /// Removes the entry; whether it was there and alive.
    pub(crate) fn remove(&self, name: Name) -> Result<bool, Fault> {
        const ACTION: &str = "remove an entry";
        let fault = |errno| self.fault(ACTION, name, errno);
        let mut locked = self.lock()?;
        let file_name = name.to_string();
        let Some((file, _)) = self.dir.open_to_look(&file_name).map_err(fault)? else {
            // Somebody else removed it: forget it too.
            if locked.table().is_ok() && self.dir.stat(&file_name).is_ok_and(|stat| stat.is_none())
            {
                room::forget(&mut locked, name)?;
            }
            return Ok(false);
        };
        let alive = match read_header(&file).map_err(fault)? {
            Header::Known(expiry) => !expiry.is_expired(),
            Header::Foreign => true,
            Header::Damaged => false,
        };
        let unlinked = locked.journal(name, None, |locked| {
            let unlinked = locked.directory().unlink(&file_name);
            if unlinked.is_ok() && locked.table().is_ok() {
                room::forget(locked, name)?;
            }
            unlinked.map_err(fault)
        })?;
        Ok(unlinked && alive)
    }

    pub(crate) fn usage(self: &Arc<Self>) -> Result<Usage, Fault> {
        let mut usage = Usage::new();
        usage.limit_bytes = Some(self.settings.limit_bytes);
        usage.limit_entries = Some(self.settings.limit_entries);
        let mut locked = self.lock()?;
        if locked.table().is_err() {
            drop(locked);
            (usage.entries, usage.bytes) = reconcile::count(self)?;
            return Ok(usage);
        }
        if locked.edit(|table| table.reconciled())?.at == 0 {
            drop(locked);
            reconcile::now(self)?;
            locked = self.lock()?;
        }
        let totals = locked.edit(|table| table.totals())?;
        usage.entries = totals.entries;
        usage.reserved_bytes = totals.reserved_bytes;
        usage.bytes = totals.entry_bytes.saturating_add(totals.reserved_bytes);
        Ok(usage)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.ledger.flush();
    }
}

impl<F> Opened<F> {
    pub(crate) fn new(name: Name, file: F, stat: &Stat) -> Self {
        Self {
            name,
            file,
            id: FileId::of(stat),
        }
    }
}

/// Whether the name still leads to the file that was opened. Exact under the lock, as far as writers
/// of this crate go.
pub(crate) fn still_there<F>(locked: &Locked<'_>, opened: &Opened<F>) -> bool {
    let stat = locked.directory().stat(&opened.name.to_string());
    stat.is_ok_and(|stat| stat.is_some_and(|stat| FileId::of(&stat) == opened.id))
}

/// Removes an entry found expired or damaged, unless it was replaced or given a new expiry since.
pub(crate) fn remove_dead<F: std::os::fd::AsFd>(
    locked: &mut Locked<'_>,
    opened: &Opened<F>,
) -> bool {
    let dead = match read_header(&opened.file) {
        Ok(Header::Damaged) => true,
        Ok(Header::Known(expiry)) => expiry.is_expired(),
        Ok(Header::Foreign) | Err(_) => false,
    };
    dead && still_there(locked, opened) && matches!(room::evict(locked, opened.name, 0), Ok(None))
}

/// Reads and judges the bytes before an entry.
pub(crate) fn read_header(file: impl std::os::fd::AsFd) -> Result<Header, Errno> {
    let mut bytes = [0; HEADER_LEN];
    let len = read_at(&file, &mut bytes, 0)?;
    Ok(Header::parse(&bytes[..len]))
}

/// Fills `buffer` from `offset` on; fewer bytes only at the end of the file.
pub(crate) fn read_at(
    file: impl std::os::fd::AsFd,
    buffer: &mut [u8],
    offset: u64,
) -> Result<usize, Errno> {
    let mut len = 0;
    while len < buffer.len() {
        let at = offset + len as u64;
        match retry(|| rustix::io::pread(&file, &mut buffer[len..], at))? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}
