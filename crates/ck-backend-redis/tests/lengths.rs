//! Guards what a store makes of the length it is told: the right one, a wrong one, or none, the entry is what
//! was written, and what is not finished leaves nothing.
#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

mod common;

use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_core::{Backend, EntryWriter, ErrorKind, Key, Outcome, Rejection, WriteMode, WriteOptions};
use common::{get, pattern, put, stored, stream};
use pollster::block_on;
use testkit::{RedisServer, Reply};

const MIB: usize = 1 << 20;

fn key() -> Key {
    Key::new("table")
}

fn parts(server: &RedisServer) -> String {
    server.command(&["KEYS", "ck:part:*"]).text()
}

/// A writer that has got all but the first ten bytes of `bytes`.
fn written(store: &RedisBackend, bytes: &Bytes, hint: Option<u64>) -> Box<dyn EntryWriter> {
    let options = WriteOptions::new().with_head_len(10).with_size_hint(hint);
    let writer = block_on(store.create(&key(), options)).unwrap();
    let mut writer = writer.continue_value().unwrap();
    for at in (10..bytes.len()).step_by(MIB) {
        let part = bytes.slice(at..bytes.len().min(at + MIB));
        assert!(block_on(writer.write(vec![part])).unwrap().is_continue());
    }
    writer
}

#[test]
fn an_entry_is_what_was_written_whatever_length_was_said() {
    let server = RedisServer::start();
    let builder = || RedisBackend::builder(server.url());
    let whole = builder();
    let in_chunks = builder()
        .single_value_bytes(MIB as u64)
        .chunk_bytes(MIB as u64);
    // Put together from many parts where the length is not known or wrong.
    let in_parts = builder().chunk_bytes(MIB as u64);
    let in_large_chunks = builder()
        .single_value_bytes(MIB as u64)
        .chunk_bytes(20 << 20);
    for (builder, single) in [
        (whole, usize::MAX),
        (in_parts, usize::MAX),
        (in_chunks, MIB),
        (in_large_chunks, 0),
    ] {
        let store = builder.build().unwrap();
        for size in [MIB + 3, 3 * MIB, 18 * MIB + 1] {
            let bytes = pattern(size as u64, size);
            let right = size as u64;
            let said = [0, 700_000, right - 1, right, right + 1, 2 * right, 40 << 20];
            for hint in said.map(Some).into_iter().chain([None]) {
                let writer = written(&store, &bytes, hint);
                stored(block_on(writer.commit(bytes.slice(..10))));
                assert!(
                    get(&store, &key()).unwrap() == Some(bytes.clone()),
                    "{size} {hint:?}"
                );
                if size <= single {
                    let length = server.command(&["STRLEN", "table"]).text();
                    assert_eq!(length, size.to_string(), "{hint:?}: not one value");
                }
            }
        }
        assert!(block_on(store.remove(&key())).unwrap());
    }
}

#[test]
fn an_entry_of_unknown_length_is_one_value_up_to_the_limit_and_leaves_no_parts() {
    let server = RedisServer::start();
    let builder = RedisBackend::builder(server.url()).single_value_bytes(20 * MIB as u64);
    let store = builder.chunk_bytes(3 * MIB as u64).build().unwrap();
    for (size, one, keys) in [
        (17 * MIB, true, 1),
        (20 * MIB, true, 1),
        (20 * MIB + 1, false, 8),
        (20 * MIB - 1, true, 1),
    ] {
        let bytes = pattern(size as u64, size);
        for hint in [None, Some(30 * MIB as u64), Some(MIB as u64)] {
            stored(stream(&store, &key(), &bytes, hint));
            assert!(get(&store, &key()).unwrap() == Some(bytes.clone()));
            let value = server.command(&["GET", "table"]);
            assert_eq!(value == Reply::Bulk(bytes.to_vec()), one, "{size} {hint:?}");
            let keys = keys + usize::from(!one && hint == Some(MIB as u64));
            let there = || server.command(&["DBSIZE"]).text();
            assert!(
                soon(|| there() == keys.to_string()),
                "{size} {hint:?}: {}",
                parts(&server)
            );
        }
    }
}

