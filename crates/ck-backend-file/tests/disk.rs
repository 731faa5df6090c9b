//! Guards a full disk, a read-only file system and missing permissions: the right kind of error, the
//! old entry intact, nothing left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::ops::ControlFlow;
use std::path::PathBuf;

use bytes::Bytes;
use ck_backend_file::{Durability, FileBackend};
use ck_core::{Backend, Error, ErrorKind, Key, WriteOptions};
use common::{argument, files, get, mount_tmpfs, put, role, spawn, spawn_with_mounts, stream};
use common::{succeeds, try_put, usage, value};
use pollster::block_on;

const LONG: std::time::Duration = std::time::Duration::from_secs(3_600);

/// Runs `child` in a process of its own, and fails when it does.
fn in_child(name: &str, child: fn(PathBuf)) {
    if role().is_some() {
        return child(PathBuf::from(argument()));
    }
    let dir = tempfile::tempdir().unwrap();
    succeeds(spawn_with_mounts(name, "child", dir.path()));
}

#[track_caller]
fn is(error: &Error, kind: ErrorKind, path: &std::path::Path) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_full_disk_is_transient_and_leaves_the_old_entry() {
    in_child("a_full_disk_is_transient_and_leaves_the_old_entry", |dir| {
        mount_tmpfs(&dir, c"size=1m,mode=700");
        for durability in [Durability::Fast, Durability::Synced] {
            let store = FileBackend::builder(&dir)
                .durability(durability)
                .build()
                .unwrap();
            let old = value(1, 50_000);
            put(&store, "key", old.clone());
            block_on(store.prune()).unwrap();
            let before = files(&dir);
            let (small, large) = (value(2, 120_000), value(3, 3_000_000));

            for bytes in [large.clone(), value(4, 1_100_000)] {
                let error = try_put(&store, "key", bytes.clone()).unwrap_err();
                is(&error, ErrorKind::Transient, &dir);
                assert!(
                    error.to_string().contains("limit_bytes"),
                    "it says what to do: {error}"
                );
                is(
                    &stream(&store, "key", &bytes).unwrap_err(),
                    ErrorKind::Transient,
                    &dir,
                );
                assert_eq!(get(&store, "key").unwrap(), old);
                assert_eq!(files(&dir), before, "something is left behind");
                assert_eq!(usage(&store).reserved_bytes, 0);
            }
            // Small entries are written in another way: fill the disk up to the last page.
            let mut filled = 0;
            let error = loop {
                match try_put(&store, &format!("fill{filled}"), small.clone()) {
                    Ok(outcome) => assert!(outcome.is_stored()),
                    Err(error) => break error,
                }
                filled += 1;
            };
            is(&error, ErrorKind::Transient, &dir);
            assert!(filled > 3);
            assert_eq!(get(&store, "key").unwrap(), old);
            let found = files(&dir);
            assert_eq!((found.entries, found.temporary), (1 + filled, 0));
            assert_eq!(usage(&store).bytes, found.entry_bytes);

            // A writer that failed can only be dropped.
            let writer = block_on(store.create(&Key::new("key"), WriteOptions::new())).unwrap();
            let ControlFlow::Continue(mut writer) = writer else {
                panic!("there is room")
            };
            assert!(block_on(writer.write(vec![large.clone()])).is_err());
            let error = block_on(writer.write(vec![Bytes::from("x")])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse);
            drop(writer);
            assert_eq!(files(&dir), found);

            // Room comes back by removing.
            for i in 0..filled {
                assert!(block_on(store.remove(&Key::new(format!("fill{i}")))).unwrap());
            }
            put(&store, "key", small);
            assert!(block_on(store.remove(&Key::new("key"))).unwrap());
        }
    });
}

