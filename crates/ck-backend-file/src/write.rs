use std::io::IoSlice;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use ck_core::{
    BoxFuture, EntryWriter, Key, Outcome, Rejection, Result, WriteMode, WriteOptions, offload,
};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use crate::builder::Durability;
use crate::directory::{self, retry, status};
use crate::error::Fault;
use crate::layout::{self, HEADER_LEN, Name, Token};
use crate::ledger::{Locked, Place, Record, Slot, Writer, unix_nanos};
use crate::room::{Need, make_entry_room, make_room, never_fits};
use crate::store::Store;
use crate::version::admits;

/// Files of up to this many bytes are written while the lock is held: taking it twice costs more.
const SMALL_FILE: u64 = 128 * 1024;
/// Slices per call; the least that systems allow.
const MAX_SLICES: usize = 1024;
/// Parts from this size on are written by calls of their own. The kernel keeps what one call writes
/// in large pages, and maps a large page whole when any of it is touched: written apart, a column
/// read from a mapping brings in no more than itself.
const LARGE_PART: usize = 64 * 1024;
/// Writes of less than this in all end at a multiple of [`ALIGNED`], and what is left goes out with the next one: the
/// kernel makes its pages larger then, and each costs about the same.
const SMALL_WRITE: u64 = 256 * 1024;
const ALIGNED: u64 = 64 * 1024;

/// Stores an entry whose bytes are all at hand.
pub(crate) fn put(
    store: &Arc<Store>,
    key: &Key,
    head: &Bytes,
    body: &[Bytes],
    options: WriteOptions,
) -> Result<Outcome, Fault> {
    if head.len() != options.head_len {
        return Err(Fault::HeadLength {
            promised: options.head_len,
            got: head.len(),
        });
    }
    let len = body.iter().fold(head.len() as u64, |len, part| {
        len.saturating_add(part.len() as u64)
    });
    if len > store.settings.value_limit_bytes {
        return Ok(Outcome::Rejected(too_large(store, len)));
    }
    if store.settings.durability == Durability::Fast && len + HEADER_LEN as u64 <= SMALL_FILE {
        return put_small(store, Name::of(key), head, body, len, options);
    }
    let mut draft = match Draft::create(store, key, options.with_size_hint(Some(len)))? {
        ControlFlow::Continue(draft) => draft,
        ControlFlow::Break(rejection) => return Ok(Outcome::Rejected(rejection)),
    };
    match draft.write(body)? {
        ControlFlow::Continue(()) => draft.commit(head),
        ControlFlow::Break(rejection) => Ok(Outcome::Rejected(rejection)),
    }
}

/// Writes and publishes in one go, under the lock: nothing needs to be reserved, and if this process
/// is killed the journal names the temporary file.
fn put_small(
    store: &Arc<Store>,
    name: Name,
    head: &Bytes,
    body: &[Bytes],
    len: u64,
    options: WriteOptions,
) -> Result<Outcome, Fault> {
    let header = store.header(options);
    let bytes = len + HEADER_LEN as u64;
    let mut locked = store.lock()?;
    if !admits(&locked, name, options.mode)? {
        return Ok(Outcome::Rejected(Rejection::Superseded));
    }
    let need = Need {
        bytes,
        slot: true,
        entry: Some(name),
        keep_old: false,
    };
    if let ControlFlow::Break(rejection) = make_room(&mut locked, &store.settings, need)? {
        return Ok(Outcome::Rejected(rejection));
    }
    if let ControlFlow::Break(rejection) = make_entry_room(&mut locked, &store.settings, name)? {
        return Ok(Outcome::Rejected(rejection));
    }
    let token = Token::fresh();
    let file = locked.journal(name, Some(token), |locked| {
        let (file, temp) = create_temp(locked, name, token)?;
        let parts = [&header[..], head]
            .into_iter()
            .chain(body.iter().map(|part| &part[..]));
        let published = write_all(&file, parts, 0)
            .and_then(|()| status(&file))
            .map_err(|errno| store.fault("write an entry", name, errno))
            .and_then(|stat| publish(locked, store, &temp, name).map(|()| stat.stx_ino));
        let inode = published.inspect_err(|_| {
            let _ = store.dir.unlink(&temp);
        })?;
        let record = Record {
            name,
            size: bytes,
            inode,
            last_used: unix_nanos(),
        };
        locked.edit(|table| table.put(record, Place::Newest))?;
        Ok(file)
    })?;
    let reconcile = locked.should_reconcile();
    drop(locked);
    drop(file);
    if reconcile {
        store.reconcile_aside();
    }
    Ok(Outcome::Stored { bytes })
}

