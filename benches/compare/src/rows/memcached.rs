//! A memcached server, beside the crate `memcache` alone, which writes and reads the same chunks and holds them.

use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_cache::blocking::Cache;
use ck_core::{Backend, Key, block_on};
use ck_frame::Manifest;

use super::redis::{
    CUT, HASHED_BY_US, cache_at, entry_of, get_bytes, get_from, key, pattern, put_bytes, put_in,
};
use super::terms;
use crate::Result;
use crate::ipc::Codec;
use crate::row::{Group, Open, Row, Sample};
use crate::scene::Scene;
use crate::tables::Kind;

const SERVER: &str = "the server's memory";
const NONE: &str = "off";

pub(super) fn rows(scene: &Scene) -> Vec<Row> {
    let count = if scene.quick { 500 } else { 3_000 };
    let row_of = |work: &str, peer: &str, verification, ours, theirs| {
        Row::new(
            Group::Network,
            work,
            peer,
            terms(SERVER, verification),
            ours,
            theirs,
        )
    };
    let row = |work: &str, peer: &str, ours, theirs| row_of(work, peer, NONE, ours, theirs);
    let mut rows = vec![
        row(
            "memcached: put of a table's size",
            "set of the same chunks",
            put(),
            bare_put(chunks),
        ),
        row(
            "memcached: get of a table's size",
            "get of the same chunks",
            get(),
            bare_get(chunks),
        ),
        row_of(
            "memcached: put none, numeric",
            "set of the entry's chunks",
            HASHED_BY_US,
            put_table(),
            bare_put(chunks_of_table),
        ),
        row_of(
            "memcached: get none, numeric",
            "get of the entry's chunks",
            HASHED_BY_US,
            get_table(),
            bare_get(chunks_of_table),
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

fn cache(scene: &Scene) -> Result<Cache> {
    cache_at(&scene.memcached()?.url())
}

fn put_table() -> Open {
    // Room for the new one, as above.
    Box::new(|scene| put_in(cache(scene)?, scene, Kind::Numeric, Codec::None, true))
}

fn get_table() -> Open {
    Box::new(|scene| get_from(cache(scene)?, scene, Kind::Numeric, Codec::None, None))
}

/// Names of the bare client's own, and what is stored there.
type Chunks = Vec<(String, Bytes)>;

/// Makes the chunks that our store cuts an entry into.
type Cut = fn(&Scene, &memcache::Client) -> Result<Chunks>;

/// Those of bytes of a table's size.
fn chunks(scene: &Scene, bare: &memcache::Client) -> Result<Chunks> {
    let (store, bytes, key) = (store(scene)?, pattern(scene.bytes()), Key::new(CUT));
    put_bytes(&store, &key, &bytes)?;
    cut(&store, &key, bare, &bytes)
}

/// Those of an uncompressed table.
fn chunks_of_table(scene: &Scene, bare: &memcache::Client) -> Result<Chunks> {
    let cache = cache(scene)?;
    let bytes = entry_of(&cache, scene)?;
    cut(&**cache.backend()?, &Key::new(CUT), bare, &bytes)
}

/// The chunks into which the entry, these bytes, was cut; it is removed.
fn cut(store: &dyn Backend, key: &Key, bare: &memcache::Client, bytes: &Bytes) -> Result<Chunks> {
    let manifest: Vec<u8> = bare.get(key.as_str())?.ok_or("no such entry")?;
    let manifest = Manifest::decode(&manifest)?.ok_or("the entry is one item")?;
    let cut = (0..manifest.chunk_count()).map(|index| {
        let chunk = manifest.chunk(index);
        let chunk = usize::try_from(chunk.start)?..usize::try_from(chunk.end)?;
        Ok((format!("bare:{index}"), bytes.slice(chunk)))
    });
    let cut = cut.collect::<Result<_>>()?;
    block_on(store.remove(key))?;
    Ok(cut)
}

fn write(bare: &memcache::Client, chunks: &[(String, Bytes)]) -> Result<()> {
    for (name, chunk) in chunks {
        bare.set(name, &chunk[..], 0)?;
    }
    Ok(())
}

fn bare_put(cut: Cut) -> Open {
    Box::new(move |scene| {
        let bare = bare(scene)?;
        let chunks = cut(scene, &bare)?;
        Ok(Box::new(move || {
            for (name, _) in &chunks {
                bare.delete(name)?;
            }
            Sample::timed(|| write(&bare, &chunks))
        }))
    })
}

fn bare_get(cut: Cut) -> Open {
    Box::new(move |scene| {
        let bare = bare(scene)?;
        let chunks = cut(scene, &bare)?;
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
