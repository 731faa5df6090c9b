use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow_buffer::{Buffer, MutableBuffer, ScalarBuffer};
use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};

/// Smaller buffers are not worth it.
const POOLED: usize = 64 << 10;

/// Arrow allocates multiples of that.
const ROUNDED: usize = 64;

/// Memory of buffers that were let go of, for those that come next.
///
/// Batch after batch needs nearly the same: left to the allocator, the memory of one is not where a slightly
/// larger one fits, and a process that holds one batch at a time grows to several. There is never more than was
/// in use at the same time.
#[derive(Debug, Clone, Default)]
pub(crate) struct BufferPool(Arc<Mutex<Spare>>);

#[derive(Debug, Default)]
struct Spare {
    /// From the smallest to the largest.
    kept: Vec<MutableBuffer>,
    kept_bytes: usize,
    /// Bytes in use, now and at most.
    used: usize,
    most: usize,
}

impl BufferPool {
    /// Memory for `len` bytes: used before, if some is at hand that has a quarter more at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Transient`] when the system has no memory.
    pub(crate) fn take(&self, len: usize) -> Result<Room> {
        self.take_up_to(len + len / 4, len)
    }

    fn take_up_to(&self, most: usize, len: usize) -> Result<Room> {
        if len < POOLED {
            return Room::new(len);
        }
        Ok(Room {
            memory: self.lock().take(most, len)?,
            home: Arc::downgrade(&self.0),
        })
    }

    /// These views, in memory of the pool, of whatever size that is: they are soon written and gone.
    pub(crate) fn collect(&self, views: impl ExactSizeIterator<Item = u128>) -> ScalarBuffer<u128> {
        let len = views.len();
        let Ok(mut room) = self.take_up_to(usize::MAX, len * size_of::<u128>()) else {
            // Without memory that is the end of the process, as of any collection.
            return views.collect::<Vec<_>>().into();
        };
        room.memory.clear();
        room.memory.extend(views);
        ScalarBuffer::new(room.into(), 0, len)
    }

    fn lock(&self) -> MutexGuard<'_, Spare> {
        lock(&self.0)
    }
}

/// No code panics while it holds the lock, so a poisoned one still guards a sound state.
fn lock(spare: &Mutex<Spare>) -> MutexGuard<'_, Spare> {
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

fn allocate(len: usize) -> Result<MutableBuffer> {
    MutableBuffer::try_with_capacity(len).map_err(|error| {
        Error::new(
            ErrorKind::Transient,
            "there is no memory for the buffers of a column",
        )
        .with("bytes", len)
        .with_source(error)
    })
}

impl Spare {
    /// One that was kept and has `most` bytes or less, or a new one.
    fn take(&mut self, most: usize, len: usize) -> Result<MutableBuffer> {
        let place = self.place(len);
        let fits = |memory: &MutableBuffer| memory.capacity() <= most;
        if self.kept.get(place).is_some_and(fits) {
            let memory = self.remove(place);
            self.used += memory.capacity();
            return Ok(memory);
        }
        let len = len.next_multiple_of(ROUNDED);
        let most_used = self.most.max(self.used + len);
        while self.used + len + self.kept_bytes > most_used {
            // Best what has become a little too small.
            drop(self.remove(self.place(len).saturating_sub(1)));
        }
        let memory = allocate(len)?;
        self.used += memory.capacity();
        self.most = most_used;
        Ok(memory)
    }

    fn give_back(&mut self, memory: MutableBuffer) {
        self.used -= memory.capacity();
        self.kept_bytes += memory.capacity();
        self.kept.insert(self.place(memory.capacity()), memory);
    }

    fn remove(&mut self, place: usize) -> MutableBuffer {
        let memory = self.kept.remove(place);
        self.kept_bytes -= memory.capacity();
        memory
    }

    /// Of the smallest that has so many bytes.
    fn place(&self, bytes: usize) -> usize {
        self.kept
            .partition_point(|memory| memory.capacity() < bytes)
    }
}

