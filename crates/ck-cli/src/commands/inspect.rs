mod sealed;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use arrow_schema::Schema;
use ck_arrow::{BlockLayout, TableReader, UnitLayout};
use ck_cache::{Contents, EncryptedInfo, Verification, read_entry};
use ck_core::{EntryReader, Key, block_on};
use ck_frame::{Frame, Header};
use serde_json::{Value, json};

use crate::args::KeyArgs;
use crate::commands::ls::print_table;
use crate::failure::Failure;
use crate::store::Store;
use crate::{document, human};

/// `ck inspect KEY`
pub(crate) fn run(store: &Store, args: &KeyArgs) -> Result<(), Failure> {
    let cache = store.open()?;
    let key = Key::from(args.key.as_str());
    let Some(entry) = block_on(cache.backend()?.open(&key))? else {
        return Err(Failure::miss(&args.key));
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if let Some(info) = block_on(EncryptedInfo::read(&*entry))? {
        sealed::print(&mut out, args, &*entry, &info)?;
        out.flush()?;
        return Ok(());
    }
    let contents = block_on(read_entry(Arc::clone(&entry), Verification::Off));
    match contents.map_err(|error| error.with("key", &key))? {
        Contents::MessagePack(document) => {
            no_table(&mut out, args, &*entry, Some(document.len()))?;
        }
        Contents::Bytes { .. } => no_table(&mut out, args, &*entry, None)?,
        Contents::Table(table) if args.json => {
            writeln!(out, "{:#}", to_json(&args.key, &*entry, &table))?;
        }
        Contents::Table(table) => print(&mut out, &*entry, &table)?,
    }
    out.flush()?;
    Ok(())
}

/// An entry that is no table. `document_bytes`: of the MessagePack of the Python client's default serializer.
fn no_table(
    out: &mut impl Write,
    args: &KeyArgs,
    entry: &dyn EntryReader,
    document_bytes: Option<usize>,
) -> Result<(), Failure> {
    let bytes = block_on(entry.read(0..entry.len()))?;
    let Frame { header, payload } = ck_frame::read(&bytes).map_err(ck_cache::Error::from)?;
    if args.json {
        let found = json!({
            "key": args.key,
            "bytes": entry.len(),
            "expires_unix_seconds": expires_unix_seconds(entry),
            "serializer": header.serializer(),
            "header": header_json(&header),
            "payload_bytes": payload.len(),
            "messagepack_bytes": document_bytes,
        });
        writeln!(out, "{found:#}")?;
        return Ok(());
    }
    let bytes = |len: u64| format!("{} ({len} bytes)", human::bytes(len));
    writeln!(
        out,
        "kind        {}",
        kind(&header, document_bytes.is_some())
    )?;
    writeln!(out, "size        {}", bytes(entry.len()))?;
    writeln!(out, "expires in  {}", human::expires_in(entry.expiry()))?;
    writeln!(out, "payload     {}", bytes(payload.len() as u64))?;
    if let Some(len) = document_bytes {
        writeln!(out, "messagepack {}", bytes(len as u64))?;
    }
    let header = header_json(&header).to_string();
    writeln!(out, "header      {}", human::printable(&header))?;
    Ok(())
}

/// What an entry that is no table is called.
fn kind(header: &Header, is_python_value: bool) -> String {
    let field = |name| header.metadata().get(name).and_then(Value::as_str);
    match (header.serializer(), field("type")) {
        _ if is_python_value => document::KIND.to_owned(),
        ("value", Some(name)) => format!("a typed value, {}", human::printable(name)),
        ("bytes", _) => "bytes".to_owned(),
        ("absent", _) => "the knowledge that there is no value".to_owned(),
        (serializer, _) => format!("bytes of the serializer {serializer:?}"),
    }
}

fn expires_unix_seconds(entry: &dyn EntryReader) -> Option<u64> {
    (!entry.expiry().is_never()).then(|| entry.expiry().unix_seconds())
}

/// A header as it is written.
fn header_json(header: &Header) -> Value {
    let frame = header.encode().unwrap_or_default();
    let text = frame.get(ck_frame::PREFIX_LEN..).unwrap_or_default();
    serde_json::from_slice(text).unwrap_or_default()
}

fn to_json(key: &str, entry: &dyn EntryReader, table: &TableReader) -> Value {
    let layout = table.layout();
    let schema = table.schema();
    let fields = schema.fields().iter().map(|field| {
        json!({
            "name": field.name(),
            "type": field.data_type().to_string(),
            "nullable": field.is_nullable(),
        })
    });
    let blocks = |blocks: &[BlockLayout], schema: Option<&Schema>| -> Vec<Value> {
        blocks
            .iter()
            .map(|block| block_json(block, schema))
            .collect()
    };
    json!({
        "key": key,
        "bytes": entry.len(),
        "expires_unix_seconds": expires_unix_seconds(entry),
        "header": layout.header.as_ref().map(header_json),
        "sealed": layout.is_sealed,
        "rows": table.num_rows(),
        "schema": fields.collect::<Vec<_>>(),
        "dictionaries": blocks(&layout.dictionaries, None),
        "batches": blocks(&layout.batches, Some(&schema)),
    })
}

fn block_json(block: &BlockLayout, schema: Option<&Schema>) -> Value {
    let units = block.units.iter().map(|unit| {
        json!({
            "columns": schema.map(|schema| names(schema, unit)),
            "offset": unit.offset,
            "bytes": unit.bytes,
            "xxh3": format!("{:016x}", unit.xxh3),
        })
    });
    json!({
        "rows": block.rows,
        "offset": block.offset,
        "metadata_bytes": block.metadata_bytes,
        "body_bytes": block.body_bytes,
        "compression": block.compression,
        "units": units.collect::<Vec<_>>(),
    })
}

fn names<'a>(schema: &'a Schema, unit: &UnitLayout) -> Vec<&'a str> {
    let fields = schema.fields();
    unit.columns
        .clone()
        .filter_map(|place| fields.get(place))
        .map(|field| field.name().as_str())
        .collect()
}

