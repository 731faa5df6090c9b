//! Tables over the wire, to and from a server of the case's own. The server is another process, so its
//! memory is not counted.

use arrow_array::RecordBatch;
use ck_cache::blocking::{Cache, CachedTable};
use ck_cache::{Compression, PutOptions, Table};
use serde_json::Value;
use testkit::heap;
use testkit::{Memcached, Proxy, RedisServer};

use super::read::checksum;
use super::{Setting, TABLE};
use crate::Result;
use crate::probe::{Metrics, Probe};
use crate::tables::{self, Make};

/// A kind of store.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Redis,
    Memcached,
}

/// A running server.
enum Server {
    Redis(RedisServer),
    Memcached(Memcached),
}

impl Server {
    /// With the server's own settings, but for memcached's memory, whose default is 64 MiB.
    fn start(kind: Kind, setting: &Setting) -> Self {
        match kind {
            Kind::Redis => Self::Redis(RedisServer::start()),
            Kind::Memcached => {
                let mib = (setting.bytes >> 20) * 5 / 4 + 64;
                Self::Memcached(Memcached::start_with(&["-m", &mib.to_string()]))
            }
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Redis(server) => server.url(),
            Self::Memcached(server) => server.url(),
        }
    }

    fn proxy(&self) -> (Proxy, String) {
        let (addr, scheme) = match self {
            Self::Redis(server) => (server.addr(), "redis"),
            Self::Memcached(server) => (server.addr(), "memcached"),
        };
        let proxy = Proxy::start(addr);
        let url = format!("{scheme}://{}", proxy.addr());
        (proxy, url)
    }
}

/// A cache without a tier in the process, which has done all of this once with a small table: connections
/// and code that stay for good are no part of a stage.
fn warm(url: &str, make: Make) -> Result<Cache> {
    let cache = Cache::open(url)?;
    for compression in [Compression::None, Compression::Zstd(3)] {
        put(&cache, "warm", 256 << 10, compression, make)?;
        for batch in cache.open_table("warm")?.ok_or("a miss")?.batches() {
            checksum(&batch?);
        }
        cache.get_table("warm")?.ok_or("a miss")?;
        cache.remove("warm")?;
    }
    Ok(cache)
}

/// Stores a table; the sum of its bytes.
fn put(cache: &Cache, key: &str, bytes: u64, compression: Compression, make: Make) -> Result<u64> {
    let table = table(bytes, make)?;
    let sum = sum(table.batches());
    cache
        .put_table(key, &table, &options(compression))?
        .stored()?;
    Ok(sum)
}

fn options(compression: Compression) -> PutOptions {
    PutOptions::new()
        .with_compression(compression)
        .with_workers(2)
}

fn table(bytes: u64, make: Make) -> Result<Table> {
    let batches = make(bytes)?;
    let schema = batches.first().ok_or("no batches")?.schema();
    Ok(Table::new(schema, batches)?)
}

fn sum(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(checksum).sum()
}

/// A table in memory into the store.
pub(super) fn put_table(
    kind: Kind,
    setting: &Setting,
    compression: Compression,
) -> Result<Metrics> {
    let server = Server::start(kind, setting);
    let cache = warm(&server.url(), tables::numeric)?;
    let table = table(setting.bytes, tables::numeric)?;
    let probe = Probe::start()?;
    let outcome = cache.put_table(TABLE, &table, &options(compression))?;
    let metrics = probe.stop()?;
    outcome.stored()?;
    let found = cache.get_table(TABLE)?.ok_or("a miss")?;
    match sum(found.batches()) == sum(table.batches()) {
        true => Ok(metrics),
        false => Err("another table came back".into()),
    }
}

/// The table batch by batch; none of them is kept.
pub(super) fn batches(kind: Kind, setting: &Setting, compression: Compression) -> Result<Metrics> {
    let server = Server::start(kind, setting);
    let cache = warm(&server.url(), tables::numeric)?;
    let stored = put(&cache, TABLE, setting.bytes, compression, tables::numeric)?;
    heap::trim();
    let probe = Probe::start()?;
    let mut sum = 0;
    for batch in entry(&cache)?.batches() {
        sum += checksum(&batch?);
    }
    let metrics = probe.stop()?;
    match sum == stored {
        true => Ok(metrics),
        false => Err("another table came back".into()),
    }
}

/// All of the table at once; `beyond` and `rss_beyond` are what comes on top of 1.05 times its size.
pub(super) fn whole(kind: Kind, setting: &Setting, compression: Compression) -> Result<Metrics> {
    let server = Server::start(kind, setting);
    let cache = warm(&server.url(), tables::numeric)?;
    let stored = put(&cache, TABLE, setting.bytes, compression, tables::numeric)?;
    heap::trim();
    let probe = Probe::start()?;
    let table = cache.get_table(TABLE)?.ok_or("a miss")?;
    let mut metrics = probe.stop()?;
    if sum(table.batches()) != stored {
        return Err("another table came back".into());
    }
    let allowed = setting.bytes + setting.bytes / 20;
    for (name, of) in [("beyond", "heap"), ("rss_beyond", "rss")] {
        let peak = metrics.get(of).and_then(Value::as_u64).unwrap_or(u64::MAX);
        metrics.insert(name.to_owned(), peak.saturating_sub(allowed).into());
    }
    Ok(metrics)
}

/// Three of two hundred columns; `transfer_ratio` is what came over the wire, less 1 MiB, to their bytes.
#[expect(clippy::cast_precision_loss, reason = "a ratio with three digits")]
pub(super) fn project(kind: Kind, setting: &Setting) -> Result<Metrics> {
    let server = Server::start(kind, setting);
    let cache = warm(&server.url(), tables::wide)?;
    put(
        &cache,
        TABLE,
        setting.bytes,
        Compression::None,
        tables::wide,
    )?;
    drop(cache);
    let (proxy, url) = server.proxy();
    let cache = warm(&url, tables::wide)?;
    heap::trim();
    let before = proxy.bytes_up() + proxy.bytes_down();
    let probe = Probe::start()?;
    let columns = entry(&cache)?.select(&["c190", "c7", "c100"])?;
    let mut bytes = 0;
    for batch in columns.batches() {
        let batch = batch?;
        checksum(&batch);
        bytes += batch.num_rows() as u64 * 3 * 8;
    }
    let mut metrics = probe.stop()?;
    let moved = proxy.bytes_up() + proxy.bytes_down() - before;
    if bytes != columns.num_rows() * 3 * 8 {
        return Err("rows are missing".into());
    }
    let ratio = moved.saturating_sub(1 << 20) as f64 / bytes as f64;
    metrics.insert("transfer_ratio".to_owned(), ratio.into());
    Ok(metrics)
}

fn entry(cache: &Cache) -> Result<CachedTable> {
    Ok(cache.open_table(TABLE)?.ok_or("a miss")?)
}
