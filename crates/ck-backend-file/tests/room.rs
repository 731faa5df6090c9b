//! Guards the room that is kept: nothing is evicted for an entry that is then refused, and an entry is
//! not evicted for a successor of unknown size.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;

use ck_backend_file::FileBackend;
use ck_core::{Backend, Key, Outcome, Rejection, WriteOptions};
use common::{files, get, put, stream, try_put, usage, value};
use pollster::block_on;

#[test]
fn the_old_entry_makes_room_for_a_new_one_of_known_size_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::builder(dir.path())
        .limit_bytes(200_000)
        .value_limit_bytes(150_000)
        .build()
        .unwrap();
    let old = value(1, 120_000);
    put(&store, "key", old.clone());
    put(&store, "other", value(2, 10_000));

    let outcome = stream(&store, "key", &value(3, 120_000)).unwrap();
    assert!(
        matches!(outcome, Outcome::Rejected(Rejection::StoreFull { .. })),
        "{outcome:?}"
    );
    assert_eq!(get(&store, "key").unwrap(), old);
    assert_eq!(usage(&store).reserved_bytes, 0);

    put(&store, "key", value(4, 130_000));
    assert_eq!(get(&store, "key").unwrap(), value(4, 130_000));
    let found = files(dir.path());
    assert!(found.bytes <= 200_000 && found.temporary == 0, "{found:?}");
}

#[test]
fn a_value_that_can_never_fit_beside_the_ledger_is_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::builder(dir.path())
        .limit_bytes(100_000)
        .value_limit_bytes(100_000)
        .build()
        .unwrap();
    put(&store, "small", value(1, 500));
    for outcome in [
        try_put(&store, "key", value(2, 95_000)).unwrap(),
        stream(&store, "key", &value(2, 95_000)).unwrap(),
    ] {
        let Outcome::Rejected(rejection) = outcome else {
            panic!("it does not fit")
        };
        assert!(
            matches!(rejection, Rejection::ValueTooLarge { .. }),
            "{rejection:?}"
        );
    }
    let outcome = try_put(&store, "key", value(2, 95_000)).unwrap();
    assert_eq!(
        outcome,
        Outcome::Rejected(Rejection::ValueTooLarge {
            bytes: 95_000,
            limit: 100_000 - 8_192 - 14
        })
    );
    put(&store, "key", value(2, 100_000 - 8_192 - 14));
    assert_eq!(usage(&store).entries, 1);
}

#[test]
fn writers_at_work_count_and_share_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::builder(dir.path())
        .limit_bytes(1_000_000)
        .value_limit_bytes(800_000)
        .build()
        .unwrap();
    for i in 0..9 {
        put(&store, &format!("key{i}"), value(i, 100_000));
    }
    let start = |key: &str, hint: u64| {
        let options = WriteOptions::new().with_size_hint(Some(hint));
        block_on(store.create(&Key::new(key), options)).unwrap()
    };
    let ControlFlow::Continue(first) = start("first", 600_000) else {
        panic!("there is room")
    };
    let counted = usage(&store);
    assert_eq!((counted.reserved_bytes, counted.entries), (600_014, 3));
    assert!(matches!(
        start("second", 500_000),
        ControlFlow::Break(Rejection::StoreFull { .. })
    ));
    assert_eq!(usage(&store).entries, 3, "nothing was evicted in vain");
    let ControlFlow::Continue(second) = start("second", 300_000) else {
        panic!("there is room")
    };
    assert_eq!(usage(&store).reserved_bytes, 900_028);
    drop(first);
    assert_eq!(usage(&store).reserved_bytes, 300_014);
    assert!(block_on(second.commit("".into())).unwrap().is_stored());
    assert_eq!(usage(&store).reserved_bytes, 0);
    assert_eq!(files(dir.path()).temporary, 0);
}

#[test]
fn blocks_that_an_entry_did_not_need_are_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileBackend::open(dir.path()).unwrap();
    let bytes = value(1, 300_000);
    for hint in [None, Some(300_000), Some(20_000_000)] {
        let options = WriteOptions::new().with_size_hint(hint);
        let ControlFlow::Continue(mut writer) =
            block_on(store.create(&Key::new("key"), options)).unwrap()
        else {
            panic!("there is room")
        };
        assert!(
            block_on(writer.write(vec![bytes.clone()]))
                .unwrap()
                .is_continue()
        );
        assert!(block_on(writer.commit("".into())).unwrap().is_stored());
        assert_eq!(get(&store, "key"), Some(bytes.clone()));
        let entry = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap());
        let entry = entry.filter(|found| found.len() == 300_014);
        let on_disk: Vec<u64> = entry.map(|found| found.blocks() * 512).collect();
        assert!(matches!(on_disk[..], [0..400_000]), "{hint:?}: {on_disk:?}");
    }
}
