use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow_buffer::{Buffer, MutableBuffer, ScalarBuffer};
use bytes::Bytes;

/// Smaller buffers are not worth it.
const POOLED: usize = 64 << 10;

/// Memory of buffers that were let go of, for those that come next.
///
/// Batch after batch needs nearly the same: left to the allocator, the memory of one is not where a slightly
/// larger one fits, and a process that holds one batch at a time grows to several.
#[derive(Debug, Clone, Default)]
pub(crate) struct BufferPool(Arc<Mutex<Vec<MutableBuffer>>>);

impl BufferPool {
    /// Memory for `len` bytes: used before, if some is at hand that has a quarter more at most.
    pub(crate) fn take(&self, len: usize) -> Room {
        if len < POOLED {
            return Room::new(len);
        }
        let mut spare = self.lock();
        let place = spare.partition_point(|memory| memory.capacity() < len);
        let fits = |memory: &MutableBuffer| memory.capacity() <= len + len / 4;
        let memory = if spare.get(place).is_some_and(fits) {
            spare.remove(place)
        } else {
            // It takes the place of what has become too small, so that there are never more than were in use
            // at the same time.
            if !spare.is_empty() {
                drop(spare.remove(place.saturating_sub(1)));
            }
            drop(spare);
            MutableBuffer::with_capacity(len)
        };
        Room {
            memory,
            home: Some(Arc::downgrade(&self.0)),
        }
    }

    /// These views, in memory of the pool.
    pub(crate) fn collect(&self, views: impl ExactSizeIterator<Item = u128>) -> ScalarBuffer<u128> {
        let len = views.len();
        let mut room = self.take(len * size_of::<u128>());
        room.memory.clear();
        room.memory.extend(views);
        ScalarBuffer::new(room.into(), 0, len)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<MutableBuffer>> {
        lock(&self.0)
    }
}

/// No code panics while it holds the lock, so a poisoned one still guards a sound state.
fn lock(spare: &Mutex<Vec<MutableBuffer>>) -> MutexGuard<'_, Vec<MutableBuffer>> {
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory for a buffer. It belongs to the heap of the thread that took it, whoever fills it.
#[derive(Debug)]
pub(crate) struct Room {
    memory: MutableBuffer,
    /// The pool that it comes back to, if that is still there.
    home: Option<Weak<Mutex<Vec<MutableBuffer>>>>,
}

impl Room {
    /// Of no pool. Nothing is touched yet.
    pub(crate) fn new(len: usize) -> Self {
        Self {
            memory: MutableBuffer::with_capacity(len),
            home: None,
        }
    }

    /// All of it, which may hold what it held before.
    pub(crate) fn bytes(&mut self, len: usize) -> &mut [u8] {
        self.memory.resize(len, 0);
        self.memory.as_slice_mut()
    }
}

impl From<Room> for Buffer {
    fn from(room: Room) -> Self {
        let Room { memory, home } = room;
        match home {
            None => memory.into(),
            Some(home) => Buffer::from(Bytes::from_owner(Lent { memory, home })),
        }
    }
}

struct Lent {
    memory: MutableBuffer,
    home: Weak<Mutex<Vec<MutableBuffer>>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else {
            return;
        };
        let memory = std::mem::take(&mut self.memory);
        let mut spare = lock(&home);
        let place = spare.partition_point(|other| other.capacity() < memory.capacity());
        spare.insert(place, memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 1 << 20;

    fn buffer(pool: &BufferPool, len: usize) -> Buffer {
        let mut room = pool.take(len);
        room.bytes(len).fill(7);
        room.into()
    }

    fn spare(pool: &BufferPool) -> Vec<usize> {
        pool.lock().iter().map(MutableBuffer::capacity).collect()
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
        let second = pool.collect(views(5));
        assert_eq!(second.inner().as_ptr(), place);
        assert!(second.iter().copied().eq(views(5)));
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
        assert_eq!(spare(&pool), [LEN, 2 * LEN]);
    }

    #[test]
    fn there_is_never_more_than_was_in_use_at_the_same_time() {
        let pool = BufferPool::default();
        for step in 0..1000 {
            let of_column = |column: usize| LEN * (column + 1) + (step * 7919 % 101) * 640;
            let batch: Vec<_> = (0..4)
                .map(|column| buffer(&pool, of_column(column)))
                .collect();
            drop(batch);
            assert!(spare(&pool).len() <= 4);
        }
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
