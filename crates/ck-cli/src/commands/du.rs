use std::io::{self, Write};

use serde_json::json;

use crate::args::JsonArgs;
use crate::failure::Failure;
use crate::human;
use crate::store::Store;

/// `ck du`
pub(crate) fn run(store: &Store, args: &JsonArgs) -> Result<(), Failure> {
    let cache = store.open()?;
    let url = cache.backend()?.url();
    let usage = cache.usage()?;
    let mut out = io::stdout().lock();
    if args.json {
        let usage = json!({
            "store": url,
            "entries": usage.entries,
            "bytes": usage.bytes,
            "reserved_bytes": usage.reserved_bytes,
            "limit_bytes": usage.limit_bytes,
            "limit_entries": usage.limit_entries,
        });
        writeln!(out, "{usage}")?;
        return Ok(());
    }
    let of = |limit: Option<String>| {
        limit
            .map(|limit| format!(" of {limit}"))
            .unwrap_or_default()
    };
    writeln!(out, "store          {url}")?;
    let limit = of(usage.limit_entries.map(|limit| limit.to_string()));
    writeln!(out, "entries        {}{limit}", usage.entries)?;
    let limit = of(usage.limit_bytes.map(human::bytes));
    writeln!(out, "size           {}{limit}", human::bytes(usage.bytes))?;
    writeln!(out, "being written  {}", human::bytes(usage.reserved_bytes))?;
    Ok(())
}
