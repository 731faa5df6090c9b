//! The in-process tier of the `ck` cache: shared values under a hard byte budget.
//!
//! An [`L1`] maps [`Key`](ck_core::Key)s to `Arc`s of values that know their size ([`Weigh`]). A hit
//! hands out the `Arc` and copies nothing. Who stays is decided by moka (LRU or TinyLFU), what may
//! enter by an account of bytes. It works with any values, alone or below the other tiers of the
//! cache; it serialises nothing and knows no Arrow.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use ck_core::Key;
//! use ck_l1::{Insertion, L1, Weigh, Weight};
//!
//! struct Page(Vec<u8>);
//!
//! impl Weigh for Page {
//!     fn weight(&self) -> Weight {
//!         Weight::heap(self.0.capacity() as u64)
//!     }
//! }
//!
//! let l1 = L1::builder(64 << 20).build();
//! let page = Arc::new(Page(vec![7; 4096]));
//! let stored = l1.insert(Key::new("page/1"), page, Some(Duration::from_secs(60)));
//! assert_eq!(stored, Insertion::Stored);
//! assert_eq!(l1.get(&Key::new("page/1")).map(|page| page.0[0]), Some(7));
//! assert!(l1.stats().bytes <= l1.stats().budget_bytes);
//! ```
//!
//! # Memory
//!
//! **At no moment do entries hold more than the budget.** What an entry costs is reserved before the
//! tier takes the value, and given back after it has dropped it; room is made first. An entry that
//! leaves is dropped at once, whatever the cause, and not when some thread comes round to it. An
//! entry as large as the budget is held, one larger is refused.
//!
//! Charged are what the value retains ([`Weight::heap_bytes`]), `size_of` of its type, the text of
//! the key, and 356 bytes (with a time to live: 396) for what the tier itself allocates. That is
//! within a tenth of what a counting allocator sees, from a million empty entries to a few large
//! ones. Not charged are some 40 KB that a tier has from the start, and values that callers still
//! hold when they leave the tier: as long as those live, they are the callers' memory.
//!
//! Memory that several entries share is charged once, with [`L1::charge`], and belongs to the budget
//! as long as its guard lives. The guard may live in the values themselves.
//!
//! Mapped bytes cost no budget but have a limit of their own
//! ([`mapped_limit_bytes`](L1Builder::mapped_limit_bytes)), at which entries that map more are
//! refused.
//!
//! # Costs
//!
//! A hit costs at most 1.3 times a bare `moka::sync::Cache::get` of an `Arc`, mostly 1.1 to 1.2 times
//! (`cargo xtask bench --only hit`). Gets wait for nobody. Inserts, removals and
//! charges run one after another, in one to three microseconds each; those that evict also drop what
//! leaves. Clearing takes as long for each entry.
//!
//! # Time to live
//!
//! An expired entry is never returned. Its memory comes back when the tier is used or
//! [settled](L1::settle) after the tick of moka's timer that follows, about a second later; until then
//! it is evicted like any other.
//!
//! # Values
//!
//! The tier drops values inside of its own calls, so a value's `Drop` must not insert, remove, charge
//! or clear in the same tier: that would wait for itself. Dropping a [`Charge`] is fine. A panic in it
//! is caught.
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
