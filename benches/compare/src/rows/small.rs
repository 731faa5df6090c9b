//! Small byte entries, beside the crate `cachekit-rs` with its file backend: both under tokio.
//!
//! The peer always syncs the file but never the directory, so that after a power loss its rename may be
//! undone. At equal durability the directory is synced behind it. It keeps no hash either: one is made of
//! each value, when it is put and when it is read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use cachekit::backend::{Backend as _, file::FileBackend as Peer};
use ck_backend_file::{Durability, ReadMode};
use ck_cache::PutOptions;
use twox_hash::XxHash3_64;

use super::{READ, SYNCED, terms};
use crate::Result;
use crate::row::{Group, Open, Row, Sample};
use crate::scene::Scene;

/// The sizes of small objects.
pub(super) const SIZES: [(usize, &str); 3] =
    [(1 << 10, "1 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")];

const HASHED: &str = "xxh3 of the value";
const TTL: Duration = Duration::from_secs(3600);

pub(super) fn rows(scene: &Scene) -> Vec<Row> {
    let (puts, gets) = if scene.quick { (10, 200) } else { (30, 600) };
    let mut rows = Vec::new();
    for (size, name) in SIZES {
        let gets = gets / (size as u64 >> 18).max(1);
        let row = |work: &str, peer: &str, terms, ours, theirs| {
            Row::new(
                Group::Files,
                format!("{work} {name}"),
                peer,
                terms,
                ours,
                theirs,
            )
        };
        rows.push(
            row(
                "put",
                "cachekit-rs + sync of the directory",
                terms(SYNCED, HASHED),
                put(size, puts),
                peer_put(size, puts),
            )
            .of_operations(puts),
        );
        rows.push(
            row(
                "get",
                "cachekit-rs",
                terms(READ, HASHED),
                get(size, gets),
                peer_get(size, gets),
            )
            .of_operations(gets),
        );
    }
    rows
}

fn key(number: u64) -> String {
    format!("key {number}")
}

/// Half of the puts of a round replace an entry.
fn put(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let cache = scene
            .store("ours", Durability::Synced, ReadMode::default())?
            .build();
        let runtime = scene.runtime()?;
        let (value, options) = (Bytes::from(vec![7; size]), PutOptions::new().with_ttl(TTL));
        Ok(Box::new(move || {
            Sample::timed(|| {
                runtime.block_on(async {
                    for number in 0..count {
                        cache
                            .put_bytes(key(number / 2), value.clone(), &options)
                            .await?
                            .stored()?;
                    }
                    Ok(())
                })
            })
        }))
    })
}

fn peer_put(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let (dir, peer) = peer(scene)?;
        let runtime = scene.runtime()?;
        let value = vec![7; size];
        Ok(Box::new(move || {
            Sample::timed(|| {
                runtime.block_on(async {
                    for number in 0..count {
                        std::hint::black_box(XxHash3_64::oneshot(&value));
                        peer.set(&key(number / 2), value.clone(), Some(TTL)).await?;
                        let dir = dir.clone();
                        tokio::task::spawn_blocking(move || sync(&dir)).await??;
                    }
                    Ok(())
                })
            })
        }))
    })
}

fn sync(dir: &Path) -> std::io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

fn get(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let cache = scene
            .store("ours", Durability::Fast, ReadMode::default())?
            .build();
        let runtime = scene.runtime()?;
        let value = Bytes::from(vec![7; size]);
        runtime.block_on(async {
            for number in 0..count / 4 {
                cache
                    .put_bytes(key(number), value.clone(), &PutOptions::new().with_ttl(TTL))
                    .await?
                    .stored()?;
            }
            Ok::<_, ck_cache::Error>(())
        })?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                runtime.block_on(async {
                    for number in 0..count {
                        let found = cache
                            .get_bytes(key(number % (count / 4)))
                            .await?
                            .ok_or("a miss")?;
                        assert_eq!(found.len(), size);
                    }
                    Ok(())
                })
            })
        }))
    })
}

fn peer_get(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let (_, peer) = peer(scene)?;
        let runtime = scene.runtime()?;
        runtime.block_on(async {
            for number in 0..count / 4 {
                peer.set(&key(number), vec![7; size], Some(TTL)).await?;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                runtime.block_on(async {
                    for number in 0..count {
                        let found = peer
                            .get(&key(number % (count / 4)))
                            .await?
                            .ok_or("a miss")?;
                        assert_eq!(found.len(), size);
                        std::hint::black_box(XxHash3_64::oneshot(&found));
                    }
                    Ok(())
                })
            })
        }))
    })
}

fn peer(scene: &Scene) -> Result<(PathBuf, Peer)> {
    let dir = scene.side("peer")?;
    Ok((dir.clone(), Peer::builder().cache_dir(&dir).build()?))
}
