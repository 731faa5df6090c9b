//! A Redis server, beside the crate `redis` alone: the same bytes, and tables beside arrow-ipc and `GET`.

use std::io::BufWriter;
use std::rc::Rc;

use arrow_buffer::Buffer;
use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_cache::blocking::Cache;
use ck_cache::{Verification, open_store};
use ck_core::{Backend, Key, WriteOptions, block_on};
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use super::{local, terms};
use crate::Result;
use crate::ipc::{self, Codec, Proof};
use crate::row::{Group, Open, Row, Sample, Side};
use crate::scene::Scene;
use crate::tables::{Kind, THREE};

const SERVER: &str = "the server's memory";
const NONE: &str = "off";
const HASHED: &str = "xxh3 of all bytes";
pub(super) const HASHED_BY_US: &str = "ours xxh3 of all bytes, the peer none";

/// The key of tables.
const TABLE: &str = "table";

/// That of the entry whose bytes the bare client moves, which goes before the first round; ours stays.
pub(super) const CUT: &str = "cut";

/// What is written at a time, as the encoder gives it out.
const PIECE: usize = 8 << 20;

pub(super) fn rows(scene: &Scene) -> Vec<Row> {
    let gets = if scene.quick { 500 } else { 3_000 };
    let row = |work: &str, peer: &str, verification, ours, theirs| {
        Row::new(
            Group::Network,
            work,
            peer,
            terms(SERVER, verification),
            ours,
            theirs,
        )
    };
    let mut rows = vec![
        row(
            "Redis: put of a table's size, one value",
            "SET",
            NONE,
            put(None),
            bare_put(),
        ),
        row(
            "Redis: put of a table's size, chunks",
            "SET of one value",
            NONE,
            put(Some(64 << 20)),
            bare_put(),
        ),
        row(
            "Redis: get of a table's size, one value",
            "GET",
            NONE,
            get(None),
            bare_get(),
        ),
        row(
            "Redis: get of a table's size, chunks",
            "GET of one value",
            NONE,
            get(Some(64 << 20)),
            bare_get(),
        ),
        row(
            "Redis: put none, numeric",
            "SET of the entry's bytes",
            HASHED_BY_US,
            put_table(Kind::Numeric, Codec::None),
            bare_put_entry(),
        ),
        row(
            "Redis: get none, numeric",
            "GET of the entry's bytes",
            HASHED_BY_US,
            get_table(Kind::Numeric, Codec::None, None),
            bare_get_entry(),
        ),
        row(
            "Redis: put zstd 3, lineitem",
            "arrow-ipc + xxh3 + SET",
            HASHED,
            put_table(Kind::Lineitem, Codec::Zstd(3)),
            bare_put_table(Kind::Lineitem, Codec::Zstd(3)),
        ),
        row(
            "Redis: get zstd 3, lineitem",
            "GET + xxh3 + arrow-ipc",
            HASHED,
            get_table(Kind::Lineitem, Codec::Zstd(3), None),
            bare_get_table(Kind::Lineitem, Codec::Zstd(3), None, Proof::File),
        ),
        row(
            "Redis: 3 of 200 columns",
            "GET + arrow-ipc, columns hashed",
            "xxh3 of the columns read",
            get_table(Kind::Wide, Codec::None, Some(&THREE)),
            bare_get_table(Kind::Wide, Codec::None, Some(&THREE), Proof::Columns),
        ),
    ];
    for (size, name) in [(1 << 10, "1 KiB"), (64 << 10, "64 KiB")] {
        rows.push(
            row(
                &format!("Redis: put {name}"),
                "SET",
                NONE,
                small_put(size, gets),
                bare_small_put(size, gets),
            )
            .of_operations(gets),
        );
        rows.push(
            row(
                &format!("Redis: get {name}"),
                "GET",
                NONE,
                small_get(size, gets),
                bare_small_get(size, gets),
            )
            .of_operations(gets),
        );
    }
    rows
}

/// Bytes that do not repeat.
pub(super) fn pattern(len: usize) -> Bytes {
    let words =
        (0..len as u64 / 8).flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.collect::<Vec<u8>>().into()
}

/// Puts in pieces, as an encoder does.
pub(super) fn put_bytes(store: &dyn Backend, key: &Key, bytes: &Bytes) -> Result<()> {
    let parts = (0..bytes.len()).step_by(PIECE);
    let parts = parts
        .map(|at| bytes.slice(at..bytes.len().min(at + PIECE)))
        .collect();
    block_on(store.put(key, Bytes::new(), parts, WriteOptions::new()))?.stored()?;
    Ok(())
}

