//! Tables in local files, beside the system's calls and the crate arrow-ipc.

use std::fs::File;
use std::hash::Hasher;
use std::io::Write;
use std::path::PathBuf;

use arrow_array::{Array, RecordBatch};
use ck_backend_file::Durability;
use ck_cache::Verification::{Off, OnTouch};
use memmap2::Mmap;
use twox_hash::XxHash3_64;

use super::{FAST, READ, local, terms};
use crate::Result;
use crate::ipc::{self, Codec, Proof};
use crate::row::{Group, Open, Row, Sample};
use crate::scene::Scene;
use crate::tables::{Kind, THREE, sum};

const HASHED: &str = "xxh3 of all bytes";
const COLUMNS: &str = "xxh3 of the columns read";
const NONE: &str = "off";

pub(super) fn rows() -> Vec<Row> {
    use Codec::{Lz4, None, Zstd};
    use Kind::{Features, Lineitem, Numeric, Strings, Wide};
    let row = |work: &str, peer: &str, terms, ours, theirs| {
        Row::new(Group::Files, work, peer, terms, ours, theirs)
    };
    let put = |kind: Kind, codec, name: &str| {
        let work = format!("put {name}, {}", kind.name());
        let terms = terms(FAST, HASHED);
        Row::new(
            Group::Files,
            work,
            "arrow-ipc FileWriter + xxh3",
            terms,
            local::put(kind, codec, Durability::Fast),
            ipc_put(kind, codec),
        )
    };
    let three = || Some(&THREE[..]);
    vec![
        row(
            "put none, numeric",
            "write(2) + xxh3",
            terms(FAST, HASHED),
            local::put(Numeric, None, Durability::Fast),
            raw_put(true),
        ),
        row(
            "put none, numeric",
            "write(2) alone",
            terms(FAST, "ours xxh3, the peer none"),
            local::put(Numeric, None, Durability::Fast),
            raw_put(false),
        ),
        row(
            "get, mapped, numeric",
            "mmap + xxh3, not decoded",
            terms(READ, HASHED),
            local::get(Numeric, None, OnTouch),
            hash_map(),
        ),
        row(
            "open + sum of 1 of 8 columns",
            "arrow-ipc mmap + xxh3",
            terms(READ, COLUMNS),
            local::sum(Numeric, "c0", OnTouch),
            ipc_sum(Proof::Columns),
        ),
        row(
            "open + sum of 1 of 8 columns",
            "arrow-ipc mmap",
            terms(READ, NONE),
            local::sum(Numeric, "c0", Off),
            ipc_sum(Proof::None),
        ),
        put(Features, None, "none"),
        put(Lineitem, None, "none"),
        put(Lineitem, Lz4, "lz4"),
        put(Lineitem, Zstd(3), "zstd 3"),
        row(
            "get, mapped, lineitem",
            "arrow-ipc mmap + xxh3",
            terms(READ, HASHED),
            local::get(Lineitem, None, OnTouch),
            ipc_get(Lineitem, None, Option::None, How::Map(Proof::File)),
        ),
        row(
            "get, mapped, lineitem",
            "arrow-ipc mmap",
            terms(READ, NONE),
            local::get(Lineitem, None, Off),
            ipc_get(Lineitem, None, Option::None, How::Map(Proof::None)),
        ),
        row(
            "get none, lineitem",
            "arrow-ipc FileReader",
            terms(READ, NONE),
            local::get(Lineitem, None, Off),
            ipc_get(Lineitem, None, Option::None, How::Batches),
        ),
        row(
            "get lz4, lineitem",
            "arrow-ipc read + xxh3",
            terms(READ, HASHED),
            local::get(Lineitem, Lz4, OnTouch),
            ipc_get(Lineitem, Lz4, Option::None, How::Read(Proof::File)),
        ),
        row(
            "get zstd 3, lineitem",
            "arrow-ipc read + xxh3",
            terms(READ, HASHED),
            local::get(Lineitem, Zstd(3), OnTouch),
            ipc_get(Lineitem, Zstd(3), Option::None, How::Read(Proof::File)),
        ),
        put(Strings, None, "none"),
        put(Strings, Zstd(3), "zstd 3"),
        row(
            "get, mapped, strings",
            "arrow-ipc mmap + xxh3",
            terms(READ, HASHED),
            local::get(Strings, None, OnTouch),
            ipc_get(Strings, None, Option::None, How::Map(Proof::File)),
        ),
        row(
            "get zstd 3, strings",
            "arrow-ipc read + xxh3",
            terms(READ, HASHED),
            local::get(Strings, Zstd(3), OnTouch),
            ipc_get(Strings, Zstd(3), Option::None, How::Read(Proof::File)),
        ),
        row(
            "3 of 200 columns, mapped",
            "arrow-ipc mmap + xxh3",
            terms(READ, COLUMNS),
            local::project(Wide, None, &THREE, OnTouch),
            ipc_get(Wide, None, three(), How::Map(Proof::Columns)),
        ),
        row(
            "3 of 200 columns, mapped",
            "arrow-ipc mmap",
            terms(READ, NONE),
            local::project(Wide, None, &THREE, Off),
            ipc_get(Wide, None, three(), How::Map(Proof::None)),
        ),
        row(
            "3 of 200 columns, zstd 3",
            "arrow-ipc FileReader",
            terms(READ, NONE),
            local::project(Wide, Zstd(3), &THREE, Off),
            ipc_get(Wide, Zstd(3), three(), How::Batches),
        ),
        row(
            "3 of 200 columns, zstd 3",
            "arrow-ipc mmap",
            terms(READ, NONE),
            local::project(Wide, Zstd(3), &THREE, Off),
            ipc_get(Wide, Zstd(3), three(), How::Map(Proof::None)),
        ),
    ]
}

