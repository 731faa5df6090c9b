//! Guards the contract: the store does what every store must do, over one server and over a cluster, with
//! entries as single values and in chunks, whatever executor polls it.
#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

use std::sync::Arc;

use ck_backend_redis::{RedisBackend, RedisBackendBuilder};
use ck_core::{Backend, Capabilities, conformance};
use testkit::RedisServer;

fn run(builder: RedisBackendBuilder) -> Arc<dyn Backend> {
    let backend: Arc<dyn Backend> = Arc::new(builder.build().unwrap());
    pollster::block_on(conformance::run(Arc::clone(&backend)));
    backend
}

#[test]
fn one_server_conforms() {
    let server = RedisServer::start();
    let backend = run(RedisBackend::builder(server.url()));
    let expected = Capabilities::new().with_leases(true);
    assert_eq!(backend.capabilities(), expected);
    assert_eq!(backend.url(), server.url());
    let left = server.command(&["KEYS", "ck:part:*"]).text();
    assert_eq!(left, "", "something was left behind");
}

#[test]
fn a_store_with_a_prefix_conforms_beside_others() {
    let server = RedisServer::start();
    server.command(&["SET", "somebody", "else's"]);
    server.command(&["RPUSH", "a*b:list", "1"]);
    run(RedisBackend::builder(server.url()).key_prefix("a*b:"));
    assert_eq!(server.command(&["GET", "somebody"]).text(), "else's");
}

#[test]
fn entries_in_chunks_conform() {
    let server = RedisServer::start();
    let builder = RedisBackend::builder(server.url());
    run(builder.single_value_bytes(64 << 10).chunk_bytes(100_000));
}

#[test]
fn the_newer_protocol_and_a_socket_file_conform() {
    let server = RedisServer::start();
    let url = format!("redis+unix://{}?protocol=resp3", server.socket().display());
    run(RedisBackend::builder(url));
}

#[test]
fn the_store_conforms_inside_a_tokio_runtime() {
    let server = RedisServer::start();
    let backend = Arc::new(RedisBackend::open(server.url()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(conformance::run(backend));
}

#[cfg(feature = "cluster")]
#[test]
fn a_cluster_conforms() {
    let cluster = testkit::RedisCluster::start();
    let backend = run(RedisBackend::builder(cluster.url()));
    assert_eq!(backend.url(), cluster.url());
}

#[cfg(feature = "cluster")]
#[test]
fn entries_in_chunks_conform_in_a_cluster() {
    let cluster = testkit::RedisCluster::start();
    let builder = RedisBackend::builder(cluster.url());
    run(builder.single_value_bytes(64 << 10).chunk_bytes(100_000));
}
