//! Guards against what a killed process leaves: its lock, its temporary file, and the space it had
//! reserved.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use ck_backend_file::FileBackend;
use ck_core::{Backend, ErrorKind, Key, Outcome, Rejection, WriteOptions};
use common::wait_for_the_end;
use common::{argument, files, get, put, ready, role, spawn, try_put, usage, value};
use pollster::block_on;
use rustix::fs::FlockOperation;

#[test]
fn a_lock_that_is_held_is_a_timeout_and_is_free_once_its_holder_is_killed() {
    const NAME: &str = "a_lock_that_is_held_is_a_timeout_and_is_free_once_its_holder_is_killed";
    if role().is_some() {
        let dir = std::fs::File::open(argument()).unwrap();
        rustix::fs::flock(&dir, FlockOperation::LockExclusive).unwrap();
        // In the middle of a change: word 9 of the ledger says so.
        let ledger = std::path::Path::new(&argument()).join(".ck-ledger");
        let ledger = std::fs::File::options().write(true).open(ledger).unwrap();
        rustix::io::pwrite(&ledger, &1_u64.to_le_bytes(), 9 * 8).unwrap();
        return wait_for_the_end();
    }
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::builder(dir.path())
        .lock_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    put(&store, "key", "old");
    block_on(store.prune()).unwrap();
    let mut child = spawn(NAME, "holder", dir.path());
    ready(&mut child);

    let error = try_put(&store, "key", "new").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains(dir.path().to_str().unwrap()),
        "{error}"
    );
    // Reading does not need the lock.
    assert_eq!(get(&store, "key").unwrap(), "old");
    assert_eq!(get(&store, "other"), None);

    child.kill();
    put(&store, "key", "new");
    assert_eq!(get(&store, "key").unwrap(), "new");
    assert_eq!(usage(&store).entries, 1);
}

#[test]
fn what_a_killed_writer_reserved_is_given_to_the_next_who_needs_it() {
    const NAME: &str = "what_a_killed_writer_reserved_is_given_to_the_next_who_needs_it";
    let open = |dir: &std::path::Path| {
        FileBackend::builder(dir)
            .limit_bytes(1_000_000)
            .value_limit_bytes(700_000)
            .build()
            .unwrap()
    };
    if role().is_some() {
        let store = open(argument().as_ref());
        let options = WriteOptions::new().with_size_hint(Some(600_000));
        let writer = block_on(store.create(&Key::new("unfinished"), options)).unwrap();
        let ControlFlow::Continue(mut writer) = writer else {
            panic!("there is room")
        };
        let written = block_on(writer.write(vec![value(1, 300_000)])).unwrap();
        assert!(written.is_continue());
        return wait_for_the_end();
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, "small", value(2, 1_000));
    let mut child = spawn(NAME, "writer", dir.path());
    ready(&mut child);
    assert_eq!(usage(&store).reserved_bytes, 600_014);

    // As long as the writer lives, its space is its own.
    let outcome = try_put(&store, "large", value(3, 600_000)).unwrap();
    let Outcome::Rejected(Rejection::StoreFull { limit, .. }) = outcome else {
        panic!("the space of a living writer was given away: {outcome:?}");
    };
    assert_eq!(limit, 1_000_000);
    assert_eq!(
        get(&store, "small").unwrap(),
        value(2, 1_000),
        "nothing was evicted in vain"
    );
    let pruned = block_on(store.prune()).unwrap();
    assert_eq!((pruned.orphans, files(dir.path()).temporary), (0, 1));

    child.kill();
    put(&store, "large", value(3, 600_000));
    assert_eq!(get(&store, "large").unwrap(), value(3, 600_000));
    assert_eq!(get(&store, "small").unwrap(), value(2, 1_000));
    assert_eq!(
        (usage(&store).reserved_bytes, files(dir.path()).temporary),
        (0, 0)
    );
    assert_eq!(get(&store, "unfinished"), None);
}

#[test]
fn no_entry_goes_for_what_killed_writers_reserved() {
    const NAME: &str = "no_entry_goes_for_what_killed_writers_reserved";
    let open = |dir: &std::path::Path| {
        FileBackend::builder(dir)
            .limit_bytes(1_000_000)
            .build()
            .unwrap()
    };
    if role().is_some() {
        let store = open(argument().as_ref());
        let options = WriteOptions::new().with_size_hint(Some(400_000));
        let writer = block_on(store.create(&Key::new("unfinished"), options)).unwrap();
        assert!(writer.is_continue());
        return wait_for_the_end();
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, "key", value(1, 300_000));
    // One after the other, as when a service that dies is started again; killed writers are looked for each 10 ms.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(20));
        let mut child = spawn(NAME, "writer", dir.path());
        ready(&mut child);
        assert_eq!(usage(&store).reserved_bytes, 400_014);
        child.kill();
    }
    assert_eq!(get(&store, "key").unwrap(), value(1, 300_000));
}

#[test]
fn prune_counts_the_temporary_files_of_killed_writers() {
    const NAME: &str = "prune_counts_the_temporary_files_of_killed_writers";
    if role().is_some() {
        let store = FileBackend::open(argument()).unwrap();
        let create = || block_on(store.create(&Key::new("key"), WriteOptions::new())).unwrap();
        let (ControlFlow::Continue(mut one), ControlFlow::Continue(_two)) = (create(), create())
        else {
            panic!("there is room")
        };
        assert!(
            block_on(one.write(vec![Bytes::from(vec![1; 300_000])]))
                .unwrap()
                .is_continue()
        );
        return wait_for_the_end();
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn(NAME, "writer", dir.path());
    ready(&mut child);
    child.kill();
    // Even when the ledger that knew them is lost.
    let store = FileBackend::open(dir.path()).unwrap();
    for ledger_lost in [true, false] {
        if ledger_lost {
            std::fs::remove_file(dir.path().join(".ck-ledger")).unwrap();
        } else {
            let mut child = spawn(NAME, "writer", dir.path());
            ready(&mut child);
            child.kill();
        }
        assert_eq!(files(dir.path()).temporary, 2);
        let pruned = block_on(store.prune()).unwrap();
        assert_eq!(
            (pruned.entries, pruned.orphans, pruned.bytes),
            (0, 2, 300_014)
        );
        assert_eq!(files(dir.path()).temporary, 0);
        assert_eq!((usage(&store).bytes, usage(&store).entries), (0, 0));
    }
}
