//! The accounts of a directory, shared by all processes that use it: which entries there are, how large
//! they are, in which order they were used, and what writers at work have reserved.
//!
//! The ledger is a hidden file, mapped by every process (`table`). One lock guards it: `flock` on the
//! directory itself, which the kernel releases when its holder dies, which needs no file of its own,
//! and which nobody can delete apart from the directory.

mod boot;
mod gate;
mod table;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

pub(crate) use self::table::{Checked, FILE_NAME, Place, Reconciled, Record, Slot, Table, Writer};

use self::gate::Gate;
use crate::directory::{self, Directory, retry};
use crate::error::Fault;
use crate::layout::{Name, Token};

/// Uses that could not be recorded at once are kept up to this number; later ones are dropped.
const PENDING: usize = 4096;
/// A ledger of up to this many bytes is repaired even where nobody should wait.
const QUICK_REPAIR: u64 = 256 * 1024;
/// How soon an unusable ledger is tried again.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Ledger {
    dir: Arc<Directory>,
    gate: Gate<Inner>,
    pending: Mutex<Vec<Pending>>,
}

#[derive(Debug, Default)]
struct Inner {
    table: Option<Table>,
    /// Why there is no table, and since when.
    failed: Option<(Errno, Instant)>,
}

/// What is left to record once the lock is free.
#[derive(Debug, Clone, Copy)]
enum Pending {
    Use { name: Name, nanos: u64 },
    GivenUp { slot: Slot, token: Token },
    Lease(Name),
}

impl Ledger {
    pub(crate) fn new(dir: Arc<Directory>) -> Self {
        Self {
            dir,
            gate: Gate::new(Inner::default()),
            pending: Mutex::default(),
        }
    }

    /// Takes the lock, waiting up to `timeout`, and repairs what a killed process left unfinished.
    pub(crate) fn lock(&self, timeout: Duration) -> Result<Locked<'_>, Fault> {
        let deadline = Instant::now() + timeout;
        let timed_out = || Fault::LockTimeout {
            dir: self.dir.path().to_owned(),
            waited: timeout,
        };
        let inner = self.gate.take(deadline).ok_or_else(timed_out)?;
        if let Err(failed) = self.wait_for_processes(deadline) {
            self.gate.put_back(inner);
            return Err(failed.map_or_else(timed_out, |errno| {
                Fault::io("lock the store's directory", self.dir.path(), errno)
            }));
        }
        let mut locked = Locked::new(self, inner);
        locked.open(Patience::None);
        locked.prepare();
        Ok(locked)
    }

    /// Takes the lock if nobody holds it and the ledger needs no long repair.
    pub(crate) fn try_lock(&self) -> Option<Locked<'_>> {
        let inner = self.gate.try_take()?;
        if self.try_flock() != Ok(true) {
            self.gate.put_back(inner);
            return None;
        }
        let mut locked = Locked::new(self, inner);
        locked.open(Patience::UntilRetry);
        if locked.needs_long_repair() {
            return None;
        }
        locked.prepare();
        Some(locked)
    }

    /// Records that an entry was read. Never waits: what cannot be recorded at once is recorded by
    /// the next caller who has the lock. Returns whether the directory should be reconciled.
    pub(crate) fn record_use(&self, name: Name) -> bool {
        match self.try_lock() {
            Some(mut locked) => {
                // Older uses first, so that the order stays the order of use.
                locked.drain();
                locked.record_use(name, unix_nanos());
                locked.should_reconcile()
            }
            None => {
                self.defer(Pending::Use {
                    name,
                    nanos: unix_nanos(),
                });
                false
            }
        }
    }

    /// Gives back what a writer had reserved, whose temporary file is gone already. Never waits.
    pub(crate) fn give_up(&self, slot: Slot, token: Token) {
        match self.try_lock() {
            Some(mut locked) => locked.give_up(slot, token),
            None => self.defer(Pending::GivenUp { slot, token }),
        }
    }

    /// Removes the file of a lease that was given up. Never waits.
    pub(crate) fn forget_lease(&self, name: Name) {
        match self.try_lock() {
            Some(locked) => locked.forget_lease(name),
            None => self.defer(Pending::Lease(name)),
        }
    }

    /// Records what is pending if the lock is free.
    pub(crate) fn flush(&self) {
        drop(self.try_lock());
    }

    fn defer(&self, item: Pending) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < PENDING {
            pending.push(item);
        }
    }

    fn try_flock(&self) -> Result<bool, Errno> {
        match retry(|| rustix::fs::flock(&*self.dir, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// `flock` knows no deadline, so this asks again and again, ever less often.
    fn wait_for_processes(&self, deadline: Instant) -> Result<(), Option<Errno>> {
        const YIELDS: u32 = 16;
        const LONGEST: Duration = Duration::from_millis(1);
        let mut pause = Duration::from_micros(20);
        for attempt in 0_u32.. {
            if self.try_flock().map_err(Some)? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(None);
            }
            if attempt < YIELDS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST);
            }
        }
        Err(None)
    }
}

