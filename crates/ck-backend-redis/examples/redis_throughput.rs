//! What a Redis store costs beside the bare client: throughput, memory and bytes on the wire.
//!
//! ```text
//! cargo run --release -p ck-backend-redis --example redis_throughput [MIB [ROUNDS]]
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an example shows what it does"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_core::{Backend, Key, WriteOptions, block_on};
use testkit::{Proxy, RedisServer};

const MIB: usize = 1 << 20;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().unwrap());
    let size = args.next().unwrap_or(256) * MIB;
    let rounds = args.next().unwrap_or(5);
    let server = RedisServer::start();
    let store = RedisBackend::open(server.url()).unwrap();
    let chunked = RedisBackend::builder(server.url()).single_value_bytes(64 << 20);
    let chunked = chunked.build().unwrap();

    memory(&store, size);
    server.command(&["FLUSHALL"]);
    wire(&server, size);
    server.command(&["FLUSHALL"]);
    let bytes = pattern(size);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut times = [const { Vec::new() }; 6];
    for _ in 0..rounds {
        times[0].push(time(|| runtime.block_on(bare_set(&server.url(), &bytes))));
        times[1].push(time(|| put(&store, "ours", &bytes)));
        times[2].push(time(|| put(&chunked, "chunked", &bytes)));
        times[3].push(time(|| {
            assert_eq!(runtime.block_on(bare_get(&server.url())).len(), size)
        }));
        times[4].push(time(|| assert_eq!(get(&store, "ours").len(), size)));
        times[5].push(time(|| assert_eq!(get(&chunked, "chunked").len(), size)));
    }
    assert!(get(&store, "ours") == bytes && get(&chunked, "chunked") == bytes);
    let [set, put, put_chunked, get, read, read_chunked] = times.map(median);
    println!("{} MiB, median of {rounds} interleaved rounds", size / MIB);
    for (name, time, bare) in [
        ("SET of prepared bytes", set, set),
        ("put, one value", put, set),
        ("put, chunks of 7 MiB", put_chunked, set),
        ("GET", get, get),
        ("whole read, one value", read, get),
        ("whole read, chunks", read_chunked, get),
    ] {
        let ratio = bare.as_secs_f64() / time.as_secs_f64();
        println!(
            "  {name:22} {:6.0} ms  {ratio:.2} of the bare client's speed",
            time.as_secs_f64() * 1e3
        );
    }
}

/// Peak memory of streaming an entry in and out.
fn memory(store: &RedisBackend, size: usize) {
    let piece = pattern(8 * MIB);
    let start = reset_peak();
    let options = WriteOptions::new().with_head_len(64);
    let mut writer = block_on(store.create(&Key::new("m"), options))
        .unwrap()
        .continue_value()
        .unwrap();
    for _ in 0..size / piece.len() {
        // A copy, as an encoder would make it.
        let part = Bytes::copy_from_slice(&piece);
        assert!(block_on(writer.write(vec![part])).unwrap().is_continue());
    }
    assert!(
        block_on(writer.commit(piece.slice(..64)))
            .unwrap()
            .is_stored()
    );
    println!(
        "streamed put of {} MiB: peak {:.0} MiB above the start",
        size / MIB,
        peak() - start
    );

    let start = reset_peak();
    let entry = block_on(store.open(&Key::new("m"))).unwrap().unwrap();
    let mut at = 0;
    while at < entry.len() {
        let end = entry.len().min(at + 8 * MIB as u64);
        at += block_on(entry.read(at..end)).unwrap().len() as u64;
    }
    println!(
        "read by ranges of 8 MiB: peak {:.0} MiB above the start",
        peak() - start
    );
    let start = reset_peak();
    let whole = block_on(entry.read(0..entry.len())).unwrap();
    println!("whole read: peak {:.0} MiB above the start", peak() - start);
    drop(whole);
}

/// Bytes on the wire for 3 of 200 columns.
fn wire(server: &RedisServer, size: usize) {
    let proxy = Proxy::start(server.addr());
    let store = RedisBackend::open(format!("redis://{}", proxy.addr())).unwrap();
    put(&store, "w", &pattern(size));
    let entry = block_on(store.open(&Key::new("w"))).unwrap().unwrap();
    let before = proxy.bytes_down();
    let (batch, column) = (8 * MIB as u64, 8 * MIB as u64 / 200);
    let mut wanted = 0;
    for start in (0..entry.len()).step_by(8 * MIB) {
        let columns =
            [7, 70, 170].map(|index| start + index * column..start + (index + 1) * column);
        wanted += 3 * column;
        assert!(start + batch <= entry.len());
        block_on(entry.read_ranges(columns.to_vec())).unwrap();
    }
    let moved = proxy.bytes_down() - before;
    println!(
        "3 of 200 columns: {wanted} bytes wanted, {moved} moved, {:.4}",
        moved as f64 / wanted as f64
    );
}

async fn bare(url: &str) -> redis::aio::MultiplexedConnection {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let client = redis::Client::open(url).unwrap();
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap()
}

async fn bare_set(url: &str, bytes: &Bytes) {
    let command = redis::cmd("SET").arg("bare").arg(&bytes[..]).take();
    command.exec_async(&mut bare(url).await).await.unwrap();
}

async fn bare_get(url: &str) -> Vec<u8> {
    redis::cmd("GET")
        .arg("bare")
        .query_async(&mut bare(url).await)
        .await
        .unwrap()
}

fn put(store: &RedisBackend, key: &str, bytes: &Bytes) {
    let parts = (0..bytes.len()).step_by(8 * MIB);
    let parts = parts
        .map(|at| bytes.slice(at..bytes.len().min(at + 8 * MIB)))
        .collect();
    let key = Key::new(key);
    let stored = store.put(&key, Bytes::new(), parts, WriteOptions::new());
    assert!(block_on(stored).unwrap().is_stored());
}

fn get(store: &RedisBackend, key: &str) -> Bytes {
    let entry = block_on(store.open(&Key::new(key))).unwrap().unwrap();
    block_on(entry.read(0..entry.len())).unwrap()
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn pattern(len: usize) -> Bytes {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// Lets the peak start anew, and returns what is held now, in MiB.
fn reset_peak() -> f64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
