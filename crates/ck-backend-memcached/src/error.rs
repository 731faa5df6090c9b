use std::io;
use std::sync::Arc;
use std::time::Duration;

use ck_core::{Error, ErrorKind};

/// Everything that can go wrong here, before it becomes a [`ck_core::Error`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot {action} memcached; is the server up, and does the network let it through?")]
    Io {
        action: &'static str,
        server: Arc<str>,
        source: io::Error,
    },
    #[error(
        "memcached did not answer in time; it hangs, the network is slow, or the timeout is too short"
    )]
    Timeout { server: Arc<str>, allowed: Duration },
    #[error(
        "all connections to memcached were busy for too long; allow more connections or a longer timeout"
    )]
    Busy {
        server: Arc<str>,
        connections: usize,
        waited: Duration,
    },
    #[error("memcached refused a command")]
    Refused { server: Arc<str>, reply: String },
    #[error("memcached wants other credentials")]
    Authentication { server: Arc<str>, reply: String },
    #[error("memcached has no memory for the item; give it more (-m), or let it evict (no -M)")]
    OutOfMemory { server: Arc<str>, reply: String },
    #[error(
        "memcached takes no item of this size; its limit (-I) was lowered or read from another server"
    )]
    ItemTooLarge { server: Arc<str>, reply: String },
    #[error("the answer is none of memcached's; does something else listen there?")]
    Garbled { server: Arc<str>, reply: String },
    #[error("the server is too old: meta commands came with memcached 1.6")]
    TooOld { server: Arc<str>, version: String },
    #[error(
        "a chunk of the entry is gone: evicted, lost with its server, or the entry was replaced"
    )]
    ChunkGone { chunk: String },
    #[error("a chunk of the entry has another length than its manifest says")]
    ChunkLength {
        chunk: String,
        found: u64,
        expected: u64,
    },
    #[error("the chunks of the entry went out of memory while it was written")]
    ChunksEvicted { missing: usize },
    #[error(
        "memcached does not list its items: its crawler is off (`-o no_lru_crawler`), or it is another server"
    )]
    NoWalk { server: Arc<str>, reply: String },
    #[error("memcached lists its items for somebody else; try again")]
    WalkBusy { server: Arc<str> },
    #[error("the cursor is none that this store gave out")]
    Cursor,
    #[error("others keep changing the entry; try again")]
    Contended,
    #[error("the head does not have the promised length")]
    HeadLength { promised: usize, got: usize },
    #[error("an earlier write failed or was given up; drop the writer")]
    WriterBroken,
    #[error("the entry ends before the bytes asked for")]
    Range { start: u64, end: u64, len: u64 },
    #[error("the option {option} is out of range: {bound}")]
    Option {
        option: &'static str,
        value: String,
        bound: &'static str,
    },
    #[error("the system gives no random numbers")]
    Random { source: getrandom::Error },
    #[error("{0}")]
    Unsupported(&'static str),
}

impl Fault {
    /// Whether the connection broke, so that its siblings probably did too.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Timeout { .. })
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Timeout { .. } | Self::Busy { .. } => ErrorKind::Timeout,
            Self::Io { .. }
            | Self::OutOfMemory { .. }
            | Self::ItemTooLarge { .. }
            | Self::ChunksEvicted { .. }
            | Self::Contended
            | Self::WalkBusy { .. }
            | Self::Random { .. } => ErrorKind::Transient,
            Self::Refused { .. } | Self::Garbled { .. } => ErrorKind::Permanent,
            Self::Authentication { .. } => ErrorKind::Authentication,
            Self::TooOld { .. } | Self::NoWalk { .. } | Self::Unsupported(_) => {
                ErrorKind::Unsupported
            }
            Self::ChunkGone { .. } | Self::ChunkLength { .. } | Self::Range { .. } => {
                ErrorKind::Corrupt
            }
            Self::HeadLength { .. } | Self::WriterBroken | Self::Cursor | Self::Option { .. } => {
                ErrorKind::Misuse
            }
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let error = Self::new(fault.kind(), fault.to_string());
        match fault {
            Fault::Io { server, source, .. } => error.with("server", server).with_source(source),
            Fault::Timeout { server, allowed } => error
                .with("server", server)
                .with("allowed_ms", allowed.as_millis()),
            Fault::Busy {
                server,
                connections,
                waited,
            } => error
                .with("server", server)
                .with("connections", connections)
                .with("waited_ms", waited.as_millis()),
            Fault::Refused { server, reply }
            | Fault::Authentication { server, reply }
            | Fault::OutOfMemory { server, reply }
            | Fault::ItemTooLarge { server, reply }
            | Fault::NoWalk { server, reply }
            | Fault::Garbled { server, reply } => error.with("server", server).with("reply", reply),
            Fault::WalkBusy { server } => error.with("server", server),
            Fault::TooOld { server, version } => {
                error.with("server", server).with("version", version)
            }
            Fault::ChunkGone { chunk } => error.with("chunk", chunk),
            Fault::ChunkLength {
                chunk,
                found,
                expected,
            } => error
                .with("chunk", chunk)
                .with("chunk_bytes", found)
                .with("expected_bytes", expected),
            Fault::ChunksEvicted { missing } => error.with("missing_chunks", missing),
            Fault::HeadLength { promised, got } => error
                .with("promised_bytes", promised)
                .with("head_bytes", got),
            Fault::Range { start, end, len } => error
                .with("wanted", format_args!("{start}..{end}"))
                .with("entry_bytes", len),
            Fault::Option { option, value, .. } => error.with(option, value),
            Fault::Random { source } => error.with_source(source),
            Fault::Contended | Fault::Cursor | Fault::WriterBroken | Fault::Unsupported(_) => error,
        }
    }
}
