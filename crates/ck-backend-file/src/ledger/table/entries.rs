//! What the slots hold: entries, and writers at work.

use super::Table;
use super::slots::bucket;
use super::words::{Checked, Damaged, ENTRY, Slot, WRITER, field, head, high, join, low, words_of};
use crate::layout::{Name, Token};

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

/// Where to put an entry among the others.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Used just now.
    Newest,
    /// Right after this one, or before all.
    After(Option<Slot>),
}

/// Entries.
impl Table {
    /// The slot of an entry.
    pub(crate) fn find(&self, name: Name) -> Checked<Option<Slot>> {
        let slots = self.slots()?;
        if slots == 0 {
            return Ok(None);
        }
        let mut next = high(self.get(bucket(words_of(name)[0], slots), field::HASH)?);
        for _ in 0..=slots {
            let Some(slot) = Slot::from_link(next) else {
                return Ok(None);
            };
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
                self.set_state(slot, ENTRY)?;
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
            return self.set(
                slot,
                field::LAST_USED,
                now.max(self.get(slot, field::LAST_USED)?),
            );
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
            if self.state(slot) == Ok(ENTRY) && high(self.get(slot, field::STATE)?) != epoch {
                names.push(self.name(slot)?);
            }
        }
        Ok((names, (end < slots).then_some(end)))
    }
}

/// Writers.
impl Table {
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
            self.set(slot, field::SIZE, bytes)?;
            self.set_state(slot, WRITER)
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
            let Some(slot) = Slot::from_link(next) else {
                return Ok(writers);
            };
            writers.push((slot, self.writer(slot).ok_or(Damaged)?));
            next = high(self.get(slot, field::LIST)?);
        }
        Err(Damaged)
    }
}
