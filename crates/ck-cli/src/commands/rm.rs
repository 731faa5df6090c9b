use crate::args::RmArgs;
use crate::failure::{Failure, Status};
use crate::store::Store;

/// `ck rm KEY..`
pub(crate) fn run(store: &Store, args: &RmArgs) -> Result<(), Failure> {
    let cache = store.open()?;
    let mut missing = Vec::new();
    for key in &args.keys {
        if !cache.remove(key.as_str())? {
            missing.push(format!("{key:?}"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Status::Miss,
        format_args!("no entry under {}", missing.join(", ")),
    ))
}
