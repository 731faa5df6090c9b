//! The tiers together: the process, the store and the loader.
//!
//! Guards against: a value that is loaded twice, an old one that comes back after a change, waiters that
//! are forgotten, and values that stay when they should be gone.

#[cfg(test)]
#[path = "tiers"]
mod tiers {
    mod map_store;
    mod oracle;
    mod steps;
    mod support;

    mod cancellations;
    mod freshness;
    mod loads;
    mod model;
    mod namespaces;
    mod order;
    mod spans;
    mod typed;
}
