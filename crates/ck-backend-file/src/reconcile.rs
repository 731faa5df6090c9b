//! Bringing ledger and directory in line: what other systems added, changed or removed, what killed
//! writers left behind, what has expired.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_core::{Cursor, Page, Pruned};
use rustix::fs::{FlockOperation, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use crate::directory;
use crate::error::Fault;
use crate::layout::{FileKind, Header, Name};
use crate::ledger::{Checked, FILE_NAME, Place, Reconciled, Slot, Table, unix_nanos};
use crate::read;
use crate::room;
use crate::store::{Opened, Store, read_header, remove_dead};

/// Files looked at per turn with the lock.
const BATCH: usize = 256;
/// Steps along the list of uses per turn with the lock.
const STEPS: usize = 4096;
/// Entries per page of a listing.
const PAGE: usize = 256;
/// How old temporary files of other systems get; theirs sweep at the same age.
const TEMP_AGE: Duration = Duration::from_secs(60);

/// Compares directory and ledger, unless another process is doing so.
pub(crate) fn in_background(store: &Store) -> Result<(), Fault> {
    // Waits for a ledger that needs repair, and records what is pending.
    drop(store.lock()?);
    let ledger = store.dir.open_file(FILE_NAME, OFlags::RDONLY);
    let Ok(Some((ledger, _))) = ledger else {
        return Ok(());
    };
    // A lock on the ledger file itself, so that only one process at a time does the work.
    if rustix::fs::flock(&ledger, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    if store.lock()?.should_reconcile() {
        now(store)?;
    }
    Ok(())
}

/// Compares directory and ledger.
pub(crate) fn now(store: &Store) -> Result<(), Fault> {
    Reconcile {
        store,
        thorough: false,
        epoch: 0,
        unknown: Vec::new(),
        pruned: Pruned::new(),
    }
    .run()
    .map(|_| ())
}

/// Compares directory and ledger, looks into every entry, and removes what is expired, damaged or left
/// over.
pub(crate) fn prune(store: &Store) -> Result<Pruned, Fault> {
    Reconcile {
        store,
        thorough: true,
        epoch: 0,
        unknown: Vec::new(),
        pruned: Pruned::new(),
    }
    .run()
}

/// The number of entries and their bytes, by looking at the files.
pub(crate) fn count(store: &Store) -> Result<(u64, u64), Fault> {
    let (mut entries, mut bytes) = (0, 0);
    let mut listing = Listing::open(store, 0)?;
    while let Some(batch) = listing.next(BATCH)? {
        for found in batch {
            if let FileKind::Entry(name) = found.kind
                && let Ok(Some(stat)) = store.dir.stat(&name.to_string())
            {
                entries += 1;
                bytes += directory::size(&stat);
            }
        }
    }
    Ok((entries, bytes))
}

/// One page of the live entries.
pub(crate) fn list(
    store: &Store,
    cursor: Option<&Cursor>,
    head_bytes: usize,
) -> Result<Page, Fault> {
    let position = match cursor {
        None => 0,
        Some(Cursor(bytes)) => {
            u64::from_le_bytes(bytes.as_ref().try_into().map_err(|_| Fault::Cursor)?)
        }
    };
    let mut listing = Listing::open(store, position)?;
    let mut page = Page::default();
    let Some(batch) = listing.next(PAGE)? else {
        return Ok(page);
    };
    let Some(position) = batch.last().map(|found| found.next) else {
        return Ok(page);
    };
    let mut found = Vec::new();
    for file in batch {
        if let FileKind::Entry(name) = file.kind
            && let Some(info) = read::inspect(store, name, head_bytes)?
        {
            found.push((name, info));
        }
    }
    read::add_last_uses(store, &mut found);
    page.entries = found.into_iter().map(|(_, info)| info).collect();
    page.next = Some(Cursor(Bytes::copy_from_slice(&position.to_le_bytes())));
    Ok(page)
}

struct Reconcile<'a> {
    store: &'a Store,
    /// Whether to look into every file.
    thorough: bool,
    epoch: u32,
    /// Entries that the ledger does not know.
    unknown: Vec<Name>,
    pruned: Pruned,
}

impl Reconcile<'_> {
    fn run(mut self) -> Result<Pruned, Fault> {
        let start = Instant::now();
        let dir = &self.store.dir;
        let fault = |errno| Fault::io("list the store's directory", dir.path(), errno);
        let directory_mtime = dir.modified().map_err(fault)?;
        if self.thorough {
            // Whatever the totals say, they are counted anew.
            self.store
                .lock()?
                .edit(|table| table.relink(unix_nanos()))?;
        }
        self.epoch = self.store.lock()?.edit(|table| table.next_epoch())?;

        let mut listing = Listing::open(self.store, 0)?;
        while let Some(batch) = listing.next(BATCH)? {
            if self.thorough {
                self.inspect(&batch)?;
            }
            self.compare(&batch)?;
        }
        self.adopt_unknown()?;
        self.drop_vanished()?;
        let (files, bytes) = room::reclaim(&mut self.store.lock()?)?;
        self.pruned.orphans += files;
        self.pruned.bytes += bytes;
        while !room::enforce(&mut self.store.lock()?, &self.store.settings, BATCH)? {}

        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let done = Reconciled {
            at: unix_nanos(),
            directory_mtime,
            nanos,
        };
        self.store
            .lock()?
            .edit(|table| table.set_reconciled(done))?;
        Ok(self.pruned)
    }

    /// Removes expired and damaged entries.
    fn inspect(&mut self, batch: &[Found]) -> Result<(), Fault> {
        for found in batch {
            let FileKind::Entry(name) = found.kind else {
                continue;
            };
            let opened = self.store.dir.open_to_look(&name.to_string());
            let Ok(Some((file, stat))) = opened else {
                continue;
            };
            let dead = match read_header(&file) {
                Ok(Header::Known(expiry)) => expiry.is_expired(),
                Ok(Header::Damaged) => true,
                Ok(Header::Foreign) | Err(_) => false,
            };
            if dead && remove_dead(&mut self.store.lock()?, &Opened::new(name, file, &stat)) {
                self.pruned.entries += 1;
                self.pruned.bytes += directory::size(&stat);
            }
        }
        Ok(())
    }

    /// Marks the entries that the ledger knows, corrects those that others changed, removes left-over
    /// temporary files, and collects the rest.
    fn compare(&mut self, batch: &[Found]) -> Result<(), Fault> {
        let mut locked = self.store.lock()?;
        for found in batch {
            match found.kind {
                FileKind::Entry(name) => {
                    let known = locked.edit(|table| match table.find(name)? {
                        Some(slot) => {
                            table.mark(slot)?;
                            table.record(slot).map(Some)
                        }
                        None => Ok(None),
                    })?;
                    match known {
                        None => self.unknown.push(name),
                        // Files never change, so the same inode is the same file. A thorough look
                        // does not rely on that.
                        Some(record) if record.inode == found.inode && !self.thorough => {}
                        Some(record) => {
                            let stat = self.store.dir.stat(&name.to_string());
                            let same = stat.is_ok_and(|stat| {
                                stat.is_some_and(|stat| {
                                    (stat.stx_ino, directory::size(&stat))
                                        == (record.inode, record.size)
                                })
                            });
                            if !same {
                                locked.adopt(name, Place::Newest)?;
                            }
                        }
                    }
                }
                FileKind::OurTemp(name, token) => {
                    // A writer that is announced is judged by `reclaim`.
                    let writers = locked.edit(|table| table.writers())?;
                    if writers.iter().all(|(_, writer)| writer.token != token) {
                        let temp = token.temp_name(name);
                        let abandoned = locked.directory().abandoned(&temp);
                        self.sweep(&temp, abandoned);
                    }
                }
                FileKind::OtherTemp => {
                    let Some(temp) = &found.temp else { continue };
                    let Ok(Some(stat)) = self.store.dir.stat(temp) else {
                        continue;
                    };
                    let age = unix_nanos().saturating_sub(directory::modified(&stat));
                    if u128::from(age) > TEMP_AGE.as_nanos() {
                        let abandoned = locked.directory().abandoned(temp);
                        self.sweep(temp, abandoned);
                    }
                }
                FileKind::Lease(name) => {
                    let file_name = name.lease_name();
                    let abandoned = locked.directory().abandoned(&file_name);
                    self.sweep(&file_name, abandoned);
                }
                FileKind::Stranger => {}
            }
        }
        Ok(())
    }

    /// Removes the file of a writer or of a holder of a lease that is dead.
    fn sweep(&mut self, temp: &str, abandoned: Option<u64>) {
        let Some(size) = abandoned else { return };
        if let Ok(true) = self.store.dir.unlink(temp) {
            tracing::debug!(temp, "the file of a killed process is removed");
            self.pruned.orphans += 1;
            self.pruned.bytes += size;
        }
    }

    /// Enters the unknown entries among the others by the time of their last use.
    fn adopt_unknown(&mut self) -> Result<(), Fault> {
        let now = unix_nanos();
        let mut unknown: Vec<(u64, Name)> = Vec::with_capacity(self.unknown.len());
        for name in std::mem::take(&mut self.unknown) {
            if let Ok(Some(stat)) = self.store.dir.stat(&name.to_string()) {
                unknown.push((directory::last_used(&stat).min(now), name));
            }
        }
        unknown.sort_unstable_by_key(|&(last_used, Name(name))| (last_used, name));

        let mut before: Option<(Slot, Name)> = None;
        let mut queue = unknown.into_iter().peekable();
        while queue.peek().is_some() {
            let mut locked = self.store.lock()?;
            let mut steps = STEPS;
            for _ in 0..BATCH {
                let Some(&(last_used, name)) = queue.peek() else {
                    break;
                };
                let walk = locked.edit(|table| walk(table, before, last_used, steps))?;
                before = walk.before;
                steps = walk.steps_left;
                if !walk.arrived {
                    break;
                }
                queue.next();
                let place = Place::After(before.map(|(slot, _)| slot));
                if let Some(slot) = locked.adopt(name, place)? {
                    // Somebody may have entered it meanwhile, further on.
                    let entered_here = locked.edit(|table| Ok(table.record(slot)?.last_used))?;
                    if entered_here <= last_used {
                        before = Some((slot, name));
                    }
                }
            }
        }
        Ok(())
    }

    /// Drops the entries whose files are gone.
    fn drop_vanished(&mut self) -> Result<(), Fault> {
        let mut from = Some(0);
        while let Some(start) = from {
            let mut locked = self.store.lock()?;
            let epoch = self.epoch;
            let (names, next) = locked.edit(|table| table.unseen(epoch, start, 1024))?;
            for name in names {
                // Looked at once more: a listing may miss files that are renamed meanwhile.
                locked.adopt(name, Place::After(None))?;
            }
            from = next;
        }
        Ok(())
    }
}