pub(super) fn get_bytes(store: &dyn Backend, key: &Key) -> Result<Bytes> {
    let entry = block_on(store.open(key))?.ok_or("a miss")?;
    Ok(block_on(entry.read(0..entry.len()))?)
}

fn store(scene: &Scene, single_value_bytes: Option<u64>) -> Result<RedisBackend> {
    let builder = RedisBackend::builder(scene.redis()?.url());
    Ok(match single_value_bytes {
        Some(bytes) => builder
            .single_value_bytes(bytes.min(scene.bytes() as u64 / 4))
            .build()?,
        None => builder.build()?,
    })
}

fn put(chunked: Option<u64>) -> Open {
    Box::new(move |scene| {
        let (store, bytes, key) = (
            store(scene, chunked)?,
            pattern(scene.bytes()),
            Key::new("ours"),
        );
        Ok(Box::new(move || {
            Sample::timed(|| put_bytes(&store, &key, &bytes))
        }))
    })
}

fn get(chunked: Option<u64>) -> Open {
    Box::new(move |scene| {
        let (store, len, key) = (store(scene, chunked)?, scene.bytes(), Key::new("ours"));
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

/// The client library alone, one connection.
struct Bare {
    runtime: Rc<Runtime>,
    connection: MultiplexedConnection,
}

impl Bare {
    fn connect(scene: &Scene) -> Result<Self> {
        let runtime = scene.runtime()?;
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let client = redis::Client::open(scene.redis()?.url())?;
        let connection =
            runtime.block_on(client.get_multiplexed_async_connection_with_config(&config))?;
        Ok(Self {
            runtime,
            connection,
        })
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let set = redis::cmd("SET").arg(key).arg(value).take();
        Ok(self
            .runtime
            .block_on(set.exec_async(&mut self.connection))?)
    }

    fn get(&mut self, key: &str) -> Result<Vec<u8>> {
        let get = redis::cmd("GET").arg(key).take();
        let value: Option<Vec<u8>> = self
            .runtime
            .block_on(get.query_async(&mut self.connection))?;
        Ok(value.ok_or("a miss")?)
    }
}

fn bare_put() -> Open {
    Box::new(|scene| {
        let (mut bare, bytes) = (Bare::connect(scene)?, pattern(scene.bytes()));
        Ok(Box::new(move || Sample::timed(|| bare.set("bare", &bytes))))
    })
}

fn bare_get() -> Open {
    Box::new(|scene| {
        let mut bare = Bare::connect(scene)?;
        bare.set("bare", &pattern(scene.bytes()))?;
        Ok(Box::new(move || Sample::timed(|| bare.get("bare"))))
    })
}

/// What an uncompressed table becomes in a store: the bare client moves these bytes, ready-made.
fn entry_bytes(scene: &Scene) -> Result<Bytes> {
    let cache = cache(scene)?;
    let bytes = entry_of(&cache, scene)?;
    cache.remove(CUT)?;
    Ok(bytes)
}

/// The same of any cache, which keeps the entry.
pub(super) fn entry_of(cache: &Cache, scene: &Scene) -> Result<Bytes> {
    let table = scene.table(Kind::Numeric)?;
    let source = ck_cache::Table::new(table[0].schema(), table.to_vec())?;
    cache
        .put_table(CUT, source, &local::options(Codec::None))?
        .stored()?;
    get_bytes(&**cache.backend()?, &Key::new(CUT))
}

fn bare_put_entry() -> Open {
    Box::new(|scene| {
        let (mut bare, bytes) = (Bare::connect(scene)?, entry_bytes(scene)?);
        Ok(Box::new(move || {
            let sample = Sample::timed(|| bare.set("bare", &bytes))?;
            Ok(sample.stored(bytes.len() as u64))
        }))
    })
}

fn bare_get_entry() -> Open {
    Box::new(|scene| {
        let mut bare = Bare::connect(scene)?;
        bare.set("bare", &entry_bytes(scene)?)?;
        Ok(Box::new(move || Sample::timed(|| bare.get("bare"))))
    })
}

fn small_put(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let (store, value) = (store(scene, None)?, pattern(size));
        Ok(Box::new(move || {
            Sample::timed(|| {
                (0..count).try_for_each(|number| put_bytes(&store, &key(number), &value))
            })
        }))
    })
}

fn small_get(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let (store, value) = (store(scene, None)?, pattern(size));
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
        let (mut bare, value) = (Bare::connect(scene)?, pattern(size));
        Ok(Box::new(move || {
            Sample::timed(|| {
                (0..count).try_for_each(|number| bare.set(&format!("bare {number}"), &value))
            })
        }))
    })
}

