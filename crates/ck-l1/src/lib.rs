//! TODO
#![forbid(unsafe_code)]

mod l1;
mod tier;

mod account;
mod books;
mod name;
mod scale;
mod slot;
mod stats;
mod weigh;

pub use l1::{Charge, Insertion, L1, L1Builder, Policy, Refusal};
pub use stats::{Evicted, L1Stats, Rejected};
pub use weigh::{Weigh, Weight};
