//! Redis as a store of the `ck` cache: [`RedisBackend`] implements [`ck_core::Backend`].
//!
//! - An entry is one string under its key, the bytes that the existing Python client reads and writes.
//!   Above a threshold it becomes chunks under a manifest, spread over the slots of a cluster.
//! - Writes are streamed to temporary keys and published by one atomic step: readers see the old entry, the
//!   new one, or none. What a failed or killed writer leaves behind dies by its own short time to live.
//! - An entry of which the length is known is sent once. One of unknown length is written in parts; if it turns out
//!   to be short enough for one value, it is put together at the end, at the price of one more transfer down and
//!   up. Neither keeps the server from answering others.
//! - Reads fetch the ranges that are asked for. Each answer carries proof of which entry it belongs to, so
//!   that a replaced entry is an error and never a mixture.
//! - Large transfers go in small pieces over connections of their own: operations on small entries wait
//!   for none of them.
//! - Every operation has a deadline that grows with its bytes. After an outage the next operation
//!   connects again.
//!
//! All network traffic runs on two threads of the store itself, so its futures can be polled by any
//! executor, and `block_on` from plain threads works too.
//!
//! # Servers
//!
//! Redis 6.2 or later, or a server that speaks its protocol, with `EVAL` allowed: publishing what was
//! written in parts, discarding and leases are short scripts on one key.
//!
//! # Features
//!
//! - `cluster` (default): `redis-cluster://` URLs.
//! - `sentinel` (default): `redis-sentinel://` URLs.
//! - `tls` (default): `rediss://`, `rediss-cluster://` and `rediss-sentinel://` URLs, over rustls.
#![forbid(unsafe_code)]

mod address;
mod aligned;
mod backend;
mod builder;
mod catalogue;
mod connection;
mod engine;
mod error;
mod found;
mod identity;
mod lease;
mod name;
mod pace;
mod pool;
mod publish;
mod read;
#[cfg(feature = "sentinel")]
mod sentinel;
#[cfg(feature = "cluster")]
mod slots;
mod store;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod upload;
mod watch;
mod write;

pub use backend::RedisBackend;
pub use builder::RedisBackendBuilder;
