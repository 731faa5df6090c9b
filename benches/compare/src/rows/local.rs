//! Our side over a directory.

use std::path::PathBuf;

use ck_backend_file::Durability;
use ck_cache::blocking::Cache;
use ck_cache::{Compression, PutOptions, Table, Verification};

use crate::Result;
use crate::ipc::Codec;
use crate::row::{Open, Sample};
use crate::scene::Scene;
use crate::tables::{self, Kind};

pub(super) fn put(kind: Kind, codec: Codec, durability: Durability) -> Open {
    Box::new(move |scene| {
        let cache = scene.cache(durability, Verification::default())?;
        let table = scene.table(kind)?;
        Ok(Box::new(move || {
            cache.remove("table")?;
            let source = Table::new(table[0].schema(), table.to_vec())?;
            let mut stored = 0;
            let sample = Sample::timed(|| {
                stored = cache
                    .put_table("table", source, &options(codec))?
                    .stored()?;
                Ok(())
            })?;
            Ok(sample.stored(stored))
        }))
    })
}

/// The whole table, decoded.
pub(super) fn get(kind: Kind, codec: Codec, verification: Verification) -> Open {
    Box::new(move |scene| {
        let cache = with_table(scene, kind, codec, verification)?;
        Ok(Box::new(move || {
            Sample::timed(|| Ok(cache.get_table("table")?.ok_or("a miss")?))
        }))
    })
}

/// Some columns of all batches.
pub(super) fn project(
    kind: Kind,
    codec: Codec,
    columns: &'static [usize],
    verification: Verification,
) -> Open {
    Box::new(move |scene| {
        let cache = with_table(scene, kind, codec, verification)?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                let table = cache.open_table("table")?.ok_or("a miss")?;
                Ok(table.project(columns)?.read_all()?)
            })
        }))
    })
}

pub(super) fn sum(kind: Kind, column: &'static str, verification: Verification) -> Open {
    Box::new(move |scene| {
        let cache = with_table(scene, kind, Codec::None, verification)?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                let table = cache
                    .open_table("table")?
                    .ok_or("a miss")?
                    .select(&[column])?;
                let mut total = 0.0;
                for batch in table.batches() {
                    total += tables::sum(batch?.column(0));
                }
                Ok(std::hint::black_box(total))
            })
        }))
    })
}

pub(super) fn with_table(
    scene: &Scene,
    kind: Kind,
    codec: Codec,
    verification: Verification,
) -> Result<Cache> {
    let cache = scene.cache(Durability::Fast, verification)?;
    let table = scene.table(kind)?;
    let source = Table::new(table[0].schema(), table.to_vec())?;
    cache
        .put_table("table", source, &options(codec))?
        .stored()?;
    Ok(cache)
}

pub(super) fn options(codec: Codec) -> PutOptions {
    PutOptions::new().with_compression(match codec {
        Codec::None => Compression::None,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd(level) => Compression::Zstd(level),
    })
}

/// The file of the only entry.
pub(super) fn entry_file(scene: &Scene) -> Result<PathBuf> {
    let mut largest = (0, PathBuf::new());
    for entry in std::fs::read_dir(scene.side("ours")?)? {
        let entry = entry?;
        largest = largest.max((entry.metadata()?.len(), entry.path()));
    }
    Ok(largest.1)
}
