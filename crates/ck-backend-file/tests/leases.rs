//! Guards leases: one holder among all processes and all stores of one process, whatever becomes of
//! it, and nothing left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_file::FileBackend;
use ck_core::{Backend, Key, Lease, Outcome, Rejection, WriteMode, WriteOptions};
use common::{Process, argument, files, get, put, ready, role, spawn, try_put, usage, value};
use common::{succeeds, wait_for_the_end};
use pollster::block_on;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3_600);

fn take(store: &FileBackend, key: &str, term: Duration) -> Option<Box<dyn Lease>> {
    block_on(store.lease(&Key::new(key), term)).expect("the store answers")
}

fn take_in_time(store: &FileBackend, key: &str) -> Box<dyn Lease> {
    let start = Instant::now();
    loop {
        if let Some(lease) = take(store, key, LONG) {
            return lease;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the lease does not end"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn release(lease: Box<dyn Lease>) {
    block_on(lease.release()).unwrap();
}

fn lease_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.to_str().unwrap().contains(".ck-lease-"))
        .collect()
}

fn signal(process: &Process, signal: Signal) {
    kill_process(Pid::from_child(&process.0), signal).unwrap();
}

#[test]
fn of_many_processes_one_at_a_time_holds_a_lease_even_when_some_are_killed() {
    const NAME: &str = "of_many_processes_one_at_a_time_holds_a_lease_even_when_some_are_killed";
    if role().is_some() {
        let dir = PathBuf::from(argument());
        // Opened first: the kernel closes files in this order, so that of a killed holder the witness
        // is free when the lease is.
        let witness = std::fs::File::create(dir.join("witness")).unwrap();
        let mut log = std::fs::File::options();
        let mut log = log.append(true).open(dir.join("log")).unwrap();
        let store = FileBackend::open(dir.join("store")).unwrap();
        for round in 0_u64.. {
            let Some(mut lease) = take(&store, "key", LONG) else {
                std::thread::yield_now();
                continue;
            };
            rustix::fs::flock(&witness, FlockOperation::NonBlockingLockExclusive)
                .expect("a lease has two holders");
            log.write_all(b"x").unwrap();
            if round.is_multiple_of(2) {
                assert!(block_on(lease.renew()).unwrap(), "a living holder lost it");
            }
            rustix::fs::flock(&witness, FlockOperation::Unlock).unwrap();
            if round.is_multiple_of(3) {
                release(lease);
            }
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let log = temp.path().join("log");
    std::fs::write(&log, "").unwrap();
    let taken = || std::fs::metadata(&log).unwrap().len();
    let start = || spawn(NAME, "worker", temp.path());
    let mut children: Vec<Process> = (0..4).map(|_| start()).collect();
    for round in 0..40 {
        let before = taken();
        let deadline = Instant::now() + Duration::from_secs(60);
        while taken() < before + 100 {
            assert!(Instant::now() < deadline, "nobody gets the lease");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut child = std::mem::replace(&mut children[round % 4], start());
        assert!(child.is_running(), "a process ended by itself");
        child.kill();
    }
    for child in &mut children {
        assert!(child.is_running(), "a process ended by itself");
        child.kill();
    }
    let dir = temp.path().join("store");
    let store = FileBackend::open(&dir).unwrap();
    release(take(&store, "key", LONG).expect("all others are dead"));
    assert_eq!(lease_files(&dir), [] as [PathBuf; 0]);
}

#[test]
fn a_killed_holder_is_succeeded_at_once_and_what_it_left_is_cleared_away() {
    const NAME: &str = "a_killed_holder_is_succeeded_at_once_and_what_it_left_is_cleared_away";
    let keys = ["one", "two", "three"];
    if role().is_some() {
        let store = FileBackend::open(argument()).unwrap();
        let _leases = keys.map(|key| take(&store, key, LONG).unwrap());
        return wait_for_the_end();
    }
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let mut child = spawn(NAME, "holder", dir.path());
    ready(&mut child);
    let pruned = block_on(store.prune()).unwrap();
    assert_eq!(pruned.orphans, 0, "the holder lives");
    for key in keys {
        assert!(take(&store, key, LONG).is_none());
    }
    child.kill();
    let lease = take(&store, "one", LONG).expect("its holder is dead");
    assert_eq!(lease_files(dir.path()).len(), 3);

    let pruned = block_on(store.prune()).unwrap();
    assert_eq!((pruned.entries, pruned.orphans, pruned.bytes), (0, 2, 0));
    assert!(take(&store, "one", LONG).is_none(), "prune ended a lease");
    release(lease);
    assert_eq!(lease_files(dir.path()).len(), 0);
}

#[test]
fn a_stopped_holder_is_succeeded_after_its_term_and_learns_of_it() {
    const NAME: &str = "a_stopped_holder_is_succeeded_after_its_term_and_learns_of_it";
    if role().is_some() {
        let store = FileBackend::open(argument()).unwrap();
        let mut lease = take(&store, "key", Duration::from_millis(50)).unwrap();
        let options = WriteOptions::new().with_mode(WriteMode::Create);
        let writer = block_on(store.create(&Key::new("key"), options)).unwrap();
        let ControlFlow::Continue(mut writer) = writer else {
            panic!("there is no entry yet")
        };
        let written = block_on(writer.write(vec![value(1, 200_000)])).unwrap();
        assert!(written.is_continue());
        wait_for_the_end();
        // The parent has stopped this process meanwhile.
        assert!(!block_on(lease.renew()).unwrap(), "the lease was lost");
        let outcome = block_on(writer.commit(Bytes::new())).unwrap();
        assert_eq!(outcome, Outcome::Rejected(Rejection::Superseded));
        return release(lease);
    }
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let mut child = spawn(NAME, "holder", dir.path());
    ready(&mut child);
    signal(&child, Signal::STOP);

    let lease = take_in_time(&store, "key");
    let options = WriteOptions::new().with_mode(WriteMode::Create);
    let body = vec![value(2, 200_000)];
    let outcome = block_on(store.put(&Key::new("key"), Bytes::new(), body, options));
    assert!(outcome.unwrap().is_stored());

    signal(&child, Signal::CONT);
    child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    succeeds(child);
    assert_eq!(get(&store, "key").unwrap(), value(2, 200_000));
    assert!(
        take(&store, "key", LONG).is_none(),
        "it released another's lease"
    );
    assert_eq!(files(dir.path()).temporary, 0);
    release(lease);
    assert_eq!(lease_files(dir.path()).len(), 0);
}

#[test]
fn a_stopped_holder_keeps_its_lease_in_its_term() {
    const NAME: &str = "a_stopped_holder_keeps_its_lease_in_its_term";
    if role().is_some() {
        let store = FileBackend::open(argument()).unwrap();
        let mut lease = take(&store, "key", LONG).unwrap();
        wait_for_the_end();
        assert!(block_on(lease.renew()).unwrap());
        return release(lease);
    }
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let mut child = spawn(NAME, "holder", dir.path());
    ready(&mut child);
    signal(&child, Signal::STOP);
    assert!(take(&store, "key", Duration::ZERO).is_none());
    signal(&child, Signal::CONT);
    child.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    succeeds(child);
    assert_eq!(lease_files(dir.path()).len(), 0);
}

#[test]
fn the_stores_of_one_process_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let one = FileBackend::open(dir.path()).unwrap();
    let two = FileBackend::open(dir.path()).unwrap();
    for (holder, other) in [(&one, &two), (&two, &one), (&one, &one)] {
        let lease = take(holder, "key", LONG).unwrap();
        assert!(take(other, "key", LONG).is_none());
        drop(lease);
        release(take(other, "key", LONG).expect("it was dropped"));
    }
    // A store that is dropped first does not matter to its leases.
    let lease = take(&one, "key", LONG).unwrap();
    drop(one);
    assert!(take(&two, "key", LONG).is_none());
    drop(lease);
    assert_eq!(lease_files(dir.path()).len(), 0);
}

#[test]
fn leases_take_no_room_and_are_not_seen_as_entries() {
    const LIMIT: u64 = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        FileBackend::builder(dir.path())
            .limit_bytes(LIMIT)
            .limit_entries(5)
            .build()
            .unwrap()
    };
    let store = open();
    let names: Vec<String> = (0..50).map(|i| format!("key{i}")).collect();
    let leases: Vec<_> = names
        .iter()
        .map(|name| take(&store, name, LONG).unwrap())
        .collect();
    assert_eq!(lease_files(dir.path()).len(), 50);
    assert_eq!((usage(&store).entries, usage(&store).bytes), (0, 0));
    for (seed, name) in names.iter().enumerate() {
        let outcome = try_put(&store, name, value(seed as u64, 50_000)).unwrap();
        assert!(outcome.is_stored());
        assert!(files(dir.path()).bytes <= LIMIT);
    }
    let found = files(dir.path());
    assert_eq!(usage(&store).entries, found.entries);
    assert_eq!(usage(&store).bytes, found.entry_bytes);

    // Nor does another process see more, one that has to compare everything.
    std::fs::remove_file(dir.path().join(".ck-ledger")).unwrap();
    let other = open();
    assert_eq!(block_on(other.prune()).unwrap().orphans, 0);
    assert_eq!(usage(&other).entries, found.entries);
    let listed = block_on(other.list(None, 0)).unwrap().entries;
    assert_eq!(listed.len() as u64, found.entries);

    // Removing an entry leaves its lease, and the other way round.
    assert!(block_on(store.remove(&Key::new("key49"))).unwrap());
    assert!(take(&other, "key49", LONG).is_none());
    leases.into_iter().for_each(release);
    assert_eq!(lease_files(dir.path()).len(), 0);
    assert!(get(&store, "key48").is_some());
}

#[test]
fn a_lease_dropped_while_others_are_busy_ends_at_once_and_is_cleared_away_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let other = FileBackend::open(dir.path()).unwrap();
    // So that no reconcile clears anything away.
    block_on(store.prune()).unwrap();
    put(&store, "key", "value");
    let lock = std::fs::File::open(dir.path()).unwrap();
    for taken_by_another in [false, true] {
        let lease = take(&store, "key", LONG).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        drop(lease);
        assert_eq!(lease_files(dir.path()).len(), 1);
        rustix::fs::flock(&lock, FlockOperation::Unlock).unwrap();

        let next = taken_by_another.then(|| take(&other, "key", LONG).expect("it was dropped"));
        // Whatever the store does next, it clears away what it left, and nothing else.
        assert_eq!(usage(&store).entries, 1);
        assert_eq!(lease_files(dir.path()).len(), usize::from(taken_by_another));
        if let Some(mut next) = next {
            assert!(block_on(next.renew()).unwrap());
            release(next);
        }
    }
    assert_eq!(lease_files(dir.path()).len(), 0);
}

