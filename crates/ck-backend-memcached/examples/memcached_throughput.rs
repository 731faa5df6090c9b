//! How fast a large entry is written and read, beside the bare `memcache` client that does the same with
//! the same chunks: `cargo run --release -p ck-backend-memcached --example memcached_throughput [MiB] [connections]`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people that prints and may fail"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, Key, WriteOptions, block_on};
use testkit::Memcached;

const ROUNDS: usize = 7;
/// What is written at a time, as the encoder gives it out.
const PIECE: usize = 8 << 20;
/// The store's own: what fits into an item of a stock server.
const CHUNK: usize = (1 << 20) - 512;

fn main() {
    let mib: usize = std::env::args()
        .nth(1)
        .map_or(256, |arg| arg.parse().unwrap());
    let len = mib << 20;
    let memory = (mib * 4).to_string();
    let server = Memcached::start_with(&["-m", &memory]);
    let mut builder = MemcachedBackend::builder([server.addr().to_string()]);
    if let Some(connections) = std::env::args().nth(2) {
        builder = builder.bulk_connections(connections.parse().unwrap());
    }
    let backend = builder.build().unwrap();
    let key = Key::new("table");
    let words = (0..len as u64 / 8).flat_map(|i| (i * 0x9e37_79b9_7f4a_7c15).to_le_bytes());
    let bytes: Vec<u8> = words.collect();
    let bytes = Bytes::from(bytes);

    let url = format!(
        "memcache://{}?protocol=ascii&tcp_nodelay=true",
        server.addr()
    );
    let bare = memcache::Client::connect(url).unwrap();
    let names: Vec<String> = (0..len.div_ceil(CHUNK))
        .map(|i| format!("bare:{i}"))
        .collect();
    let chunks: Vec<&[u8]> = bytes.chunks(CHUNK).collect();

    let mut times = [const { Vec::new() }; 4];
    // The first round warms up.
    for round in 0..=ROUNDS {
        let measured = [
            time(|| {
                let parts = (0..len).step_by(PIECE);
                let parts = parts
                    .map(|at| bytes.slice(at..len.min(at + PIECE)))
                    .collect();
                let put = backend.put(&key, Bytes::new(), parts, WriteOptions::new());
                assert!(block_on(put).unwrap().is_stored());
            }),
            time(|| {
                for (name, chunk) in names.iter().zip(&chunks) {
                    bare.set(name, *chunk, 0).unwrap();
                }
            }),
            time(|| {
                let entry = block_on(backend.open(&key)).unwrap().unwrap();
                let read = block_on(entry.read(0..entry.len())).unwrap();
                assert_eq!(read.len(), len);
            }),
            time(|| {
                let get = |name| -> Vec<u8> { bare.get(name).unwrap().unwrap() };
                let read: Vec<Vec<u8>> = names.iter().map(|name| get(name)).collect();
                assert_eq!(read.iter().map(Vec::len).sum::<usize>(), len);
            }),
        ];
        if round > 0 {
            for (times, time) in times.iter_mut().zip(measured) {
                times.push(time);
            }
        }
        // Room for the next round: what was replaced lives a little longer.
        assert!(block_on(backend.remove(&key)).unwrap());
        for name in &names {
            bare.delete(name).unwrap();
        }
    }
    beside_a_transfer(&backend, &bytes);
    let entry = |index: usize| median(&times[index]);
    for (what, ours, theirs) in [("put", entry(0), entry(1)), ("get", entry(2), entry(3))] {
        let rate = |time: Duration| mib as f64 / time.as_secs_f64();
        println!(
            "{what} {mib} MiB: {:.0} MiB/s, the bare client {:.0} MiB/s, ratio {:.2}",
            rate(ours),
            rate(theirs),
            rate(ours) / rate(theirs)
        );
    }
}

/// How long it takes to get 1 KiB, alone and while the large entry is written and read again and again.
fn beside_a_transfer(backend: &MemcachedBackend, bytes: &Bytes) {
    let (small, large) = (Key::new("small"), Key::new("large"));
    let put = |key: &Key, bytes: &Bytes| {
        let parts = vec![bytes.clone()];
        let put = backend.put(key, Bytes::new(), parts, WriteOptions::new());
        assert!(block_on(put).unwrap().is_stored());
    };
    put(&small, &bytes.slice(..1 << 10));
    let get = || {
        let mut times: Vec<Duration> = (0..20_000)
            .map(|_| time(|| assert!(block_on(backend.open(&small)).unwrap().is_some())))
            .collect();
        times.sort();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    };
    let (median, idle) = get();
    println!("get 1 KiB alone: median {median:?}, p99 {idle:?}");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                put(&large, bytes);
                let entry = block_on(backend.open(&large)).unwrap().unwrap();
                drop(block_on(entry.read(0..entry.len())).unwrap());
            }
        });
        let (median, busy) = get();
        done.store(true, Ordering::Relaxed);
        let ratio = busy.as_secs_f64() / idle.as_secs_f64();
        println!("get 1 KiB beside a transfer: median {median:?}, p99 {busy:?}, ratio {ratio:.1}");
    });
    assert!(block_on(backend.remove(&large)).unwrap());
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}