/// Starts a new entry.
pub(crate) fn create(
    store: &Arc<Store>,
    key: &Key,
    options: WriteOptions,
) -> Result<ControlFlow<Rejection, FileWriter>, Fault> {
    Ok(match Draft::create(store, key, options)? {
        ControlFlow::Continue(draft) => ControlFlow::Continue(FileWriter {
            draft: Some(Box::new(draft)),
        }),
        ControlFlow::Break(rejection) => ControlFlow::Break(rejection),
    })
}

/// An entry being written.
pub(crate) struct FileWriter {
    /// `None` while a write is under way, and after one failed.
    draft: Option<Box<Draft>>,
}

impl EntryWriter for FileWriter {
    fn write(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>> {
        Box::pin(async move {
            let mut draft = self.draft.take().ok_or(Fault::WriterBroken)?;
            let (draft, written) = offload(move || {
                let written = draft.write(&parts);
                // The parts may be the last reference to much memory: free it here.
                drop(parts);
                (draft, written)
            })
            .await;
            let written = written?;
            self.draft = Some(draft);
            Ok(written)
        })
    }

    fn commit(mut self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>> {
        Box::pin(async move {
            let draft = self.draft.take().ok_or(Fault::WriterBroken)?;
            Ok(offload(move || draft.commit(&head)).await?)
        })
    }
}

/// A temporary file and what is reserved for it. Dropping it removes both.
struct Draft {
    store: Arc<Store>,
    name: Name,
    token: Token,
    temp: String,
    options: WriteOptions,
    slot: Slot,
    file: Option<OwnedFd>,
    /// Bytes of the file, so far or as they will be at least.
    len: u64,
    /// The last of them, which are not written yet.
    unwritten: Vec<u8>,
    reserved: u64,
    /// Bytes whose blocks were asked for.
    allocated: u64,
}

impl Draft {
    fn create(
        store: &Arc<Store>,
        key: &Key,
        options: WriteOptions,
    ) -> Result<ControlFlow<Rejection, Self>, Fault> {
        let name = Name::of(key);
        let head_len = options.head_len as u64;
        let hint = options.size_hint.map(|hint| hint.max(head_len));
        let least = hint.unwrap_or(head_len);
        if least > store.settings.value_limit_bytes {
            return Ok(ControlFlow::Break(too_large(store, least)));
        }
        let reserved = least + HEADER_LEN as u64;
        let mut locked = store.lock()?;
        // It will be decided at commit; what is lost already need not be written.
        if !admits(&locked, name, options.mode)? {
            return Ok(ControlFlow::Break(Rejection::Superseded));
        }
        let need = Need {
            bytes: reserved,
            slot: true,
            entry: Some(name),
            keep_old: hint.is_none() || matches!(options.mode, WriteMode::Update(_)),
        };
        if let ControlFlow::Break(rejection) = make_room(&mut locked, &store.settings, need)? {
            return Ok(ControlFlow::Break(rejection));
        }
        let token = Token::fresh();
        let (file, temp, slot) = locked.journal(name, Some(token), |locked| {
            let (file, temp) = create_temp(locked, name, token)?;
            // Nobody else knows the file yet, so this lock is free.
            let announced = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|errno| store.fault("lock a temporary file", name, errno))
                .and_then(|()| {
                    let writer = Writer {
                        name,
                        token,
                        reserved,
                    };
                    locked.edit(|table| table.put_writer(writer, unix_nanos()))
                });
            match announced {
                Ok(slot) => Ok((file, temp, slot)),
                Err(fault) => {
                    let _ = store.dir.unlink(&temp);
                    Err(fault)
                }
            }
        })?;
        let reconcile = locked.should_reconcile();
        drop(locked);
        if reconcile {
            store.reconcile_aside();
        }
        let store = Arc::clone(store);
        let len = head_len + HEADER_LEN as u64;
        let mut draft = Self {
            store,
            name,
            token,
            temp,
            options,
            slot,
            file: Some(file),
            len,
            unwritten: Vec::new(),
            reserved,
            allocated: 0,
        };
        if hint.is_some() {
            draft.allocate(reserved)?;
        }
        Ok(ControlFlow::Continue(draft))
    }

    fn write(&mut self, parts: &[Bytes]) -> Result<ControlFlow<Rejection>, Fault> {
        let more = parts
            .iter()
            .fold(0_u64, |len, part| len.saturating_add(part.len() as u64));
        let len = self.len.saturating_add(more);
        if len > self.store.settings.file_limit() {
            let bytes = len.saturating_sub(HEADER_LEN as u64);
            return Ok(ControlFlow::Break(too_large(&self.store, bytes)));
        }
        if len > self.reserved
            && let ControlFlow::Break(rejection) = self.reserve(len)?
        {
            return Ok(ControlFlow::Break(rejection));
        }
        // Twice as much each time; what is too much is given back at the end.
        if len > self.allocated {
            // When the disk is full, what fits is written, and the rest says why it is not.
            let _ = self.allocate(self.reserved.min(2 * len));
        }
        let offset = self.len - self.unwritten.len() as u64;
        let end = match more < SMALL_WRITE {
            true => len - len % ALIGNED,
            false => len,
        };
        let parts = parts.iter().map(|part| &part[..]);
        let parts = std::iter::once(&self.unwritten[..]).chain(parts);
        let (now, later) = split(parts, end.saturating_sub(offset));
        write_all(self.file()?, now.into_iter(), offset).map_err(|errno| self.fault(errno))?;
        self.unwritten = later.concat();
        self.len = len;
        Ok(ControlFlow::Continue(()))
    }

    fn commit(mut self, head: &Bytes) -> Result<Outcome, Fault> {
        if head.len() != self.options.head_len {
            return Err(Fault::HeadLength {
                promised: self.options.head_len,
                got: head.len(),
            });
        }
        let header = self.store.header(self.options);
        let store = Arc::clone(&self.store);
        let durable = store.settings.durability == Durability::Synced;
        let finished = self.file().and_then(|file| {
            let finish = || {
                write_all(file, [&header[..], head].into_iter(), 0)?;
                let offset = self.len - self.unwritten.len() as u64;
                write_all(file, [&self.unwritten[..]].into_iter(), offset)?;
                if self.len < self.allocated {
                    retry(|| rustix::fs::ftruncate(file, self.len))?;
                }
                if durable {
                    retry(|| rustix::fs::fsync(file))?;
                }
                status(file)
            };
            finish().map_err(|errno| self.fault(errno))
        })?;
        if directory::size(&finished) != self.len {
            return Err(self.fault(Errno::IO));
        }

        let mut locked = store.lock()?;
        let name = self.name;
        if !admits(&locked, name, self.options.mode)? {
            return Ok(Outcome::Rejected(Rejection::Superseded));
        }
        // The ledger may have been made anew while we wrote.
        if !self.is_announced(&locked)
            && let ControlFlow::Break(rejection) = self.announce_again(&mut locked, self.len)?
        {
            return Ok(Outcome::Rejected(rejection));
        }
        if let ControlFlow::Break(rejection) = make_entry_room(&mut locked, &store.settings, name)?
        {
            return Ok(Outcome::Rejected(rejection));
        }
        locked.journal(name, Some(self.token), |locked| {
            // Readers of other systems fail on a file that somebody has locked.
            rustix::fs::flock(self.file()?, FlockOperation::Unlock)
                .map_err(|errno| store.fault("unlock a temporary file", name, errno))?;
            publish(locked, &store, &self.temp, name)?;
            let (slot, size) = (self.slot, self.len);
            let record = Record {
                name,
                size,
                inode: finished.stx_ino,
                last_used: unix_nanos(),
            };
            // The file has its final name: nothing is left to clean up.
            let file = self.file.take();
            locked.edit(|table| {
                if table
                    .writer(slot)
                    .is_some_and(|writer| writer.token == self.token)
                {
                    table.remove_writer(slot)?;
                }
                table.put(record, Place::Newest)
            })?;
            Ok(file)
        })?;
        drop(locked);
        if durable {
            let synced = store.dir.sync();
            synced.map_err(|errno| Fault::io("sync the directory", store.dir.path(), errno))?;
        }
        Ok(Outcome::Stored { bytes: self.len })
    }

    /// Reserves at least `len` bytes in all, and some more if they are to be had.
    fn reserve(&mut self, len: u64) -> Result<ControlFlow<Rejection>, Fault> {
        let store = Arc::clone(&self.store);
        let settings = &store.settings;
        let mut locked = store.lock()?;
        if !self.is_announced(&locked)
            && let ControlFlow::Break(rejection) =
                self.announce_again(&mut locked, self.reserved)?
        {
            return Ok(ControlFlow::Break(rejection));
        }
        let generous = len
            .saturating_add(settings.chunk())
            .min(settings.file_limit());
        let mut outcome = ControlFlow::Continue(());
        for total in [generous, len] {
            let bytes = total - self.reserved;
            let need = Need {
                bytes,
                slot: false,
                entry: Some(self.name),
                keep_old: true,
            };
            outcome = make_room(&mut locked, settings, need)?;
            if outcome.is_continue() {
                let slot = self.slot;
                locked.edit(|table| table.reserve(slot, total))?;
                self.reserved = total;
                break;
            }
        }
        if outcome.is_break()
            && let Some(rejection) = never_fits(&locked, settings, len)?
        {
            outcome = ControlFlow::Break(rejection);
        }
        Ok(outcome)
    }

    fn is_announced(&self, locked: &Locked<'_>) -> bool {
        let writer = locked
            .table()
            .ok()
            .and_then(|table| table.writer(self.slot));
        writer.is_some_and(|writer| writer.token == self.token)
    }

    fn announce_again(
        &mut self,
        locked: &mut Locked<'_>,
        reserved: u64,
    ) -> Result<ControlFlow<Rejection>, Fault> {
        let need = Need {
            bytes: reserved,
            slot: true,
            entry: Some(self.name),
            keep_old: true,
        };
        let outcome = make_room(locked, &self.store.settings, need)?;
        if outcome.is_continue() {
            let writer = Writer {
                name: self.name,
                token: self.token,
                reserved,
            };
            self.slot = locked.edit(|table| table.put_writer(writer, unix_nanos()))?;
            self.reserved = reserved;
        }
        Ok(outcome)
    }

    /// Has the blocks of the first `len` bytes allocated, where the file system can: a full disk is noticed before they
    /// are written, and blocks cost far less together than write by write.
    fn allocate(&mut self, len: u64) -> Result<(), Fault> {
        if len <= SMALL_FILE {
            return Ok(());
        }
        let more = self.allocated..len;
        self.allocated = len;
        let file = self.file()?;
        let allocate = || {
            let len = more.end - more.start;
            rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, more.start, len)
        };
        match retry(allocate) {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(self.fault(errno)),
            _ => Ok(()),
        }
    }

