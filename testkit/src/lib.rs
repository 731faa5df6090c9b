//! Real servers and a faulty network for the tests of the network stores.
//!
//! Servers listen on free ports of the loopback interface, keep their files in temporary directories and
//! end with their owner, also when a test panics or is killed. A server program that is not installed is
//! a panic that names the Debian package: tests never skip.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code reports by panicking"
)]

mod memcached;
mod ports;
mod process;
mod proxy;
mod redis;
mod redis_cluster;
mod resp;
mod server;

pub use memcached::Memcached;
pub use proxy::{Action, Direction, Fault, Proxy, Script};
pub use redis::{RedisServer, Tls};
pub use redis_cluster::RedisCluster;
pub use resp::Reply;
pub use server::Server;
