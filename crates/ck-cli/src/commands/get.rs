use ck_cache::blocking::{Cache, CachedTable};
use ck_cache::{Error, ErrorKind};

use crate::args::{GetArgs, Selection};
use crate::failure::{Failure, Status};
use crate::store::Store;
use crate::{human, output, preview, progress};

/// `ck get KEY`
pub(crate) fn run(store: &Store, args: &GetArgs) -> Result<(), Failure> {
    let cache = match &args.output {
        None => store.open_verifying(args.verification)?,
        Some(_) => store.open_for_copying(args.verification)?,
    };
    let table = match cache.open_table(args.key.as_str()) {
        Ok(Some(table)) => select(table, &args.selection)?,
        Ok(None) => return Err(miss(&cache, &args.key)),
        Err(error) if error.kind() == ErrorKind::Unsupported => return bytes(&cache, args, error),
        Err(error) => return Err(error.into()),
    };
    let mut handed_out = false;
    let done = match &args.output {
        None => {
            let shown = table.num_rows().min(preview::ROWS);
            let first = table.rows(0..shown)?.read_all();
            first
                .map_err(Failure::from)
                .and_then(|first| preview::print(table.schema(), &first, table.num_rows()))
        }
        Some(path) => {
            let bar = progress::rows("reading");
            let batches = table.batches().inspect(|batch| {
                if let Ok(batch) = batch {
                    bar.inc(batch.num_rows() as u64);
                }
            });
            let rows = output::write(path, &table.schema(), batches, &mut handed_out);
            bar.finish_and_clear();
            rows.map(|rows| {
                if path.as_os_str() != "-" {
                    let rows = human::count(rows, "row", "rows");
                    eprintln!("wrote {}: {rows}", path.display());
                }
            })
        }
    };
    match done {
        // What the cache finds damaged is a miss, unless somebody has a part of it already.
        Err(Failure::Told(Status::Corrupt, _)) if !handed_out => Err(miss(&cache, &args.key)),
        done => done,
    }
}

/// The columns and rows that were asked for. A range beyond the last row ends there.
pub(crate) fn select(table: CachedTable, selection: &Selection) -> Result<CachedTable, Failure> {
    let mut table = table;
    if let Some(columns) = &selection.columns {
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        table = table.select(&names)?;
    }
    if let Some(rows) = &selection.rows {
        let last = table.num_rows();
        table = table.rows(rows.start.min(last)..rows.end.min(last))?;
    }
    Ok(table)
}

/// An entry that is no table.
fn bytes(cache: &Cache, args: &GetArgs, no_table: Error) -> Result<(), Failure> {
    let bytes = match cache.get_bytes(args.key.as_str()) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(miss(cache, &args.key)),
        // A table after all, but one that cannot be read: the first error says why.
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(no_table.into()),
        Err(error) => return Err(error.into()),
    };
    if args.selection.columns.is_some() || args.selection.rows.is_some() {
        return Err(Failure::usage(
            "the entry is no table: it has neither columns nor rows",
        ));
    }
    match &args.output {
        None => preview::print_bytes(bytes.len(), None),
        Some(path) => output::write_bytes(path, &bytes),
    }
}

fn miss(cache: &Cache, key: &str) -> Failure {
    if cache.stats().corrupt > 0 {
        return Failure::new(
            Status::Miss,
            format_args!("the entry under the key {key:?} was damaged and has been removed"),
        );
    }
    Failure::miss(key)
}
