#[cfg(feature = "file")]
mod file;
#[cfg(feature = "memcached")]
mod memcached;
mod options;
mod parse;
#[cfg(feature = "redis")]
mod redis;

use std::sync::Arc;

use ck_core::{Backend, Result};

use self::parse::StoreUrl;

/// Opens the store at `url`.
///
/// | URL | store | feature |
/// |---|---|---|
/// | `file:PATH`, `file:///PATH` | a directory, created when missing; a relative path counts from the working directory | `file` |
/// | `redis://USER:PASSWORD@HOST:PORT/DATABASE` | a Redis server | `redis` |
/// | `redis+unix:///PATH?db=DATABASE&user=USER&pass=PASSWORD` | the same through a socket file | `redis` |
/// | `redis-cluster://USER:PASSWORD@HOST:PORT,HOST:PORT` | a Redis cluster; any of its nodes | `redis-cluster` |
/// | `redis-sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME?db=DATABASE` | the Redis server that the sentinels at these hosts call the primary of NAME | `redis-sentinel` |
/// | `rediss://...`, `rediss-cluster://...`, `rediss-sentinel://...` | the same over TLS | `redis-tls` |
/// | `memcached://USER:PASSWORD@HOST:PORT,HOST:PORT` | memcached servers that share the entries | `memcached` |
///
/// Options follow a `?` and are separated by `&`. In paths, names, passwords and values of options, `%XX`
/// stands for a byte, so that they may hold `?` (`%3F`), `#` (`%23`), `&` (`%26`), `@` (`%40`) and `%`
/// (`%25`). Amounts are written `10GiB`, `500MB` or `4096`, times `5s`, `1m` or `250ms`.
///
/// | option of `file` | values | default |
/// |---|---|---|
/// | `limit_bytes` | all entries together | no limit |
/// | `value_limit_bytes` | one entry | half of `limit_bytes` |
/// | `limit_entries` | a number | no limit |
/// | `read` | `mapped`, `pread` | `mapped` |
/// | `durability` | `fast` (survives a killed process), `synced` (survives power loss) | `fast` |
/// | `record_mappable` | `true`, `false`: mark mappable entries in their files; readers of other systems then leave them alone | `false` |
/// | `lock_timeout` | a time | as the store has it |
///
/// | option of `redis` and `memcached` | values | default |
/// |---|---|---|
/// | `key_prefix` | what all names on the server begin with | nothing |
/// | `timeout` | of an operation, before its bytes are counted | `5s` |
/// | `min_throughput` | amount per second; transfers get more time by their bytes | `50MB` |
/// | `single_value_bytes` | larger entries are stored in chunks, which other clients do not read | Redis `256MiB`, memcached `32MiB` |
/// | `chunk_bytes` | one chunk | as the store has it |
/// | `bulk_connections` | for large transfers, per server | 4 |
///
/// | option of `redis` | values | default |
/// |---|---|---|
/// | `protocol` | `resp2`, `resp3` | `resp2` |
/// | `value_limit_bytes` | one entry | no limit |
/// | `temp_ttl` | how long the leavings of a killed writer stay | `30s` |
/// | `tls_ca_cert_file` | PEM file of the authorities that are trusted | those of the system |
/// | `tls_cert_file`, `tls_key_file` | PEM files of the client's own certificate and its key | none |
///
/// | option of `memcached` | values | default |
/// |---|---|---|
/// | `connect_timeout` | a time, within `timeout` | `2s` |
/// | `connections` | for small operations, per server | 8 |
/// | `chunking` | `true`, `false`: refuse entries beyond the limit for one item | `true` |
///
/// Nothing is said to a server before the first operation, which finds out whether it is there.
///
/// # Errors
///
/// [`ErrorKind::Misuse`](ck_core::ErrorKind::Misuse) for a URL that is malformed or has an unknown scheme,
/// option or value; the message lists what there is, and shows no password. Otherwise what opening the
/// store reports.
///
/// # Examples
///
/// ```
/// let error = ck_cache::open_store("/var/cache/ck").unwrap_err();
/// assert!(error.to_string().contains("file:PATH"));
/// ```
pub fn open_store(url: &str) -> Result<Arc<dyn Backend>> {
    let url = StoreUrl::parse(url)?;
    match url.scheme {
        #[cfg(feature = "file")]
        "file" => file::open(&url),
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "redis+unix" | "redis-cluster" | "rediss-cluster"
        | "redis-sentinel" | "rediss-sentinel" => redis::open(&url),
        #[cfg(feature = "memcached")]
        "memcached" => memcached::open(&url),
        _ => Err(url
            .misuse("unknown kind of store, or one that is not built in")
            .with("scheme", url.scheme)),
    }
}
