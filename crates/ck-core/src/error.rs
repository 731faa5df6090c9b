use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// `std::result::Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// May succeed when tried again: a full disk, a lost connection, a busy store.
    Transient,
    /// Will fail again until somebody changes something: a read-only directory, a missing permission.
    Permanent,
    /// The deadline passed.
    Timeout,
    /// The store refused the credentials.
    Authentication,
    /// Stored bytes are not what was written. A cache reads such an entry as a miss.
    Corrupt,
    /// An entry that has to be encrypted is not what a holder of its key has stored under this cache key: plain,
    /// changed, moved, or of another key.
    Tampered,
    /// More bytes than a limit allows.
    TooLarge,
    /// Well-formed, but not something this version or store can do.
    Unsupported,
    /// The caller's mistake: an option out of range, a column that does not exist.
    Misuse,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient failure",
            Self::Permanent => "permanent failure",
            Self::Timeout => "timeout",
            Self::Authentication => "authentication failure",
            Self::Corrupt => "corrupt entry",
            Self::Tampered => "tampered entry",
            Self::TooLarge => "too large",
            Self::Unsupported => "unsupported",
            Self::Misuse => "misuse",
        })
    }
}

/// A failure: what kind it is, what happened, where (key/value pairs), and what caused it.
///
/// Clones share the cause: all who wait for one load are told of its failure.
///
/// # Examples
///
/// ```
/// use ck_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Misuse, "no such column").with("column", "prize");
/// assert_eq!(error.to_string(), "no such column (column: prize)");
/// assert_eq!(error.kind(), ErrorKind::Misuse);
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// Adds where it happened. Pairs are shown in the order they were added.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What happened, without the context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The key/value pairs that say where it happened.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0
            .context
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        for (i, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_shows_message_cause_and_context_in_order() {
        let error = Error::new(ErrorKind::Transient, "cannot write the entry")
            .with("key", "a")
            .with("path", "/c")
            .with_source(std::io::Error::other("disk full"));
        assert_eq!(
            error.to_string(),
            "cannot write the entry: disk full (key: a, path: /c)"
        );
        assert!(StdError::source(&error).is_some());
    }
}
