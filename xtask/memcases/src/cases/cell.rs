//! The cells of the matrix: one operation each, in a process that has only just started.
//!
//! A put leaves its entry in the store, and beside it what reads have to find there.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;
use ck_cache::blocking::{Cache, CachedTable};
use ck_cache::{
    Backend, Encrypted, EncryptionOptions, Keyring, MasterKey, PutOptions, Table, open_store,
};
use serde_json::{Map, Value, json};

use super::{Setting, TABLE, process};
use crate::Result;
use crate::digest::{self, Digest};
use crate::matrix::{Cell, Op, Store};
use crate::probe::{Figures, Probe};
use crate::tables::Make;

pub(super) fn run(cell: Cell, setting: &Setting) -> Result<Figures> {
    match cell.op {
        Op::Put => put(cell, setting),
        Op::Batches => batches(cell, setting),
        Op::Whole => whole(cell, setting),
        Op::Project => project(cell, setting),
        Op::Rows => rows(cell, setting),
        Op::Verify => verify(cell, setting),
        Op::Churn => process::churn_of_cell(cell, setting),
        Op::Load => process::load_of_cell(cell, setting),
    }
}

/// What counts is what comes on top of the table.
fn put(cell: Cell, setting: &Setting) -> Result<Figures> {
    let table = table((cell.source.make())(setting.bytes)?)?;
    let cache = warm(cell, setting)?;
    let options = options(cell);
    let probe = Probe::start()?;
    let outcome = cache.put_table(TABLE, &table, &options)?;
    let figures = probe.stop()?;
    outcome.stored()?;
    Stored::of(&table, cell.source.rows())?.save(setting)?;
    Ok(figures)
}

/// None of the batches is kept.
fn batches(cell: Cell, setting: &Setting) -> Result<Figures> {
    let stored = Stored::load(setting)?;
    let cache = warm(cell, setting)?;
    let probe = Probe::start()?;
    let digest = scan(&entry(&cache)?)?;
    let figures = probe.stop()?;
    digest.check(&stored.columns)?;
    Ok(figures)
}

/// `beyond` and its like are what comes on top of 1.05 times the table's size.
fn whole(cell: Cell, setting: &Setting) -> Result<Figures> {
    let stored = Stored::load(setting)?;
    let cache = warm(cell, setting)?;
    let probe = Probe::start()?;
    let table = cache.get_table(TABLE)?.ok_or("a miss")?;
    let mut figures = probe.stop()?;
    Digest::of(table.batches())?.check(&stored.columns)?;
    figures.add_beyond(stored.bytes + stored.bytes / 20)?;
    Ok(figures)
}

fn project(cell: Cell, setting: &Setting) -> Result<Figures> {
    let stored = Stored::load(setting)?;
    let cache = warm(cell, setting)?;
    let probe = Probe::start()?;
    let digest = scan(&entry(&cache)?.select(cell.source.columns())?)?;
    let figures = probe.stop()?;
    digest.check(&stored.columns)?;
    Ok(figures)
}

fn rows(cell: Cell, setting: &Setting) -> Result<Figures> {
    let stored = Stored::load(setting)?;
    let cache = warm(cell, setting)?;
    let probe = Probe::start()?;
    let table = entry(&cache)?;
    let batches = table
        .rows(middle(table.num_rows(), cell.source.rows()))?
        .read_all()?;
    let mut figures = probe.stop()?;
    if cell.store == Store::File {
        figures.add_resident(&setting.dir)?;
    }
    Digest::of(&batches)?.check(&stored.middle)?;
    Ok(figures)
}

fn verify(cell: Cell, setting: &Setting) -> Result<Figures> {
    let cache = warm(cell, setting)?;
    let probe = Probe::start()?;
    let found = cache.verify(TABLE)?;
    let figures = probe.stop()?;
    match found {
        true => Ok(figures),
        false => Err("a miss".into()),
    }
}

/// As [`warm_store`], for those that need no more than the store.
fn warm(cell: Cell, setting: &Setting) -> Result<Cache> {
    Ok(ck_cache::Cache::new(warm_store(cell, setting)?).blocking())
}

/// The store of the case, in a process that has done all of this once with a small table: code and
/// connections that stay for good are no part of a stage.
pub(super) fn warm_store(cell: Cell, setting: &Setting) -> Result<Arc<dyn Backend>> {
    let warm_up = |store: &Arc<dyn Backend>| {
        let cache = ck_cache::Cache::new(Arc::clone(store)).blocking();
        warm_up(&cache, cell.source.make(), &options(cell))
    };
    match cell.store {
        Store::File | Store::Pread => {
            let dir = setting.dir.join("warm");
            warm_up(&open(cell, &url(cell, &dir))?)?;
            // Once in thousands of runs the store has still written something.
            fs::remove_dir_all(&dir).or_else(|_| fs::remove_dir_all(&dir))?;
            open(cell, &url(cell, &setting.dir.join("store")))
        }
        Store::Redis | Store::Memcached => {
            let store = open(cell, setting.server()?)?;
            warm_up(&store)?;
            Ok(store)
        }
    }
}

