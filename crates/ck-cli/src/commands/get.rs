use std::sync::Arc;

use bytes::Bytes;
use ck_cache::blocking::{Cache, CachedTable};
use ck_cache::{Contents, Error, ErrorKind, Key, read_entry};
use ck_codec::bytestorage;
use ck_core::block_on;

use crate::args::{GetArgs, Selection};
use crate::failure::{Failure, Status};
use crate::store::Store;
use crate::{document, human, output, preview, progress};

/// `ck get KEY`
pub(crate) fn run(store: &Store, args: &GetArgs) -> Result<(), Failure> {
    let cache = match &args.output {
        None => store.open_verifying(args.verification)?,
        Some(_) => store.open_for_copying(args.verification)?,
    };
    let table = match cache.open_table(args.key.as_str()) {
        Ok(Some(table)) => select(table, &args.selection)?,
        Ok(None) => return Err(miss(&cache, &args.key)),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return no_table(&cache, args, error);
        }
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
        Err(Failure::Told(Status::Corrupt, _)) if !handed_out && cache.stats().corrupt > 0 => {
            Err(miss(&cache, &args.key))
        }
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
fn no_table(cache: &Cache, args: &GetArgs, error: Error) -> Result<(), Failure> {
    let Some(document) = python_document(cache, args)? else {
        return bytes(cache, args, error);
    };
    refuse_selection(args, document::KIND)?;
    document::write_json(args.output.as_deref(), bytestorage::to_json(&document)?)
}

/// A value of the Python client's default serializer; `None` when the entry is something else.
fn python_document(cache: &Cache, args: &GetArgs) -> Result<Option<Bytes>, Failure> {
    let key = Key::from(args.key.as_str());
    let Some(entry) = block_on(cache.backend()?.open(&key))? else {
        return Err(Failure::miss(&args.key));
    };
    let read = async {
        match read_entry(Arc::clone(&entry), args.verification).await? {
            Contents::MessagePack(document) => {
                bytestorage::to_json(&document)?;
                Ok(Some(document))
            }
            Contents::Table(_) | Contents::Bytes { .. } => Ok::<_, Error>(None),
        }
    };
    match block_on(read) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            block_on(entry.discard())?;
            Err(damaged(&args.key))
        }
        read => Ok(read.map_err(|error| error.with("key", &key))?),
    }
}

/// An entry of bytes.
fn bytes(cache: &Cache, args: &GetArgs, no_table: Error) -> Result<(), Failure> {
    let bytes = match cache.get_bytes(args.key.as_str()) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(miss(cache, &args.key)),
        // A table after all, but one that cannot be read: the first error says why.
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(no_table.into()),
        Err(error) => return Err(error.into()),
    };
    refuse_selection(args, "bytes")?;
    match &args.output {
        None => preview::print_bytes(bytes.len(), None),
        Some(path) => output::write_bytes(path, &bytes),
    }
}

fn refuse_selection(args: &GetArgs, what: &str) -> Result<(), Failure> {
    if args.selection.columns.is_some() || args.selection.rows.is_some() {
        return Err(Failure::usage(format_args!(
            "the entry is no table but {what}: it has neither columns nor rows"
        )));
    }
    Ok(())
}

fn miss(cache: &Cache, key: &str) -> Failure {
    if cache.stats().corrupt > 0 {
        return damaged(key);
    }
    Failure::miss(key)
}

fn damaged(key: &str) -> Failure {
    Failure::new(
        Status::Miss,
        format_args!("the entry under the key {key:?} was damaged and has been removed"),
    )
}
