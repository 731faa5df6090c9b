use std::io::{self, Write};

use ck_cache::MasterKey;

use crate::failure::Failure;

/// `ck keygen`
pub(crate) fn run() -> Result<(), Failure> {
    let key = MasterKey::generate()?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", *key.to_hex())?;
    out.flush()?;
    Ok(())
}
