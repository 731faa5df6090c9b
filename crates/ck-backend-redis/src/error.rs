use std::time::Duration;

use ck_core::{Error, ErrorKind};
use redis::{ErrorKind as RedisKind, RedisError};

/// Everything that can go wrong here, before it becomes a [`ck_core::Error`].
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the Redis server refused a command or cannot be reached{}", advice(.0))]
    Redis(RedisError),
    #[error(
        "the Redis server did not answer in time; raise `timeout`, or find out what keeps the server busy"
    )]
    Deadline { deadline: Duration },
    #[error("the Redis server gave an answer of an unexpected form")]
    Reply { wanted: &'static str },
    #[error("the cluster is moving the slot of the key; try again")]
    Moving,
    #[error("the entry was replaced, removed or evicted while it was read")]
    Replaced,
    #[error("a chunk of the entry is gone: it was evicted, or the entry was replaced")]
    ChunkLost { chunk: usize },
    #[error(
        "what was written of the entry is gone: the server evicted it, lost it or was restarted"
    )]
    PartLost,
    #[error("the entry ends before the bytes asked for")]
    Range { start: u64, end: u64, len: u64 },
    #[error("the head does not have the promised length")]
    HeadLength { promised: usize, got: usize },
    #[error("an earlier write failed or was given up; drop the writer")]
    WriterBroken,
    #[error("no such place in the listing")]
    Cursor,
    #[error("the option {option} is out of range: {bound}")]
    Option {
        option: &'static str,
        value: String,
        bound: String,
    },
    #[error("not a URL of a Redis store: {reason}")]
    Url { reason: String },
    #[error("the threads of the Redis store cannot be started: {0}")]
    Threads(String),
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    #[error("the manifest of the entry cannot be made: {0}")]
    Manifest(String),
    #[error("somebody listens to the changes of this store already")]
    Watched,
    #[cfg(feature = "cluster")]
    #[error("a cluster does not tell of changes here; use one server, or rely on expiry")]
    CannotWatch,
    #[error("the Redis store was closed meanwhile")]
    Closed,
}

impl Fault {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Redis(error) => kind_of(error),
            Self::Deadline { .. } => ErrorKind::Timeout,
            Self::Reply { .. } | Self::Moving | Self::PartLost | Self::Closed => {
                ErrorKind::Transient
            }
            Self::Replaced | Self::ChunkLost { .. } | Self::Range { .. } => ErrorKind::Corrupt,
            Self::HeadLength { .. }
            | Self::WriterBroken
            | Self::Cursor
            | Self::Watched
            | Self::Option { .. }
            | Self::Url { .. } => ErrorKind::Misuse,
            Self::Threads(_) | Self::Random(_) => ErrorKind::Transient,
            Self::Manifest(_) => ErrorKind::TooLarge,
            #[cfg(feature = "cluster")]
            Self::CannotWatch => ErrorKind::Unsupported,
        }
    }

    /// Whether the server wants to know who this is.
    pub(crate) fn is_authentication(&self) -> bool {
        self.kind() == ErrorKind::Authentication
    }

    /// Whether the server has no memory left and evicts nothing.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.says("OOM")
    }

    /// Whether the server takes no string of this length.
    pub(crate) fn is_too_long(&self) -> bool {
        self.says("string exceeds maximum allowed size") || self.says("invalid bulk length")
    }

    /// Whether the key holds something else than a string, which is nobody's entry.
    pub(crate) fn is_foreign(&self) -> bool {
        self.says("WRONGTYPE")
    }

    /// Whether a connection that failed so is of no more use.
    pub(crate) fn spoils_connection(&self) -> bool {
        match self {
            // A replica may have been a primary when the connection was made.
            Self::Redis(error) => is_lost(error) || code(error).as_deref() == Some("READONLY"),
            // Answers are still under way, or nobody will ever answer.
            Self::Deadline { .. } | Self::Reply { .. } => true,
            // It does not know where the slots are now.
            Self::Moving => true,
            _ => false,
        }
    }

    /// Whether the connection broke, so that what can be done twice is worth another try.
    pub(crate) fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Redis(error) if is_lost(error))
    }

    /// Whether the server has not done what it was asked because the key is elsewhere, or will be. The client
    /// library follows such answers to single commands, not those inside transactions (redis 1.8).
    pub(crate) fn is_redirected(&self) -> bool {
        let code = match self {
            Self::Redis(error) => code(error),
            _ => None,
        };
        matches!(code.as_deref(), Some("MOVED" | "ASK" | "TRYAGAIN"))
    }

    fn says(&self, what: &str) -> bool {
        matches!(self, Self::Redis(error) if error.to_string().contains(what))
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let error = Self::new(fault.kind(), fault.to_string());
        match fault {
            Fault::Redis(cause) => error.with_source(cause),
            Fault::Deadline { deadline } => error.with("deadline_ms", deadline.as_millis()),
            Fault::Reply { wanted } => error.with("wanted", wanted),
            Fault::ChunkLost { chunk } => error.with("chunk", chunk),
            Fault::Range { start, end, len } => error
                .with("wanted", format_args!("{start}..{end}"))
                .with("entry_bytes", len),
            Fault::HeadLength { promised, got } => error
                .with("promised_bytes", promised)
                .with("head_bytes", got),
            Fault::Option { option, value, .. } => error.with(option, value),
            _ => error,
        }
    }
}

fn is_lost(error: &RedisError) -> bool {
    error.is_connection_dropped()
        || error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == RedisKind::Parse
}

/// The first word of what the server said; that of the first command that failed in a transaction.
fn code(error: &RedisError) -> Option<String> {
    let errors = error.clone().into_server_errors();
    let code = errors.and_then(|errors| errors.first().map(|(_, error)| error.code().to_owned()));
    code.or_else(|| error.code().map(str::to_owned))
}

fn kind_of(error: &RedisError) -> ErrorKind {
    if error.is_timeout() {
        return ErrorKind::Timeout;
    }
    match error.kind() {
        RedisKind::AuthenticationFailed => return ErrorKind::Authentication,
        RedisKind::InvalidClientConfig => return ErrorKind::Misuse,
        RedisKind::RESP3NotSupported => return ErrorKind::Unsupported,
        _ => {}
    }
    match code(error).as_deref() {
        Some("NOAUTH" | "WRONGPASS") => ErrorKind::Authentication,
        Some("READONLY" | "NOPERM" | "MOVED" | "CROSSSLOT" | "WRONGTYPE" | "ERR") => {
            ErrorKind::Permanent
        }
        // Busy, loading, failing over, out of memory; lost connections.
        _ => ErrorKind::Transient,
    }
}

/// What to do about the causes that a user can remove.
fn advice(error: &RedisError) -> &'static str {
    if error.kind() == RedisKind::MasterNameNotFoundBySentinel {
        return "; the sentinels know no primary of this name, or none that is up";
    }
    if kind_of(error) == ErrorKind::Authentication {
        return "; check the user name and the password in the store's URL";
    }
    match code(error).as_deref() {
        Some("READONLY") => "; it is a read-only replica: let the store's URL name the primary",
        Some("NOPERM") => "; give the user the right to run this command on the store's keys",
        Some("MOVED") => "; it is a node of a cluster: use a `redis-cluster://` URL",
        Some("OOM") => "; raise the server's `maxmemory`, or let it evict (`maxmemory-policy`)",
        _ => "",
    }
}
