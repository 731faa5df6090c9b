//! Guards the contract: on one server and on several, with small and large items, inside a runtime and
//! outside.
#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

use std::sync::Arc;

use ck_backend_memcached::{MemcachedBackend, MemcachedBuilder};
use ck_core::{Backend, Capabilities, block_on, conformance};
use testkit::Memcached;

fn builder(servers: &[Memcached]) -> MemcachedBuilder {
    MemcachedBackend::builder(servers.iter().map(|server| server.addr().to_string()))
}

fn run(servers: &[Memcached], configure: impl FnOnce(MemcachedBuilder) -> MemcachedBuilder) {
    let backend = configure(builder(servers)).build().unwrap();
    block_on(conformance::run(Arc::new(backend)));
}

const MEMORY: [&str; 2] = ["-m", "256"];

#[test]
fn one_server_conforms() {
    let server = Memcached::start_with(&MEMORY);
    let backend = MemcachedBackend::open([server.addr().to_string()]).unwrap();
    assert_eq!(backend.url(), server.url());
    assert_eq!(
        backend.capabilities(),
        Capabilities::new().with_leases(true)
    );
    run(&[server], |builder| builder);
}

#[test]
fn two_servers_conform() {
    let servers = [(); 2].map(|()| Memcached::start_with(&MEMORY));
    run(&servers, |builder| builder.key_prefix("some-prefix:"));
}

#[test]
fn servers_with_small_items_conform() {
    let small = ["-m", "256", "-I", "64k", "-o", "slab_chunk_max=32768"];
    let servers = [
        Memcached::start_with(&small),
        Memcached::start_with(&MEMORY),
    ];
    run(&servers, |builder| builder);
}

#[test]
fn a_server_with_large_items_conforms() {
    let large = ["-m", "1024", "-I", "64m"];
    run(&[Memcached::start_with(&large)], |builder| builder);
}

#[test]
fn one_connection_and_many_small_chunks_conform() {
    let server = Memcached::start_with(&MEMORY);
    run(&[server], |builder| {
        builder
            .connections(1)
            .bulk_connections(1)
            .chunk_bytes(1_000)
            .single_value_bytes(99)
    });
}

#[test]
fn limits_hold_and_what_is_refused_takes_the_stale_entry_along() {
    let servers = [Memcached::start_with(&[
        "-m",
        "8",
        "-I",
        "64k",
        "-o",
        "slab_chunk_max=32768",
    ])];
    let backend = builder(&servers).chunking(false).build().unwrap();
    let limits = conformance::Limits {
        value_bytes: (64 << 10) - 512,
        store_bytes: 8 << 20,
        removes_stale: true,
    };
    block_on(conformance::run_limits(Arc::new(backend), limits));
}

#[test]
fn the_store_conforms_inside_a_runtime() {
    let servers = [Memcached::start_with(&MEMORY)];
    let backend: Arc<dyn Backend> = Arc::new(builder(&servers).build().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(conformance::run(backend));
}
