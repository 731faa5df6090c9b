//! The cache over the file store, as a program uses it.
//!
//! Guards against: a value that comes back changed, an old entry lost by a put that did not succeed,
//! damage handed out as data, memory taken beyond the budget, and calls that only work in one kind of
//! runtime.

#[cfg(test)]
mod facade {
    mod support;

    mod bytes;
    mod damage;
    mod memory;
    mod puts;
    mod runtimes;
    mod tables;
}
