//! Guards against leaks: after many failures the process holds as much memory, and as many files and threads,
//! as after few.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests report by panicking"
)]

mod common;

use std::time::{Duration, Instant};

use common::network::{break_network, runs};
use testkit::RedisServer;
use testkit::heap::{CountingAllocator, live};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

/// Bytes that are allocated, open files, and threads.
fn held() -> [usize; 3] {
    let count = |place: &str| std::fs::read_dir(place).unwrap().count();
    let files = count("/proc/self/fd");
    [live(), files, count("/proc/self/task")]
}

#[test]
fn failures_leak_neither_memory_nor_files_nor_threads() {
    let server = RedisServer::start();
    // What is made once is made.
    break_network(&server, 100, 20);
    let settled = || {
        let start = Instant::now();
        let mut last = held();
        // Threads of closed stores end in their own time.
        while start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(20));
            let now = held();
            last = std::array::from_fn(|index| last[index].min(now[index]));
        }
        last
    };
    let before = settled();
    break_network(&server, 101, (runs() / 4).max(40));
    let after = settled();
    println!("bytes, files and threads: {before:?} before, {after:?} after");
    assert!(
        after[0] < before[0] + 300_000,
        "memory: {before:?}, {after:?}"
    );
    assert!(after[1] <= before[1] + 2, "files: {before:?}, {after:?}");
    assert!(after[2] <= before[2] + 1, "threads: {before:?}, {after:?}");
}