/// The column buffers of the numeric table, by the system's calls alone.
fn raw_put(hash: bool) -> Open {
    Box::new(move |scene| {
        let path = scene.side("peer")?.join("plain");
        let table = scene.table(Kind::Numeric)?;
        Ok(Box::new(move || {
            remove(&path)?;
            let sample = Sample::timed(|| write_buffers(&table, &path, hash))?;
            Ok(sample.stored(path.metadata()?.len()))
        }))
    })
}

fn write_buffers(table: &[RecordBatch], path: &PathBuf, hash: bool) -> Result<()> {
    let mut file = File::create(path)?;
    let mut all = XxHash3_64::new();
    for batch in table {
        for column in batch.columns() {
            for buffer in column.to_data().buffers() {
                for piece in buffer.chunks(1 << 20) {
                    if hash {
                        all.write(piece);
                    }
                    file.write_all(piece)?;
                }
            }
        }
    }
    std::hint::black_box(all.finish());
    Ok(())
}

/// The file of our entry, hashed where it is mapped.
fn hash_map() -> Open {
    Box::new(|scene| {
        drop(local::with_table(
            scene,
            Kind::Numeric,
            Codec::None,
            OnTouch,
        )?);
        let path = local::entry_file(scene)?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                let file = File::open(&path)?;
                // SAFETY: nothing truncates the file while this program runs.
                let map = unsafe { Mmap::map(&file)? };
                std::hint::black_box(XxHash3_64::oneshot(&map));
                Ok(map)
            })
        }))
    })
}

fn ipc_put(kind: Kind, codec: Codec) -> Open {
    Box::new(move |scene| {
        let path = scene.side("peer")?.join("table.arrow");
        let table = scene.table(kind)?;
        Ok(Box::new(move || {
            remove(&path)?;
            let sample = Sample::timed(|| ipc::write(&table, &path, codec, true))?;
            Ok(sample.stored(path.metadata()?.len()))
        }))
    })
}

#[derive(Debug, Clone, Copy)]
enum How {
    Map(Proof),
    Read(Proof),
    /// Batch by batch, without a proof.
    Batches,
}

fn ipc_get(kind: Kind, codec: Codec, columns: Option<&'static [usize]>, how: How) -> Open {
    Box::new(move |scene| {
        let path = ipc_file(scene, kind, codec)?;
        Ok(Box::new(move || {
            Sample::timed(|| match how {
                How::Map(proof) => ipc::map(&path, columns, proof),
                How::Read(proof) => ipc::read(&path, columns, proof),
                How::Batches => ipc::read_batches(&path, columns),
            })
        }))
    })
}

fn ipc_sum(proof: Proof) -> Open {
    Box::new(move |scene| {
        let path = ipc_file(scene, Kind::Numeric, Codec::None)?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                let batches = ipc::map(&path, Some(&[0]), proof)?;
                Ok(std::hint::black_box(
                    batches
                        .iter()
                        .map(|batch| sum(batch.column(0)))
                        .sum::<f64>(),
                ))
            })
        }))
    })
}

fn ipc_file(scene: &Scene, kind: Kind, codec: Codec) -> Result<PathBuf> {
    let path = scene.side("peer")?.join("table.arrow");
    ipc::write(&scene.table(kind)?, &path, codec, false)?;
    Ok(path)
}

fn remove(path: &PathBuf) -> Result<()> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
