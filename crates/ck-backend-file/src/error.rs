use std::path::PathBuf;
use std::time::Duration;

use ck_core::{Error, ErrorKind};
use rustix::io::Errno;

/// Everything that can go wrong here, before it becomes a [`ck_core::Error`].
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot {action}{}", advice(*.errno))]
    Io {
        action: &'static str,
        path: PathBuf,
        errno: Errno,
    },
    #[error(
        "another process holds the lock of the store's directory; it may be stopped, or the directory \
         may lie on a file system without working locks"
    )]
    LockTimeout { dir: PathBuf, waited: Duration },
    #[error(
        "another process keeps the entry locked, so its expiry cannot be changed now; try again"
    )]
    EntryLocked { path: PathBuf },
    #[error("another process removed the temporary file of the entry being written; try again")]
    TempGone { path: PathBuf },
    #[error("the directory is gone; open the store again")]
    DirectoryGone { dir: PathBuf },
    #[error("the store's ledger breaks as soon as it is rebuilt; something else writes to it")]
    Ledger { path: PathBuf },
    #[error("the head does not have the promised length")]
    HeadLength { promised: usize, got: usize },
    #[error("an earlier write failed or was given up; drop the writer")]
    WriterBroken,
    #[error("the entry ends before the bytes asked for")]
    Range { start: u64, end: u64, len: u64 },
    #[error("the file became shorter while it was read")]
    Truncated { path: PathBuf },
    #[error("no such place in the listing")]
    Cursor,
    #[error("the option {option} is out of range: {bound}")]
    Option {
        option: &'static str,
        value: String,
        bound: String,
    },
}

impl Fault {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        Self::Io {
            action,
            path: path.into(),
            errno,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { errno, .. } => match *errno {
                Errno::ACCESS
                | Errno::PERM
                | Errno::ROFS
                | Errno::LOOP
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::NOENT
                | Errno::EXIST
                | Errno::NAMETOOLONG
                | Errno::FBIG
                | Errno::NODEV
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::INVAL => ErrorKind::Permanent,
                Errno::TIMEDOUT => ErrorKind::Timeout,
                // Full disks and quotas, too many open files, no memory, a failing disk.
                _ => ErrorKind::Transient,
            },
            Self::LockTimeout { .. } | Self::EntryLocked { .. } => ErrorKind::Timeout,
            Self::DirectoryGone { .. } => ErrorKind::Permanent,
            Self::Ledger { .. } | Self::TempGone { .. } => ErrorKind::Transient,
            Self::Range { .. } | Self::Truncated { .. } => ErrorKind::Corrupt,
            Self::HeadLength { .. } | Self::WriterBroken | Self::Cursor | Self::Option { .. } => {
                ErrorKind::Misuse
            }
        }
    }
}

/// What to do about the causes that a user can remove.
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC => "; free some space on the disk, or lower the store's limit_bytes",
        Errno::DQUOT => "; free some of the quota, or lower the store's limit_bytes",
        Errno::ACCESS | Errno::PERM => "; give this user the right to write to the directory",
        Errno::ROFS => "; the file system is mounted read-only",
        Errno::MFILE | Errno::NFILE => "; raise the limit of open files",
        Errno::ISDIR => "; a directory lies where a file belongs: remove it",
        Errno::LOOP => "; a symbolic link lies where a file belongs: remove it",
        _ => "",
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let error = Self::new(fault.kind(), fault.to_string());
        match fault {
            Fault::Io { path, errno, .. } => error
                .with("path", path.display())
                .with_source(std::io::Error::from(errno)),
            Fault::LockTimeout { dir, waited } => error
                .with("directory", dir.display())
                .with("waited_ms", waited.as_millis()),
            Fault::DirectoryGone { dir } => error.with("directory", dir.display()),
            Fault::EntryLocked { path }
            | Fault::Ledger { path }
            | Fault::TempGone { path }
            | Fault::Truncated { path } => error.with("path", path.display()),
            Fault::HeadLength { promised, got } => error
                .with("promised_bytes", promised)
                .with("head_bytes", got),
            Fault::Range { start, end, len } => error
                .with("wanted", format_args!("{start}..{end}"))
                .with("entry_bytes", len),
            Fault::Option { option, value, .. } => error.with(option, value),
            Fault::WriterBroken | Fault::Cursor => error,
        }
    }
}
