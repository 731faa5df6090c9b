//! Vocabulary and contracts of the `ck` cache.
//!
//! Everything that two crates of the workspace must agree on lives here, and nothing else: what a
//! [`Key`] is, when an entry expires ([`Expiry`]), how failures are classified ([`Error`],
//! [`ErrorKind`]), what a store must do ([`Backend`], [`EntryReader`], [`EntryWriter`]), and how
//! concurrent operations share memory ([`MemoryBudget`]).
//!
//! The crate knows no Arrow, opens no file and no socket, and has one mandatory dependency (`bytes`).
//!
//! # Features
//!
//! - `tokio`: [`offload`] moves blocking work to tokio's blocking pool when called inside a runtime
//!   ([`block_on`] keeps it where it is).
//! - `conformance`: the behaviour suite (`conformance`) that every backend runs in its tests.
#![deny(unsafe_code)]

mod backend;
mod budget;
mod error;
mod expiry;
mod heap;
mod key;
mod memory;
mod memory_entry;
mod offload;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use backend::{
    Backend, BoxFuture, Capabilities, ChangeListener, Cursor, EntryInfo, EntryReader, EntryWriter,
    Lease, Outcome, Page, Pruned, Rejection, Usage, Version, Watch, WriteMode, WriteOptions,
};
pub use budget::{MemoryBudget, Reservation};
pub use error::{Error, ErrorKind, Result};
pub use expiry::{Expiry, unix_now};
pub use heap::{note_dropped, note_freed};
pub use key::Key;
pub use memory::{ReadMemory, aligned_bytes, lend, pass_on};
pub use memory_entry::MemoryEntry;
pub use offload::{background, block_on, complete, offload, runs_in_place};
