//! A key, a budget, and an entry that is read from memory.
use ck_core::{EntryReader, Key, MemoryBudget, MemoryEntry, Result};

fn main() -> Result<()> {
    let key = Key::new(std::env::args().next().unwrap_or_default());
    let budget = MemoryBudget::new(1 << 20);
    let held = budget.reserve_blocking(key.as_str().len() as u64)?;
    let entry = MemoryEntry::new(key.as_str().to_owned());
    println!(
        "{key:?} {} {} {:?}",
        held.bytes(),
        entry.len(),
        entry.expiry()
    );
    Ok(())
}
