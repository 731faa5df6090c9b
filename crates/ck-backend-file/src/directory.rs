use std::fmt;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, Statx,
    StatxFlags, StatxTimestamp,
};
use rustix::io::Errno;

use crate::error::Fault;

/// What the system knows of a file.
pub(crate) type Stat = Statx;

/// The store's directory, held open: every file is reached relative to the descriptor, so that neither
/// a change of the working directory nor a renamed parent matters, and no path is walked twice.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    #[cfg(test)]
    pub(crate) scans: std::sync::atomic::AtomicU64,
}

impl Directory {
    /// Opens `path`, and creates it with mode 0700 when it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(CWD, path, flags, Mode::empty());
        let fd = match open() {
            Err(Errno::NOENT) => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(path)
                    .map_err(|error| {
                        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                        Fault::io("create the store's directory", path, errno)
                    })?;
                open()
            }
            opened => opened,
        };
        let fd = fd.map_err(|errno| Fault::io("open the store's directory", path, errno))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self {
            fd,
            path,
            #[cfg(test)]
            scans: std::sync::atomic::AtomicU64::new(0),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file, for messages.
    pub(crate) fn join(&self, name: impl fmt::Display) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// Opens a regular file; `None` when there is none, or something else in its place.
    pub(crate) fn open_file(
        &self,
        name: &str,
        access: OFlags,
    ) -> Result<Option<(OwnedFd, Stat)>, Errno> {
        // NONBLOCK: a FIFO put in the place of an entry must not hang us. Regular files ignore it.
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match retry(|| rustix::fs::openat(&self.fd, name, flags, Mode::empty())) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let stat = status(&fd)?;
        Ok(is_regular(&stat).then_some((fd, stat)))
    }

    /// As [`Directory::open_file`], for reading and only if nothing has to be waited for:
    /// [`Errno::AGAIN`] when the kernel does not have the name in memory.
    #[cfg(target_os = "linux")]
    pub(crate) fn open_cached(&self, name: &str) -> Result<Option<(OwnedFd, Stat)>, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let cached = ResolveFlags::CACHED;
        let fd = match rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), cached) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let stat = status(&fd)?;
        Ok(is_regular(&stat).then_some((fd, stat)))
    }

    /// As [`Directory::open_file`], for looking at a file: the system's own time of last use stays.
    pub(crate) fn open_to_look(&self, name: &str) -> Result<Option<(OwnedFd, Stat)>, Errno> {
        match self.open_file(name, OFlags::RDONLY | OFlags::NOATIME) {
            // Only the owner of a file may ask for that.
            Err(Errno::PERM) => self.open_file(name, OFlags::RDONLY),
            opened => opened,
        }
    }

    /// Creates a file that only this user may read, refusing whatever lies there already.
    pub(crate) fn create_file(&self, name: &str, access: OFlags) -> Result<OwnedFd, Errno> {
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        retry(|| rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR))
    }

    /// The regular file under `name`; `None` when there is none, or something else in its place.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Stat>, Errno> {
        match rustix::fs::statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW, WANTED) {
            Ok(stat) => Ok(is_regular(&stat).then_some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
    }

    /// Gives `from` the name `to`, and removes the regular file that had it.
    ///
    /// Exchanging the names and then removing the old file spares what file systems do when one file
    /// is renamed over another: they write the new one to the disk there and then, and wait for it.
    pub(crate) fn replace(&self, from: &str, to: &str) -> Result<(), Errno> {
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            // Not known here, or nothing to exchange with.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOENT) => {
                return self.rename(from, to);
            }
            Err(errno) => return Err(errno),
        }
        self.unlink(from).map(|_| ()).inspect_err(|_| {
            // What lay there cannot be removed, a directory for one: put it back.
            let _ = rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::EXCHANGE);
        })
    }

    /// Removes a file; `false` when there was none.
    pub(crate) fn unlink(&self, name: &str) -> Result<bool, Errno> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The size of a file whose maker is dead: 0 when it is gone, `None` when its maker lives.
    ///
    /// Writers and holders of leases keep an exclusive `flock` on their file for as long as it is
    /// theirs, and the kernel releases it when they die. To be asked under the store's lock only: it
    /// locks the file itself for a moment.
    pub(crate) fn abandoned(&self, name: &str) -> Option<u64> {
        match self.open_to_look(name) {
            Ok(Some((file, stat))) => {
                let lock = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
                lock.is_ok().then(|| size(&stat))
            }
            Ok(None) => Some(0),
            Err(_) => None,
        }
    }

    /// Makes renames durable.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        retry(|| rustix::fs::fsync(&self.fd))
    }

    /// When the directory changed last, in Unix nanoseconds.
    pub(crate) fn modified(&self) -> Result<u64, Errno> {
        status(&self.fd).map(|stat| modified(&stat))
    }

    /// Whether the directory still has a name.
    pub(crate) fn exists(&self) -> bool {
        status(&self.fd).is_ok_and(|stat| stat.stx_nlink > 0)
    }

    /// A descriptor of its own for listing, with a position of its own.
    pub(crate) fn open_listing(&self) -> Result<OwnedFd, Errno> {
        #[cfg(test)]
        self.scans
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
    }

    /// The fault for a failed creation: a directory without a name refuses new files as "not found".
    pub(crate) fn creation_fault(&self, action: &'static str, name: &str, errno: Errno) -> Fault {
        if errno == Errno::NOENT && !self.exists() {
            return Fault::DirectoryGone {
                dir: self.path.clone(),
            };
        }
        Fault::io(action, self.join(name), errno)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// What the system knows of an open file.
pub(crate) fn status(file: impl AsFd) -> Result<Stat, Errno> {
    rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, WANTED)
}

pub(crate) fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
}

/// The file's length in bytes.
pub(crate) fn size(stat: &Stat) -> u64 {
    stat.stx_size
}

/// Which file it is, among those that there are at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: (u32, u32),
    inode: u64,
}

impl FileId {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
        }
    }
}

/// When the file was made, in Unix nanoseconds; 0 where the file system does not say.
pub(crate) fn born(stat: &Stat) -> u64 {
    nanos(stat.stx_btime)
}

/// Last modification in Unix nanoseconds.
pub(crate) fn modified(stat: &Stat) -> u64 {
    nanos(stat.stx_mtime)
}

/// The later of last modification and last access, in Unix nanoseconds.
pub(crate) fn last_used(stat: &Stat) -> u64 {
    modified(stat).max(nanos(stat.stx_atime))
}

fn nanos(time: StatxTimestamp) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec.into())
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_takes_the_place_of_a_file_and_of_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Directory::open(temp.path()).unwrap();
        let write = |name: &str| std::fs::write(temp.path().join(name), name).unwrap();
        let read = |name: &str| std::fs::read(temp.path().join(name)).unwrap();
        // A file, and then no file.
        write("to");
        for round in ["one", "two"] {
            write(round);
            dir.replace(round, "to").unwrap();
            assert_eq!(read("to"), round.as_bytes());
            assert!(dir.stat(round).unwrap().is_none());
            if round == "one" {
                dir.unlink("to").unwrap();
            }
        }
        std::fs::create_dir(temp.path().join("full")).unwrap();
        write("full/inside");
        write("new");
        assert!(dir.replace("new", "full").is_err());
        assert_eq!(read("new"), b"new");
        assert_eq!(read("full/inside"), b"full/inside");
    }
}
