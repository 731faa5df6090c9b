//! Guards several processes on one directory, some of them killed at random moments: nobody reads a
//! torn value, the limit is never exceeded, the survivors go on, and in the end the accounts are right
//! and no temporary file is left.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use ck_backend_file::{FileBackend, FileBackendBuilder, ReadMode};
use ck_core::Backend;
use common::{Process, argument, files, get, is_whole, role, spawn, stream, try_put, usage, value};
use pollster::block_on;
use rustix::fs::FlockOperation;

const LIMIT: u64 = 1_500_000;
const ENTRIES: u64 = 40;
const NAME: &str = "values_stay_whole_and_limits_hold_while_processes_come_and_go";

fn store(dir: impl AsRef<Path>) -> FileBackendBuilder {
    FileBackend::builder(dir.as_ref())
        .limit_bytes(LIMIT)
        .value_limit_bytes(400_000)
        .limit_entries(ENTRIES)
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// Writes, reads and removes until it is killed.
fn work(seed: u64) {
    let mode = if seed.is_multiple_of(2) {
        ReadMode::Mapped
    } else {
        ReadMode::Pread
    };
    let store = store(argument()).read_mode(mode).build().unwrap();
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    loop {
        let key = format!("key{}", dice.roll(60));
        let len = match dice.roll(4) {
            0 => dice.roll(300_000),
            1 => dice.roll(150_000),
            _ => dice.roll(5_000),
        };
        let len = usize::try_from(len).unwrap();
        match dice.roll(10) {
            0..3 => drop(try_put(&store, &key, value(dice.0, len)).unwrap()),
            3..6 => drop(stream(&store, &key, &value(dice.0, len)).unwrap()),
            6..9 => {
                if let Some(bytes) = get(&store, &key) {
                    assert!(is_whole(&bytes), "a torn value of {} bytes", bytes.len());
                }
            }
            _ => drop(block_on(store.remove(&key.as_str().into())).unwrap()),
        }
    }
}

/// The number of entries. With the lock of the directory nobody publishes, evicts or reserves, so this is one
/// moment.
fn check_limits(dir: &Path, lock: &std::fs::File) -> u64 {
    rustix::fs::flock(lock, FlockOperation::LockExclusive).unwrap();
    let found = files(dir);
    rustix::fs::flock(lock, FlockOperation::Unlock).unwrap();
    assert!(found.bytes <= LIMIT, "{found:?}");
    assert!(found.entries <= ENTRIES, "{found:?}");
    found.entries
}

#[test]
fn values_stay_whole_and_limits_hold_while_processes_come_and_go() {
    if let Some(seed) = role() {
        return work(seed.parse().unwrap());
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let lock = std::fs::File::open(dir).unwrap();
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let mut seeds = 1..;
    let mut start = || spawn(NAME, &seeds.next().unwrap().to_string(), dir);
    let mut children: Vec<Process> = (0..4).map(|_| start()).collect();
    let start_time = Instant::now();
    let (mut killed, mut checks, mut most) = (0, 0, 0);
    let mut next_kill = start_time + Duration::from_millis(60);
    // Where the machine has other things to do, few processes get to write before they are killed.
    while start_time.elapsed() < Duration::from_secs(3)
        || most < 5 && start_time.elapsed() < Duration::from_secs(60)
    {
        most = check_limits(dir, &lock).max(most);
        checks += 1;
        if Instant::now() >= next_kill {
            let victim = usize::try_from(dice.roll(children.len() as u64)).unwrap();
            let mut child = std::mem::replace(&mut children[victim], start());
            assert!(child.is_running(), "a process ended by itself");
            child.kill();
            killed += 1;
            next_kill = Instant::now() + Duration::from_millis(5 + dice.roll(40));
        }
    }
    for child in &mut children {
        assert!(child.is_running(), "a process ended by itself");
        child.kill();
    }
    assert!(
        killed > 10 && checks > 10 && most >= 5,
        "{killed} kills, {checks} checks, {most} entries at most"
    );
    check_limits(dir, &lock);

    let survivor = store(dir).build().unwrap();
    block_on(survivor.prune()).unwrap();
    let found = files(dir);
    let counted = usage(&survivor);
    assert_eq!(found.temporary, 0);
    assert_eq!(
        (counted.entries, counted.bytes, counted.reserved_bytes),
        (found.entries, found.entry_bytes, 0)
    );
    for i in 0..60 {
        if let Some(bytes) = get(&survivor, &format!("key{i}")) {
            assert!(is_whole(&bytes));
        }
    }
    common::put(&survivor, "after", value(1, 200_000));
    assert!(is_whole(&get(&survivor, "after").unwrap()));
}
