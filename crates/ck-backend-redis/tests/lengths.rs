//! Guards what a store makes of the length it is told: the right one, a wrong one, or none, the entry is what
//! was written, and what is not finished leaves nothing.
#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

mod common;

use bytes::Bytes;
use ck_backend_redis::RedisBackend;
use ck_core::{Backend, EntryWriter, ErrorKind, Key, Outcome, Rejection, WriteOptions};
use common::{get, pattern, put, stored};
use pollster::block_on;
use testkit::RedisServer;

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
    let in_large_chunks = builder()
        .single_value_bytes(MIB as u64)
        .chunk_bytes(20 << 20);
    for builder in [whole, in_chunks, in_large_chunks] {
        let store = builder.build().unwrap();
        for size in [MIB + 3, 3 * MIB, 18 * MIB + 1] {
            let bytes = pattern(size as u64, size);
            let right = size as u64;
            for hint in [0, 700_000, right - 1, right, right + 1, 2 * right, 40 << 20] {
                for hint in [Some(hint), None] {
                    let writer = written(&store, &bytes, hint);
                    stored(block_on(writer.commit(bytes.slice(..10))));
                    assert!(
                        get(&store, &key()).unwrap() == Some(bytes.clone()),
                        "{size} {hint:?}"
                    );
                }
            }
        }
        assert!(block_on(store.remove(&key())).unwrap());
    }
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