#[test]
fn a_disk_too_full_for_a_known_size_is_noticed_before_anything_is_written() {
    in_child(
        "a_disk_too_full_for_a_known_size_is_noticed_before_anything_is_written",
        |dir| {
            mount_tmpfs(&dir, c"size=1m,mode=700");
            let store = FileBackend::open(&dir).unwrap();
            let create = |hint| {
                let options = WriteOptions::new().with_size_hint(Some(hint));
                block_on(store.create(&Key::new("key"), options))
            };
            put(&store, "old", value(1, 1_000));
            let before = files(&dir);
            is(
                &create(3_000_000).err().unwrap(),
                ErrorKind::Transient,
                &dir,
            );
            assert_eq!(files(&dir), before);
            assert_eq!(usage(&store).reserved_bytes, 0);
            assert!(create(500_000).unwrap().is_continue());
        },
    );
}

#[test]
fn a_full_disk_still_grants_and_renews_leases_until_it_has_no_place_for_files() {
    in_child(
        "a_full_disk_still_grants_and_renews_leases_until_it_has_no_place_for_files",
        |dir| {
            // Places for the directory, the ledger, the filler and one lease.
            mount_tmpfs(&dir, c"size=256k,nr_inodes=4,mode=700");
            let store = FileBackend::open(&dir).unwrap();
            block_on(store.prune()).unwrap();
            let filler = std::fs::write(dir.join(".filler"), vec![1; 300_000]);
            assert!(filler.is_err(), "the disk is full now");
            let take = |key| block_on(store.lease(&Key::new(key), LONG));
            let mut lease = take("one").unwrap().expect("nobody has it");
            assert!(block_on(lease.renew()).unwrap());
            is(&take("two").unwrap_err(), ErrorKind::Transient, &dir);
            assert!(take("one").unwrap().is_none());
            drop(lease);
            assert!(take("two").unwrap().is_some());
        },
    );
}

#[test]
fn a_disk_without_room_for_the_ledger_can_still_be_read_and_emptied() {
    in_child(
        "a_disk_without_room_for_the_ledger_can_still_be_read_and_emptied",
        |dir| {
            mount_tmpfs(&dir, c"size=256k,mode=700");
            let store = FileBackend::open(&dir).unwrap();
            put(&store, "key", value(1, 100_000));
            drop(store);
            std::fs::remove_file(dir.join(".ck-ledger")).unwrap();
            let filler = dir.join(".filler");
            assert!(
                std::fs::write(&filler, vec![1; 300_000]).is_err(),
                "the disk is full now"
            );

            let store = FileBackend::open(&dir).unwrap();
            assert_eq!(get(&store, "key").unwrap(), value(1, 100_000));
            is(
                &try_put(&store, "new", "x").unwrap_err(),
                ErrorKind::Transient,
                &dir,
            );
            assert_eq!(usage(&store).entries, 1);
            assert!(block_on(store.remove(&Key::new("key"))).unwrap());
            put(&store, "new", "x");
            assert_eq!(get(&store, "new").unwrap(), "x");
        },
    );
}

#[test]
fn a_read_only_file_system_can_be_read_and_refuses_the_rest_for_good() {
    in_child(
        "a_read_only_file_system_can_be_read_and_refuses_the_rest_for_good",
        |dir| {
            mount_tmpfs(&dir, c"size=4m,mode=700");
            let store = FileBackend::open(&dir).unwrap();
            for (key, len) in [("small", 100), ("large", 300_000)] {
                put(&store, key, value(1, len));
            }
            block_on(store.prune()).unwrap();
            drop(store);
            for with_ledger in [true, false] {
                if !with_ledger {
                    remount(&dir, rustix::mount::MountFlags::empty());
                    std::fs::remove_file(dir.join(".ck-ledger")).unwrap();
                }
                remount(&dir, rustix::mount::MountFlags::RDONLY);
                let store = FileBackend::open(&dir).unwrap();
                for (key, len) in [("small", 100), ("large", 300_000)] {
                    assert_eq!(get(&store, key).unwrap(), value(1, len));
                    assert_eq!(
                        block_on(store.stat(&Key::new(key))).unwrap().unwrap().bytes,
                        len as u64
                    );
                }
                assert_eq!(get(&store, "missing"), None);
                assert_eq!(usage(&store).entries, 2);
                assert_eq!(block_on(store.list(None, 0)).unwrap().entries.len(), 2);

                let key = Key::new("small");
                let expiry = ck_core::Expiry::NEVER;
                is(
                    &try_put(&store, "small", "x").unwrap_err(),
                    ErrorKind::Permanent,
                    &dir,
                );
                is(
                    &stream(&store, "small", &value(1, 9)).unwrap_err(),
                    ErrorKind::Permanent,
                    &dir,
                );
                is(
                    &block_on(store.remove(&key)).unwrap_err(),
                    ErrorKind::Permanent,
                    &dir,
                );
                is(
                    &block_on(store.touch(&key, expiry)).unwrap_err(),
                    ErrorKind::Permanent,
                    &dir,
                );
                is(
                    &block_on(store.lease(&key, LONG)).unwrap_err(),
                    ErrorKind::Permanent,
                    &dir,
                );
                is(
                    &block_on(store.prune()).unwrap_err(),
                    ErrorKind::Permanent,
                    &dir,
                );
                assert_eq!(get(&store, "small").unwrap(), value(1, 100));
            }
            is(
                &FileBackend::open(dir.join("new")).unwrap_err(),
                ErrorKind::Permanent,
                &dir,
            );
        },
    );
}

