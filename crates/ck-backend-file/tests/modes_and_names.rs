//! Guards privacy: what the store creates is readable by its user alone, and what it did not create
//! stays as it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use ck_backend_file::FileBackend;
use ck_core::{Backend, Key};
use common::{drop_foreign, files, get, put, usage};
use pollster::block_on;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn directories_and_files_are_private() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let store = FileBackend::open(&dir).unwrap();
    put(&store, "key", "value");
    assert!(
        common::stream(&store, "streamed", &common::value(1, 90_000))
            .unwrap()
            .is_stored()
    );
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(dir.parent().unwrap()), 0o700);
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn strangers_are_left_alone_and_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let strangers = [
        ".hidden",
        "README.md",
        "UPPER",
        "0123456789abcdef",
        "e1c5.tmp.x",
    ];
    for name in strangers {
        std::fs::write(dir.path().join(name), "stranger").unwrap();
    }
    let subdirectory = dir.path().join("0123456789abcdef0123456789abcdef");
    std::fs::create_dir(&subdirectory).unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    let link = dir.path().join("fedcba9876543210fedcba9876543210");
    std::os::unix::fs::symlink(outside.path(), &link).unwrap();

    let store = FileBackend::builder(dir.path())
        .limit_entries(3)
        .build()
        .unwrap();
    for i in 0..10 {
        put(&store, &format!("key{i}"), "value");
    }
    block_on(store.prune()).unwrap();
    assert_eq!(usage(&store).entries, 3);
    assert_eq!(block_on(store.list(None, 0)).unwrap().entries.len(), 3);
    for name in strangers {
        assert!(dir.path().join(name).is_file(), "{name}");
    }
    assert!(subdirectory.is_dir() && link.is_symlink() && outside.path().exists());
}

#[test]
fn other_systems_temporary_files_go_when_they_are_old_and_nobody_holds_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let name = "0123456789abcdef0123456789abcdef";
    let temp = |i: u32| {
        dir.path()
            .join(format!("{name}.tmp.{i}.1700000000000000000"))
    };
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(61);
    let mut held = None;
    for i in 1..=3 {
        let file = std::fs::File::create(temp(i)).unwrap();
        file.set_len(100).unwrap();
        if i != 2 {
            file.set_modified(old).unwrap();
        }
        if i == 3 {
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
            held = Some(file);
        }
    }
    let pruned = block_on(store.prune()).unwrap();
    assert_eq!((pruned.entries, pruned.orphans, pruned.bytes), (0, 1, 100));
    assert!(!temp(1).exists() && temp(2).exists() && temp(3).exists());
    drop(held);
}

#[test]
fn a_directory_that_is_removed_under_the_store_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("gone");
    let store = FileBackend::open(&dir).unwrap();
    put(&store, "key", "value");
    // The store's own thread may just be adding a file.
    while let Err(error) = std::fs::remove_dir_all(&dir) {
        assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty);
    }
    assert_eq!(get(&store, "key"), None);
    let error = common::try_put(&store, "key", "value").unwrap_err();
    assert_eq!(error.kind(), ck_core::ErrorKind::Permanent);
    assert!(error.to_string().contains("is gone"), "{error}");
    assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
}

#[test]
fn a_temporary_file_that_another_system_sweeps_away_fails_the_writer_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    for old in [false, true] {
        if old {
            put(&store, "key", "old");
        }
        let writer = block_on(store.create(&Key::new("key"), ck_core::WriteOptions::new()));
        let std::ops::ControlFlow::Continue(writer) = writer.unwrap() else {
            panic!("there is room")
        };
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().contains(".tmp.") {
                std::fs::remove_file(path).unwrap();
            }
        }
        let error = block_on(writer.commit("".into())).unwrap_err();
        assert_eq!(error.kind(), ck_core::ErrorKind::Transient, "{error}");
        assert_eq!(get(&store, "key").is_some(), old);
        assert_eq!(
            (usage(&store).entries, usage(&store).reserved_bytes),
            (u64::from(old), 0)
        );
    }
}

#[test]
fn a_file_in_the_place_of_the_directory_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(file.path(), Permissions::from_mode(0o600)).unwrap();
    let error = FileBackend::open(file.path()).unwrap_err();
    assert_eq!(error.kind(), ck_core::ErrorKind::Permanent);
    assert!(
        error.to_string().contains(file.path().to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn emptied_by_hand_the_store_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    for i in 0..100 {
        put(&store, &format!("key{i}"), "value");
    }
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(get(&store, "key1"), None);
    put(&store, "new", "value");
    drop_foreign(dir.path(), "0123456789abcdef0123456789abcdef", b"foreign");
    block_on(store.prune()).unwrap();
    assert_eq!(usage(&store).entries, 2);
    assert_eq!(files(dir.path()).entries, 2);
    assert!(!block_on(store.remove(&Key::new("key1"))).unwrap());
}