struct Walk {
    before: Option<(Slot, Name)>,
    arrived: bool,
    steps_left: usize,
}

/// Goes along the list of uses, from `before` if it is still there, to the last entry used no later
/// than `last_used`.
fn walk(
    table: &Table,
    before: Option<(Slot, Name)>,
    last_used: u64,
    mut steps: usize,
) -> Checked<Walk> {
    let mut before = before.filter(|&(slot, name)| {
        table
            .record(slot)
            .is_ok_and(|record| record.name == name && record.last_used <= last_used)
    });
    loop {
        let next = match before {
            Some((slot, _)) => table.newer(slot)?,
            None => table.oldest()?,
        };
        let Some(slot) = next else { break };
        let record = table.record(slot)?;
        if record.last_used > last_used {
            break;
        }
        if steps == 0 {
            return Ok(Walk {
                before,
                arrived: false,
                steps_left: 0,
            });
        }
        steps -= 1;
        before = Some((slot, record.name));
    }
    Ok(Walk {
        before,
        arrived: true,
        steps_left: steps,
    })
}

/// A file as the directory lists it.
struct Found {
    kind: FileKind,
    /// The name of a temporary file of another system.
    temp: Option<String>,
    inode: u64,
    /// Where the listing goes on after it.
    next: u64,
}

