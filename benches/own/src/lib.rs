//! What the benchmarks of the parts and the scaling suite share: tables, and stores to put them into.
//!
//! In the folder `benches`:
//!
//! - `cargo bench -p own [-- FILTER]`: what frame, slicing, encoding, decoding, hashing, the process's own tier
//!   and the stores cost, by size.
//! - `cargo run --release -p own --bin scaling -- [--quick] [--json] [--only NAME]`: how time grows with tasks,
//!   entries, columns and bytes; fails where it grows faster than the work.

pub mod stores;
pub mod tables;

/// Errors of any kind, also from other threads.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
