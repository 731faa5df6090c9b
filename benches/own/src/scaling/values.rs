//! Puts and gets of values of growing size.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::time::Duration;

use ck_cache::blocking::Cache;
use ck_cache::{Compression, PutOptions, Table};
use own::stores::{self, Kind, Store};
use own::{Result, tables};

use crate::suite::{Suite, medians, time};

const SERIES: [(&str, Kind, Compression); 4] = [
    ("file", Kind::File, Compression::None),
    ("file, zstd", Kind::File, Compression::Zstd(3)),
    ("Redis", Kind::Redis, Compression::None),
    ("memcached", Kind::Memcached, Compression::None),
];

pub(crate) fn run(suite: &mut Suite) -> Result<()> {
    let largest: u64 = if suite.quick { 256 << 20 } else { 4 << 30 };
    let sizes = || {
        std::iter::successors(Some(1_u64 << 10), |size| Some(size * 4))
            .take_while(move |&size| size <= largest)
    };
    for size in sizes() {
        bare(suite, size)?;
    }
    for (series, kind, compression) in SERIES {
        let store = Store::start(kind, largest)?;
        let cache = store.cache();
        let options = PutOptions::new().with_compression(compression);
        for size in sizes() {
            let table = tables::of_bytes(usize::try_from(size)?)?;
            let [put, get] = medians(200, patience(size), || {
                cache.remove("table")?;
                Ok([
                    time(|| put(&cache, &table, &options))?,
                    time(|| get(&cache, &table))?,
                ])
            })?;
            suite.note("values-put", series, size as f64, size as f64, put);
            suite.note("values-get", series, size as f64, size as f64, get);
        }
    }
    Ok(())
}

fn patience(size: u64) -> Duration {
    // What is still to be written back takes a processor and the disk from whoever is measured.
    if size >= 64 << 20 {
        rustix::fs::sync();
    }
    // The largest too are put once before it counts: memory that was never used is slow.
    Duration::from_secs(1 + (size >> 30) * 6)
}

pub(crate) fn put(cache: &Cache, table: &Table, options: &PutOptions) -> Result<()> {
    cache.put_table("table", table.clone(), options)?.stored()?;
    Ok(())
}

/// Reads all batches, one after the other.
fn get(cache: &Cache, table: &Table) -> Result<()> {
    let found = cache.open_table("table")?.ok_or("the entry is gone")?;
    let mut rows = 0;
    for batch in found.batches() {
        rows += black_box(batch?).num_rows() as u64;
    }
    assert_eq!(rows, table.num_rows());
    Ok(())
}

/// The control of the file store: as many bytes written into a file, and read and hashed.
fn bare(suite: &mut Suite, size: u64) -> Result<()> {
    let dir = stores::directory()?;
    let (path, temp) = (dir.path().join("file"), dir.path().join("temp"));
    let mut piece = vec![7_u8; usize::try_from(size)?.min(1 << 20)];
    let [put, get] = medians(200, patience(size), || {
        let _ = std::fs::remove_file(&path);
        let put = time(|| {
            let mut file = File::create(&temp)?;
            for _ in 0..size / piece.len() as u64 {
                file.write_all(&piece)?;
            }
            Ok(std::fs::rename(&temp, &path)?)
        })?;
        let get = time(|| {
            let mut file = File::open(&path)?;
            let mut hash = 0;
            for _ in 0..size / piece.len() as u64 {
                file.read_exact(&mut piece)?;
                hash ^= twox_hash::XxHash3_64::oneshot(&piece);
            }
            Ok(black_box(hash))
        })?;
        Ok([put, get])
    })?;
    suite.note("values-put", "bare file", size as f64, size as f64, put);
    suite.note("values-get", "bare file", size as f64, size as f64, get);
    Ok(())
}
