//! memcached servers as a store of the `ck` cache: [`MemcachedBackend`] implements
//! [`ck_core::Backend`].
//!
//! - An entry up to the server's item size is one item, named and stored as the Python client does, on the
//!   server that pymemcache chooses. Both can use the same servers at the same time.
//! - A larger entry is stored in chunks, over all servers, under a manifest ([`ck_frame::Manifest`]) that is
//!   written last. Chunks begin where columns do, so that reading some columns fetches little else.
//! - Every operation has a deadline that grows with its bytes, and every command is answered by the server.
//!   A lost server costs the entries on it; operations reconnect by themselves.
//! - Bulk transfers have connections of their own.
//!
//! memcached 1.6 or later is needed, for its meta commands.
//!
//! # Features
//!
//! - `tokio` (default): blocking work runs on tokio's blocking pool when called inside a runtime.
#![forbid(unsafe_code)]

mod backend;
mod builder;
mod bulk;
mod catalogue;
mod command;
mod cutter;
mod deadline;
mod error;
mod fleet;
mod lease;
mod names;
mod read;
mod ring;
mod server;
mod time;
mod wire;
mod write;

pub use backend::MemcachedBackend;
pub use builder::MemcachedBuilder;
pub use fleet::ServerStats;
