use std::fmt;
use std::io;
use std::process::ExitCode;

use arrow_schema::ArrowError;
use ck_cache::{Error, ErrorKind};

/// What the caller of the command can tell apart by its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Anything without a code of its own.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// There is no such entry.
    Miss = 3,
    /// Stored bytes are not what was written, or not by a holder of the key.
    Corrupt = 4,
    /// The store cannot be reached, or did not take the value.
    Store = 5,
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// With a message and an exit code.
    Told(Status, String),
    /// The reader of our output has gone, which is its right: nothing to say.
    BrokenPipe,
}

impl Failure {
    pub(crate) fn new(status: Status, message: impl fmt::Display) -> Self {
        Self::Told(status, message.to_string())
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Status::Usage, message)
    }

    pub(crate) fn other(message: impl fmt::Display) -> Self {
        Self::new(Status::Other, message)
    }

    /// No entry under this key.
    pub(crate) fn miss(key: &str) -> Self {
        Self::new(Status::Miss, format_args!("no entry under the key {key:?}"))
    }

    /// Prints the message and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Told(status, message) => {
                eprintln!("ck: {message}");
                ExitCode::from(*status as u8)
            }
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let source = std::error::Error::source(&error);
        let input = source.and_then(|source| source.downcast_ref::<ArrowError>());
        let status = match (error.kind(), input) {
            (ErrorKind::Misuse, _) => Status::Usage,
            (ErrorKind::Corrupt | ErrorKind::Tampered, _) => Status::Corrupt,
            // A file that could not be read on its way into the store.
            (_, Some(_)) => Status::Other,
            (
                ErrorKind::Transient
                | ErrorKind::Permanent
                | ErrorKind::Timeout
                | ErrorKind::Authentication,
                None,
            ) => Status::Store,
            _ => Status::Other,
        };
        Self::new(status, error)
    }
}

/// Errors of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::other(format_args!("cannot write the output: {error}"))
    }
}

/// Errors of the formats that are read and written. Errors of the store travel inside them.
impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, error) => error.into(),
            ArrowError::ExternalError(source) => match source.downcast::<Error>() {
                Ok(error) => (*error).into(),
                Err(error) => Self::other(error),
            },
            error => Self::other(error),
        }
    }
}
