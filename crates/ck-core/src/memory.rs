use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::runs_in_place;

/// Zero-copy Arrow decoding wants buffers to start at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// Allocators get smaller blocks from anywhere, and keep them.
const WORTHWHILE: u64 = 256 << 10;

thread_local! {
    /// What [`ReadMemory::new`] finds on this thread.
    static LENT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Memory for bytes that are read, of which the first lies at a multiple of 64: what stores fill.
///
/// Column buffers can then be decoded where they lie.
///
/// # Memory
///
/// One allocation of `len + 63` bytes, which stay untouched until they are filled; or what was [lent](lend), which may
/// be an eighth more.
///
/// # Examples
///
/// ```
/// let mut memory = ck_core::ReadMemory::new(3);
/// memory.extend_from_slice(b"ab");
/// memory.extend_from_slice(b"c");
/// let bytes = memory.freeze();
/// assert_eq!(&bytes[..], b"abc");
/// assert_eq!(bytes.as_ptr() as usize % 64, 0);
/// ```
#[derive(Debug)]
pub struct ReadMemory {
    memory: Vec<u8>,
    start: usize,
}

impl ReadMemory {
    /// Memory for `len` bytes, and none of them yet.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let memory = lent(len).unwrap_or_else(|| Vec::with_capacity(with_lead(len)));
        Self::of(memory)
    }

    /// `len` bytes that are zero.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        // Fresh memory is zero already, without anybody touching it.
        let memory = lent(len).unwrap_or_else(|| vec![0; with_lead(len)]);
        let mut zeroed = Self::of(memory);
        zeroed.memory.resize(zeroed.start + len, 0);
        zeroed
    }

    fn of(mut memory: Vec<u8>) -> Self {
        let start = match memory.capacity() {
            0 => 0,
            _ => memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT - 1),
        };
        if memory.is_empty() {
            memory.resize(start, 0);
        }
        Self { memory, start }
    }

    /// How many bytes were filled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    /// Whether none was filled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes. More than there is memory for move all to other memory, aligned or not.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// The vector to append to, for functions that fill the room that is left in one, which may be more than was
    /// asked for. What it holds already must stay.
    pub fn as_mut_vec(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }

    /// What was filled, to be written over.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    /// What was filled.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from(self.memory).slice(self.start..)
    }
}

/// With room for the first byte to be moved to a multiple of 64.
fn with_lead(len: usize) -> usize {
    match len {
        0 => 0,
        _ => len.saturating_add(ALIGNMENT - 1),
    }
}

/// What is lent on this thread, if that is about what `len` bytes take.
fn lent(len: usize) -> Option<Vec<u8>> {
    let wanted = with_lead(len);
    let memory = LENT.take();
    if memory.capacity() > 0
        && (wanted..=wanted.saturating_add(wanted / 8)).contains(&memory.capacity())
    {
        return Some(memory);
    }
    LENT.set(memory);
    None
}

/// Reads `len` bytes into fresh memory whose first byte lies at a multiple of 64.
///
/// `fill` gets the zeroed memory to fill; see [`ReadMemory`].
///
/// # Errors
///
/// Whatever `fill` returns.
///
/// # Examples
///
/// ```
/// let bytes = ck_core::aligned_bytes(3, |memory| {
///     memory.copy_from_slice(b"abc");
///     Ok::<_, std::convert::Infallible>(())
/// })?;
/// assert_eq!(&bytes[..], b"abc");
/// assert_eq!(bytes.as_ptr() as usize % 64, 0);
/// # Ok::<(), std::convert::Infallible>(())
/// ```
pub fn aligned_bytes<E>(
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Bytes, E> {
    let mut memory = ReadMemory::zeroed(len);
    fill(memory.as_mut_slice())?;
    Ok(memory.freeze())
}

/// Runs `future`, whose first read of about `len` bytes finds its memory taken already, by the thread that calls this.
///
/// Allocators give each thread a heap of its own, and the C library of GNU systems keeps up to 64 MiB at the end of
/// each: so what stays should be in the heap of whoever keeps it, also where another thread reads. The memory follows
/// `future` from thread to thread.
///
/// # Memory
///
/// `len + 63` bytes until a read takes them or the future is dropped, of which none is touched; nothing below 256 KiB. A
/// read that finds no memory takes its own.
///
/// # Examples
///
/// ```
/// use ck_core::{ReadMemory, block_on, lend};
///
/// let len = 1 << 20;
/// let read = lend(len as u64, async move { ReadMemory::zeroed(len).freeze() });
/// // Read by another thread, in the heap of this one.
/// let bytes = std::thread::spawn(|| block_on(read)).join().unwrap();
/// assert_eq!(bytes.len(), len);
/// ```
pub fn lend<F: Future>(len: u64, future: F) -> impl Future<Output = F::Output> {
    Lent::new(len, future)
}

/// Runs `future`, a read of `len` bytes at one place, with what is [lent](lend) to the caller for so many, or else with
/// memory that is taken now where the caller [runs in place](runs_in_place): for stores that read on threads of their own,
/// which what is lent does not reach otherwise.
///
/// # Memory
///
/// As [`lend`]. A thread that does not come back, such as that of a read whose deadline has passed, keeps it until it
/// does.
pub fn pass_on<F: Future>(len: u64, future: F) -> impl Future<Output = F::Output> {
    Lent::passed_on(len, future)
}

struct Lent<F> {
    memory: Vec<u8>,
    future: Pin<Box<F>>,
}

impl<F> Lent<F> {
    fn new(len: u64, future: F) -> Self {
        let mut memory = Vec::new();
        if let Ok(wanted) = usize::try_from(len)
            && len >= WORTHWHILE
        {
            // Without memory the read itself will say so.
            let _ = memory.try_reserve_exact(with_lead(wanted));
        }
        Self::of(memory, future)
    }

    fn passed_on(len: u64, future: F) -> Self {
        match usize::try_from(len).ok().and_then(lent) {
            Some(memory) => Self::of(memory, future),
            None if runs_in_place() => Self::new(len, future),
            None => Self::of(Vec::new(), future),
        }
    }

    fn of(memory: Vec<u8>, future: F) -> Self {
        let future = Box::pin(future);
        Self { memory, future }
    }
}

impl<F: Future> Future for Lent<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        with_lent(&mut this.memory, || this.future.as_mut().poll(cx))
    }
}