/// The ledger, locked. Dropping it records what is pending and releases the lock.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    ledger: &'a Ledger,
    /// `None` only while this is being dropped.
    inner: Option<Inner>,
    wants_reconcile: bool,
    /// Whether the table was found sound, or made so.
    prepared: bool,
    /// Files without a name, closed when everything else is done.
    graves: Vec<OwnedFd>,
}

/// How soon a ledger that could not be opened is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    UntilRetry,
}

impl<'a> Locked<'a> {
    fn new(ledger: &'a Ledger, inner: Inner) -> Self {
        Self {
            ledger,
            inner: Some(inner),
            wants_reconcile: false,
            prepared: false,
            graves: Vec::new(),
        }
    }
}

impl Locked<'_> {
    pub(crate) fn directory(&self) -> &Directory {
        &self.ledger.dir
    }

    /// The ledger's table, or why there is none.
    pub(crate) fn table(&self) -> Result<&Table, Fault> {
        let Some(inner) = &self.inner else {
            return Err(Fault::WriterBroken);
        };
        match (&inner.table, inner.failed) {
            (Some(table), _) => Ok(table),
            (None, failed) => {
                let errno = failed.map_or(Errno::NOENT, |(errno, _)| errno);
                Err(self
                    .directory()
                    .creation_fault("open the store's ledger", FILE_NAME, errno))
            }
        }
    }

    /// Runs `op` on the table; when the table turns out to be damaged, repairs it and runs `op` again.
    pub(crate) fn edit<T>(&mut self, op: impl Fn(&Table) -> Checked<T>) -> Result<T, Fault> {
        if let Ok(value) = op(self.table()?) {
            return Ok(value);
        }
        self.wants_reconcile = true;
        tracing::warn!(path = %self.ledger_path().display(), "the ledger contradicts itself and is rebuilt");
        let table = self.table()?;
        let relinked = table.relink(unix_nanos()).and_then(|()| {
            table.set_reconciled(Reconciled::default())?;
            op(table)
        });
        if let Ok(value) = relinked {
            return Ok(value);
        }
        self.recreate();
        let path = self.ledger_path();
        op(self.table()?).map_err(|_| Fault::Ledger { path })
    }

    /// Lengthens the ledger file by one step.
    pub(crate) fn grow(&mut self) -> Result<(), Fault> {
        let path = self.ledger_path();
        let Some(table) = self.inner.as_mut().and_then(|inner| inner.table.as_mut()) else {
            return self.table().map(|_| ());
        };
        table
            .grow()
            .map_err(|errno| Fault::io("enlarge the store's ledger", path, errno))
    }

    /// Runs `change`, which changes the entry file `name` or the temporary file of `token`, so that if
    /// this process is killed meanwhile the next one finds out what became of them.
    pub(crate) fn journal<T>(
        &mut self,
        name: Name,
        token: Option<Token>,
        change: impl FnOnce(&mut Self) -> T,
    ) -> T {
        if let Ok(table) = self.table() {
            table.intend(name, token);
        }
        let value = change(self);
        if let Ok(table) = self.table() {
            table.settle();
        }
        value
    }

    /// Brings the account of one entry in line with its file; for files that others changed.
    pub(crate) fn adopt(&mut self, name: Name, place: Place) -> Result<Option<Slot>, Fault> {
        let file_name = name.to_string();
        let stat = self.directory().stat(&file_name).map_err(|errno| {
            Fault::io("look at an entry", self.directory().join(&file_name), errno)
        })?;
        let Some(stat) = stat else {
            self.edit(|table| match table.find(name)? {
                Some(slot) => table.remove(slot),
                None => Ok(()),
            })?;
            return Ok(None);
        };
        let size = directory::size(&stat);
        let now = unix_nanos();
        let last_used = match place {
            Place::Newest => now,
            Place::After(_) => directory::last_used(&stat).min(now),
        };
        let record = Record {
            name,
            size,
            inode: stat.stx_ino,
            last_used,
        };
        if !self.edit(|table| Ok(table.has_free_slot()? || table.find(name)?.is_some()))? {
            self.grow()?;
        }
        self.edit(|table| table.put(record, place)).map(Some)
    }

    /// Gives back what the writer `token` had reserved, if it still has.
    pub(crate) fn give_up(&mut self, slot: Slot, token: Token) {
        let _ = self.edit(|table| match table.writer(slot) {
            Some(writer) if writer.token == token => table.remove_writer(slot),
            _ => Ok(()),
        });
    }

    /// Removes the file of a lease, unless somebody holds it by now.
    pub(crate) fn forget_lease(&self, name: Name) {
        let file_name = name.lease_name();
        if self.directory().abandoned(&file_name).is_some() {
            let _ = self.directory().unlink(&file_name);
        }
    }

    /// Keeps a file that is about to lose its name until the lock is released: freeing the blocks of
    /// a large one takes long.
    pub(crate) fn bury(&mut self, name: Name, size: u64) {
        const LARGE: u64 = 4 << 20;
        if size >= LARGE
            && let Ok(Some((file, _))) = self
                .directory()
                .open_file(&name.to_string(), OFlags::RDONLY)
        {
            self.graves.push(file);
        }
    }

    /// Whether the directory should be compared with the ledger: never done, asked for, or long ago
    /// and changed since. The pause is a hundred times what the last one took, so that it costs 1 %.
    pub(crate) fn should_reconcile(&self) -> bool {
        const PAUSE: u64 = 60_000_000_000;
        let Ok(table) = self.table() else {
            return false;
        };
        let Ok(last) = table.reconciled() else {
            return true;
        };
        if self.wants_reconcile || last.at == 0 {
            return true;
        }
        let pause = PAUSE.max(last.nanos.saturating_mul(100));
        let now = unix_nanos();
        // A time in the future is a clock set back, or garbage.
        let due = now.checked_sub(last.at).is_none_or(|since| since > pause);
        due && self
            .directory()
            .modified()
            .is_ok_and(|mtime| mtime != last.directory_mtime)
    }

    fn record_use(&mut self, name: Name, nanos: u64) {
        let found = self.edit(|table| match table.find(name)? {
            Some(slot) => table.touch(slot, nanos).map(|()| true),
            None => Ok(false),
        });
        if let Ok(false) = found {
            // Another system's entry, or one that was removed since.
            if let Err(fault) = self.adopt(name, Place::Newest) {
                tracing::debug!(%fault, "an entry of another system could not be entered");
            }
        }
    }

    fn drain(&mut self) {
        let pending = {
            let mut pending = self
                .ledger
                .pending
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *pending)
        };
        let usable = self.table().is_ok();
        for item in pending {
            match item {
                Pending::Lease(name) => self.forget_lease(name),
                _ if !usable => {}
                Pending::Use { name, nanos } => self.record_use(name, nanos),
                Pending::GivenUp { slot, token } => self.give_up(slot, token),
            }
        }
    }

    // ---- opening and repair

    /// Repairs what a crash left behind.
    fn prepare(&mut self) {
        self.prepared = true;
        let Ok(table) = self.table() else { return };
        let interrupted = table.interrupted();
        let suspect = table.is_of_another_boot() || interrupted.is_none() && !table.is_sealed();
        if suspect || interrupted.is_some() {
            tracing::debug!(path = %self.ledger_path().display(), "the ledger is relinked");
            if table.relink(unix_nanos()).is_err() {
                self.recreate();
            }
        }
        // After a power failure the file may be a mixture of old and new pages.
        self.wants_reconcile |= suspect;
        if self.wants_reconcile {
            // Also tells the other processes.
            let _ = self.edit(|table| table.set_reconciled(Reconciled::default()));
        }
        if let Some(Some((name, token))) = interrupted {
            self.journal(name, Some(token), |locked| locked.finish(name, token));
        }
    }

    /// Finds out what became of the files that a killed process was changing.
    fn finish(&mut self, name: Name, token: Token) {
        if token != Token(0) {
            let _ = self.directory().unlink(&token.temp_name(name));
            let _ = self.edit(|table| {
                for (slot, writer) in table.writers()? {
                    if writer.token == token {
                        table.remove_writer(slot)?;
                    }
                }
                Ok(())
            });
        }
        if let Err(fault) = self.adopt(name, Place::Newest) {
            tracing::debug!(%fault, "an entry could not be looked at after a crash");
            self.wants_reconcile = true;
        }
    }

    /// Opens the ledger if need be, and follows what other processes did to it.
    fn open(&mut self, patience: Patience) {
        let dir = &self.ledger.dir;
        let Some(inner) = &mut self.inner else { return };
        if inner.table.as_mut().is_some_and(Table::refresh) {
            return;
        }
        inner.table = None;
        let fresh = inner
            .failed
            .is_some_and(|(_, since)| since.elapsed() < RETRY);
        if fresh && patience == Patience::UntilRetry {
            return;
        }
        match Table::open(dir) {
            Ok(table) => {
                inner.table = Some(table);
                inner.failed = None;
            }
            Err(errno) => inner.failed = Some((errno, Instant::now())),
        }
    }

    fn recreate(&mut self) {
        let dir = &self.ledger.dir;
        self.wants_reconcile = true;
        let Some(inner) = &mut self.inner else { return };
        match Table::create(dir) {
            Ok(table) => inner.table = Some(table),
            Err(errno) => {
                inner.table = None;
                inner.failed = Some((errno, Instant::now()));
            }
        }
    }

    fn needs_long_repair(&self) -> bool {
        self.table().is_ok_and(|table| {
            table.len() > QUICK_REPAIR
                && (table.is_of_another_boot()
                    || table.interrupted().is_some()
                    || !table.is_sealed())
        })
    }

    fn ledger_path(&self) -> std::path::PathBuf {
        self.directory().join(FILE_NAME)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if self.prepared {
            self.drain();
        }
        let _ = rustix::fs::flock(&*self.ledger.dir, FlockOperation::Unlock);
        if let Some(inner) = self.inner.take() {
            self.ledger.gate.put_back(inner);
        }
    }
}

/// Now, in Unix nanoseconds.
pub(crate) fn unix_nanos() -> u64 {
    u64::try_from(ck_core::unix_now().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
