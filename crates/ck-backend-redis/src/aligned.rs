use bytes::{Bytes, BytesMut};

/// Arrow decodes buffers in place that start at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// Memory for `len` bytes that arrive one after the other. The first lies at a multiple of 64, and none is
/// written twice.
#[derive(Debug)]
pub(crate) struct Aligned {
    bytes: BytesMut,
    len: usize,
}

impl Aligned {
    pub(crate) fn new(len: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(len + ALIGNMENT - 1);
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT - 1);
        bytes.resize(start, 0);
        Self {
            bytes: bytes.split_off(start),
            len,
        }
    }

    /// Appends `part`; `false` when there is no room for it.
    pub(crate) fn push(&mut self, part: &[u8]) -> bool {
        let fits = part.len() <= self.len - self.bytes.len();
        if fits {
            self.bytes.extend_from_slice(part);
        }
        fits
    }

    /// All bytes, or `None` when some are missing.
    pub(crate) fn finish(self) -> Option<Bytes> {
        (self.bytes.len() == self.len).then(|| self.bytes.freeze())
    }

    /// A copy of `part`.
    pub(crate) fn copy(part: &[u8]) -> Bytes {
        let mut aligned = Self::new(part.len());
        aligned.bytes.extend_from_slice(part);
        aligned.bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_gathered_at_an_aligned_place_without_moving() {
        for len in [0, 1, 63, 64, 65, 100_000] {
            let mut aligned = Aligned::new(len);
            let start = aligned.bytes.as_ptr();
            for part in vec![7; len].chunks(999) {
                assert!(aligned.push(part));
            }
            assert!(!aligned.push(b"x"), "there is room for {len} bytes");
            let bytes = aligned.finish().unwrap();
            assert_eq!(bytes, vec![7; len]);
            if len > 0 {
                assert_eq!(bytes.as_ptr(), start);
                assert_eq!(bytes.as_ptr() as usize % ALIGNMENT, 0);
            }
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
