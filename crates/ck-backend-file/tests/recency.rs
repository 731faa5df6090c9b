//! Guards eviction by use: the order is one for all processes and outlives them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::time::Duration;

use ck_backend_file::FileBackend;
use ck_core::{Backend, Key};
use common::{argument, files, get, put, role, spawn, succeeds, usage, value};
use pollster::block_on;

fn open(dir: impl AsRef<std::path::Path>, entries: u64) -> FileBackend {
    FileBackend::builder(dir.as_ref())
        .limit_entries(entries)
        .build()
        .unwrap()
}

fn present(store: &FileBackend, keys: &str) -> String {
    let there = |key: &char| {
        block_on(store.stat(&Key::new(key.to_string())))
            .unwrap()
            .is_some()
    };
    keys.chars().filter(there).collect()
}

#[test]
fn a_use_in_one_process_counts_in_another_and_after_both_have_ended() {
    const NAME: &str = "a_use_in_one_process_counts_in_another_and_after_both_have_ended";
    if let Some(role) = role() {
        let store = open(argument(), 4);
        for action in role.chars() {
            let key = action.to_lowercase().to_string();
            if action.is_lowercase() {
                assert!(get(&store, &key).is_some(), "{key}");
            } else {
                put(&store, &key, "value");
            }
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = |actions: &str| succeeds(spawn(NAME, actions, dir.path()));
    let store = open(dir.path(), 4);
    for key in ["a", "b", "c", "d"] {
        put(&store, key, "value");
    }
    run("ab");
    put(&store, "e", "value");
    assert_eq!(present(&store, "abcde"), "abde");
    // Looking is not using.
    assert_eq!(present(&store, "d"), "d");
    put(&store, "f", "value");
    assert_eq!(present(&store, "abcdef"), "abef");
    assert!(get(&store, "a").is_some());
    run("G");
    assert_eq!(present(&store, "abcdefg"), "aefg");

    drop(store);
    run("e");
    let store = open(dir.path(), 4);
    put(&store, "h", "value");
    assert_eq!(present(&store, "abcdefgh"), "aegh");
    put(&store, "i", "value");
    assert_eq!(present(&store, "abcdefghi"), "eghi");
}

#[test]
fn entries_are_told_by_their_times_when_the_ledger_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 10);
    let now = std::time::SystemTime::now();
    for (age, key) in [(50, "a"), (10, "b"), (40, "c"), (20, "d"), (30, "e")] {
        put(&store, key, "value");
        let id = block_on(store.stat(&Key::new(key))).unwrap().unwrap().id;
        let time = now - Duration::from_secs(age);
        let times = std::fs::FileTimes::new()
            .set_modified(time)
            .set_accessed(time);
        std::fs::File::open(dir.path().join(id))
            .unwrap()
            .set_times(times)
            .unwrap();
    }
    drop(store);
    std::fs::remove_file(dir.path().join(".ck-ledger")).unwrap();

    let store = open(dir.path(), 3);
    // A use before the reconcile counts too.
    assert!(get(&store, "a").is_some());
    block_on(store.prune()).unwrap();
    assert_eq!(present(&store, "abcde"), "abd");
    put(&store, "f", "value");
    assert_eq!(present(&store, "abcdef"), "abf");
}

#[test]
fn files_of_other_systems_are_counted_and_make_room_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 400_000;
    let store = FileBackend::builder(dir.path())
        .limit_bytes(limit)
        .build()
        .unwrap();
    put(&store, "own", value(1, 10_000));
    block_on(store.prune()).unwrap();
    for i in 0..60_u64 {
        common::drop_foreign(dir.path(), &format!("{i:032x}"), &value(i, 20_000));
    }
    assert!(files(dir.path()).bytes > limit);
    block_on(store.prune()).unwrap();
    let found = files(dir.path());
    assert!(found.bytes <= limit, "{found:?}");
    assert!(
        found.bytes + 20_014 > limit,
        "no more is evicted than need be: {found:?}"
    );
    let counted = usage(&store);
    assert_eq!(
        (counted.entries, counted.bytes),
        (found.entries, found.entry_bytes)
    );
    assert_eq!(
        get(&store, "own"),
        None,
        "it was used before all others were written"
    );

    // One that another system replaces and one that it removes.
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    common::drop_foreign(dir.path(), &names[0], b"other");
    std::fs::remove_file(dir.path().join(&names[1])).unwrap();
    block_on(store.prune()).unwrap();
    let found = files(dir.path());
    let counted = usage(&store);
    assert_eq!(
        (counted.entries, counted.bytes),
        (found.entries, found.entry_bytes)
    );
}

#[test]
fn a_directory_of_another_system_is_taken_over_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..500_u64 {
        common::drop_foreign(dir.path(), &format!("{i:032x}"), &value(i, 2_000));
    }
    let store = FileBackend::builder(dir.path())
        .limit_bytes(300_000)
        .build()
        .unwrap();
    put(&store, "own", value(1, 2_000));
    // The put did not wait for it; it ends by itself.
    for _ in 0..2_000 {
        if files(dir.path()).bytes <= 300_000 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let found = files(dir.path());
    assert!(found.bytes <= 300_000, "{found:?}");
    assert_eq!(get(&store, "own").unwrap(), value(1, 2_000));
    let counted = usage(&store);
    assert_eq!(
        (counted.entries, counted.bytes),
        (found.entries, found.entry_bytes)
    );
}