#[test]
fn a_lease_whose_file_is_deleted_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let mut lease = take(&store, "key", LONG).unwrap();
    assert!(block_on(lease.renew()).unwrap());
    for file in lease_files(dir.path()) {
        std::fs::remove_file(file).unwrap();
    }
    assert!(!block_on(lease.renew()).unwrap());
    let mut next = take(&store, "key", LONG).expect("nobody has it");
    assert!(!block_on(lease.renew()).unwrap());
    drop(lease);
    assert!(block_on(next.renew()).unwrap(), "the lost one took it away");
    assert!(take(&store, "key", LONG).is_none());
}

#[test]
fn terms_of_any_length_are_terms() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let lease = take(&store, "key", Duration::MAX).unwrap();
    assert!(take(&store, "key", Duration::MAX).is_none());
    drop(lease);
    let mut over = take(&store, "key", Duration::ZERO).unwrap();
    assert!(block_on(over.renew()).unwrap(), "nobody else wanted it");
    // At once, or within a second where the file system keeps whole ones.
    let _next = take_in_time(&store, "key");
    assert!(!block_on(over.renew()).unwrap());
}

#[test]
fn what_is_planted_in_the_place_of_a_lease_is_replaced_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&outside, "precious").unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let lease = take(&store, "key", LONG).unwrap();
    let [file] = &lease_files(dir.path())[..] else {
        panic!("one lease has one file")
    };
    drop(lease);
    std::os::unix::fs::symlink(outside.path(), file).unwrap();
    release(take(&store, "key", LONG).expect("a link is no lease"));
    assert_eq!(std::fs::read(&outside).unwrap(), b"precious");
    std::fs::write(file, "from somewhere").unwrap();
    release(take(&store, "key", LONG).expect("nobody has locked it"));

    std::fs::create_dir(file).unwrap();
    let error = block_on(store.lease(&Key::new("key"), LONG)).unwrap_err();
    assert_eq!(error.kind(), ck_core::ErrorKind::Permanent);
    assert!(
        error.to_string().contains(file.to_str().unwrap()),
        "{error}"
    );
}
