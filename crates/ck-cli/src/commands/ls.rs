use std::io::{self, BufWriter, Write};

use ck_cache::EntryInfo;
use ck_cache::blocking::Cache;
use serde_json::json;

use crate::args::JsonArgs;
use crate::failure::Failure;
use crate::human;
use crate::store::Store;

/// `ck ls`
pub(crate) fn run(store: &Store, args: &JsonArgs) -> Result<(), Failure> {
    let entries = entries(&store.open()?)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        for entry in &entries {
            writeln!(out, "{}", to_json(entry))?;
        }
    } else if !entries.is_empty() {
        let rows: Vec<[String; 4]> = entries.iter().map(row).collect();
        print_table(&mut out, ["key", "size", "expires in", "last used"], &rows)?;
    }
    out.flush()?;
    Ok(())
}

/// All entries, by key; those without a known key come last.
pub(crate) fn entries(cache: &Cache) -> Result<Vec<EntryInfo>, Failure> {
    let mut entries = Vec::new();
    let mut cursor = None;
    loop {
        let page = cache.list(cursor)?;
        entries.extend(page.entries.into_iter().map(|mut entry| {
            // Heads are as large as the rest of a listing together, and not shown.
            entry.head.clear();
            entry
        }));
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    entries.sort_by(|a, b| (a.key.is_none(), &a.key, &a.id).cmp(&(b.key.is_none(), &b.key, &b.id)));
    entries.dedup_by(|a, b| a.id == b.id);
    Ok(entries)
}

/// How an entry is called: by its key, or by the store's own name for it.
pub(crate) fn name(entry: &EntryInfo) -> String {
    match &entry.key {
        Some(key) => human::printable(key.as_str()),
        None => format!("({})", entry.id),
    }
}

/// One entry as JSON.
pub(crate) fn to_json(entry: &EntryInfo) -> serde_json::Value {
    json!({
        "key": entry.key.as_ref().map(|key| key.as_str()),
        "id": entry.id,
        "bytes": entry.bytes,
        "expires_unix_seconds": (!entry.expiry.is_never()).then(|| entry.expiry.unix_seconds()),
        "last_used_unix_seconds": entry.last_used.map(human::unix_seconds),
    })
}

fn row(entry: &EntryInfo) -> [String; 4] {
    [
        name(entry),
        human::bytes(entry.bytes),
        human::expires_in(entry.expiry),
        human::ago(entry.last_used),
    ]
}

/// Columns side by side; the first one left-aligned, the others right-aligned.
pub(crate) fn print_table<const N: usize>(
    out: &mut impl Write,
    head: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let mut widths = head.map(|name| name.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in std::iter::once(&head.map(str::to_owned)).chain(rows) {
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            match i {
                0 => write!(out, "{cell:<width$}")?,
                _ => write!(out, "  {cell:>width$}")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