/// Runs `work` with `memory` lent; what it did not take is there again afterwards.
fn with_lent<T>(memory: &mut Vec<u8>, work: impl FnOnce() -> T) -> T {
    struct Scope<'a> {
        memory: &'a mut Vec<u8>,
        before: Vec<u8>,
    }
    impl Drop for Scope<'_> {
        fn drop(&mut self) {
            *self.memory = LENT.replace(std::mem::take(&mut self.before));
        }
    }
    let before = LENT.replace(std::mem::take(memory));
    let _scope = Scope { memory, before };
    work()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::block_on;

    #[test]
    fn bytes_are_gathered_at_an_aligned_place_without_moving() {
        for len in [0, 1, 63, 64, 65, 100_000] {
            let mut memory = ReadMemory::new(len);
            let start = memory.as_mut_vec().as_ptr();
            for part in vec![7; len].chunks(999) {
                memory.extend_from_slice(part);
            }
            assert_eq!(memory.as_mut_vec().as_ptr(), start);
            assert_eq!(memory.len(), len);
            let bytes = memory.freeze();
            assert_eq!(bytes, vec![7; len]);
            assert!(len == 0 || bytes.as_ptr().align_offset(ALIGNMENT) == 0);
            let mut zeroed = ReadMemory::zeroed(len);
            assert_eq!(zeroed.as_mut_slice(), vec![0; len]);
            let bytes = zeroed.freeze();
            assert!(len == 0 || bytes.as_ptr().align_offset(ALIGNMENT) == 0);
        }
    }

    fn address(memory: &mut ReadMemory) -> usize {
        memory.as_mut_vec().as_ptr().addr()
    }

    #[test]
    fn what_was_lent_serves_one_read_of_its_size_on_whatever_thread() {
        const LEN: usize = 1 << 20;
        let read = Lent::new(LEN as u64, async {
            // Too small, too large, the one, another.
            let small = ReadMemory::new(LEN / 4);
            let large = ReadMemory::new(LEN + 1);
            let (one, other) = (ReadMemory::zeroed(LEN - 9), ReadMemory::new(LEN - 9));
            [small, large, one, other].map(|mut memory| address(&mut memory))
        });
        let lent = read.memory.as_ptr().addr();
        let found = thread::spawn(move || block_on(read)).join().unwrap();
        let which = found.map(|address| address == lent);
        assert_eq!(which, [false, false, true, false]);
        assert_eq!(LENT.take().capacity(), 0);
    }

    #[test]
    fn what_was_lent_is_passed_on_to_the_threads_of_a_store() {
        const LEN: usize = 1 << 20;
        let read = Lent::new(LEN as u64, async {
            // Not what is far smaller, or in several places.
            let reads = [LEN / 16, 0, LEN].map(|len| {
                let read = async move { address(&mut ReadMemory::new(LEN)) };
                let on_its_own_thread = Box::pin(pass_on(len as u64, read));
                let found = thread::spawn(move || block_on(on_its_own_thread));
                found.join().unwrap()
            });
            reads.to_vec()
        });
        let lent = read.memory.as_ptr().addr();
        let found = block_on(read);
        assert_eq!(
            found
                .iter()
                .map(|&address| address == lent)
                .collect::<Vec<_>>(),
            [false, false, true]
        );
    }

    #[test]
    fn a_caller_in_place_takes_the_memory_of_what_another_thread_reads() {
        const LEN: usize = 1 << 20;
        let read = Box::pin(async { address(&mut ReadMemory::new(LEN)) });
        let read = Lent::passed_on(LEN as u64, read);
        let taken = read.memory.as_ptr().addr();
        let found = thread::spawn(move || block_on(read)).join().unwrap();
        assert_eq!(found, taken);
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn a_task_takes_no_memory_for_others() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let taken =
            runtime.block_on(async { Lent::passed_on(1 << 20, async {}).memory.capacity() });
        assert_eq!(taken, 0);
    }

    #[test]
    fn a_panic_leaves_nothing_lent() {
        let read = lend(1 << 20, async { panic!("as a test wants it") });
        assert!(thread::spawn(|| block_on::<_>(read)).join().is_err());
        let read = lend(1 << 20, std::future::ready(()));
        block_on(read);
        assert_eq!(LENT.take().capacity(), 0);
    }
}
