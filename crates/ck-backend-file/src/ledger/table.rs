//! The words of the ledger file: slots, a hash table over them, and three lists through them.
//!
//! Nothing here trusts what it reads. A link that leads nowhere is [`Damaged`], never a panic; the
//! caller then relinks the slots and tries again.

use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::boot;
use crate::directory::{self, Directory, retry};
use crate::layout::{Name, Token};
use crate::mmap::SharedWords;

pub(crate) const FILE_NAME: &str = ".ck-ledger";

const MAGIC: u64 = u64::from_le_bytes(*b"CKLEDGER");
const VERSION: u64 = 1;

const HEADER_BYTES: u64 = 4096;
const HEADER_WORDS: usize = 512;
const SLOT_BYTES: u64 = 64;
const SLOT_WORDS: usize = 8;
/// The header page and 64 slots.
const FIRST_LEN: u64 = 8192;

/// Words of the header.
mod head {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 1;
    /// Slots that were ever in use; also the number of hash buckets.
    pub(super) const SLOTS: usize = 2;
    pub(super) const ENTRIES: usize = 3;
    pub(super) const ENTRY_BYTES: usize = 4;
    pub(super) const RESERVED_BYTES: usize = 5;
    /// First and last of the entries, least recently used first.
    pub(super) const USES: usize = 6;
    /// First and last of the writers, oldest first.
    pub(super) const WRITERS: usize = 7;
    pub(super) const FREE: usize = 8;
    /// 0 at rest, 1 while links change, 2 while the file named by the intent changes too.
    pub(super) const STATE: usize = 9;
    /// Two words of name, then a token.
    pub(super) const INTENT: usize = 10;
    pub(super) const BOOT: usize = 13;
    pub(super) const RECONCILED_AT: usize = 15;
    pub(super) const RECONCILED_MTIME: usize = 16;
    pub(super) const RECONCILE_NANOS: usize = 17;
    pub(super) const EPOCH: usize = 18;
    pub(super) const WRITERS_CHECKED_AT: usize = 19;
}

/// Words of a slot.
mod field {
    pub(super) const NAME: usize = 0;
    /// Bytes of the file; of a writer: bytes reserved.
    pub(super) const SIZE: usize = 2;
    pub(super) const LAST_USED: usize = 3;
    /// The file's inode; of a writer: its token.
    pub(super) const INODE: usize = 4;
    /// Low half: previous in its list. High half: next.
    pub(super) const LIST: usize = 5;
    /// Low half: next in its bucket. High half: first of the bucket that has this slot's number.
    pub(super) const HASH: usize = 6;
    /// Low half: state. High half: the epoch of the last reconcile that saw the file.
    pub(super) const STATE: usize = 7;
}

const AT_REST: u64 = 0;
const LINKS_CHANGE: u64 = 1;
const FILE_CHANGES: u64 = 2;

const FREE: u32 = 0;
const ENTRY: u32 = 1;
const WRITER: u32 = 2;

/// The ledger contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

pub(crate) type Checked<T> = Result<T, Damaged>;

/// A slot number, from 1; 0 stands for none in links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl Slot {
    fn from_link(link: u32) -> Option<Self> {
        (link != 0).then_some(Self(link))
    }
}

fn link(slot: Option<Slot>) -> u32 {
    slot.map_or(0, |slot| slot.0)
}

/// What a slot says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: Name,
    /// Bytes of the file.
    pub(crate) size: u64,
    pub(crate) inode: u64,
    /// Unix nanoseconds.
    pub(crate) last_used: u64,
}

/// What a slot says of a writer at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) name: Name,
    pub(crate) token: Token,
    pub(crate) reserved: u64,
}

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

