//! A memcached server, beside the crate `memcache` alone, which writes and reads the same chunks and holds them.

use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, Key, block_on};
use ck_frame::Manifest;

use super::redis::{get_bytes, key, pattern, put_bytes};
use super::terms;
use crate::Result;
use crate::row::{Group, Open, Row, Sample};
use crate::scene::Scene;

const SERVER: &str = "the server's memory";
const NONE: &str = "off";

pub(super) fn rows(scene: &Scene) -> Vec<Row> {
    let count = if scene.quick { 500 } else { 3_000 };
    let row = |work: &str, peer: &str, ours, theirs| {
        Row::new(
            Group::Network,
            work,
            peer,
            terms(SERVER, NONE),
            ours,
            theirs,
        )
    };
    let mut rows = vec![
        row(
            "memcached: put of a table's size",
            "set of the same chunks",
            put(),
            bare_put(),
        ),
        row(
            "memcached: get of a table's size",
            "get of the same chunks",
            get(),
            bare_get(),
        ),
    ];
    for (size, name) in [(1 << 10, "1 KiB"), (64 << 10, "64 KiB")] {
        rows.push(
            row(
                &format!("memcached: put {name}"),
                "set",
                small_put(size, count),
                bare_small_put(size, count),
            )
            .of_operations(count),
        );
        rows.push(
            row(
                &format!("memcached: get {name}"),
                "get",
                small_get(size, count),
                bare_small_get(size, count),
            )
            .of_operations(count),
        );
    }
    rows
}

fn store(scene: &Scene) -> Result<MemcachedBackend> {
    Ok(MemcachedBackend::open([scene
        .memcached()?
        .addr()
        .to_string()])?)
}

fn bare(scene: &Scene) -> Result<memcache::Client> {
    let url = format!(
        "memcache://{}?protocol=ascii&tcp_nodelay=true",
        scene.memcached()?.addr()
    );
    Ok(memcache::Client::connect(url)?)
}

fn put() -> Open {
    Box::new(|scene| {
        let (store, bytes, key) = (store(scene)?, pattern(scene.bytes()), Key::new("ours"));
        Ok(Box::new(move || {
            // Room for the new one: what was replaced lives a little longer.
            block_on(store.remove(&key))?;
            Sample::timed(|| put_bytes(&store, &key, &bytes))
        }))
    })
}

fn get() -> Open {
    Box::new(|scene| {
        let (store, len, key) = (store(scene)?, scene.bytes(), Key::new("ours"));
        put_bytes(&store, &key, &pattern(len))?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                let bytes = get_bytes(&store, &key)?;
                assert_eq!(bytes.len(), len);
                Ok(bytes)
            })
        }))
    })
}

/// The chunks that our store cuts an entry into, under names of the bare client's own.
fn chunks(scene: &Scene, bare: &memcache::Client) -> Result<Vec<(String, Bytes)>> {
    let (store, bytes, key) = (store(scene)?, pattern(scene.bytes()), Key::new("cut"));
    put_bytes(&store, &key, &bytes)?;
    let manifest: Vec<u8> = bare.get(key.as_str())?.ok_or("no such entry")?;
    let manifest = Manifest::decode(&manifest)?.ok_or("the entry is one item")?;
    let cut = (0..manifest.chunk_count()).map(|index| {
        let chunk = manifest.chunk(index);
        let chunk = usize::try_from(chunk.start)?..usize::try_from(chunk.end)?;
        Ok((format!("bare:{index}"), bytes.slice(chunk)))
    });
    let cut = cut.collect::<Result<Vec<_>>>()?;
    block_on(store.remove(&key))?;
    Ok(cut)
}

fn write(bare: &memcache::Client, chunks: &[(String, Bytes)]) -> Result<()> {
    for (name, chunk) in chunks {
        bare.set(name, &chunk[..], 0)?;
    }
    Ok(())
}

fn bare_put() -> Open {
    Box::new(|scene| {
        let bare = bare(scene)?;
        let chunks = chunks(scene, &bare)?;
        Ok(Box::new(move || {
            for (name, _) in &chunks {
                bare.delete(name)?;
            }
            Sample::timed(|| write(&bare, &chunks))
        }))
    })
}

fn bare_get() -> Open {
    Box::new(|scene| {
        let bare = bare(scene)?;
        let chunks = chunks(scene, &bare)?;
        write(&bare, &chunks)?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                let read = |(name, _): &(String, Bytes)| -> Result<Vec<u8>> {
                    Ok(bare.get(name)?.ok_or("a chunk is gone")?)
                };
                chunks.iter().map(read).collect::<Result<Vec<_>>>()
            })
        }))
    })
}

fn small_put(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let (store, value) = (store(scene)?, pattern(size));
        Ok(Box::new(move || {
            Sample::timed(|| {
                (0..count).try_for_each(|number| put_bytes(&store, &key(number), &value))
            })
        }))
    })
}

fn small_get(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let (store, value) = (store(scene)?, pattern(size));
        (0..64).try_for_each(|number| put_bytes(&store, &key(number), &value))?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                (0..count).try_for_each(|number| get_bytes(&store, &key(number % 64)).map(drop))
            })
        }))
    })
}

fn bare_small_put(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let (bare, value) = (bare(scene)?, pattern(size));
        Ok(Box::new(move || {
            Sample::timed(|| {
                (0..count).try_for_each(|number| {
                    Ok(bare.set(&format!("bare-{number}"), &value[..], 0)?)
                })
            })
        }))
    })
}

fn bare_small_get(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let (bare, value) = (bare(scene)?, pattern(size));
        (0..64).try_for_each(|number| bare.set(&format!("bare-{number}"), &value[..], 0))?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                (0..count).try_for_each(|number| {
                    let value: Option<Vec<u8>> = bare.get(&format!("bare-{}", number % 64))?;
                    value.map(drop).ok_or_else(|| "a miss".into())
                })
            })
        }))
    })
}
