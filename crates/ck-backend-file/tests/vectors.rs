//! Guards byte compatibility: entries that the Python client wrote are found under their keys and read
//! exactly, and ours are the bytes it writes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::path::{Path, PathBuf};

use ck_backend_file::{FileBackend, FileBackendBuilder, ReadMode};
use ck_core::{Backend, Expiry, Key, WriteOptions};
use common::{HEADER, get};
use pollster::block_on;

/// Keys and their files, from the manifest of the vectors.
const ENTRIES: [(&str, &str, bool); 3] = [
    (
        "vec:empty:buffered",
        "788eb82ce7f46e3dfe8a4eec8e53561f",
        false,
    ),
    (
        "vec:empty:aligned",
        "e1c5466fad4140fd12d70c618d7566f7",
        true,
    ),
    (
        "vec:temporal:aligned",
        "03d945e6aae9a0952b28fb0c5027c349",
        true,
    ),
];

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// A copy, because reading may write to the directory.
fn copy(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        std::fs::write(dir.path().join(entry.file_name()), bytes).unwrap();
    }
    dir
}

fn modes() -> [fn(FileBackendBuilder) -> FileBackendBuilder; 2] {
    [
        |builder| builder,
        |builder| builder.read_mode(ReadMode::Pread),
    ]
}

#[test]
fn entries_of_the_python_client_are_read_in_place() {
    let dir = copy(&vectors());
    for mode in modes() {
        let store = mode(FileBackend::builder(dir.path())).build().unwrap();
        for (key, file, expires) in ENTRIES {
            let bytes = std::fs::read(dir.path().join(file)).unwrap();
            let info = block_on(store.stat(&Key::new(key))).unwrap().expect(key);
            assert_eq!(info.id, file);
            assert_eq!(info.bytes, (bytes.len() - HEADER) as u64);
            assert_eq!(!info.expiry.is_never(), expires, "{key}");
            let entry = get(&store, key).expect(key);
            assert!(entry == bytes[HEADER..]);
            assert!(entry.starts_with(b"CK\x03"), "the entry is a frame");
        }
        assert_eq!(common::usage(&store).entries, ENTRIES.len() as u64);
    }
}

#[test]
fn all_shared_vectors_are_read_when_they_are_at_hand() {
    let Some(shared) = testkit::vectors() else {
        // A clone elsewhere has the small ones above.
        return;
    };
    let shared = shared.join("filedir");
    let dir = copy(&shared);
    for mode in modes() {
        let store = mode(FileBackend::builder(dir.path())).build().unwrap();
        let mut cursor = None;
        let mut seen = 0;
        loop {
            let page = block_on(store.list(cursor, 7)).unwrap();
            for info in &page.entries {
                let file = std::fs::metadata(dir.path().join(&info.id)).unwrap();
                assert_eq!(info.bytes + HEADER as u64, file.len());
                assert!(info.head.starts_with(b"CK\x03"), "{}", info.id);
                seen += 1;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, std::fs::read_dir(&shared).unwrap().count());
        for kind in ["numeric", "strings", "nullable", "nested", "multibatch"] {
            for form in ["buffered", "aligned"] {
                let key = format!("vec:{kind}:{form}");
                let file = block_on(store.stat(&Key::new(key.as_str())))
                    .unwrap()
                    .expect(&key)
                    .id;
                let bytes = std::fs::read(dir.path().join(file)).unwrap();
                assert!(get(&store, &key).expect(&key) == bytes[HEADER..]);
            }
        }
    }
}

#[test]
fn our_files_are_those_that_the_python_client_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let expiry = Expiry::from_unix_seconds(4_102_444_800);
    let options = WriteOptions::new()
        .with_expiry(expiry)
        .with_mappable(true)
        .with_head_len(2);
    let key = Key::new("vec:empty:aligned");
    let body = vec!["es".into(), "h".into()];
    assert!(
        block_on(store.put(&key, "fr".into(), body, options))
            .unwrap()
            .is_stored()
    );
    let path = dir.path().join("e1c5466fad4140fd12d70c618d7566f7");
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"CK\x01\0\0\0\0\0\0\0\xf4\x86\x57\0fresh"
    );

    // The flag is written when asked for, and only for entries that can be mapped.
    let store = FileBackend::builder(dir.path())
        .record_mappable(true)
        .build()
        .unwrap();
    for (mappable, flag) in [(true, 1), (false, 0)] {
        let options = WriteOptions::new().with_mappable(mappable);
        let put = block_on(store.put(&key, "".into(), vec!["x".into()], options));
        assert!(put.unwrap().is_stored());
        assert_eq!(std::fs::read(&path).unwrap()[3..6], [0, 0, flag]);
        assert_eq!(get(&store, "vec:empty:aligned").unwrap(), "x");
    }
}