/// Memory for a buffer. It belongs to the heap of the thread that took it, whoever fills it.
#[derive(Debug)]
pub(crate) struct Room {
    memory: MutableBuffer,
    /// The pool that it comes back to, if that is still there.
    home: Weak<Mutex<Spare>>,
}

impl Room {
    /// Of no pool. Nothing is touched yet.
    pub(crate) fn new(len: usize) -> Result<Self> {
        Ok(Self {
            memory: allocate(len)?,
            home: Weak::new(),
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// The first bytes of it, no more than it has room for, which may hold what they held before.
    pub(crate) fn bytes(&mut self, len: usize) -> &mut [u8] {
        self.memory.resize(len, 0);
        self.memory.as_slice_mut()
    }
}

impl From<Room> for Buffer {
    fn from(mut room: Room) -> Self {
        if room.home.strong_count() == 0 {
            return std::mem::take(&mut room.memory).into();
        }
        Buffer::from(Bytes::from_owner(room))
    }
}

impl AsRef<[u8]> for Room {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            lock(&home).give_back(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 1 << 20;

    fn buffer(pool: &BufferPool, len: usize) -> Buffer {
        let mut room = pool.take(len).unwrap();
        room.bytes(len).fill(7);
        room.into()
    }

    fn spare(pool: &BufferPool) -> Vec<usize> {
        let kept = &pool.lock().kept;
        kept.iter().map(MutableBuffer::capacity).collect()
    }

    #[test]
    fn memory_is_used_again_once_it_is_free() {
        let pool = BufferPool::default();
        let (first, second) = (buffer(&pool, LEN), buffer(&pool, LEN));
        assert_ne!(first.as_ptr(), second.as_ptr());
        let place = first.as_ptr();
        drop(first);
        let third = buffer(&pool, LEN - 1000);
        assert_eq!((third.as_ptr(), third.len()), (place, LEN - 1000));
        assert!(spare(&pool).is_empty());
        let views = |from: usize| (from..LEN / 16).map(|view| view as u128);
        let first = pool.collect(views(0));
        let place = first.inner().as_ptr();
        assert!(first.iter().copied().eq(views(0)));
        drop(first);
        // Also for far fewer.
        let second = pool.collect(views(LEN / 32));
        assert_eq!(second.inner().as_ptr(), place);
        assert!(second.iter().copied().eq(views(LEN / 32)));
    }

    #[test]
    fn what_is_too_small_or_much_too_large_gives_way() {
        let pool = BufferPool::default();
        drop(buffer(&pool, LEN));
        drop(buffer(&pool, LEN + 64));
        assert_eq!(spare(&pool), [LEN + 64]);
        drop((buffer(&pool, LEN / 2), buffer(&pool, 2 * LEN)));
        assert_eq!(spare(&pool), [LEN / 2, 2 * LEN]);
        drop(buffer(&pool, LEN));
        assert_eq!(spare(&pool), [LEN]);
        drop((buffer(&pool, LEN / 4), buffer(&pool, LEN / 8)));
        assert_eq!(spare(&pool), [LEN / 8, LEN / 4, LEN]);
    }

    #[test]
    fn there_is_never_more_than_was_in_use_at_the_same_time() {
        let pool = BufferPool::default();
        let mut most = 0;
        for step in 0..1000 {
            let rows = if step % 10 == 9 { 3 } else { 8 };
            let of_column =
                |column: usize| rows * 32_768 * (column + 1) + (step * 7919 % 101) * 640;
            let batch: Vec<_> = (0..4)
                .map(|column| buffer(&pool, of_column(column)))
                .collect();
            most = most.max(pool.lock().used);
            drop(batch);
            let kept: usize = spare(&pool).iter().sum();
            assert!(kept <= most);
            let counted = pool.lock().kept_bytes;
            assert_eq!(counted, kept);
        }
        assert_eq!(pool.lock().used, 0);
    }

    #[test]
    fn buffers_outlive_their_pool_and_small_ones_have_none() {
        let pool = BufferPool::default();
        let large = buffer(&pool, LEN);
        drop(buffer(&pool, POOLED - 1));
        assert!(spare(&pool).is_empty());
        drop(pool);
        assert!(large.iter().all(|byte| *byte == 7));
    }
}
