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
    read(kind, setting, |table| {
        Ok(table.select(&["c190", "c7", "c100"])?)
    })
}

/// Fetches all columns for the sake of three.
pub(super) fn fetch_all(setting: &Setting) -> Result<Figures> {
    read(Kind::Redis, setting, Ok)
}

fn read(
    kind: Kind,
    setting: &Setting,
    choose: fn(CachedTable) -> Result<CachedTable>,
) -> Result<Figures> {
    let server = Server::start(kind, setting.bytes);
    let options = PutOptions::new().with_compression(Compression::None);
    let table = cell::table(tables::wide(setting.bytes)?)?;
    let cache = Cache::open(&server.url())?;
    cache.put_table(TABLE, &table, &options)?.stored()?;
    drop((cache, table));
    let (proxy, url) = server.proxy();
    let cache = Cache::open(&url)?;
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