struct Listing<'a> {
    store: &'a Store,
    fd: OwnedFd,
    position: u64,
}

impl<'a> Listing<'a> {
    fn open(store: &'a Store, position: u64) -> Result<Self, Fault> {
        let fd = store.dir.open_listing();
        let fd =
            fd.map_err(|errno| Fault::io("list the store's directory", store.dir.path(), errno))?;
        Ok(Self {
            store,
            fd,
            position,
        })
    }

    /// The next files, about `limit` of them; `None` at the end.
    fn next(&mut self, limit: usize) -> Result<Option<Vec<Found>>, Fault> {
        // An entry takes 56 bytes here, so that one call gives about as many as are asked for.
        let mut memory = Vec::with_capacity(limit * 56);
        if self.position != 0 {
            let moved = rustix::fs::seek(&self.fd, SeekFrom::Start(self.position));
            moved.map_err(|_| Fault::Cursor)?;
        }
        let mut found = Vec::new();
        let mut entries = RawDir::new(&self.fd, memory.spare_capacity_mut());
        while found.len() < limit {
            let entry = match entries.next() {
                None => break,
                Some(Ok(entry)) => entry,
                Some(Err(Errno::INTR)) => continue,
                // The directory was removed.
                Some(Err(Errno::NOENT)) => break,
                Some(Err(errno)) => {
                    let path = self.store.dir.path();
                    return Err(Fault::io("list the store's directory", path, errno));
                }
            };
            let file_name = entry.file_name();
            let kind = FileKind::of(file_name.to_bytes());
            let temp = match kind {
                FileKind::OtherTemp => file_name.to_str().ok().map(str::to_owned),
                _ => None,
            };
            self.position = entry.next_entry_cookie();
            found.push(Found {
                kind,
                temp,
                inode: entry.ino(),
                next: self.position,
            });
        }
        Ok((!found.is_empty()).then_some(found))
    }
}