    fn file(&self) -> Result<&OwnedFd, Fault> {
        self.file.as_ref().ok_or(Fault::WriterBroken)
    }

    fn fault(&self, errno: Errno) -> Fault {
        self.store.fault("write an entry", self.name, errno)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // The descriptor is there until the file has its final name.
        let Some(file) = self.file.take() else { return };
        let _ = self.store.dir.unlink(&self.temp);
        drop(file);
        self.store.ledger.give_up(self.slot, self.token);
    }
}

impl Store {
    fn header(&self, options: WriteOptions) -> [u8; HEADER_LEN] {
        layout::header(
            options.expiry,
            options.mappable && self.settings.record_mappable,
        )
    }
}

fn too_large(store: &Store, bytes: u64) -> Rejection {
    Rejection::ValueTooLarge {
        bytes,
        limit: store.settings.value_limit_bytes,
    }
}

/// Gives the temporary file its final name.
fn publish(locked: &mut Locked<'_>, store: &Store, temp: &str, name: Name) -> Result<(), Fault> {
    let old = locked.edit(|table| match table.find(name)? {
        Some(slot) => table.record(slot).map(Some),
        None => Ok(None),
    })?;
    let to = name.to_string();
    // With `Synced` the new file is on the disk already, and one step is safer than two.
    let replaced = match old {
        Some(old) if store.settings.durability == Durability::Fast => {
            locked.bury(name, old.size);
            store.dir.stat(&to).and_then(|stat| match stat {
                Some(_) => store.dir.replace(temp, &to),
                None => store.dir.rename(temp, &to),
            })
        }
        _ => store.dir.rename(temp, &to),
    };
    replaced.map_err(|errno| match errno {
        // Other systems remove temporary files that were not written to for a minute.
        Errno::NOENT if store.dir.exists() => Fault::TempGone {
            path: store.dir.join(temp),
        },
        Errno::NOENT => Fault::DirectoryGone {
            dir: store.dir.path().to_owned(),
        },
        errno => store.fault("publish an entry", name, errno),
    })
}

