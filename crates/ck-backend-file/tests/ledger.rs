//! Guards against a ledger that is lost, cut short, overwritten or planted: it is made anew from the
//! directory, and nothing panics, hangs or loses an entry meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use ck_backend_file::FileBackend;
use ck_core::Backend;
use common::{files, get, put, stream, usage, value};
use pollster::block_on;

fn filled(dir: &Path) -> FileBackend {
    let store = FileBackend::open(dir).unwrap();
    for i in 0..100 {
        put(&store, &format!("key{i}"), value(i, 1_000));
    }
    block_on(store.prune()).unwrap();
    store
}

/// The store works, its entries are there, and its accounts are right.
#[track_caller]
fn is_sound(store: &FileBackend, dir: &Path) {
    put(store, "new", value(500, 2_000));
    assert!(
        stream(store, "streamed", &value(501, 90_000))
            .unwrap()
            .is_stored()
    );
    for i in 0..100 {
        assert_eq!(
            get(store, &format!("key{i}")).unwrap(),
            value(i, 1_000),
            "key{i}"
        );
    }
    block_on(store.prune()).unwrap();
    let (found, counted) = (files(dir), usage(store));
    assert_eq!((counted.entries, found.entries), (102, 102));
    assert_eq!(
        (counted.bytes, counted.reserved_bytes),
        (found.entry_bytes, 0)
    );
}

#[test]
fn a_ledger_that_is_not_one_is_made_anew() {
    let wrong_version = |mut bytes: Vec<u8>| {
        bytes[8] = 9;
        bytes
    };
    type Spoil = fn(Vec<u8>) -> Vec<u8>;
    let spoils: [Spoil; 7] = [
        |_| Vec::new(),
        |_| vec![0; 100_000],
        |_| vec![0xff; 100_000],
        |bytes| value(9, bytes.len()).to_vec(),
        |bytes| bytes[..5_000].to_vec(),
        |bytes| bytes[..bytes.len() / 2 + 17].to_vec(),
        |mut bytes| {
            bytes.truncate(8_192);
            bytes
        },
    ];
    for spoil in spoils
        .into_iter()
        .map(|spoil| -> Box<dyn Fn(Vec<u8>) -> Vec<u8>> { Box::new(spoil) })
        .chain([Box::new(wrong_version) as Box<dyn Fn(Vec<u8>) -> Vec<u8>>])
    {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        let ledger = dir.path().join(".ck-ledger");
        let bytes = spoil(std::fs::read(&ledger).unwrap());
        std::fs::write(&ledger, bytes).unwrap();
        is_sound(&FileBackend::open(dir.path()).unwrap(), dir.path());
    }
}

#[test]
fn a_link_or_a_directory_in_its_place_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    std::fs::write(&target, "precious").unwrap();
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let ledger = dir.path().join(".ck-ledger");
    std::fs::remove_file(&ledger).unwrap();
    std::os::unix::fs::symlink(&target, &ledger).unwrap();
    is_sound(&FileBackend::open(dir.path()).unwrap(), dir.path());
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");

    std::fs::remove_file(&ledger).unwrap();
    std::fs::create_dir(&ledger).unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    assert_eq!(get(&store, "key1").unwrap(), value(1, 1_000));
    let error = common::try_put(&store, "new", "x").unwrap_err();
    assert_eq!(error.kind(), ck_core::ErrorKind::Permanent);
    assert!(error.to_string().contains(".ck-ledger"), "{error}");
    std::fs::remove_dir(&ledger).unwrap();
    is_sound(&store, dir.path());
}

/// Words are overwritten while the ledger is in use: crossed links, totals out of thin air, a journal
/// that names any file.
#[test]
fn garbage_written_into_an_open_ledger_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let ledger = dir.path().join(".ck-ledger");
    let len = std::fs::metadata(&ledger).unwrap().len();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = |sides: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % sides
    };
    let mut file = std::fs::File::options().write(true).open(&ledger).unwrap();
    let lock = std::fs::File::open(dir.path()).unwrap();
    for round in 0..150 {
        // Between two changes: in the middle of one nobody could tell.
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        for _ in 0..1 + roll(20) {
            let word = if roll(2) == 0 {
                roll(20)
            } else {
                512 + roll(len / 8 - 512)
            };
            let value = match roll(3) {
                0 => roll(u64::MAX),
                1 => roll(3),
                _ => roll(120) << 32 | roll(120),
            };
            file.seek(SeekFrom::Start(word * 8)).unwrap();
            file.write_all(&value.to_le_bytes()).unwrap();
        }
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::Unlock).unwrap();
        if round % 10 == 0 {
            is_sound(&store, dir.path());
            is_sound(&FileBackend::open(dir.path()).unwrap(), dir.path());
            // A ledger that was beyond repair was replaced.
            file = std::fs::File::options().write(true).open(&ledger).unwrap();
        } else {
            put(&store, "new", value(round, 3_000));
            let _ = get(&store, "key7").expect("no entry is lost");
        }
    }
}
