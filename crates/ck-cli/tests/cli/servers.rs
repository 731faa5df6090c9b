use serde_json::Value;
use testkit::{Memcached, RedisServer};

use std::path::Path;

use super::support::{Ck, batch, ipc_file, read_ipc_file};
use arrow_array::{Array, RecordBatch};

/// That the batches of a file are these rows.
fn assert_rows(path: &Path, rows: &RecordBatch) {
    let mut start = 0;
    for batch in read_ipc_file(path) {
        let expected = rows.slice(start, batch.num_rows());
        start += batch.num_rows();
        for (found, expected) in batch.columns().iter().zip(expected.columns()) {
            assert_eq!(found.to_data(), expected.to_data());
        }
    }
    assert_eq!(start, rows.num_rows());
}

fn on<'a>(url: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["--store", url], args].concat()
}

/// Every command, on the store at `url`.
fn works_on(url: &str) {
    let ck = Ck::new();
    let ok = |args: &[&str]| ck.ok(&on(url, args));
    let code = |args: &[&str]| ck.run(&on(url, args)).code;
    let rows = batch(0, 200_000);
    ipc_file(&ck.path("in.arrow"), std::slice::from_ref(&rows));

    for compression in ["none", "zstd"] {
        ok(&[
            "put",
            "a",
            "in.arrow",
            "--compression",
            compression,
            "--ttl",
            "1h",
        ]);
        ok(&["get", "a", "-o", "out.arrow"]);
        assert_rows(&ck.path("out.arrow"), &rows);
        ok(&[
            "get",
            "a",
            "--columns",
            "price,id",
            "--rows",
            "7..150001",
            "-o",
            "part.arrow",
        ]);
        let part = rows.project(&[2, 0]).unwrap().slice(7, 149_994);
        assert_rows(&ck.path("part.arrow"), &part);
        ok(&["verify", "a"]);
    }
    ok(&["touch", "a", "2h"]);
    let stat: Value = serde_json::from_str(&ok(&["stat", "a", "--json"])).unwrap();
    assert!(stat["bytes"].as_u64().unwrap() > 1 << 20, "{stat}");
    assert!(stat["expires_unix_seconds"].is_u64(), "{stat}");
    let listed: Value = serde_json::from_str(&ok(&["ls", "--json"])).unwrap();
    assert_eq!(listed["key"], "a");
    assert!(ok(&["du"]).contains("entries        1"));
    ok(&["prune"]);
    ok(&["inspect", "a"]);
    ok(&["rm", "a"]);
    assert_eq!(code(&["get", "a"]), 3);
}

#[test]
fn every_command_works_on_a_redis_server() {
    let server = RedisServer::start();
    works_on(&server.url());
    works_on(&format!(
        "{}?single_value_bytes=64KiB&key_prefix=p%3A",
        server.url()
    ));
}

#[test]
fn every_command_works_on_memcached_servers() {
    let servers = [(); 2].map(|()| Memcached::start());
    works_on(&format!(
        "memcached://{},{}",
        servers[0].addr(),
        servers[1].addr()
    ));
}

#[test]
fn a_server_that_is_not_there_is_named_without_the_password() {
    let ck = Ck::new();
    for url in [
        "redis://me:secret@127.0.0.1:1",
        "memcached://me:secret@127.0.0.1:1",
    ] {
        let done = ck.run(&["--store", url, "get", "a"]);
        assert_eq!(done.code, 5, "{}", done.err);
        assert!(
            done.err.contains("127.0.0.1:1") && !done.err.contains("secret"),
            "{}",
            done.err
        );
    }
}
