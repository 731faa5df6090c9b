//! A store whose entries nobody reads, moves or changes without the key.
//!
//! Guards against: plain bytes outside of the process; anything decoded that a holder of the key has not stored under
//! this key; entries of others removed, or evidence; and what is encrypted behaving in another way than what is not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

#[cfg(test)]
mod encrypted {
    #[path = "../tiers/map_store.rs"]
    #[allow(dead_code, reason = "nothing fails or pauses here")]
    mod map_store;
    mod support;

    mod conforms;
    mod contents;
    mod edits;
    mod kept;
    mod policies;
    mod vectors;
}
