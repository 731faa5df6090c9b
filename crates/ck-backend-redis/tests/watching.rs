//! Guards what somebody who keeps copies is told: every change of the store's entries, nothing else, and that
//! nothing is told while the connection is down.
#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

mod common;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_core::{Backend, ChangeListener, ErrorKind, Expiry, Key, WriteOptions};
use common::{pattern, put, stored};
use pollster::block_on;
use testkit::RedisServer;

/// Everything that was told, in order.
#[derive(Default)]
struct Diary(Mutex<Vec<String>>);

impl Diary {
    fn write(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }

    /// Waits for a line, forgets everything up to it, and tells what stood before it.
    #[track_caller]
    fn expect(&self, line: &str) -> Vec<String> {
        let start = Instant::now();
        loop {
            let mut lines = self.0.lock().unwrap();
            if let Some(at) = lines.iter().position(|known| known == line) {
                let rest = lines.split_off(at + 1);
                let mut before = std::mem::replace(&mut *lines, rest);
                before.pop();
                return before;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "`{line}` was not told, but {lines:?}"
            );
            drop(lines);
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl ChangeListener for Diary {
    fn watching(&self) {
        self.write("watching");
    }

    fn changed(&self, key: &Key) {
        self.write(&format!("changed {key}"));
    }

    fn lost(&self) {
        self.write("lost");
    }
}

fn store(server: &RedisServer, prefix: &str) -> RedisBackend {
    RedisBackend::builder(server.url())
        .key_prefix(prefix)
        .timeout(Duration::from_millis(500))
        .single_value_bytes(1 << 20)
        .chunk_bytes(600_000)
        .build()
        .unwrap()
}

#[test]
fn changes_of_the_stores_entries_are_told_and_nothing_else() {
    let server = RedisServer::start();
    let (ours, theirs, foreign) = (
        store(&server, "a:"),
        store(&server, "a:"),
        store(&server, "b:"),
    );
    // There is a connection already.
    let key = Key::new("table");
    assert!(block_on(ours.open(&key)).unwrap().is_none());
    let diary = Arc::new(Diary::default());
    let watch = ours.watch(diary.clone()).unwrap();
    diary.expect("watching");
    let second = ours.watch(diary.clone()).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Misuse);

    for size in [100, 200_000, 900_000, 3 << 20] {
        let bytes = pattern(1, size);
        stored(put(&foreign, &key, &bytes));
        stored(put(&theirs, &Key::new("end"), &bytes));
        // Were anything of another store told, or of a chunk, it would stand before this.
        let before = diary.expect("changed end");
        assert!(
            before.iter().all(|line| line == "changed table"),
            "{size}: {before:?}"
        );
        diary.0.lock().unwrap().clear();

        stored(put(&ours, &key, &bytes));
        diary.expect("changed table");
        stored(put(&theirs, &key, &bytes));
        diary.expect("changed table");
    }
    assert!(block_on(theirs.touch(&key, Expiry::NEVER)).is_ok());
    assert!(block_on(theirs.remove(&key)).unwrap());
    diary.expect("changed table");
    let soon = Expiry::after(Duration::from_secs(2)).unwrap();
    let options = WriteOptions::new().with_expiry(soon);
    let brief = block_on(ours.put(&key, Bytes::new(), vec![pattern(1, 100)], options));
    stored(brief);
    diary.expect("changed table");

    server.command(&["FLUSHALL"]);
    diary.expect("lost");
    diary.expect("watching");
    drop(watch);
    diary.0.lock().unwrap().clear();
    stored(put(&theirs, &key, &pattern(1, 100)));
    let another = Arc::new(Diary::default());
    let _watch = ours.watch(another.clone()).unwrap();
    another.expect("watching");
    stored(put(&theirs, &key, &pattern(1, 100)));
    another.expect("changed table");
    assert!(
        diary.0.lock().unwrap().is_empty(),
        "something was told after the end"
    );
}

#[test]
fn a_connection_that_is_lost_is_told_and_comes_back() {
    let mut server = RedisServer::start();
    let (ours, theirs) = (store(&server, ""), store(&server, ""));
    let diary = Arc::new(Diary::default());
    let _watch = ours.watch(diary.clone()).unwrap();
    diary.expect("watching");
    server.kill();
    diary.expect("lost");
    server.restart();
    diary.expect("watching");
    let key = Key::new("table");
    let again = || put(&theirs, &key, &pattern(1, 100));
    stored(again().or_else(|_| again()));
    diary.expect("changed table");
    // Half-open: nothing answers, and nothing says so.
    server.pause();
    diary.expect("lost");
    server.resume();
    diary.expect("watching");
    stored(again().or_else(|_| again()));
    diary.expect("changed table");
}

#[cfg(feature = "cluster")]
#[test]
fn a_cluster_says_that_it_cannot_tell() {
    let store = RedisBackend::open("redis-cluster://127.0.0.1:1").unwrap();
    let error = store.watch(Arc::new(Diary::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
