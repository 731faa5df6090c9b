//! Single flight under a scheduler that tries thousands of orders of events.
//!
//! Guards against: two that work on a key at one time, waiters that sleep for ever, results that reach
//! those who came too late for them, and flights that nobody forgets.
//!
//! A schedule that fails is printed as a text; `shuttle::replay(scenario, text)` runs it again.

/// What `flight.rs` finds in place of the locks of the standard library.
mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
}

#[path = "../src/flight.rs"]
mod flight;

#[cfg(test)]
#[path = "schedules"]
mod schedules {
    mod witness;
    mod world;

    mod scenarios;
}
