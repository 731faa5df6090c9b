use crate::failure::Failure;
use crate::human;
use crate::store::Store;

/// `ck prune`
pub(crate) fn run(store: &Store) -> Result<(), Failure> {
    let pruned = store.open()?.prune()?;
    eprintln!(
        "removed {} and {}: {}",
        human::count(
            pruned.entries,
            "expired or damaged entry",
            "expired or damaged entries"
        ),
        human::count(pruned.orphans, "unfinished file", "unfinished files"),
        human::bytes(pruned.bytes),
    );
    Ok(())
}