fn open(cell: Cell, url: &str) -> Result<Arc<dyn Backend>> {
    if cell.encrypted {
        encrypted_store(url)
    } else {
        Ok(open_store(url)?)
    }
}

/// A store that is encrypted with a key that everybody knows.
pub(super) fn encrypted(url: &str) -> Result<Cache> {
    Ok(ck_cache::Cache::new(encrypted_store(url)?).blocking())
}

fn encrypted_store(url: &str) -> Result<Arc<dyn Backend>> {
    let keys = Keyring::new(&MasterKey::from_hex(&"5e".repeat(32))?, &[], "memtest")?;
    let store = Encrypted::new(open_store(url)?, keys, EncryptionOptions::new())?;
    Ok(Arc::new(store))
}

fn url(cell: Cell, dir: &std::path::Path) -> String {
    let mode = if cell.store == Store::Pread {
        "pread"
    } else {
        "mapped"
    };
    format!("file:{}?read={mode}", dir.display())
}

/// Every operation once, with a small table.
pub(super) fn warm_up(cache: &Cache, make: Make, options: &PutOptions) -> Result<()> {
    const KEY: &str = "warm";
    cache
        .put_table(KEY, &table(make(256 << 10)?)?, options)?
        .stored()?;
    let table = cache.open_table(KEY)?.ok_or("a miss")?;
    table.rows(10..20)?.project(&[0])?.read_all()?;
    scan(&table)?;
    drop(cache.get_table(KEY)?.ok_or("a miss")?);
    cache.verify(KEY)?;
    cache.remove(KEY)?;
    Ok(())
}

pub(super) fn options(cell: Cell) -> PutOptions {
    PutOptions::new()
        .with_compression(cell.codec.compression())
        .with_workers(2)
}

/// Reads every value, batch by batch.
pub(super) fn scan(table: &CachedTable) -> Result<Digest> {
    let mut digest = Digest::new(table.schema());
    for batch in table.batches() {
        digest.add(&batch?)?;
    }
    Ok(digest)
}

pub(super) fn table(batches: Vec<RecordBatch>) -> Result<Table> {
    let schema = batches.first().ok_or("no batches")?.schema();
    Ok(Table::new(schema, batches)?)
}

pub(super) fn entry(cache: &Cache) -> Result<CachedTable> {
    Ok(cache.open_table(TABLE)?.ok_or("a miss")?)
}

/// What reads must find.
struct Stored {
    bytes: u64,
    /// The digest of each column, and of its rows in the middle.
    columns: Map<String, Value>,
    middle: Map<String, Value>,
}

impl Stored {
    fn of(table: &Table, rows: u64) -> Result<Self> {
        let batches = table.batches();
        Ok(Self {
            bytes: digest::bytes(batches),
            columns: Digest::of(batches)?.json(),
            middle: Digest::of(&slice(batches, middle(table.num_rows(), rows))?)?.json(),
        })
    }

    fn save(&self, setting: &Setting) -> Result<()> {
        let json = json!({ "bytes": self.bytes, "columns": self.columns, "middle": self.middle });
        Ok(fs::write(Self::path(setting), json.to_string())?)
    }

    fn load(setting: &Setting) -> Result<Self> {
        let json: Value = serde_json::from_slice(&fs::read(Self::path(setting))?)?;
        let map = |name: &str| json[name].as_object().cloned();
        let read = || {
            Some(Self {
                bytes: json["bytes"].as_u64()?,
                columns: map("columns")?,
                middle: map("middle")?,
            })
        };
        Ok(read().ok_or("table.json: not the expected shape")?)
    }

    fn path(setting: &Setting) -> PathBuf {
        setting.dir.join("table.json")
    }
}

fn middle(all: u64, rows: u64) -> Range<u64> {
    all / 2..all / 2 + rows
}

fn slice(batches: &[RecordBatch], rows: Range<u64>) -> Result<Vec<RecordBatch>> {
    let (mut first, mut slices) = (0, Vec::new());
    for batch in batches {
        let end = first + batch.num_rows() as u64;
        let within = rows.start.max(first)..rows.end.min(end);
        if !within.is_empty() {
            let offset = usize::try_from(within.start - first)?;
            slices.push(batch.slice(offset, usize::try_from(within.end - within.start)?));
        }
        first = end;
    }
    Ok(slices)
}