#[test]
fn an_entry_of_unknown_length_keeps_to_its_mode() {
    let server = RedisServer::start();
    let store = RedisBackend::open(server.url()).unwrap();
    let bytes = [1, 2, 3].map(|seed| pattern(seed, 18 * MIB));
    let write = |bytes: &Bytes, mode| {
        let options = WriteOptions::new().with_mode(mode);
        let writer = block_on(store.create(&key(), options)).unwrap();
        let mut writer = writer.continue_value().unwrap();
        assert!(
            block_on(writer.write(vec![bytes.clone()]))
                .unwrap()
                .is_continue()
        );
        block_on(writer.commit(Bytes::new())).unwrap()
    };
    let holds = |bytes: &Bytes| {
        assert!(get(&store, &key()).unwrap().as_ref() == Some(bytes));
        assert!(soon(|| server.command(&["DBSIZE"]).text() == "1"));
    };
    assert!(write(&bytes[0], WriteMode::Create).is_stored());
    holds(&bytes[0]);
    let version = common::open(&store, &key()).unwrap().unwrap().version();
    let refused = Outcome::Rejected(Rejection::Superseded);
    assert_eq!(write(&bytes[1], WriteMode::Create), refused);
    holds(&bytes[0]);
    assert!(write(&bytes[1], WriteMode::Update(version)).is_stored());
    holds(&bytes[1]);
    assert_eq!(write(&bytes[2], WriteMode::Update(version)), refused);
    holds(&bytes[1]);
}

/// Whether it becomes true.
fn soon(mut what: impl FnMut() -> bool) -> bool {
    (0..2_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        what()
    })
}

#[test]
fn an_entry_of_known_length_leaves_nothing_on_the_server_before_it_is_complete() {
    let server = RedisServer::start();
    let store = RedisBackend::open(server.url()).unwrap();
    let old = pattern(1, 1_000);
    stored(put(&store, &key(), &old));
    let bytes = pattern(2, 9 * MIB);
    let writer = written(&store, &bytes, Some(10 * MIB as u64));
    assert_eq!(parts(&server), "");
    drop(writer);
    assert_eq!(parts(&server), "");
    assert_eq!(get(&store, &key()).unwrap(), Some(old));
    assert_eq!(server.command(&["DBSIZE"]).text(), "1");
}

#[test]
fn a_value_beyond_what_the_server_takes_is_too_large() {
    let server = RedisServer::start_with(&["--proto-max-bulk-len", "2mb"]);
    let store = RedisBackend::open(server.url()).unwrap();
    let outcome = put(&store, &key(), &pattern(1, 8 * MIB)).unwrap();
    let Outcome::Rejected(rejection) = outcome else {
        unreachable!("{outcome:?}");
    };
    assert!(
        matches!(rejection, Rejection::ValueTooLarge { .. }),
        "{rejection:?}"
    );
    let small = pattern(1, MIB);
    stored(put(&store, &key(), &small));
    assert_eq!(get(&store, &key()).unwrap(), Some(small));
}

#[test]
fn a_user_without_the_right_to_write_is_told_so_before_much_is_sent() {
    let server = RedisServer::start();
    server.command(&[
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">x",
        "~*",
        "+@read",
        "+@connection",
        "+multi",
        "+exec",
    ]);
    let proxy = testkit::Proxy::start(server.addr());
    let store = RedisBackend::open(format!("redis://reader:x@{}", proxy.addr())).unwrap();
    let error = put(&store, &key(), &pattern(1, 40 * MIB)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent, "{error:?}");
    assert!(
        error.to_string().contains("give the user the right"),
        "{error}"
    );
    assert!(proxy.bytes_up() < 20 * MIB as u64, "{}", proxy.bytes_up());
}

#[test]
fn uploads_go_through_a_socket_file_and_into_the_database_of_the_url() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]);
    let url = format!(
        "redis+unix://{}?db=3&pass=secret",
        server.socket().display()
    );
    let store = RedisBackend::open(url).unwrap();
    let bytes = pattern(1, 5 * MIB);
    stored(put(&store, &key(), &bytes));
    assert_eq!(get(&store, &key()).unwrap(), Some(bytes.clone()));
    let url = format!("redis://:secret@{}/3?protocol=resp3", server.addr());
    let store = RedisBackend::open(url).unwrap();
    assert_eq!(get(&store, &key()).unwrap(), Some(bytes.clone()));
    stored(put(&store, &key(), &bytes));
}