fn print(
    out: &mut impl Write,
    entry: &dyn EntryReader,
    table: &TableReader,
) -> Result<(), Failure> {
    let layout = table.layout();
    let schema = table.schema();
    writeln!(
        out,
        "size        {} ({} bytes)",
        human::bytes(entry.len()),
        entry.len()
    )?;
    writeln!(out, "expires in  {}", human::expires_in(entry.expiry()))?;
    writeln!(out, "rows        {}", table.num_rows())?;
    let hashes = if layout.is_sealed {
        "per column and batch"
    } else {
        "none per column"
    };
    writeln!(out, "hashes      {hashes}")?;
    match &layout.header {
        Some(header) => writeln!(
            out,
            "header      {}",
            human::printable(&header_json(header).to_string())
        )?,
        None => writeln!(out, "header      none: a bare payload")?,
    }

    writeln!(out)?;
    let columns: Vec<[String; 3]> = schema
        .fields()
        .iter()
        .map(|field| {
            let nullable = if field.is_nullable() { "nullable" } else { "" };
            [
                human::printable(field.name()),
                field.data_type().to_string(),
                nullable.to_owned(),
            ]
        })
        .collect();
    print_table(out, ["column", "type", ""], &columns)?;

    let mut units: BTreeMap<(usize, usize), (u64, u64)> = BTreeMap::new();
    for unit in layout.batches.iter().flat_map(|batch| &batch.units) {
        let sum = units
            .entry((unit.columns.start, unit.columns.end))
            .or_default();
        *sum = (sum.0 + unit.bytes, sum.1 + 1);
    }
    if !units.is_empty() {
        writeln!(out)?;
        let rows: Vec<[String; 3]> = units
            .iter()
            .map(|((start, end), (bytes, count))| {
                let name = |place: usize| {
                    let field = schema.fields().get(place);
                    field.map_or_else(String::new, |field| human::printable(field.name()))
                };
                let columns = match end - start {
                    1 => name(*start),
                    _ => format!("{} to {}", name(*start), name(end - 1)),
                };
                [columns, human::bytes(*bytes), count.to_string()]
            })
            .collect();
        print_table(out, ["hashed together", "size", "hashes"], &rows)?;
    }

    for (what, blocks) in [
        ("batch", &layout.batches),
        ("dictionary", &layout.dictionaries),
    ] {
        if blocks.is_empty() {
            continue;
        }
        writeln!(out)?;
        let rows: Vec<[String; 6]> = blocks
            .iter()
            .enumerate()
            .map(|(number, block)| {
                [
                    number.to_string(),
                    block.rows.to_string(),
                    block.offset.to_string(),
                    block.metadata_bytes.to_string(),
                    block.body_bytes.to_string(),
                    block.compression.unwrap_or("?").to_owned(),
                ]
            })
            .collect();
        print_table(
            out,
            [what, "rows", "offset", "metadata", "body", "compression"],
            &rows,
        )?;
    }
    Ok(())
}
