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
    mod support;

    mod conforms;
    mod contents;
    mod edits;
    mod kept;
    mod policies;
    mod vectors;
}