fn create_temp(locked: &Locked<'_>, name: Name, token: Token) -> Result<(OwnedFd, String), Fault> {
    let temp = token.temp_name(name);
    let dir = locked.directory();
    match dir.create_file(&temp, OFlags::WRONLY) {
        Ok(file) => Ok((file, temp)),
        Err(errno) => Err(dir.creation_fault("create a temporary file", &temp, errno)),
    }
}

/// The first `len` bytes of the parts, and the rest.
fn split<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    mut len: u64,
) -> (Vec<&'a [u8]>, Vec<&'a [u8]>) {
    let halves = parts.map(|part| {
        let at = usize::try_from(len).map_or(part.len(), |len| len.min(part.len()));
        len -= at as u64;
        part.split_at(at)
    });
    halves.unzip()
}

/// Writes all parts from `offset` on: large ones by themselves, small ones together.
fn write_all<'a>(
    file: &OwnedFd,
    parts: impl Iterator<Item = &'a [u8]>,
    mut offset: u64,
) -> Result<(), Errno> {
    let mut slices: Vec<IoSlice<'_>> = parts
        .filter(|part| !part.is_empty())
        .map(IoSlice::new)
        .collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let small = left.iter().take_while(|part| part.len() < LARGE_PART);
        let batch = &left[..small.count().clamp(1, MAX_SLICES)];
        let written = retry(|| rustix::io::pwritev(file, batch, offset))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        offset += written as u64;
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::FileBackend;

    #[test]
    fn what_is_planted_at_a_temporary_name_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        std::fs::write(&outside, "precious").unwrap();
        let dir = temp.path().join("store");
        let store = FileBackend::open(&dir).unwrap().into_store();
        let locked = store.lock().unwrap();
        let name = Name::of(&Key::new("key"));
        let [link, file, nothing] = [(); 3].map(|()| Token::fresh());
        symlink(&outside, dir.join(link.temp_name(name))).unwrap();
        std::fs::hard_link(&outside, dir.join(file.temp_name(name))).unwrap();
        for token in [link, file] {
            let error = ck_core::Error::from(create_temp(&locked, name, token).unwrap_err());
            assert_eq!(error.kind(), ck_core::ErrorKind::Permanent, "{error}");
        }
        assert!(create_temp(&locked, name, nothing).is_ok());
        assert_eq!(std::fs::read(&outside).unwrap(), b"precious");
    }
}
