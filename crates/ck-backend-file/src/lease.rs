//! Who makes the entry of a key: a lease is an empty file that its holder has locked.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ck_core::{BoxFuture, Lease, Result, offload};
use rustix::fs::{FlockOperation, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::directory::{self, Directory, FileId, retry, status};
use crate::error::Fault;
use crate::layout::Name;
use crate::store::Store;

/// Longer terms are cut to this: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Takes the lease of `name`; `None` when somebody else has it.
pub(crate) fn take(
    store: &Arc<Store>,
    name: Name,
    term: Duration,
) -> Result<Option<FileLease>, Fault> {
    let file_name = name.lease_name();
    // Taking, renewing and clearing away exclude each other.
    let locked = store.lock()?;
    let dir = locked.directory();
    let fault = |errno| Fault::io("take a lease", dir.join(&file_name), errno);
    if is_held(dir, &file_name).map_err(fault)? {
        return Ok(None);
    }
    // A file of its own for every holder: whoever held the lease before finds another one in its place.
    dir.unlink(&file_name).map_err(fault)?;
    let file = dir
        .create_file(&file_name, OFlags::RDONLY)
        .map_err(|errno| dir.creation_fault("take a lease", &file_name, errno))?;
    let held = retry(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive))
        .and_then(|()| set_end(&file, term))
        .and_then(|()| status(&file));
    match held {
        Ok(stat) => Ok(Some(FileLease(Arc::new(Held {
            store: Arc::clone(store),
            name,
            term,
            file,
            id: FileId::of(&stat),
        })))),
        Err(errno) => {
            let _ = dir.unlink(&file_name);
            Err(fault(errno))
        }
    }
}

/// Whether the holder lives and its term lasts.
fn is_held(dir: &Directory, file_name: &str) -> Result<bool, Errno> {
    let Some((file, stat)) = dir.open_file(file_name, OFlags::RDONLY)? else {
        return Ok(false);
    };
    match retry(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(now() < directory::modified(&stat)),
        Err(errno) => Err(errno),
    }
}

/// A lease of this process.
pub(crate) struct FileLease(Arc<Held>);

/// Shared with the renewal that is under way. As long as the file is open its inode is not given to
/// another one.
struct Held {
    store: Arc<Store>,
    name: Name,
    term: Duration,
    file: OwnedFd,
    id: FileId,
}

impl Held {
    fn renew(&self) -> Result<bool, Fault> {
        let file_name = self.name.lease_name();
        let locked = self.store.lock()?;
        let dir = locked.directory();
        let fault = |errno| Fault::io("renew a lease", dir.join(&file_name), errno);
        let stat = dir.stat(&file_name).map_err(fault)?;
        if stat.is_none_or(|stat| FileId::of(&stat) != self.id) {
            return Ok(false);
        }
        set_end(&self.file, self.term).map_err(fault)?;
        Ok(true)
    }

    /// Ends the lease; what is left of it goes now or, when others are busy, soon.
    fn give_up(&self) {
        // Closing would not do if a forked process has the file open too.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        self.store.ledger.forget_lease(self.name);
    }
}

impl Lease for FileLease {
    fn renew(&mut self) -> BoxFuture<'_, Result<bool>> {
        let held = Arc::clone(&self.0);
        Box::pin(async move { Ok(offload(move || held.renew()).await?) })
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            offload(move || drop(self)).await;
            Ok(())
        })
    }
}

impl Drop for FileLease {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Lets the term of the lease start now. Its end is the file's time of modification, on the clock of
/// [`now`]: an empty file takes no room, and even a full disk can renew it.
fn set_end(file: &OwnedFd, term: Duration) -> Result<(), Errno> {
    const SECOND: u64 = 1_000_000_000;
    let term = u64::try_from(term.min(LONGEST).as_nanos()).unwrap_or(u64::MAX);
    let end = now().saturating_add(term);
    // Where file systems keep whole seconds, rather a second too late than too early.
    for rounded in [end, end.saturating_add(SECOND)] {
        let keep = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        let end_spec = Timespec {
            tv_sec: i64::try_from(rounded / SECOND).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(rounded % SECOND).unwrap_or_default(),
        };
        let times = Timestamps {
            last_access: keep,
            last_modification: end_spec,
        };
        rustix::fs::futimens(file, &times)?;
        if directory::modified(&status(file)?) >= end {
            break;
        }
    }
    Ok(())
}

/// Nanoseconds since the machine started, the same for all its processes. Setting the clock does not
/// change it, and no lease outlives the machine.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
