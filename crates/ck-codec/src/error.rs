use std::io;

use ck_core::{Error, ErrorKind};

/// Stored bytes that are not what a writer wrote.
pub(crate) fn damaged(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

/// Stored bytes that are well-formed, but of another type, version or form.
pub(crate) fn unsupported(message: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

/// The caller's mistake.
pub(crate) fn misuse(message: &'static str) -> Error {
    Error::new(ErrorKind::Misuse, message)
}

/// What a writer failed with; one of our own errors inside comes out as it is.
pub(crate) fn not_written(error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(inner) => Error::clone(inner),
        None => Error::new(ErrorKind::Transient, "a value cannot be written").with_source(error),
    }
}
