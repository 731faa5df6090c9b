//! A directory as a store of the `ck` cache: [`FileBackend`] implements [`ck_core::Backend`].
//!
//! - Entries are files in the format of the existing Python and Rust clients, which can use the same
//!   directory at the same time.
//! - They are written aside and renamed into place: readers see the old entry or the new one, and keep
//!   what they have opened while others replace, evict or remove it.
//! - Large entries are mapped, so uncompressed columns cost nothing to read.
//! - Limits on bytes and entries hold for all processes of the machine together: a hidden ledger file
//!   keeps the accounts and the order of use. Making room costs the same however many entries there
//!   are, and opening a store reads none of them.
//! - Leases let one process at a time make an entry, and conditional writes replace what was seen and
//!   nothing newer.
//! - A killed process leaves nothing that the next one does not clean up.
//!
//! The directory must lie on a local file system: the ledger is shared memory. A process that forks
//! must open the store again in the child.
//!
//! # Features
//!
//! - `tokio` (default): blocking work runs on tokio's blocking pool when called inside a runtime.
#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("ck-backend-file relies on Linux: flock on directories, fallocate, getdents");

mod backend;
mod builder;
mod directory;
mod error;
mod layout;
mod lease;
mod ledger;
mod mmap;
mod read;
mod reconcile;
mod room;
mod store;
mod version;
mod write;

#[cfg(test)]
mod tests;

pub use backend::FileBackend;
pub use builder::{Durability, FileBackendBuilder, ReadMode};
