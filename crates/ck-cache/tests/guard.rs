//! A guarded store, around the file store and around one that misbehaves.
//!
//! Guards against: a caller who waits for a store that hangs, whatever runs the future; an operation
//! repeated that must not be; a store that is down and asked all the same, or back and not asked; and
//! leases, entries and threads left behind by what was given up.

#[cfg(test)]
mod guard {
    mod support;

    mod breaker;
    mod conforms;
    mod deadlines;
    mod late;
    mod memory;
    mod retries;
}
