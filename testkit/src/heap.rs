//! The heap as the program sees it: how much is allocated now, and how much was at most.
//!
//! All of it counts from zero, and only where a binary has a [`CountingAllocator`] as its global
//! allocator. C libraries (zstd) allocate beside it.
//!
//! What has `here` in its name is of the calling thread alone, for work that starts no threads: what the
//! test harness does beside it does not show. The rest is of the whole process, and what measures it runs
//! [`alone`].
//!
//! ```
//! use testkit::heap::{self, CountingAllocator};
//!
//! #[global_allocator]
//! static HEAP: CountingAllocator = CountingAllocator::new();
//!
//! let (peak, sum) = heap::peak_of(|| vec![1_u8; 4096].iter().map(|&byte| u32::from(byte)).sum::<u32>());
//! assert_eq!(sum, 4096);
//! assert!(peak >= 4096);
//! ```
#![allow(unsafe_code, reason = "an allocator implements an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Where the counts of a thread start: high enough for one that frees what others have allocated, low enough
/// for the largest block there can be.
const START: usize = usize::MAX / 4;

thread_local! {
    static LIVE_HERE: Cell<usize> = const { Cell::new(START) };
    static PEAK_HERE: Cell<usize> = const { Cell::new(START) };
}

/// Bytes allocated now.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}

/// The most bytes that were allocated at once since [`reset_peak`].
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// Starts a new [`peak`], from what is allocated now.
pub fn reset_peak() {
    PEAK.store(live(), Relaxed);
}

/// The most bytes that were allocated at once while `work` ran, beyond those allocated before, and what
/// it gave.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = live();
    PEAK.store(before, Relaxed);
    let result = work();
    (peak().saturating_sub(before), result)
}

/// What this thread has allocated less what it has freed, above some number: only differences mean
/// anything.
pub fn live_here() -> usize {
    LIVE_HERE.get()
}

/// [`peak_of`] this thread.
pub fn peak_here_of<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = live_here();
    PEAK_HERE.set(before);
    let result = work();
    (PEAK_HERE.get() - before, result)
}

/// Tests that measure, or do what would show in a measurement, run one after the other while they hold
/// this.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives free pages of the heap back to the system, so that later use of them shows in the resident size.
/// Only the GNU C library can.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the declaration is that of malloc.h; the function may be called at any time.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        malloc_trim(0);
    }
}

/// The system's allocator, counted. What it is asked for counts in a peak even if it cannot give it.
#[derive(Debug)]
pub struct CountingAllocator {
    blocks_move: bool,
}

impl CountingAllocator {
    /// The worst case: a block whose size changes is copied, and counts twice meanwhile.
    pub const fn new() -> Self {
        Self { blocks_move: true }
    }

    /// The best case, as systems do it with large blocks: a block whose size changes stays where it is, or
    /// its pages are mapped elsewhere. For peaks that are compared with those of the resident size.
    pub const fn in_place() -> Self {
        Self { blocks_move: false }
    }
}

impl Default for CountingAllocator {
    fn default() -> Self {
        Self::new()
    }
}

fn add(bytes: usize) {
    let now = LIVE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
    let here = LIVE_HERE.get() + bytes;
    LIVE_HERE.set(here);
    PEAK_HERE.set(PEAK_HERE.get().max(here));
}

fn subtract(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
    LIVE_HERE.set(LIVE_HERE.get() - bytes);
}

/// Counts a new block; nothing when there is none.
fn counted(bytes: usize, allocate: impl FnOnce() -> *mut u8) -> *mut u8 {
    add(bytes);
    let block = allocate();
    if block.is_null() {
        subtract(bytes);
    }
    block
}

// SAFETY: every call goes to `System` unchanged; counting touches no memory of the caller, allocates
// nothing and does not unwind.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's obligations are those of `System`.
        counted(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's obligations are those of `System`.
        counted(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's obligations are those of `System`.
        unsafe { System.dealloc(block, layout) };
        subtract(layout.size());
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.blocks_move {
            add(size);
            subtract(layout.size());
        } else {
            subtract(layout.size());
            add(size);
        }
        // SAFETY: the caller's obligations are those of `System`.
        let new = unsafe { System.realloc(block, layout, size) };
        if new.is_null() {
            subtract(size);
            add(layout.size());
        }
        new
    }
}
