//! Guards the contract: the file store does what every store must do, in both ways of reading, with
//! and without syncing, bare and behind `Arc<dyn Backend>`.
#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use ck_backend_file::{Durability, FileBackend, FileBackendBuilder, ReadMode};
use ck_core::conformance::{self, Limits};
use ck_core::{Backend, Capabilities};

fn run(configure: impl FnOnce(FileBackendBuilder) -> FileBackendBuilder) -> Arc<dyn Backend> {
    let dir = tempfile::tempdir().unwrap();
    let backend: Arc<dyn Backend> =
        Arc::new(configure(FileBackend::builder(dir.path())).build().unwrap());
    // The ledger repairs itself silently, so that it never had to is checked here.
    let key = ck_core::Key::new("first");
    let ledger = || {
        std::fs::metadata(dir.path().join(".ck-ledger"))
            .unwrap()
            .ino()
    };
    assert!(pollster::block_on(backend.open(&key)).unwrap().is_none());
    assert!(!pollster::block_on(backend.remove(&key)).unwrap());
    let before = ledger();
    pollster::block_on(conformance::run(Arc::clone(&backend)));
    assert_eq!(ledger(), before, "the ledger was made anew");
    backend
}

#[test]
fn the_mapped_store_conforms() {
    let backend = run(|builder| builder);
    let expected = Capabilities::new()
        .with_maps(true)
        .with_outer_offset(14)
        .with_leases(true);
    assert_eq!(backend.capabilities(), expected);
    assert!(backend.url().starts_with("file:/"));
}

#[test]
fn the_store_that_reads_with_pread_conforms() {
    let backend = run(|builder| builder.read_mode(ReadMode::Pread));
    assert!(!backend.capabilities().maps);
}

#[test]
fn the_synced_store_conforms() {
    run(|builder| builder.durability(Durability::Synced));
}

#[test]
fn the_store_conforms_inside_a_tokio_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(FileBackend::open(dir.path()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(conformance::run(backend));
}

#[test]
fn limits_hold_in_both_ways_of_writing() {
    for durability in [Durability::Fast, Durability::Synced] {
        let dir = tempfile::tempdir().unwrap();
        let backend = FileBackend::builder(dir.path())
            .limit_bytes(1_000_000)
            .value_limit_bytes(300_000)
            .durability(durability)
            .build()
            .unwrap();
        let limits = Limits {
            value_bytes: 300_000,
            store_bytes: 1_000_000,
            removes_stale: false,
        };
        pollster::block_on(conformance::run_limits(Arc::new(backend), limits));
    }
}
