//! Three of two hundred columns over the wire.

use ck_cache::blocking::{Cache, CachedTable};
use ck_cache::{Compression, PutOptions};
use testkit::heap;

use super::{Setting, TABLE, cell};
use crate::probe::{Figures, Probe};
use crate::server::{Kind, Server};
use crate::{Result, tables};

/// `transfer_ratio` is what came over the wire, less 1 MiB, to the bytes of the columns.
pub(super) fn project(kind: Kind, setting: &Setting) -> Result<Figures> {
    read(kind, plain, setting, three)
}

/// As [`project`], from encrypted entries, whose chunks are larger than what is read of a batch.
pub(super) fn project_encrypted(kind: Kind, setting: &Setting) -> Result<Figures> {
    read(kind, cell::encrypted, setting, three)
}

fn three(table: CachedTable) -> Result<CachedTable> {
    Ok(table.select(&["c190", "c7", "c100"])?)
}

fn plain(url: &str) -> Result<Cache> {
    Ok(Cache::open(url)?)
}

/// Fetches all columns for the sake of three.
pub(super) fn fetch_all(setting: &Setting) -> Result<Figures> {
    read(Kind::Redis, plain, setting, Ok)
}

fn read(
    kind: Kind,
    open: fn(&str) -> Result<Cache>,
    setting: &Setting,
    choose: fn(CachedTable) -> Result<CachedTable>,
) -> Result<Figures> {
    let server = Server::start(kind, setting.bytes);
    let options = PutOptions::new().with_compression(Compression::None);
    let table = cell::table(tables::wide(setting.bytes)?)?;
    let cache = open(&server.url())?;
    cache.put_table(TABLE, &table, &options)?.stored()?;
    drop((cache, table));
    let (proxy, url) = server.proxy();
    let cache = open(&url)?;
    cell::warm_up(&cache, tables::wide, &options)?;
    heap::trim();
    let before = proxy.bytes_up() + proxy.bytes_down();
    let probe = Probe::start()?;
    let columns = choose(cell::entry(&cache)?)?;
    let mut rows = 0;
    for batch in columns.batches() {
        rows += batch?.num_rows() as u64;
    }
    let mut figures = probe.stop()?;
    let moved = proxy.bytes_up() + proxy.bytes_down() - before;
    if rows != columns.num_rows() {
        return Err("rows are missing".into());
    }
    figures.add_ratio(
        "transfer_ratio",
        moved.saturating_sub(1 << 20),
        rows * 3 * 8,
    );
    Ok(figures)
}
