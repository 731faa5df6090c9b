//! Guards against torn, zeroed, truncated and planted files: each is a miss, none is followed, blocks
//! or is taken for an entry, and what belongs to a newer format is not destroyed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_file::{FileBackend, ReadMode};
use ck_core::{Backend, ErrorKind, Expiry, Key};
use common::{HEADER, file_name, get, put, value};
use pollster::block_on;

#[test]
fn what_is_no_entry_is_a_miss_and_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let path = dir.path().join(file_name(&store, "key"));
    let mut damaged: Vec<Vec<u8>> = (0..HEADER)
        .map(|len| b"CK\x01\0\0\0\0\0\0\0\0\0\0\0"[..len].to_vec())
        .collect();
    damaged.push(vec![0; 100]);
    damaged.push(vec![0; 300_000]);
    damaged.push(b"XK\x01\0\0\0\0\0\0\0\0\0\0\0body".to_vec());
    damaged.push(b"CK\x02\0\0\0\0\0\0\0\0\0\0\0body".to_vec());
    for bytes in damaged {
        for mode in [ReadMode::Mapped, ReadMode::Pread] {
            let store = FileBackend::builder(dir.path())
                .read_mode(mode)
                .build()
                .unwrap();
            std::fs::write(&path, &bytes).unwrap();
            assert!(block_on(store.stat(&Key::new("key"))).unwrap().is_none());
            assert!(!block_on(store.touch(&Key::new("key"), Expiry::NEVER)).unwrap());
            assert_eq!(get(&store, "key"), None, "{} bytes", bytes.len());
            // A reader leaves it to the next while somebody holds the lock, as the first store does that
            // looks through the directory.
            let patience = Instant::now() + Duration::from_secs(10);
            while path.exists() {
                let what = bytes.len();
                assert!(Instant::now() < patience, "{what} bytes are still there");
                assert_eq!(get(&store, "key"), None, "{what} bytes");
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        let pruned = block_on(store.prune()).unwrap();
        assert_eq!((pruned.entries, pruned.bytes), (1, bytes.len() as u64));
    }
    put(&store, "key", "new");
    assert_eq!(get(&store, "key").unwrap(), "new");
}

#[test]
fn an_entry_shortened_in_place_has_the_length_it_has_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::builder(dir.path())
        .read_mode(ReadMode::Pread)
        .build()
        .unwrap();
    let path = dir.path().join(file_name(&store, "key"));
    put(&store, "key", value(1, 200_000));
    let open = block_on(store.open(&Key::new("key"))).unwrap().unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(100_000).unwrap();
    let error = block_on(open.read(0..200_000)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let entry = get(&store, "key").unwrap();
    assert_eq!(entry, value(1, 200_000).slice(..100_000 - HEADER));
}

#[test]
fn entries_of_a_kind_we_do_not_know_are_misses_that_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let path = dir.path().join(file_name(&store, "key"));
    for (at, byte) in [(3, 1), (4, 1), (5, 2), (5, 3)] {
        let mut file = b"CK\x01\0\0\0\0\0\0\0\0\0\0\x01body".to_vec();
        file[at] = byte;
        std::fs::write(&path, &file).unwrap();
        assert_eq!(get(&store, "key"), None);
        assert!(block_on(store.stat(&Key::new("key"))).unwrap().is_none());
        assert!(!block_on(store.touch(&Key::new("key"), Expiry::NEVER)).unwrap());
        block_on(store.prune()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), file, "byte {at} is {byte}");
    }
    // Bit 0 is ours.
    std::fs::write(&path, b"CK\x01\0\0\x01\0\0\0\0\0\0\0\0body").unwrap();
    assert_eq!(get(&store, "key").unwrap(), "body");
}

#[test]
fn a_planted_link_is_neither_followed_nor_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    let contents = b"CK\x01\0\0\0\0\0\0\0\0\0\0\0secret";
    std::fs::write(&secret, contents).unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let path = dir.path().join(file_name(&store, "key"));
    let key = Key::new("key");
    symlink(&secret, &path).unwrap();

    assert_eq!(get(&store, "key"), None);
    assert!(block_on(store.stat(&key)).unwrap().is_none());
    assert!(!block_on(store.touch(&key, Expiry::NEVER)).unwrap());
    assert!(!block_on(store.remove(&key)).unwrap());
    assert!(block_on(store.list(None, 9)).unwrap().entries.is_empty());
    block_on(store.prune()).unwrap();
    assert!(path.is_symlink(), "a link is left alone");

    // A put takes its place, whether the store knew an entry there or not.
    for seed in 0..2 {
        put(&store, "key", value(seed, 5_000));
        assert!(!path.is_symlink());
        assert_eq!(get(&store, "key").unwrap(), value(seed, 5_000));
        std::fs::remove_file(&path).unwrap();
        symlink(&secret, &path).unwrap();
    }
    assert_eq!(std::fs::read(&secret).unwrap(), contents);
}

#[test]
fn a_directory_or_a_pipe_at_an_entry_is_a_miss_and_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let path = dir.path().join(file_name(&store, "key"));
    std::fs::create_dir(&path).unwrap();
    assert_eq!(get(&store, "key"), None);
    for bytes in [Bytes::from("small"), value(1, 300_000)] {
        let error = common::try_put(&store, "key", bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permanent, "{error}");
    }
    assert_eq!(common::usage(&store).reserved_bytes, 0);
    assert_eq!(common::files(dir.path()).temporary, 0);
    std::fs::remove_dir(&path).unwrap();

    let status = std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(get(&store, "key"), None);
    assert!(!block_on(store.remove(&Key::new("key"))).unwrap());
}

#[test]
fn an_entry_turned_into_a_directory_does_not_stop_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::builder(dir.path())
        .limit_entries(2)
        .build()
        .unwrap();
    let path = dir.path().join(file_name(&store, "key"));
    put(&store, "key", "old");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(common::try_put(&store, "key", "new").is_err());
    assert!(path.is_dir(), "what is not ours is put back");
    // The oldest entry of the ledger cannot be removed, and is not one any more.
    for i in 0..5 {
        put(&store, &format!("other{i}"), "value");
    }
    assert_eq!(common::usage(&store).entries, 2);
}
