//! Gives freed heap memory back to the system.
#![allow(
    unsafe_code,
    reason = "the C library has the only function for it, which has no preconditions"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Less than this is not worth a look at the whole heap.
const WORTHWHILE: u64 = 32 << 20;

/// What one look waits for: callers free more right after, and large values come and go in groups.
const DELAY: Duration = Duration::from_millis(250);

static FREED: AtomicU64 = AtomicU64::new(0);
static SCHEDULED: AtomicBool = AtomicBool::new(false);

/// Notes that this many bytes of large heap blocks were let go of, or are about to be.
///
/// The C library of GNU systems keeps freed blocks of up to 32 MiB for later, and cannot shrink a heap under
/// a small block that lives: a process that once held many tables stays as large as it ever was. After every
/// 32 MiB that were noted a thread waits for a quarter of a second, has the C library give back all free
/// pages (`malloc_trim`), and ends. Elsewhere, and under another allocator, nothing is done.
pub fn note_freed(bytes: u64) {
    if !cfg!(all(target_os = "linux", target_env = "gnu"))
        || FREED.fetch_add(bytes, Relaxed).saturating_add(bytes) < WORTHWHILE
        || SCHEDULED.swap(true, Relaxed)
    {
        return;
    }
    let thread = thread::Builder::new()
        .name("ck-trim".to_owned())
        .stack_size(64 << 10);
    let spawned = thread.spawn(|| {
        thread::sleep(DELAY);
        FREED.store(0, Relaxed);
        SCHEDULED.store(false, Relaxed);
        trim();
    });
    if spawned.is_err() {
        // The next one may have more luck.
        SCHEDULED.store(false, Relaxed);
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