fn bare_small_get(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let (mut bare, value) = (Bare::connect(scene)?, pattern(size));
        (0..64).try_for_each(|number| bare.set(&format!("bare {number}"), &value))?;
        Ok(Box::new(move || {
            Sample::timed(|| {
                (0..count)
                    .try_for_each(|number| bare.get(&format!("bare {}", number % 64)).map(drop))
            })
        }))
    })
}

pub(super) fn key(number: u64) -> Key {
    Key::new(format!("key {number}"))
}

fn cache(scene: &Scene) -> Result<Cache> {
    cache_at(&scene.redis()?.url())
}

/// A cache that proves what it reads.
pub(super) fn cache_at(url: &str) -> Result<Cache> {
    let builder = ck_cache::Cache::builder(open_store(url)?);
    Ok(builder
        .verification(Verification::OnTouch)
        .build()
        .blocking())
}

fn put_table(kind: Kind, codec: Codec) -> Open {
    Box::new(move |scene| put_in(cache(scene)?, scene, kind, codec, false))
}

/// Puts a table round by round; `removed` beforehand where there is no room for two.
pub(super) fn put_in(
    cache: Cache,
    scene: &Scene,
    kind: Kind,
    codec: Codec,
    removed: bool,
) -> Result<Side> {
    let table = scene.table(kind)?;
    Ok(Box::new(move || {
        if removed {
            cache.remove(TABLE)?;
        }
        let source = ck_cache::Table::new(table[0].schema(), table.to_vec())?;
        let mut stored = 0;
        let sample = Sample::timed(|| {
            stored = cache
                .put_table(TABLE, source, &local::options(codec))?
                .stored()?;
            Ok(())
        })?;
        Ok(sample.stored(stored))
    }))
}

fn bare_put_table(kind: Kind, codec: Codec) -> Open {
    Box::new(move |scene| {
        let (mut bare, table) = (Bare::connect(scene)?, scene.table(kind)?);
        Ok(Box::new(move || {
            let mut stored = 0;
            let sample = Sample::timed(|| {
                let bytes = ipc::encode(&table, BufWriter::new(Vec::new()), codec)?;
                std::hint::black_box(twox_hash::XxHash3_64::oneshot(&bytes));
                stored = bytes.len() as u64;
                bare.set("bare", &bytes)
            })?;
            Ok(sample.stored(stored))
        }))
    })
}

fn get_table(kind: Kind, codec: Codec, columns: Option<&'static [usize]>) -> Open {
    Box::new(move |scene| get_from(cache(scene)?, scene, kind, codec, columns))
}

/// Reads some columns of a table, or all of it, round by round.
pub(super) fn get_from(
    cache: Cache,
    scene: &Scene,
    kind: Kind,
    codec: Codec,
    columns: Option<&'static [usize]>,
) -> Result<Side> {
    let table = scene.table(kind)?;
    let source = ck_cache::Table::new(table[0].schema(), table.to_vec())?;
    cache
        .put_table(TABLE, source, &local::options(codec))?
        .stored()?;
    Ok(Box::new(move || {
        Sample::timed(|| {
            let table = cache.open_table(TABLE)?.ok_or("a miss")?;
            Ok(match columns {
                Some(columns) => table.project(columns)?.read_all()?,
                None => table.read_all()?,
            })
        })
    }))
}

fn bare_get_table(
    kind: Kind,
    codec: Codec,
    columns: Option<&'static [usize]>,
    proof: Proof,
) -> Open {
    Box::new(move |scene| {
        let (mut bare, table) = (Bare::connect(scene)?, scene.table(kind)?);
        bare.set(
            "bare",
            &ipc::encode(&table, BufWriter::new(Vec::new()), codec)?,
        )?;
        Ok(Box::new(move || {
            Sample::timed(|| ipc::decode(Buffer::from_vec(bare.get("bare")?), columns, proof))
        }))
    })
}
