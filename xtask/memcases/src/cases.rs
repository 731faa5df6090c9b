//! The stages that are measured.

mod command;
mod process;
mod put;
mod read;
mod selftest;
mod wire;

use std::path::PathBuf;

use ck_cache::Compression;
use ck_cache::blocking::Cache;

use self::wire::Kind::{Memcached, Redis};
use crate::probe::Metrics;
use crate::{Result, tables};

/// One stage, measured in a process of its own.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The case whose directory this one goes on with.
    pub(crate) after: Option<&'static str>,
    pub(crate) run: fn(&Setting) -> Result<Metrics>,
}

/// What a case is given.
pub(crate) struct Setting {
    /// The size of its source.
    pub(crate) bytes: u64,
    /// Its directory, empty at first.
    pub(crate) dir: PathBuf,
}

impl Setting {
    /// The store in the directory of this case.
    fn store(&self) -> Result<Cache> {
        Ok(Cache::open(&self.url())?)
    }

    fn url(&self) -> String {
        format!("file:{}/store", self.dir.display())
    }
}

/// The key of the table that put cases store and read cases read.
const TABLE: &str = "table";

const ZSTD: Compression = Compression::Zstd(3);

pub(crate) const CASES: &[Case] = &[
    first("put-none-numeric", |s| {
        put::table(s, Compression::None, tables::numeric)
    }),
    first("put-lz4-numeric", |s| {
        put::table(s, Compression::Lz4, tables::numeric)
    }),
    first("put-zstd-numeric", |s| put::table(s, ZSTD, tables::numeric)),
    first("put-none-strings", |s| {
        put::table(s, Compression::None, tables::strings)
    }),
    first("put-lz4-strings", |s| {
        put::table(s, Compression::Lz4, tables::strings)
    }),
    first("put-zstd-strings", |s| put::table(s, ZSTD, tables::strings)),
    first("put-none-views", |s| {
        put::table(s, Compression::None, tables::views)
    }),
    first("put-lz4-views", |s| {
        put::table(s, Compression::Lz4, tables::views)
    }),
    first("put-zstd-views", |s| put::table(s, ZSTD, tables::views)),
    first("put-reader", put::reader),
    then("put-none-numeric", "open-mapped", read::open),
    then("put-none-numeric", "sum-column-mapped", read::sum_column),
    then("put-none-numeric", "scan-mapped", read::scan),
    then("put-none-numeric", "rows-mapped", read::rows),
    then("put-none-numeric", "verify-mapped", read::verify),
    then("put-none-strings", "scan-mapped-strings", read::scan),
    then("put-none-views", "scan-mapped-views", read::scan),
    then("put-lz4-numeric", "batches-lz4", read::scan),
    then("put-zstd-numeric", "batches-zstd", read::scan),
    then("put-zstd-strings", "batches-zstd-strings", read::scan),
    then("put-zstd-numeric", "project-zstd", read::project),
    then("put-zstd-numeric", "rows-zstd", read::rows),
    then("put-zstd-numeric", "verify-zstd", read::verify),
    then("put-none-numeric", "ck-arrow", |s| {
        command::round_trip(s, "arrow")
    }),
    then("put-none-strings", "ck-parquet", |s| {
        command::round_trip(s, "parquet")
    }),
    first("ck-large-batches-numeric", |s| {
        command::put_large_batches(s, tables::numeric)
    }),
    first("ck-large-batches-strings", |s| {
        command::put_large_batches(s, tables::strings)
    }),
    first("ck-large-batches-views", |s| {
        command::put_large_batches(s, tables::views)
    }),
    first("l1-slices", process::slices),
    first("l1-empty", process::empty),
    first("l1-cycles", process::cycles),
    first("l1-cycles-zstd-strings", process::cycles_of_strings),
    first("load-shared", process::load),
    first("redis-put-none", |s| {
        wire::put_table(Redis, s, Compression::None)
    }),
    first("redis-batches-none", |s| {
        wire::batches(Redis, s, Compression::None)
    }),
    first("redis-whole-none", |s| {
        wire::whole(Redis, s, Compression::None)
    }),
    first("redis-put-zstd", |s| wire::put_table(Redis, s, ZSTD)),
    first("redis-batches-zstd", |s| wire::batches(Redis, s, ZSTD)),
    first("redis-whole-zstd", |s| wire::whole(Redis, s, ZSTD)),
    first("redis-project", |s| wire::project(Redis, s)),
    first("memcached-put-none", |s| {
        wire::put_table(Memcached, s, Compression::None)
    }),
    first("memcached-batches-none", |s| {
        wire::batches(Memcached, s, Compression::None)
    }),
    first("memcached-whole-none", |s| {
        wire::whole(Memcached, s, Compression::None)
    }),
    first("memcached-put-zstd", |s| {
        wire::put_table(Memcached, s, ZSTD)
    }),
    first("memcached-batches-zstd", |s| {
        wire::batches(Memcached, s, ZSTD)
    }),
    first("memcached-whole-zstd", |s| wire::whole(Memcached, s, ZSTD)),
    first("memcached-project", |s| wire::project(Memcached, s)),
    first("selftest-nothing", selftest::nothing),
    first("selftest-buffering", selftest::buffering),
];

const fn first(name: &'static str, run: fn(&Setting) -> Result<Metrics>) -> Case {
    Case {
        name,
        after: None,
        run,
    }
}

const fn then(
    after: &'static str,
    name: &'static str,
    run: fn(&Setting) -> Result<Metrics>,
) -> Case {
    Case {
        name,
        after: Some(after),
        run,
    }
}
