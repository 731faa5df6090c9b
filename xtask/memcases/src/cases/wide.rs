//! What reads move, over the wire or out of a file: three of two hundred columns, every batch, and a range of rows.

use std::fs;

use ck_cache::blocking::{Cache, CachedTable};
use ck_cache::{Compression, Key, PutOptions, TableReader, Verification};
use testkit::heap;
use tokio::runtime;

use super::{Setting, TABLE, cell};
use crate::probe::{Figures, Probe};
use crate::server::{Kind, Server};
use crate::tables::Make;
use crate::{Result, tables};

/// A table in a store, and what is read of it where that is counted.
struct Read {
    place: Place,
    open: fn(&str) -> Result<Cache>,
    make: Make,
    compression: Compression,
    choose: fn(CachedTable) -> Result<CachedTable>,
}

/// Where the table is.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// In a server, behind a proxy that counts what goes either way.
    Server(Kind),
    /// In a file that is not mapped; the kernel counts what is read.
    File,
}

struct Moved {
    figures: Figures,
    /// Over the wire, both ways, or out of the file.
    bytes: u64,
    /// Rows that were read.
    rows: u64,
    /// Rows of each batch in the store, and the bytes of its columns there.
    stored: Vec<(u64, u64)>,
}

/// `transfer_ratio` is what was moved, less 1 MiB, to the bytes of the columns.
pub(super) fn project(place: Place, setting: &Setting) -> Result<Figures> {
    columns(place, plain, setting, three)
}

/// As [`project`], from encrypted entries, whose chunks are larger than what is read of a batch.
pub(super) fn project_encrypted(place: Place, setting: &Setting) -> Result<Figures> {
    columns(place, cell::encrypted, setting, three)
}

/// Fetches all columns for the sake of three.
pub(super) fn fetch_all(setting: &Setting) -> Result<Figures> {
    columns(Place::Server(Kind::Redis), plain, setting, Ok)
}

fn columns(
    place: Place,
    open: fn(&str) -> Result<Cache>,
    setting: &Setting,
    choose: fn(CachedTable) -> Result<CachedTable>,
) -> Result<Figures> {
    let read = Read {
        place,
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
            place: Place::Server(kind),
            open: plain,
            make: tables::numeric,
            compression,
            choose,
        }
    }

    fn measure(&self, setting: &Setting) -> Result<Moved> {
        match self.place {
            Place::Server(kind) => {
                let server = Server::start(kind, setting.bytes);
                let stored = self.put(&server.url(), setting)?;
                let (proxy, url) = server.proxy();
                let cache = self.warm(&url)?;
                let moved = || proxy.bytes_up() + proxy.bytes_down();
                let before = moved();
                let probe = Probe::start()?;
                let rows = self.read(&cache)?;
                let figures = probe.stop()?;
                let bytes = moved() - before;
                Ok(Moved {
                    figures,
                    bytes,
                    rows,
                    stored,
                })
            }
            Place::File => {
                let url = format!("{}?read=pread", setting.directory());
                let stored = self.put(&url, setting)?;
                let cache = self.warm(&url)?;
                let probe = Probe::start()?;
                let rows = self.read(&cache)?;
                let figures = probe.stop()?;
                // Once more, for the probe reads files of the kernel as well.
                let before = bytes_read()?;
                self.read(&cache)?;
                let bytes = bytes_read()? - before;
                Ok(Moved {
                    figures,
                    bytes,
                    rows,
                    stored,
                })
            }
        }
    }

    /// Rows and bytes of each batch of the entry that is put.
    fn put(&self, url: &str, setting: &Setting) -> Result<Vec<(u64, u64)>> {
        let table = cell::table((self.make)(setting.bytes)?)?;
        let cache = (self.open)(url)?;
        cache.put_table(TABLE, &table, &self.options())?.stored()?;
        stored(&cache)
    }

    fn warm(&self, url: &str) -> Result<Cache> {
        let cache = (self.open)(url)?;
        cell::warm_up(&cache, self.make, &self.options())?;
        heap::trim();
        Ok(cache)
    }

    fn options(&self) -> PutOptions {
        PutOptions::new().with_compression(self.compression)
    }

    /// The number of rows that were read.
    fn read(&self, cache: &Cache) -> Result<u64> {
        let view = (self.choose)(cell::entry(cache)?)?;
        let mut rows = 0;
        for batch in view.batches() {
            rows += batch?.num_rows() as u64;
        }
        if rows != view.num_rows() {
            return Err("rows are missing".into());
        }
        Ok(rows)
    }
}

/// What this process has read by system calls, from whatever it was.
fn bytes_read() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    Ok(read.ok_or("/proc/self/io: no rchar")?.parse()?)
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
