//! The mechanics: which slots are free, which bucket they hang in, where they stand in their list.

use super::words::{
    AT_REST, Checked, Damaged, FREE, HEADER_BYTES, LINKS_CHANGE, SLOT_BYTES, SLOT_WORDS, Slot,
    field, head, high, index, join, link, low, mix, name_of,
};
use super::{Place, Table};
use crate::layout::Name;

/// Free slots and hash buckets.
impl Table {
    pub(super) fn capacity(&self) -> u64 {
        ((self.len - HEADER_BYTES) / SLOT_BYTES).min(1 << 31)
    }

    pub(super) fn slots(&self) -> Checked<u32> {
        let slots = self.head(head::SLOTS)?;
        if slots > self.capacity() {
            return Err(Damaged);
        }
        u32::try_from(slots).map_err(|_| Damaged)
    }

    /// A free slot, with nothing but its bucket link kept.
    pub(super) fn take_slot(&self) -> Checked<Slot> {
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

    pub(super) fn give_slot(&self, slot: Slot) -> Checked<()> {
        self.set(slot, field::STATE, 0)?;
        let free = low(self.head(head::FREE)?);
        self.set(slot, field::LIST, join(0, free))?;
        self.set_head(head::FREE, u64::from(slot.0))
    }

    /// Linear hashing: the new last bucket takes its share of one older bucket, so that the table
    /// grows by one bucket per slot and never rehashes as a whole.
    pub(super) fn split_bucket(&self, new: u32) -> Checked<()> {
        let slots = new + 1;
        if slots == 1 {
            return Ok(());
        }
        let parent = Slot((new & (mask(slots) >> 1)) + 1);
        let mut next = high(self.get(parent, field::HASH)?);
        let (mut stay, mut go) = (0, 0);
        for _ in 0..slots {
            let Some(slot) = Slot::from_link(next) else {
                break;
            };
            self.step();
            let hash = self.get(slot, field::HASH)?;
            next = low(hash);
            let list = if bucket(self.get(slot, field::NAME)?, slots).0 == slots {
                &mut go
            } else {
                &mut stay
            };
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

    pub(super) fn link_bucket(&self, slot: Slot, hash: u64) -> Checked<()> {
        let bucket = bucket(hash, self.slots()?);
        let first = high(self.get(bucket, field::HASH)?);
        let own = high(self.get(slot, field::HASH)?);
        self.set(slot, field::HASH, join(first, own))?;
        let chain = low(self.get(bucket, field::HASH)?);
        self.set(bucket, field::HASH, join(chain, slot.0))
    }

    pub(super) fn unlink_bucket(&self, slot: Slot) -> Checked<()> {
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
}

/// Lists.
impl Table {
    pub(super) fn link_entry(&self, slot: Slot, last_used: u64, place: Place) -> Checked<()> {
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
        self.set(
            slot,
            field::LAST_USED,
            last_used.max(floor.saturating_add(step)),
        )?;
        self.link_after(head::USES, slot, after)
    }

    /// Links `slot` into a list after `after`, or as the first.
    pub(super) fn link_after(&self, list: usize, slot: Slot, after: Option<Slot>) -> Checked<()> {
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
    pub(super) fn unlink(&self, list: usize, slot: Slot) -> Checked<()> {
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
}

/// Words.
impl Table {
    /// Runs `change` with the mark that links are changing.
    pub(super) fn edit<T>(&self, change: impl FnOnce() -> Checked<T>) -> Checked<T> {
        // Sealing again must not make sound what somebody else wrote meanwhile.
        if !self.is_sealed() {
            return Err(Damaged);
        }
        let before = self.head(head::STATE)?;
        if before == AT_REST {
            self.set_head(head::STATE, LINKS_CHANGE)?;
        }
        let value = change()?;
        self.set_head(head::SEAL, self.seal()?)?;
        self.set_head(head::STATE, before)?;
        Ok(value)
    }

    pub(super) fn seal(&self) -> Checked<u64> {
        let mut words = [0; head::SEALED.len()];
        for (word, index) in words.iter_mut().zip(head::SEALED) {
            *word = self.head(index)?;
        }
        Ok(mix(&words))
    }

    pub(super) fn add_total(&self, word: usize, minus: u64, plus: u64) -> Checked<()> {
        let total = self
            .head(word)?
            .checked_sub(minus)
            .and_then(|total| total.checked_add(plus));
        self.set_head(word, total.ok_or(Damaged)?)
    }

    pub(super) fn expect(&self, slot: Slot, state: u32) -> Checked<()> {
        if self.state(slot)? == state {
            Ok(())
        } else {
            Err(Damaged)
        }
    }

    /// Sets the state of a slot whose other fields are set.
    pub(super) fn set_state(&self, slot: Slot, state: u32) -> Checked<()> {
        let check = self.check(slot, state)?;
        let epoch = high(self.get(slot, field::STATE)?);
        self.set(slot, field::STATE, join(check, epoch))
    }

    /// The state of a slot, when its fields are those that were written together.
    pub(super) fn state(&self, slot: Slot) -> Checked<u32> {
        let found = low(self.get(slot, field::STATE)?);
        let state = found & 0xff;
        if state == FREE || self.check(slot, state)? == found {
            Ok(state)
        } else {
            Err(Damaged)
        }
    }

    pub(super) fn check(&self, slot: Slot, state: u32) -> Checked<u32> {
        let sum = mix(&[
            self.get(slot, field::NAME)?,
            self.get(slot, field::NAME + 1)?,
            self.get(slot, field::SIZE)?,
            self.get(slot, field::INODE)?,
            u64::from(state),
        ]);
        Ok(high(sum) & !0xff | state)
    }

    pub(super) fn name(&self, slot: Slot) -> Checked<Name> {
        Ok(name_of(
            self.get(slot, field::NAME)?,
            self.get(slot, field::NAME + 1)?,
        ))
    }

    pub(super) fn head(&self, word: usize) -> Checked<u64> {
        self.words.load(word).ok_or(Damaged)
    }

    pub(super) fn set_head(&self, word: usize, value: u64) -> Checked<()> {
        self.words.store(word, value).ok_or(Damaged)
    }

    pub(super) fn get(&self, slot: Slot, field: usize) -> Checked<u64> {
        self.words.load(index(slot, field)?).ok_or(Damaged)
    }

    pub(super) fn set(&self, slot: Slot, field: usize, value: u64) -> Checked<()> {
        self.words.store(index(slot, field)?, value).ok_or(Damaged)
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "counts in tests"))]
    pub(super) fn step(&self) {
        #[cfg(test)]
        self.steps.set(self.steps.get() + 1);
    }
}

fn mask(slots: u32) -> u32 {
    slots.next_power_of_two().wrapping_sub(1)
}

/// The slot that holds the first link of the bucket of `hash` among `slots` buckets.
pub(super) fn bucket(hash: u64, slots: u32) -> Slot {
    let mask = mask(slots);
    let number = low(hash) & mask;
    Slot(
        if number < slots {
            number
        } else {
            number & (mask >> 1)
        } + 1,
    )
}
