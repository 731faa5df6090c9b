use super::Table;
use super::words::{
    AT_REST, Checked, ENTRY, FREE, LINKS_CHANGE, Slot, WRITER, field, head, high, words_of,
};
use crate::ledger::boot;

/// Repair.
impl Table {
    /// Makes all links and totals anew from what the slots say of themselves.
    ///
    /// # Memory
    ///
    /// 12 bytes per entry, in an allocation bounded by the size of the file.
    pub(crate) fn relink(&self, now: u64) -> Checked<()> {
        self.set_head(head::STATE, LINKS_CHANGE)?;
        let slots = self
            .slots()
            .unwrap_or_else(|_| u32::try_from(self.capacity()).unwrap_or(0));
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
            match self.state(slot).unwrap_or(FREE) {
                ENTRY if sound => {
                    entries.push((self.get(slot, field::LAST_USED)?.min(now), slot.0))
                }
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
        self.set_head(head::SEAL, self.seal()?)?;
        self.set_head(head::STATE, AT_REST)
    }
}
