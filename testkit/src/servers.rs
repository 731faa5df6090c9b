//! Real servers and a faulty network for the tests of the network stores.

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
