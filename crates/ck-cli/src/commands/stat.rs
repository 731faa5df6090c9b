use std::io::{self, Write};

use crate::args::KeyArgs;
use crate::commands::ls;
use crate::failure::Failure;
use crate::human;
use crate::store::Store;

/// `ck stat KEY`
pub(crate) fn run(store: &Store, args: &KeyArgs) -> Result<(), Failure> {
    let Some(entry) = store.open()?.stat(args.key.as_str())? else {
        return Err(Failure::miss(&args.key));
    };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", ls::to_json(&entry))?;
        return Ok(());
    }
    writeln!(out, "key         {}", human::printable(&args.key))?;
    writeln!(out, "id          {}", entry.id)?;
    writeln!(
        out,
        "size        {} ({} bytes)",
        human::bytes(entry.bytes),
        entry.bytes
    )?;
    writeln!(out, "expires in  {}", human::expires_in(entry.expiry))?;
    writeln!(out, "last used   {}", human::ago(entry.last_used))?;
    Ok(())
}
