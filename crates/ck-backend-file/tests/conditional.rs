//! Guards conditional writes where the file store has ways of its own: room that has to be made,
//! entries of other systems, and what is refused before anything is written.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::ops::ControlFlow;

use bytes::Bytes;
use ck_backend_file::{FileBackend, ReadMode};
use ck_core::{
    Backend, EntryWriter, Expiry, Key, Outcome, Rejection, Version, WriteMode, WriteOptions,
};
use common::{drop_foreign, file_name, files, get, put, usage, value};
use pollster::block_on;

fn version(store: &FileBackend, key: &str) -> Version {
    let entry = block_on(store.open(&Key::new(key))).unwrap();
    entry.expect("there is an entry").version()
}

fn create(
    store: &FileBackend,
    key: &str,
    mode: WriteMode,
    hint: u64,
) -> ControlFlow<Rejection, Box<dyn EntryWriter>> {
    let options = WriteOptions::new()
        .with_mode(mode)
        .with_size_hint(Some(hint));
    block_on(store.create(&Key::new(key), options)).unwrap()
}

fn put_as(store: &FileBackend, key: &str, mode: WriteMode, bytes: &Bytes) -> Outcome {
    let options = WriteOptions::new().with_mode(mode);
    let body = vec![bytes.clone()];
    block_on(store.put(&Key::new(key), Bytes::new(), body, options)).unwrap()
}

#[test]
fn what_is_lost_already_evicts_nothing_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let builder = FileBackend::builder(dir.path()).limit_bytes(1_000_000);
    let store = builder.build().unwrap();
    put(&store, "key", value(1, 300_000));
    put(&store, "other", value(2, 300_000));
    let stale = version(&store, "key");
    put(&store, "key", value(3, 300_000));
    let before = files(dir.path());
    for mode in [WriteMode::Create, WriteMode::Update(stale)] {
        for hint in [10, 450_000] {
            let ControlFlow::Break(rejection) = create(&store, "key", mode, hint) else {
                panic!("it is clear that it will be rejected")
            };
            assert_eq!(rejection, Rejection::Superseded);
        }
        for len in [10, 450_000] {
            let outcome = put_as(&store, "key", mode, &value(4, len));
            assert_eq!(outcome, Outcome::Rejected(Rejection::Superseded));
        }
    }
    assert_eq!(files(dir.path()), before);
    assert_eq!(usage(&store).reserved_bytes, 0);
    assert_eq!(get(&store, "key").unwrap(), value(3, 300_000));
    assert_eq!(get(&store, "other").unwrap(), value(2, 300_000));
}

#[test]
fn a_write_that_loses_at_commit_leaves_nothing_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let ControlFlow::Continue(mut writer) = create(&store, "key", WriteMode::Create, 500_000)
    else {
        panic!("there is no entry yet")
    };
    let written = block_on(writer.write(vec![value(1, 500_000)])).unwrap();
    assert!(written.is_continue());
    put(&store, "key", "faster");
    let outcome = block_on(writer.commit(Bytes::new())).unwrap();
    assert_eq!(outcome, Outcome::Rejected(Rejection::Superseded));
    assert_eq!(get(&store, "key").unwrap(), "faster");
    assert_eq!(files(dir.path()).temporary, 0);
    assert_eq!(usage(&store).reserved_bytes, 0);
}

#[test]
fn an_update_does_not_evict_what_it_is_to_replace() {
    let dir = tempfile::tempdir().unwrap();
    let builder = FileBackend::builder(dir.path())
        .limit_bytes(1_000_000)
        .value_limit_bytes(700_000);
    let store = builder.build().unwrap();
    put(&store, "key", value(1, 400_000));
    put(&store, "other", value(2, 400_000));
    let present = version(&store, "key");
    let update = WriteMode::Update(present);

    // There is no room for both, so the present entry stays.
    let ControlFlow::Break(rejection) = create(&store, "key", update, 650_000) else {
        panic!("there is no room")
    };
    assert!(matches!(rejection, Rejection::StoreFull { .. }));
    assert_eq!(get(&store, "key").unwrap(), value(1, 400_000));

    // There is, once the other entry has made room.
    let outcome = put_as(&store, "key", update, &value(3, 500_000));
    assert!(outcome.is_stored(), "{outcome:?}");
    assert_eq!(get(&store, "key").unwrap(), value(3, 500_000));
    assert_eq!(get(&store, "other"), None);
}

#[test]
fn entries_of_other_systems_count_and_those_we_cannot_read_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let name = file_name(&store, "key");
    let new = value(1, 100);
    drop_foreign(dir.path(), &name, b"theirs");
    let superseded = Outcome::Rejected(Rejection::Superseded);
    assert_eq!(put_as(&store, "key", WriteMode::Create, &new), superseded);
    let theirs = WriteMode::Update(version(&store, "key"));
    drop_foreign(dir.path(), &name, b"newer ones");
    assert_eq!(put_as(&store, "key", theirs, &new), superseded);
    assert_eq!(get(&store, "key").unwrap(), "newer ones");
    let theirs = WriteMode::Update(version(&store, "key"));
    assert!(put_as(&store, "key", theirs, &new).is_stored());

    // What reads as a miss is replaced as an overwriting put would.
    for file in [
        &b"CK\x01\0\x80\0\0\0\0\0\0\0\0\0transformed"[..],
        b"CK\x01\0\0\0\0\0\0\0\0\0\0\x01expired",
        b"torn",
        b"",
    ] {
        std::fs::write(dir.path().join(&name), file).unwrap();
        let nothing = WriteMode::Update(Version(0));
        assert_eq!(put_as(&store, "key", nothing, &new), superseded);
        assert!(put_as(&store, "key", WriteMode::Create, &new).is_stored());
        assert_eq!(get(&store, "key").unwrap(), new);
    }
}

#[test]
fn an_entry_keeps_its_version_when_another_system_changes_its_expiry() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let name = file_name(&store, "key");
    for len in [100, 300_000] {
        put(&store, "key", value(1, len));
        let before = version(&store, "key");
        let mut file = std::fs::File::options();
        let file = file.write(true).open(dir.path().join(&name)).unwrap();
        rustix::io::pwrite(file, &(u64::MAX >> 1).to_be_bytes(), 6).unwrap();
        let entry = block_on(store.open(&Key::new("key"))).unwrap().unwrap();
        assert_eq!(entry.expiry(), Expiry::from_unix_seconds(u64::MAX >> 1));
        assert_eq!(entry.version(), before);
    }
}

#[test]
fn an_entry_says_whether_it_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    for (mode, large_is_mapped) in [(ReadMode::Mapped, true), (ReadMode::Pread, false)] {
        let store = FileBackend::builder(dir.path()).read_mode(mode);
        let store = store.build().unwrap();
        for (len, mapped) in [(1_000, false), (300_000, large_is_mapped)] {
            put(&store, "key", value(1, len));
            let entry = block_on(store.open(&Key::new("key"))).unwrap().unwrap();
            assert_eq!(entry.is_mapped(), mapped, "{mode:?}, {len}");
        }
    }
}
