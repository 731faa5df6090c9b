//! What the tests of several crates share: a heap that counts, panics that stay off the terminal, the
//! common test vectors and, with the feature `servers`, real servers and a faulty network.
//!
//! Servers listen on free ports of the loopback interface, keep their files in temporary directories and
//! end with their owner, also when a test panics or is killed. A server program that is not installed is
//! a panic that names the Debian package: tests never skip.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code reports by panicking"
)]

pub mod heap;
mod panics;
#[cfg(feature = "servers")]
mod servers;
mod vectors;

pub use panics::{catch, quietly};
#[cfg(feature = "servers")]
pub use servers::{
    Action, Direction, Fault, Memcached, Proxy, RedisCluster, RedisServer, Reply, Script, Server,
    Tls,
};
pub use vectors::vectors;
