//! What reads move over the wire: three of two hundred columns, every batch, and a range of rows.

use ck_cache::blocking::{Cache, CachedTable};
use ck_cache::{Compression, Key, PutOptions, TableReader, Verification};
use testkit::heap;
use tokio::runtime;

use super::{Setting, TABLE, cell};
use crate::probe::{Figures, Probe};
use crate::server::{Kind, Server};
use crate::tables::Make;
use crate::{Result, tables};

/// A table in a server, and what is read of it through a proxy that counts.
struct Read {
    kind: Kind,
    open: fn(&str) -> Result<Cache>,
    make: Make,
    compression: Compression,
    choose: fn(CachedTable) -> Result<CachedTable>,
}

struct Moved {
    figures: Figures,
    /// Over the wire, both ways.
    bytes: u64,
    /// Rows that were read.
    rows: u64,
    /// Rows of each batch in the store, and the bytes of its columns there.
    stored: Vec<(u64, u64)>,
}

/// `transfer_ratio` is what came over the wire, less 1 MiB, to the bytes of the columns.
pub(super) fn project(kind: Kind, setting: &Setting) -> Result<Figures> {
    columns(kind, plain, setting, three)
}

/// As [`project`], from encrypted entries, whose chunks are larger than what is read of a batch.
pub(super) fn project_encrypted(kind: Kind, setting: &Setting) -> Result<Figures> {
    columns(kind, cell::encrypted, setting, three)
}

/// Fetches all columns for the sake of three.
pub(super) fn fetch_all(setting: &Setting) -> Result<Figures> {
    columns(Kind::Redis, plain, setting, Ok)
}

fn columns(
    kind: Kind,
    open: fn(&str) -> Result<Cache>,
    setting: &Setting,
    choose: fn(CachedTable) -> Result<CachedTable>,
) -> Result<Figures> {
    let read = Read {
        kind,
        open,
        make: tables::wide,
        compression: Compression::None,
        choose,
    };
    let mut moved = read.measure(setting)?;
    let bytes = moved.bytes.saturating_sub(1 << 20);
    moved
        .figures
        .add_ratio("transfer_ratio", bytes, moved.rows * 3 * 8);
    Ok(moved.figures)
}

fn three(table: CachedTable) -> Result<CachedTable> {
    Ok(table.select(&["c190", "c7", "c100"])?)
}

/// Every batch. `transfer_ratio` is all that came over the wire to the bytes of the columns in the store.
pub(super) fn batches(kind: Kind, compression: Compression, setting: &Setting) -> Result<Figures> {
    let mut moved = Read::of_numbers(kind, compression, Ok).measure(setting)?;
    let own = moved.stored.iter().map(|(_, bytes)| bytes).sum();
    moved.figures.add_ratio("transfer_ratio", moved.bytes, own);
    Ok(moved.figures)
}

/// A sixteenth of the rows. As [`batches`]; a batch that holds some of them counts as a whole, for a column of a batch
/// is verified and decompressed as a whole.
pub(super) fn rows(kind: Kind, compression: Compression, setting: &Setting) -> Result<Figures> {
    let choose = |table: CachedTable| {
        let first = first_row(table.num_rows());
        Ok(table.rows(first..first + table.num_rows() / 16)?)
    };
    let mut moved = Read::of_numbers(kind, compression, choose).measure(setting)?;
    let all = moved.stored.iter().map(|(rows, _)| rows).sum();
    let wanted = first_row(all)..first_row(all) + moved.rows;
    let (mut start, mut own) = (0, 0);
    for &(rows, bytes) in &moved.stored {
        if start < wanted.end && start + rows > wanted.start {
            own += bytes;
        }
        start += rows;
    }
    moved.figures.add_ratio("transfer_ratio", moved.bytes, own);
    Ok(moved.figures)
}

/// Within a batch, not where one begins.
fn first_row(all: u64) -> u64 {
    all / 3
}

fn plain(url: &str) -> Result<Cache> {
    Ok(Cache::open(url)?)
}

impl Read {
    fn of_numbers(
        kind: Kind,
        compression: Compression,
        choose: fn(CachedTable) -> Result<CachedTable>,
    ) -> Self {
        Self {
            kind,
            open: plain,
            make: tables::numeric,
            compression,
            choose,
        }
    }

    fn measure(&self, setting: &Setting) -> Result<Moved> {
        let server = Server::start(self.kind, setting.bytes);
        let options = PutOptions::new().with_compression(self.compression);
        let table = cell::table((self.make)(setting.bytes)?)?;
        let cache = (self.open)(&server.url())?;
        cache.put_table(TABLE, &table, &options)?.stored()?;
        let stored = stored(&cache)?;
        drop((cache, table));
        let (proxy, url) = server.proxy();
        let cache = (self.open)(&url)?;
        cell::warm_up(&cache, self.make, &options)?;
        heap::trim();
        let before = proxy.bytes_up() + proxy.bytes_down();
        let probe = Probe::start()?;
        let view = (self.choose)(cell::entry(&cache)?)?;
        let mut rows = 0;
        for batch in view.batches() {
            rows += batch?.num_rows() as u64;
        }
        let figures = probe.stop()?;
        let bytes = proxy.bytes_up() + proxy.bytes_down() - before;
        if rows != view.num_rows() {
            return Err("rows are missing".into());
        }
        Ok(Moved {
            figures,
            bytes,
            rows,
            stored,
        })
    }
}

/// Rows and bytes of each batch of the entry.
fn stored(cache: &Cache) -> Result<Vec<(u64, u64)>> {
    let reader = runtime::Builder::new_current_thread()
        .build()?
        .block_on(async {
            let entry = cache.backend()?.open(&Key::from(TABLE)).await?;
            TableReader::open(entry.ok_or("a miss")?, Verification::OnTouch)
                .await
                .map_err(crate::Error::from)
        })?;
    let batches = reader.layout().batches;
    let stored = batches.iter().map(|batch| (batch.rows, batch.body_bytes));
    Ok(stored.collect())
}
