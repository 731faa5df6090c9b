//! The words of the ledger file: slots, a hash table over them, and three lists through them.
//!
//! Nothing here trusts what it reads. A link that leads nowhere is [`Damaged`], never a panic; the
//! caller then relinks the slots and tries again.

mod entries;
mod relink;
mod slots;
mod words;

use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

pub(crate) use self::entries::{Place, Record, Writer};
pub(crate) use self::words::{Checked, Slot};

use self::words::{
    AT_REST, FILE_CHANGES, FIRST_LEN, MAGIC, SLOT_BYTES, VERSION, head, low, mix, name_of, words_of,
};
use super::boot;
use crate::directory::{self, Directory, retry};
use crate::layout::{Name, Token};
use crate::mmap::SharedWords;

pub(crate) const FILE_NAME: &str = ".ck-ledger";

/// What the files come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) entries: u64,
    pub(crate) entry_bytes: u64,
    pub(crate) reserved_bytes: u64,
}

/// When the directory was last compared with the ledger, and at what cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reconciled {
    /// Unix nanoseconds; 0 for never.
    pub(crate) at: u64,
    /// Change time of the directory before it began.
    pub(crate) directory_mtime: u64,
    pub(crate) nanos: u64,
}

#[derive(Debug)]
pub(crate) struct Table {
    file: OwnedFd,
    words: SharedWords,
    /// Bytes of the file that are mapped.
    len: u64,
    /// Steps along links since it was opened, to prove costs.
    #[cfg(test)]
    pub(crate) steps: std::cell::Cell<u64>,
}

impl Table {
    /// Opens the ledger, or makes an empty one when there is none or it is not one.
    pub(crate) fn open(dir: &Directory) -> Result<Self, Errno> {
        if let Some((file, stat)) = dir.open_file(FILE_NAME, OFlags::RDWR)? {
            if let Some(table) = Self::load(file, directory::size(&stat))? {
                return Ok(table);
            }
            tracing::warn!(path = %dir.join(FILE_NAME).display(), "the ledger is unusable and is made anew");
        }
        Self::create(dir)
    }

    fn load(file: OwnedFd, len: u64) -> Result<Option<Self>, Errno> {
        let len = len - len % SLOT_BYTES;
        if len < FIRST_LEN {
            return Ok(None);
        }
        let table = Self::map(file, len)?;
        let known = table.words.load(head::MAGIC) == Some(MAGIC)
            && table.words.load(head::VERSION) == Some(VERSION)
            && table.slots().is_ok();
        Ok(known.then_some(table))
    }

    /// Makes an empty ledger in the place of whatever lies there.
    pub(crate) fn create(dir: &Directory) -> Result<Self, Errno> {
        dir.unlink(FILE_NAME)?;
        let file = dir.create_file(FILE_NAME, OFlags::RDWR)?;
        let made = allocate(&file, 0, FIRST_LEN).and_then(|()| Self::map(file, FIRST_LEN));
        let table = made.inspect_err(|_| {
            let _ = dir.unlink(FILE_NAME);
        })?;
        let [high, low] = boot::id();
        // The magic comes last: a ledger that was not finished is not one.
        for (word, value) in [
            (head::VERSION, VERSION),
            (head::BOOT, high),
            (head::BOOT + 1, low),
            (head::SEAL, mix(&[0; head::SEALED.len()])),
            (head::MAGIC, MAGIC),
        ] {
            table.words.store(word, value);
        }
        Ok(table)
    }

    fn map(file: OwnedFd, len: u64) -> Result<Self, Errno> {
        let words = map_words(&file, len)?;
        Ok(Self {
            file,
            words,
            len,
            #[cfg(test)]
            steps: std::cell::Cell::new(0),
        })
    }

    /// Follows growth by other processes; `false` when the file lost its name or its end and must be
    /// opened anew.
    pub(crate) fn refresh(&mut self) -> bool {
        let Ok(stat) = rustix::fs::fstat(&self.file) else {
            return false;
        };
        let len = u64::try_from(stat.st_size).unwrap_or_default();
        if stat.st_nlink == 0 || len < self.len {
            return false;
        }
        let len = len - len % SLOT_BYTES;
        if len > self.len {
            let Ok(words) = map_words(&self.file, len) else {
                return false;
            };
            self.words = words;
            self.len = len;
        }
        true
    }

    /// Bytes of the ledger file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// By how many bytes [`Table::grow`] would lengthen the file.
    pub(crate) fn growth(&self) -> u64 {
        const STEP: u64 = 64 * 1024;
        if self.len < 1024 * 1024 {
            self.len
        } else {
            (self.len / 4).next_multiple_of(STEP)
        }
    }

