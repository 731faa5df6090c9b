use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_core::{Backend, Key, WriteOptions, block_on};
use redis::aio::MultiplexedConnection;
use testkit::RedisServer;
use tokio::runtime::{Builder, Runtime};

use super::{Plan, Side, busy};
use crate::Result;
use crate::memcached::pattern;

/// What is written at a time, as the encoder gives it out.
const PIECE: usize = 8 << 20;

/// The longest value that a store writes as one string.
const VALUE: usize = 256 << 20;

/// The size of its chunks beyond that.
const CHUNK: usize = 7 << 20;

pub(crate) fn run(plan: Plan) -> Result<()> {
    let mib = plan.mib;
    let server = RedisServer::start();
    let store = RedisBackend::open(server.url())?;
    let bytes = pattern(mib << 20);
    let values: Vec<_> = cut(&bytes, VALUE).collect();
    let chunks: Vec<_> = cut(&bytes, CHUNK).collect();
    let (small, large) = (Key::new("small"), Key::new("large"));
    put(&store, &small, &bytes.slice(..1 << 10), true)?;
    put(&store, &large, &bytes, true)?;
    let value_keys: Vec<_> = (0..values.len())
        .map(|i| Key::new(format!("value {i}")))
        .collect();
    let put_values = || {
        let mut pairs = value_keys.iter().zip(&values);
        pairs.try_for_each(|(key, value)| put(&store, key, value, true))
    };
    put_values()?;
    let mut ours = Side {
        probe: (
            "our get",
            Box::new(|| {
                assert!(block_on(store.open(&small))?.is_some());
                Ok(())
            }),
        ),
        loads: vec![
            ("our put of values", Box::new(put_values)),
            (
                "our get of values",
                Box::new(|| value_keys.iter().try_for_each(|key| get(&store, key))),
            ),
            (
                "our put in chunks",
                Box::new(|| put(&store, &large, &bytes, true)),
            ),
            (
                "our put in chunks, length unknown",
                Box::new(|| put(&store, &large, &bytes, false)),
            ),
            ("our get of chunks", Box::new(|| get(&store, &large))),
        ],
    };
    ours.loads.extend(busy(plan));

    let (prober, mover) = (Bare::connect(&server)?, Bare::connect(&server)?);
    prober.set("bare:small", &bytes[..1 << 10])?;
    let mut theirs = Side {
        probe: ("bare get", Box::new(|| prober.get("bare:small"))),
        loads: vec![
            ("bare SET of values", Box::new(|| mover.set_all(&values))),
            ("bare GET of values", Box::new(|| mover.get_all(&values))),
            ("bare SET of chunks", Box::new(|| mover.set_all(&chunks))),
            ("bare GET of chunks", Box::new(|| mover.get_all(&chunks))),
        ],
    };
    theirs.loads.extend(busy(plan));
    super::run("Redis", &[ours, theirs], plan)
}

fn cut(bytes: &Bytes, len: usize) -> impl Iterator<Item = Bytes> {
    let starts = (0..bytes.len()).step_by(len);
    starts.map(move |at| bytes.slice(at..bytes.len().min(at + len)))
}

/// Puts in pieces; `known` when the store is told the length beforehand.
fn put(store: &RedisBackend, key: &Key, bytes: &Bytes, known: bool) -> Result<()> {
    let options = WriteOptions::new();
    let pieces = cut(bytes, PIECE);
    if known {
        block_on(store.put(key, Bytes::new(), pieces.collect(), options))?.stored()?;
        return Ok(());
    }
    let mut writer = block_on(store.create(key, options))?
        .continue_value()
        .ok_or("refused")?;
    for piece in pieces {
        assert!(block_on(writer.write(vec![piece]))?.is_continue());
    }
    block_on(writer.commit(Bytes::new()))?.stored()?;
    Ok(())
}

fn get(store: &RedisBackend, key: &Key) -> Result<()> {
    let entry = block_on(store.open(key))?.ok_or("the entry is gone")?;
    let bytes = block_on(entry.read(0..entry.len()))?;
    assert_eq!(bytes.len() as u64, entry.len());
    Ok(())
}

/// The client library alone, with a connection and threads of its own.
struct Bare {
    runtime: Runtime,
    connection: MultiplexedConnection,
}

impl Bare {
    fn connect(server: &RedisServer) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let client = redis::Client::open(server.url())?;
        let connect = client.get_multiplexed_async_connection_with_config(&config);
        let connection = runtime.block_on(connect)?;
        Ok(Self {
            runtime,
            connection,
        })
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let set = redis::cmd("SET").arg(key).arg(value).take();
        let mut connection = self.connection.clone();
        Ok(self.runtime.block_on(set.exec_async(&mut connection))?)
    }

    fn get(&self, key: &str) -> Result<()> {
        let get = redis::cmd("GET").arg(key).take();
        let mut connection = self.connection.clone();
        let value: Option<Vec<u8>> = self.runtime.block_on(get.query_async(&mut connection))?;
        assert!(value.is_some());
        Ok(())
    }

    fn set_all(&self, values: &[Bytes]) -> Result<()> {
        let mut values = values.iter().enumerate();
        values.try_for_each(|(index, value)| self.set(&name(index, value), value))
    }

    fn get_all(&self, values: &[Bytes]) -> Result<()> {
        let mut values = values.iter().enumerate();
        values.try_for_each(|(index, value)| self.get(&name(index, value)))
    }
}

fn name(index: usize, value: &Bytes) -> String {
    format!("bare:{}:{index}", value.len())
}
