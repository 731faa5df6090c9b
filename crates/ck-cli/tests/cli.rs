//! The command as a user runs it: the built binary, real files, exit codes.
//!
//! Guards against: data that changes on its way through a format, a failed command that looks like a
//! successful one, half-written output, and messages where data belongs.

#[cfg(test)]
mod cli {
    mod support;

    mod codes;
    mod commands;
    mod decode;
    mod demo;
    mod encrypted;
    mod formats;
    mod json;
    mod servers;
    mod streams;
}
