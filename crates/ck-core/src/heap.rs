//! Gives freed heap memory back to the system.
#![allow(
    unsafe_code,
    reason = "the C library has the only function for it, which has no preconditions"
)]

use std::process;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Less than this is not worth a look at the whole heap.
const WORTHWHILE: u64 = 32 << 20;

/// What one look waits for: callers free more right after, and large values come and go in groups.
const DELAY: Duration = Duration::from_millis(250);

/// What it waits for where as much may be wanted again at once: to touch memory that was given back takes as long as
/// to decompress into it.
const LONG_DELAY: Duration = Duration::from_secs(3);

/// After a look there is none for this many times as long as it took: of a heap of millions of small blocks it
/// takes a tenth of a second or more, while threads wait that allocate.
const REST: u32 = 9;

static EVICTED: Schedule = Schedule::new(DELAY);
static DROPPED: Schedule = Schedule::new(LONG_DELAY);

/// Notes that this many bytes of heap memory were let go of, or are about to be, and are not wanted again soon.
///
/// The C library of GNU systems keeps freed blocks of up to 32 MiB for later, and cannot shrink a heap under
/// a small block that lives: a process that once held many tables stays as large as it ever was. After every
/// 32 MiB that were noted a thread waits for a quarter of a second, has the C library give back all free
/// pages (`malloc_trim`), rests for nine times as long as that took, and ends. Elsewhere, and under another
/// allocator, nothing is done.
pub fn note_freed(bytes: u64) {
    EVICTED.note_freed(bytes);
}

/// As [`note_freed`], of what a caller let go of, who may want as much again at once: the thread waits for three
/// seconds.
pub fn note_dropped(bytes: u64) {
    DROPPED.note_freed(bytes);
}

/// When the next thread is due: one at a time in each process.
struct Schedule {
    delay: Duration,
    freed: AtomicU64,
    /// The process that has a thread under way, or 0. A fork takes the number along and not the thread.
    process: AtomicU32,
}

impl Schedule {
    const fn new(delay: Duration) -> Self {
        Self {
            delay,
            freed: AtomicU64::new(0),
            process: AtomicU32::new(0),
        }
    }

    fn note_freed(&'static self, bytes: u64) {
        let has_trim = cfg!(all(target_os = "linux", target_env = "gnu"));
        if has_trim && self.note(bytes, process::id) {
            self.start();
        }
    }

    fn start(&'static self) {
        let thread = thread::Builder::new()
            .name("ck-trim".to_owned())
            .stack_size(64 << 10);
        let spawned = thread.spawn(|| {
            thread::sleep(self.delay);
            self.clear();
            let started = Instant::now();
            trim();
            thread::sleep(started.elapsed() * REST);
            if self.end(process::id()) {
                self.start();
            }
        });
        if spawned.is_err() {
            // The next one may have more luck.
            self.clear();
            self.end(process::id());
        }
    }

    /// Whether a thread is due now, which then is the caller's to start. `process` is asked only where bytes
    /// add up to another 32 MiB.
    fn note(&self, bytes: u64, process: impl FnOnce() -> u32) -> bool {
        let before = self.freed.fetch_add(bytes, Relaxed);
        let after = before.saturating_add(bytes);
        after / WORTHWHILE > before / WORTHWHILE && self.begin(process())
    }

    fn begin(&self, process: u32) -> bool {
        self.process.swap(process, Relaxed) != process
    }

    /// All that was noted is being seen to.
    fn clear(&self) {
        self.freed.store(0, Relaxed);
    }

    /// The thread is done; whether another one is due, for what was noted since.
    fn end(&self, process: u32) -> bool {
        self.process.store(0, Relaxed);
        self.freed.load(Relaxed) >= WORTHWHILE && self.begin(process)
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: the declaration is that of malloc.h; the function may be called at any time.
    unsafe extern "C" {
        safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    malloc_trim(0);
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: u32 = 7;
    const CHILD: u32 = 8;

    #[test]
    fn one_thread_is_due_for_every_32_mib() {
        let schedule = Schedule::new(DELAY);
        assert!(!schedule.note(WORTHWHILE - 1, || panic!("nothing is due")));
        assert!(schedule.note(1, || PARENT));
        assert!(!schedule.note(3 * WORTHWHILE, || PARENT));
        schedule.clear();
        assert!(!schedule.end(PARENT));
        assert!(schedule.note(u64::MAX, || PARENT));
    }

    #[test]
    fn what_is_freed_while_a_thread_rests_is_due_when_it_ends() {
        let schedule = Schedule::new(DELAY);
        assert!(schedule.note(WORTHWHILE, || PARENT));
        schedule.clear();
        assert!(!schedule.note(WORTHWHILE, || PARENT));
        assert!(schedule.end(PARENT));
        assert!(!schedule.note(WORTHWHILE, || PARENT));
    }

    #[test]
    fn a_fork_does_not_wait_for_the_thread_that_only_its_parent_has() {
        let schedule = Schedule::new(DELAY);
        assert!(schedule.note(WORTHWHILE + 5, || PARENT));
        assert!(schedule.note(WORTHWHILE, || CHILD));
        assert!(!schedule.note(WORTHWHILE, || CHILD));
    }
}