    /// Lengthens the file. Its blocks are allocated at once: a store through a mapping could not
    /// report a full disk.
    pub(crate) fn grow(&mut self) -> Result<(), Errno> {
        let len = self.len + self.growth();
        allocate(&self.file, self.len, len)?;
        self.words = map_words(&self.file, len)?;
        self.len = len;
        Ok(())
    }

    pub(crate) fn totals(&self) -> Checked<Totals> {
        Ok(Totals {
            entries: self.head(head::ENTRIES)?,
            entry_bytes: self.head(head::ENTRY_BYTES)?,
            reserved_bytes: self.head(head::RESERVED_BYTES)?,
        })
    }

    /// Whether a slot can be taken without growth.
    pub(crate) fn has_free_slot(&self) -> Checked<bool> {
        Ok(self.head(head::FREE)? != 0 || u64::from(self.slots()?) < self.capacity())
    }

    /// Whether the machine was started anew since the ledger was made or relinked.
    pub(crate) fn is_of_another_boot(&self) -> bool {
        let [high, low] = boot::id();
        self.words.load(head::BOOT) != Some(high) || self.words.load(head::BOOT + 1) != Some(low)
    }

    /// Whether a process died in the middle of a change; `Some` with what it was about to do to files.
    pub(crate) fn interrupted(&self) -> Option<Option<(Name, Token)>> {
        match self.words.load(head::STATE)? {
            AT_REST => None,
            FILE_CHANGES => {
                let word = |index| self.words.load(index).unwrap_or_default();
                let name = name_of(word(head::INTENT), word(head::INTENT + 1));
                Some(Some((name, Token(word(head::INTENT + 2)))))
            }
            _ => Some(None),
        }
    }

    /// Whether totals and list ends are those that were written together.
    pub(crate) fn is_sealed(&self) -> bool {
        self.seal()
            .is_ok_and(|seal| self.words.load(head::SEAL) == Some(seal))
    }

    /// Makes the bytes of all entries `bytes`, soundly, for tests.
    #[cfg(test)]
    pub(crate) fn forge_entry_bytes(&self, bytes: u64) {
        self.words.store(head::ENTRY_BYTES, bytes);
        self.words.store(head::SEAL, self.seal().unwrap());
    }

    /// Notes that the entry file `name` or the temporary file of `token` is about to change.
    pub(crate) fn intend(&self, name: Name, token: Option<Token>) {
        let [high, low] = words_of(name);
        self.words.store(head::INTENT, high);
        self.words.store(head::INTENT + 1, low);
        self.words
            .store(head::INTENT + 2, token.map_or(0, |token| token.0));
        self.words.store(head::STATE, FILE_CHANGES);
    }

    /// Notes that ledger and files agree again.
    pub(crate) fn settle(&self) {
        self.words.store(head::STATE, AT_REST);
    }

    pub(crate) fn reconciled(&self) -> Checked<Reconciled> {
        Ok(Reconciled {
            at: self.head(head::RECONCILED_AT)?,
            directory_mtime: self.head(head::RECONCILED_MTIME)?,
            nanos: self.head(head::RECONCILE_NANOS)?,
        })
    }

    pub(crate) fn set_reconciled(&self, reconciled: Reconciled) -> Checked<()> {
        self.set_head(head::RECONCILED_MTIME, reconciled.directory_mtime)?;
        self.set_head(head::RECONCILE_NANOS, reconciled.nanos)?;
        self.set_head(head::RECONCILED_AT, reconciled.at)
    }

    /// Starts a new epoch and returns it.
    pub(crate) fn next_epoch(&self) -> Checked<u32> {
        let epoch = low(self.head(head::EPOCH)?).wrapping_add(1);
        self.set_head(head::EPOCH, u64::from(epoch))?;
        Ok(epoch)
    }

    pub(crate) fn writers_checked_at(&self) -> Checked<u64> {
        self.head(head::WRITERS_CHECKED_AT)
    }

    pub(crate) fn set_writers_checked_at(&self, nanos: u64) -> Checked<()> {
        self.set_head(head::WRITERS_CHECKED_AT, nanos)
    }
}

fn map_words(file: &OwnedFd, len: u64) -> Result<SharedWords, Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::FBIG)?;
    SharedWords::map(file, len).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Gives the file real blocks between two offsets.
fn allocate(file: &OwnedFd, from: u64, to: u64) -> Result<(), Errno> {
    match retry(|| rustix::fs::fallocate(file, FallocateFlags::empty(), from, to - from)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        done => return done,
    }
    let zeros = [0; 4096];
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        let written = retry(|| rustix::io::pwrite(file, &zeros[..len], at))?;
        at += written as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
