//! What the memory cases put, and what tells whether it came back. A crate of its own, so that it is optimised for
//! tests: making tables takes longer than storing them.

pub mod digest;
pub mod tables;

/// What the cases fail with too.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