/// Where to put an entry among the others.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Used just now.
    Newest,
    /// Right after this one, or before all.
    After(Option<Slot>),
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
        let Ok(stat) = rustix::fs::fstat(&self.file) else { return false };
        let len = directory::size(&stat);
        if stat.st_nlink == 0 || len < self.len {
            return false;
        }
        let len = len - len % SLOT_BYTES;
        if len > self.len {
            let Ok(words) = map_words(&self.file, len) else { return false };
            self.words = words;
            self.len = len;
        }
        true
    }

    /// Bytes of the ledger file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// By how many bytes [`Table::grow`] would lengthen the file.
    pub(crate) fn growth(&self) -> u64 {
        const STEP: u64 = 64 * 1024;
        if self.len < 1024 * 1024 { self.len } else { (self.len / 4).next_multiple_of(STEP) }
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

    /// Notes that the entry file `name` or the temporary file of `token` is about to change.
    pub(crate) fn intend(&self, name: Name, token: Option<Token>) {
        let [high, low] = words_of(name);
        self.words.store(head::INTENT, high);
        self.words.store(head::INTENT + 1, low);
        self.words.store(head::INTENT + 2, token.map_or(0, |token| token.0));
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

    // ---- entries

    /// The slot of an entry.
    pub(crate) fn find(&self, name: Name) -> Checked<Option<Slot>> {
        let slots = self.slots()?;
        if slots == 0 {
            return Ok(None);
        }
        let mut next = high(self.get(bucket(words_of(name)[0], slots), field::HASH)?);
        for _ in 0..slots {
            let Some(slot) = Slot::from_link(next) else { return Ok(None) };
            self.step();
            self.expect(slot, ENTRY)?;
            if self.name(slot)? == name {
                return Ok(Some(slot));
            }
            next = low(self.get(slot, field::HASH)?);
        }
        Err(Damaged)
    }

    pub(crate) fn record(&self, slot: Slot) -> Checked<Record> {
        self.expect(slot, ENTRY)?;
        Ok(Record {
            name: self.name(slot)?,
            size: self.get(slot, field::SIZE)?,
            inode: self.get(slot, field::INODE)?,
            last_used: self.get(slot, field::LAST_USED)?,
        })
    }

    /// The least recently used entry.
    pub(crate) fn oldest(&self) -> Checked<Option<Slot>> {
        Ok(Slot::from_link(low(self.head(head::USES)?)))
    }

    /// The entry used next after `slot`.
    pub(crate) fn newer(&self, slot: Slot) -> Checked<Option<Slot>> {
        self.step();
        self.expect(slot, ENTRY)?;
        Ok(Slot::from_link(high(self.get(slot, field::LIST)?)))
    }

    /// Adds an entry, or brings the one of this name up to date and moves it to `place`.
    pub(crate) fn put(&self, record: Record, place: Place) -> Checked<Slot> {
        if let Some(slot) = self.find(record.name)? {
            return self.edit(|| {
                self.add_total(head::ENTRY_BYTES, self.get(slot, field::SIZE)?, record.size)?;
                self.set(slot, field::SIZE, record.size)?;
                self.set(slot, field::INODE, record.inode)?;
                if let Place::Newest = place {
                    self.unlink(head::USES, slot)?;
                    self.link_entry(slot, record.last_used, place)?;
                }
                self.mark(slot)?;
                Ok(slot)
            });
        }
        self.edit(|| {
            let slot = self.take_slot()?;
            let [name_high, name_low] = words_of(record.name);
            self.set(slot, field::NAME, name_high)?;
            self.set(slot, field::NAME + 1, name_low)?;
            self.set(slot, field::SIZE, record.size)?;
            self.set(slot, field::INODE, record.inode)?;
            self.set_state(slot, ENTRY)?;
            self.link_bucket(slot, name_high)?;
            self.link_entry(slot, record.last_used, place)?;
            self.add_total(head::ENTRY_BYTES, 0, record.size)?;
            self.add_total(head::ENTRIES, 0, 1)?;
            self.mark(slot)?;
            Ok(slot)
        })
    }

    /// Makes an entry the most recently used one.
    pub(crate) fn touch(&self, slot: Slot, now: u64) -> Checked<()> {
        if high(self.head(head::USES)?) == slot.0 {
            return self.set(slot, field::LAST_USED, now.max(self.get(slot, field::LAST_USED)?));
        }
        self.edit(|| {
            self.unlink(head::USES, slot)?;
            self.link_entry(slot, now, Place::Newest)
        })
    }

    pub(crate) fn remove(&self, slot: Slot) -> Checked<()> {
        self.edit(|| {
            self.expect(slot, ENTRY)?;
            self.unlink_bucket(slot)?;
            self.unlink(head::USES, slot)?;
            self.add_total(head::ENTRY_BYTES, self.get(slot, field::SIZE)?, 0)?;
            self.add_total(head::ENTRIES, 1, 0)?;
            self.give_slot(slot)
        })
    }

    /// Notes that the current epoch saw the entry's file.
    pub(crate) fn mark(&self, slot: Slot) -> Checked<()> {
        let epoch = low(self.head(head::EPOCH)?);
        let state = low(self.get(slot, field::STATE)?);
        self.set(slot, field::STATE, join(state, epoch))
    }

    /// The entries among the slots from number `from` on that `epoch` has not seen, `limit` slots at
    /// most, and where to go on; `None` at the end.
    pub(crate) fn unseen(
        &self,
        epoch: u32,
        from: u32,
        limit: u32,
    ) -> Checked<(Vec<Name>, Option<u32>)> {
        let slots = self.slots()?;
        let end = slots.min(from.saturating_add(limit));
        let mut names = Vec::new();
        for number in from..end {
            let slot = Slot(number + 1);
            let state = self.get(slot, field::STATE)?;
            if low(state) == ENTRY && high(state) != epoch {
                names.push(self.name(slot)?);
            }
        }
        Ok((names, (end < slots).then_some(end)))
    }

    // ---- writers

    /// Adds a writer.
    pub(crate) fn put_writer(&self, writer: Writer, now: u64) -> Checked<Slot> {
        self.edit(|| {
            let slot = self.take_slot()?;
            let [name_high, name_low] = words_of(writer.name);
            self.set(slot, field::NAME, name_high)?;
            self.set(slot, field::NAME + 1, name_low)?;
            self.set(slot, field::SIZE, writer.reserved)?;
            self.set(slot, field::LAST_USED, now)?;
            self.set(slot, field::INODE, writer.token.0)?;
            self.set_state(slot, WRITER)?;
            let last = high(self.head(head::WRITERS)?);
            self.link_after(head::WRITERS, slot, Slot::from_link(last))?;
            self.add_total(head::RESERVED_BYTES, 0, writer.reserved)?;
            Ok(slot)
        })
    }

    /// Sets what a writer has reserved.
    pub(crate) fn reserve(&self, slot: Slot, bytes: u64) -> Checked<()> {
        self.edit(|| {
            self.expect(slot, WRITER)?;
            self.add_total(head::RESERVED_BYTES, self.get(slot, field::SIZE)?, bytes)?;
            self.set(slot, field::SIZE, bytes)
        })
    }

    pub(crate) fn remove_writer(&self, slot: Slot) -> Checked<()> {
        self.edit(|| {
            self.expect(slot, WRITER)?;
            self.unlink(head::WRITERS, slot)?;
            self.add_total(head::RESERVED_BYTES, self.get(slot, field::SIZE)?, 0)?;
            self.give_slot(slot)
        })
    }

    /// The writer in `slot`; `None` when the slot is no longer a writer's.
    pub(crate) fn writer(&self, slot: Slot) -> Option<Writer> {
        self.expect(slot, WRITER).ok()?;
        Some(Writer {
            name: self.name(slot).ok()?,
            token: Token(self.get(slot, field::INODE).ok()?),
            reserved: self.get(slot, field::SIZE).ok()?,
        })
    }

    /// All writers, oldest first.
    pub(crate) fn writers(&self) -> Checked<Vec<(Slot, Writer)>> {
        let mut writers = Vec::new();
        let mut next = low(self.head(head::WRITERS)?);
        for _ in 0..=self.slots()? {
            let Some(slot) = Slot::from_link(next) else { return Ok(writers) };
            writers.push((slot, self.writer(slot).ok_or(Damaged)?));
            next = high(self.get(slot, field::LIST)?);
        }
        Err(Damaged)
    }

    // ---- repair

    /// Makes all links and totals anew from what the slots say of themselves.
    ///
    /// # Memory
    ///
    /// 12 bytes per entry, in an allocation bounded by the size of the file.
    pub(crate) fn relink(&self, now: u64) -> Checked<()> {
        self.set_head(head::STATE, LINKS_CHANGE)?;
        let slots = self.slots().unwrap_or_else(|_| u32::try_from(self.capacity()).unwrap_or(0));
        self.set_head(head::SLOTS, u64::from(slots))?;
        for word in [
            head::ENTRIES,
            head::ENTRY_BYTES,
            head::RESERVED_BYTES,
            head::USES,
            head::WRITERS,
            head::FREE,
        ] {
            self.set_head(word, 0)?;
        }
        for number in 1..=slots {
            self.set(Slot(number), field::HASH, 0)?;
        }
        let mut entries = Vec::new();
        for slot in (1..=slots).map(Slot) {
            let size = self.get(slot, field::SIZE)?;
            let sound = i64::try_from(size).is_ok();
            match low(self.get(slot, field::STATE)?) {
                ENTRY if sound => entries.push((self.get(slot, field::LAST_USED)?.min(now), slot.0)),
                WRITER if sound => {
                    let last = high(self.head(head::WRITERS)?);
                    self.link_after(head::WRITERS, slot, Slot::from_link(last))?;
                    self.add_total(head::RESERVED_BYTES, 0, size)?;
                }
                _ => self.give_slot(slot)?,
            }
        }
        entries.sort_unstable();
        // Backwards, so that of two slots with one name the one used last stays.
        for &(last_used, number) in entries.iter().rev() {
            let slot = Slot(number);
            self.set(slot, field::LAST_USED, last_used)?;
            let size = self.get(slot, field::SIZE)?;
            let name = self.name(slot)?;
            let total = self.head(head::ENTRY_BYTES)?.checked_add(size);
            if self.find(name)?.is_some() || total.is_none() {
                self.give_slot(slot)?;
                continue;
            }
            self.link_bucket(slot, words_of(name)[0])?;
            self.link_after(head::USES, slot, None)?;
            self.add_total(head::ENTRY_BYTES, 0, size)?;
            self.add_total(head::ENTRIES, 0, 1)?;
        }
        let [high, low] = boot::id();
        self.set_head(head::BOOT, high)?;
        self.set_head(head::BOOT + 1, low)?;
        self.set_head(head::STATE, AT_REST)
    }

    // ---- slots

    fn capacity(&self) -> u64 {
        ((self.len - HEADER_BYTES) / SLOT_BYTES).min(1 << 31)
    }

    fn slots(&self) -> Checked<u32> {
        let slots = self.head(head::SLOTS)?;
        if slots > self.capacity() {
            return Err(Damaged);
        }
        u32::try_from(slots).map_err(|_| Damaged)
    }

    /// A free slot, with nothing but its bucket link kept.
    fn take_slot(&self) -> Checked<Slot> {
        if let Some(slot) = Slot::from_link(low(self.head(head::FREE)?)) {
            self.expect(slot, FREE)?;
            self.set_head(head::FREE, u64::from(high(self.get(slot, field::LIST)?)))?;
            return Ok(slot);
        }
        let slots = self.slots()?;
        if u64::from(slots) >= self.capacity() {
            return Err(Damaged);
        }
        let slot = Slot(slots + 1);
        for word in 0..SLOT_WORDS {
            self.set(slot, word, 0)?;
        }
        self.set_head(head::SLOTS, u64::from(slots) + 1)?;
        self.split_bucket(slots)?;
        Ok(slot)
    }

    fn give_slot(&self, slot: Slot) -> Checked<()> {
        self.set(slot, field::STATE, 0)?;
        let free = low(self.head(head::FREE)?);
        self.set(slot, field::LIST, join(0, free))?;
        self.set_head(head::FREE, u64::from(slot.0))
    }

    /// Linear hashing: the new last bucket takes its share of one older bucket, so that the table
    /// grows by one bucket per slot and never rehashes as a whole.
    fn split_bucket(&self, new: u32) -> Checked<()> {
        let slots = new + 1;
        if slots == 1 {
            return Ok(());
        }
        let parent = Slot((new & (mask(slots) >> 1)) + 1);
        let mut next = high(self.get(parent, field::HASH)?);
        let (mut stay, mut go) = (0, 0);
        for _ in 0..slots {
            let Some(slot) = Slot::from_link(next) else { break };
            self.step();
            let hash = self.get(slot, field::HASH)?;
            next = low(hash);
            let list = if bucket(self.get(slot, field::NAME)?, slots).0 == slots { &mut go } else { &mut stay };
            self.set(slot, field::HASH, join(*list, high(hash)))?;
            *list = slot.0;
        }
        if next != 0 {
            return Err(Damaged);
        }
        for (slot, first) in [(parent, stay), (Slot(slots), go)] {
            let chain = low(self.get(slot, field::HASH)?);
            self.set(slot, field::HASH, join(chain, first))?;
        }
        Ok(())
    }

    fn link_bucket(&self, slot: Slot, hash: u64) -> Checked<()> {
        let bucket = bucket(hash, self.slots()?);
        let first = high(self.get(bucket, field::HASH)?);
        let own = high(self.get(slot, field::HASH)?);
        self.set(slot, field::HASH, join(first, own))?;
        let chain = low(self.get(bucket, field::HASH)?);
        self.set(bucket, field::HASH, join(chain, slot.0))
    }

    fn unlink_bucket(&self, slot: Slot) -> Checked<()> {
        let slots = self.slots()?;
        let bucket = bucket(self.get(slot, field::NAME)?, slots);
        let after = low(self.get(slot, field::HASH)?);
        let head = self.get(bucket, field::HASH)?;
        if high(head) == slot.0 {
            return self.set(bucket, field::HASH, join(low(head), after));
        }
        let mut next = high(head);
        for _ in 0..slots {
            let before = Slot::from_link(next).ok_or(Damaged)?;
            self.step();
            let hash = self.get(before, field::HASH)?;
            if low(hash) == slot.0 {
                return self.set(before, field::HASH, join(after, high(hash)));
            }
            next = low(hash);
        }
        Err(Damaged)
    }

    // ---- lists

    fn link_entry(&self, slot: Slot, last_used: u64, place: Place) -> Checked<()> {
        let after = match place {
            Place::Newest => Slot::from_link(high(self.head(head::USES)?)),
            Place::After(after) => after,
        };
        // Times follow the order of the list, whatever the clock does, so that relinking keeps it.
        let floor = match after {
            Some(after) => self.get(after, field::LAST_USED)?,
            None => 0,
        };
        let step = u64::from(matches!(place, Place::Newest));
        self.set(slot, field::LAST_USED, last_used.max(floor.saturating_add(step)))?;
        self.link_after(head::USES, slot, after)
    }

    /// Links `slot` into a list after `after`, or as the first.
    fn link_after(&self, list: usize, slot: Slot, after: Option<Slot>) -> Checked<()> {
        let ends = self.head(list)?;
        let next = match after {
            Some(after) => high(self.get(after, field::LIST)?),
            None => low(ends),
        };
        self.set(slot, field::LIST, join(link(after), next))?;
        let (mut first, mut last) = (low(ends), high(ends));
        match after {
            Some(after) => {
                let prev = low(self.get(after, field::LIST)?);
                self.set(after, field::LIST, join(prev, slot.0))?;
            }
            None => first = slot.0,
        }
        match Slot::from_link(next) {
            Some(next) => {
                let after_next = high(self.get(next, field::LIST)?);
                self.set(next, field::LIST, join(slot.0, after_next))?;
            }
            None => last = slot.0,
        }
        self.set_head(list, join(first, last))
    }

    /// Takes `slot` out of a list, whose neighbours must agree that it is there.
    fn unlink(&self, list: usize, slot: Slot) -> Checked<()> {
        let ends = self.head(list)?;
        let (mut first, mut last) = (low(ends), high(ends));
        let links = self.get(slot, field::LIST)?;
        let (prev, next) = (low(links), high(links));
        match Slot::from_link(prev) {
            Some(prev) => {
                let links = self.get(prev, field::LIST)?;
                if high(links) != slot.0 {
                    return Err(Damaged);
                }
                self.set(prev, field::LIST, join(low(links), next))?;
            }
            None if first == slot.0 => first = next,
            None => return Err(Damaged),
        }
        match Slot::from_link(next) {
            Some(next) => {
                let links = self.get(next, field::LIST)?;
                if low(links) != slot.0 {
                    return Err(Damaged);
                }
                self.set(next, field::LIST, join(prev, high(links)))?;
            }
            None if last == slot.0 => last = prev,
            None => return Err(Damaged),
        }
        self.set_head(list, join(first, last))
    }

    // ---- words

    /// Runs `change` with the mark that links are changing.
    fn edit<T>(&self, change: impl FnOnce() -> Checked<T>) -> Checked<T> {
        let before = self.head(head::STATE)?;
        if before == AT_REST {
            self.set_head(head::STATE, LINKS_CHANGE)?;
        }
        let value = change()?;
        self.set_head(head::STATE, before)?;
        Ok(value)
    }

    fn add_total(&self, word: usize, minus: u64, plus: u64) -> Checked<()> {
        let total = self.head(word)?.checked_sub(minus).and_then(|total| total.checked_add(plus));
        self.set_head(word, total.ok_or(Damaged)?)
    }

    fn expect(&self, slot: Slot, state: u32) -> Checked<()> {
        if low(self.get(slot, field::STATE)?) == state { Ok(()) } else { Err(Damaged) }
    }

    fn set_state(&self, slot: Slot, state: u32) -> Checked<()> {
        self.set(slot, field::STATE, join(state, 0))
    }

    fn name(&self, slot: Slot) -> Checked<Name> {
        Ok(name_of(self.get(slot, field::NAME)?, self.get(slot, field::NAME + 1)?))
    }

    fn head(&self, word: usize) -> Checked<u64> {
        self.words.load(word).ok_or(Damaged)
    }

    fn set_head(&self, word: usize, value: u64) -> Checked<()> {
        self.words.store(word, value).ok_or(Damaged)
    }

    fn get(&self, slot: Slot, field: usize) -> Checked<u64> {
        self.words.load(index(slot, field)?).ok_or(Damaged)
    }

    fn set(&self, slot: Slot, field: usize, value: u64) -> Checked<()> {
        self.words.store(index(slot, field)?, value).ok_or(Damaged)
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "counts in tests"))]
    fn step(&self) {
        #[cfg(test)]
        self.steps.set(self.steps.get() + 1);
    }
}

fn index(slot: Slot, field: usize) -> Checked<usize> {
    let number = slot.0.checked_sub(1).and_then(|number| usize::try_from(number).ok());
    Ok(HEADER_WORDS + number.ok_or(Damaged)? * SLOT_WORDS + field)
}

fn mask(slots: u32) -> u32 {
    slots.next_power_of_two().wrapping_sub(1)
}

/// The slot that holds the first link of the bucket of `hash` among `slots` buckets.
fn bucket(hash: u64, slots: u32) -> Slot {
    let mask = mask(slots);
    let number = low(hash) & mask;
    Slot(if number < slots { number } else { number & (mask >> 1) } + 1)
}

/// Names are hashes already: their first word serves as one.
fn words_of(name: Name) -> [u64; 2] {
    let number = u128::from_le_bytes(name.0);
    let word = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    [word(number), word(number >> 64)]
}

fn name_of(first: u64, second: u64) -> Name {
    Name((u128::from(second) << 64 | u128::from(first)).to_le_bytes())
}

fn low(word: u64) -> u32 {
    u32::try_from(word & 0xffff_ffff).unwrap_or_default()
}

fn high(word: u64) -> u32 {
    low(word >> 32)
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
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
