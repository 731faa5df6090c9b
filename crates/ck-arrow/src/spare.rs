use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_buffer::{Buffer, ScalarBuffer, ToByteSlice};
use bytes::Bytes;

/// Memory for rewritten views, which comes back when the store is done with them.
///
/// One slice needs a few MiB, and the next one slightly more or less: left to the allocator, the memory
/// of one is not where the next one fits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spare(Arc<Mutex<Vec<Vec<u128>>>>);

impl Spare {
    /// The views in memory that was used before, if there is any.
    pub(crate) fn collect(&self, views: impl ExactSizeIterator<Item = u128>) -> ScalarBuffer<u128> {
        let len = views.len();
        let mut memory = self.lock().pop().unwrap_or_default();
        memory.extend(views);
        let lent = Lent {
            views: memory,
            home: self.clone(),
        };
        ScalarBuffer::new(Buffer::from(Bytes::from_owner(lent)), 0, len)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u128>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than this many pieces are not kept.
const KEPT: usize = 16;

struct Lent {
    views: Vec<u128>,
    home: Spare,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.views.to_byte_slice()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.views);
        memory.clear();
        let mut spare = self.home.lock();
        if spare.len() < KEPT {
            spare.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_it_is_free() {
        let spare = Spare::default();
        let first = spare.collect([1, 2, 3].into_iter());
        let second = spare.collect([4].into_iter());
        assert_eq!((&first[..], &second[..]), (&[1, 2, 3][..], &[4][..]));
        let place = first.inner().as_ptr();
        drop(first);
        let third = spare.collect([5, 6].into_iter());
        assert_eq!((third.inner().as_ptr(), &third[..]), (place, &[5, 6][..]));
    }
}
