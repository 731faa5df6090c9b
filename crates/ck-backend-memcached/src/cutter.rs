//! Where an entry is cut into chunks.

use bytes::Bytes;

/// Below this a chunk costs more to name and to ask for than to read along.
const LEAST: usize = 4 << 10;
/// Smaller pieces fill up what is in front of them, and belong with it.
const PADDING: usize = 64;

/// Cuts what is written into chunks.
///
/// memcached gives out items only as a whole, so a chunk begins where a piece of the entry does, and a
/// piece is a column's buffer: whoever reads a few columns fetches their chunks and little else. Small
/// pieces are gathered until they are worth a chunk: 4 KiB, and more as the entry grows, so that the
/// manifest stays small.
#[derive(Debug)]
pub(crate) struct Cutter {
    most: usize,
    /// How many chunks an entry has before they grow with it.
    many: u64,
    pending: Vec<Bytes>,
    pending_len: usize,
    /// Bytes in all chunks so far.
    cut: u64,
}

/// A chunk, in pieces.
pub(crate) type Chunk = Vec<Bytes>;

impl Cutter {
    /// Chunks of at most `most` bytes, for a manifest of at most `manifest` chunks.
    pub(crate) fn new(most: usize, manifest: usize) -> Self {
        Self {
            most: most.max(1),
            // Their number grows with the logarithm of the entry's length from there.
            many: (manifest as u64 / 8).max(1),
            pending: Vec::new(),
            pending_len: 0,
            cut: 0,
        }
    }

    /// Takes a piece, and adds the chunks that are complete.
    pub(crate) fn push(&mut self, mut piece: Bytes, chunks: &mut Vec<Chunk>) {
        if piece.is_empty() {
            return;
        }
        let worth = LEAST.max(usize::try_from(self.cut / self.many).unwrap_or(usize::MAX));
        if self.pending_len >= worth.min(self.most) && piece.len() >= PADDING {
            self.finish(chunks);
        }
        while self.pending_len + piece.len() > self.most {
            let part = piece.split_to(self.most - self.pending_len);
            self.add(part);
            self.finish(chunks);
        }
        self.add(piece);
    }

    /// What is left becomes a chunk.
    pub(crate) fn finish(&mut self, chunks: &mut Vec<Chunk>) {
        if self.pending_len > 0 {
            chunks.push(std::mem::take(&mut self.pending));
            self.cut += self.pending_len as u64;
            self.pending_len = 0;
        }
    }

    fn add(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pending_len += piece.len();
            self.pending.push(piece);
        }
    }
}

pub(crate) fn len(chunk: &[Bytes]) -> usize {
    chunk.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(most: usize, pieces: &[usize]) -> Vec<usize> {
        let mut cutter = Cutter::new(most, 1 << 18);
        let mut chunks = Vec::new();
        for &piece in pieces {
            cutter.push(Bytes::from(vec![1; piece]), &mut chunks);
        }
        cutter.finish(&mut chunks);
        chunks.iter().map(|chunk| len(chunk)).collect()
    }

    #[test]
    fn a_column_begins_a_chunk_and_its_padding_ends_it() {
        assert_eq!(
            cut(1 << 20, &[100, 40_000, 24, 40_000, 24, 40_000]),
            [40_124, 40_024, 40_000]
        );
    }

    #[test]
    fn small_pieces_are_gathered() {
        let chunks = cut(1 << 20, &[1_000; 100]);
        assert_eq!(chunks, [5_000; 20]);
    }

    #[test]
    fn no_chunk_is_longer_than_the_limit() {
        assert_eq!(cut(512, &[1, 2_000, 0, 100]), [512, 512, 512, 512, 53]);
        assert_eq!(cut(100, &[100, 100, 1]), [100, 100, 1]);
        assert_eq!(cut(100, &[]), Vec::<usize>::new());
    }

    #[test]
    fn the_number_of_chunks_stays_bounded() {
        let mut cutter = Cutter::new(1 << 20, 1 << 18);
        let (mut chunks, mut count) = (Vec::new(), 0);
        let piece = Bytes::from(vec![1; 8 << 10]);
        for _ in 0..(8_u64 << 30) / (8 << 10) {
            cutter.push(piece.clone(), &mut chunks);
            count += chunks.len();
            chunks.clear();
        }
        assert!(
            (100_000..150_000).contains(&count),
            "{count} chunks of 8 GiB"
        );
    }
}
