use bytes::Bytes;
use ck_core::ReadMemory;

/// Memory for `len` bytes that arrive one after the other. The first lies at a multiple of 64, and none is
/// written twice.
#[derive(Debug)]
pub(crate) struct Aligned {
    memory: ReadMemory,
    len: usize,
}

impl Aligned {
    pub(crate) fn new(len: usize) -> Self {
        let memory = ReadMemory::new(len);
        Self { memory, len }
    }

    /// Appends `part`; `false` when there is no room for it.
    pub(crate) fn push(&mut self, part: &[u8]) -> bool {
        let fits = part.len() <= self.len - self.memory.len();
        if fits {
            self.memory.extend_from_slice(part);
        }
        fits
    }

    /// All bytes, or `None` when some are missing.
    pub(crate) fn finish(self) -> Option<Bytes> {
        (self.memory.len() == self.len).then(|| self.memory.freeze())
    }

    /// A copy of `part`.
    pub(crate) fn copy(part: &[u8]) -> Bytes {
        let mut memory = ReadMemory::new(part.len());
        memory.extend_from_slice(part);
        memory.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_bytes_and_no_more() {
        for len in [0, 1, 65, 100_000] {
            let mut aligned = Aligned::new(len);
            for part in vec![7; len].chunks(999) {
                assert!(aligned.push(part));
            }
            assert!(!aligned.push(b"x"), "there is room for {len} bytes");
            assert_eq!(aligned.finish().unwrap(), vec![7; len]);
        }
    }

    #[test]
    fn what_is_incomplete_is_not_handed_out() {
        let mut aligned = Aligned::new(3);
        assert!(aligned.push(b"ab"));
        assert!(aligned.finish().is_none());
        assert_eq!(Aligned::copy(b"abc"), "abc");
    }
}