fn remount(dir: &std::path::Path, flags: rustix::mount::MountFlags) {
    // Busy while a reconcile in the background still has the ledger open.
    for _ in 0..1_000 {
        match rustix::mount::mount_remount(dir, flags, c"") {
            Err(rustix::io::Errno::BUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            done => return done.expect("a tmpfs can be remounted"),
        }
    }
    panic!("the file system stays busy");
}

#[test]
fn a_directory_of_another_user_is_refused_for_good() {
    const NAME: &str = "a_directory_of_another_user_is_refused_for_good";
    if role().is_some() {
        let (id, dir) = (65_534, PathBuf::from(argument()));
        if rustix::process::geteuid().is_root() {
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(id)).unwrap();
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(id)).unwrap();
        }
        let closed = dir.join("closed");
        is(
            &FileBackend::open(&closed).unwrap_err(),
            ErrorKind::Permanent,
            &closed,
        );
        is(
            &FileBackend::open(closed.join("new")).unwrap_err(),
            ErrorKind::Permanent,
            &closed,
        );

        // One that may be looked at: what is readable is read, nothing is written.
        let open = dir.join("open");
        let store = FileBackend::open(&open).unwrap();
        assert_eq!(get(&store, "readable").unwrap(), "yes");
        let private = block_on(store.open(&Key::new("private"))).unwrap_err();
        is(&private, ErrorKind::Permanent, &open);
        is(
            &try_put(&store, "readable", "x").unwrap_err(),
            ErrorKind::Permanent,
            &open,
        );
        let removed = block_on(store.remove(&Key::new("readable"))).unwrap_err();
        is(&removed, ErrorKind::Permanent, &open);
        assert_eq!(get(&store, "readable").unwrap(), "yes");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    mode(dir.path(), 0o755);
    for name in ["closed", "open"] {
        let path = dir.path().join(name);
        let store = FileBackend::open(&path).unwrap();
        put(&store, "readable", "yes");
        put(&store, "private", "no");
        block_on(store.prune()).unwrap();
        let id = block_on(store.stat(&Key::new("readable")))
            .unwrap()
            .unwrap()
            .id;
        mode(&path.join(id), 0o444);
    }
    if !rustix::process::geteuid().is_root() {
        // Without another user to become, take the rights away from this one.
        for entry in std::fs::read_dir(dir.path().join("open")).unwrap() {
            let path = entry.unwrap().path();
            if std::fs::metadata(&path).unwrap().permissions().mode() & 0o004 == 0 {
                mode(&path, 0);
            }
        }
        mode(&dir.path().join("closed"), 0);
        mode(&dir.path().join("open"), 0o555);
    } else {
        mode(&dir.path().join("open"), 0o755);
    }
    succeeds(spawn(NAME, "child", dir.path()));
    mode(&dir.path().join("closed"), 0o700);
    mode(&dir.path().join("open"), 0o700);
}
