//! A memory-bounded cache for Arrow tables.
//!
//! [`Cache`] keeps tables, typed values and bytes in a store: a directory, a Redis server or cluster, or memcached
//! servers ([`open_store`]), and in the process. Puts stream, so a table larger than memory passes through; gets are lazy, so three of two hundred columns cost three
//! columns; what is read is verified before it is used; and a put says whether anything was stored.
//!
//! # Examples
//!
//! ```
//! use std::sync::Arc;
//! use arrow_array::{ArrayRef, Int64Array, RecordBatch};
//! use ck_cache::{PutOptions, blocking::Cache};
//!
//! # let dir = tempfile::tempdir()?;
//! # let url = format!("file:{}", dir.path().display());
//! # /*
//! let url = "file:/var/cache/ck";
//! # */
//! let cache = Cache::open(&url)?;
//! let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
//! let prices: ArrayRef = Arc::new(Int64Array::from(vec![10, 20, 30]));
//! let batch = RecordBatch::try_from_iter([("id", ids), ("price", prices)])?;
//!
//! let outcome = cache.put_table("prices", batch, &PutOptions::new())?;
//! assert!(outcome.is_stored());
//!
//! let Some(table) = cache.open_table("prices")? else { panic!("a miss") };
//! for batch in table.select(&["price"])?.rows(1..3)?.batches() {
//!     println!("{:?}", batch?.column(0));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Async and blocking
//!
//! [`Cache`] is async and asks for no particular executor. [`blocking::Cache`] has the same methods
//! without `async`, for threads that may block.
//!
//! # Memory
//!
//! All operations of a cache draw the bytes they hold for a while from one
//! [`MemoryBudget`] ([`CacheBuilder::memory_budget_bytes`]) and wait
//! for each other when it is used up. What a caller passes in or was given is the caller's own.
//!
//! # Features
//!
//! - `file` (default), `redis`, `redis-cluster`, `redis-sentinel`, `redis-tls`, `memcached`: store URLs with these
//!   schemes, see [`open_store`].
//! - `tokio` (default): inside a tokio runtime, encoding and disk access run on its blocking pool.
//!   Without it, or outside a runtime, they run on the thread that polls.
//! - `metrics`: the figures of [`Stats`] are counters of the `metrics` facade too, under the names
//!   `ck_cache_..._total`, and so are `retries`, `timeouts` and `breaker_openings` of a [`Guard`] and what was
//!   `tampered` with in an `Encrypted` store. Install the recorder before cache and stores are made.
#![forbid(unsafe_code)]

mod batches;
pub mod blocking;
mod builder;
mod cache;
mod cached_table;
mod contents;
mod crew;
mod draft;
#[cfg(feature = "encryption")]
mod encrypted;
mod flight;
mod get;
mod guard;
mod held;
mod load;
mod load_options;
mod namespace;
mod options;
mod order;
mod put;
mod source;
mod stats;
mod tiers;
mod timer;
mod trace;
mod units;
mod url;
mod value;

/// Where `flight` takes its locks from; tests put others in their place.
mod sync {
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
}

pub use builder::CacheBuilder;
pub use cache::{Cache, StoreFailure};
pub use cached_table::{BatchStream, Batches, CachedTable};
pub use ck_arrow::{Compression, Table, TableReader, Verification};
pub use ck_codec::{CacheCodec, CacheCodecImpl, CacheKey};
pub use ck_core::{
    Backend, Cursor, EntryInfo, Error, ErrorKind, Key, MemoryBudget, Outcome, Page, Pruned,
    Rejection, Result, Usage,
};
#[cfg(feature = "encryption")]
pub use ck_crypto::{DEFAULT_TENANT, Fingerprint, Keyring, MasterKey};
pub use ck_l1::{L1Stats, Policy};
pub use contents::{Contents, read_entry};
#[cfg(feature = "encryption")]
pub use encrypted::{Encrypted, EncryptedInfo, EncryptedStats, EncryptionOptions, Tampering};
pub use guard::{BreakerState, Guard, GuardOptions, GuardStats};
pub use load_options::LoadOptions;
pub use options::PutOptions;
pub use stats::Stats;
pub use units::{parse_bytes, parse_duration};
pub use url::open_store;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
