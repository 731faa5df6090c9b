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
/// manifest stays small. A piece that is worth a chunk shares none with 4 KiB or more before it, such as the
/// description of a batch, as long as half of the manifest is free.
#[derive(Debug)]
pub(crate) struct Cutter {
    most: usize,
    /// How many chunks a manifest has room for.
    room: u64,
    /// How many there are.
    count: u64,
    /// Bytes in all of them.
    cut: u64,
    pending: Vec<Bytes>,
    pending_len: usize,
}

/// A chunk, in pieces.
pub(crate) type Chunk = Vec<Bytes>;

impl Cutter {
    /// Chunks of at most `most` bytes, for a manifest of at most `manifest` chunks.
    pub(crate) fn new(most: usize, manifest: usize) -> Self {
        Self {
            most: most.max(1),
            room: manifest as u64,
            count: 0,
            cut: 0,
            pending: Vec::new(),
            pending_len: 0,
        }
    }

    /// Takes a piece, and adds the chunks that are complete.
    pub(crate) fn push(&mut self, mut piece: Bytes, chunks: &mut Vec<Chunk>) {
        if piece.is_empty() {
            return;
        }
        let left = self.room.saturating_sub(self.count).max(1);
        // With half of what is left the entry may double: what is left shrinks as the root of its length grows.
        let worth = usize::try_from(2 * self.cut / left).unwrap_or(usize::MAX);
        let worth = worth.max(LEAST).min(self.most);
        let stands_apart =
            self.pending_len >= LEAST && piece.len() >= worth && left > self.room / 2;
        if stands_apart || self.pending_len >= worth && piece.len() >= PADDING {
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
            self.count += 1;
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
    fn a_column_of_a_large_entry_shares_no_chunk_with_the_description_of_its_batch() {
        let mut cutter = Cutter::new(1 << 20, 1 << 14);
        let mut chunks = Vec::new();
        for _ in 0..64 {
            for piece in [10_000, 40_000, 40_000] {
                cutter.push(Bytes::from(vec![1; piece]), &mut chunks);
            }
        }
        cutter.finish(&mut chunks);
        let lengths: Vec<_> = chunks.iter().map(|chunk| len(chunk)).collect();
        assert!(
            lengths[lengths.len() - 3..] == [10_000, 40_000, 40_000],
            "{lengths:?}"
        );
    }

    #[test]
    fn no_chunk_is_longer_than_the_limit() {
        assert_eq!(cut(512, &[1, 2_000, 0, 100]), [512, 512, 512, 512, 53]);
        assert_eq!(cut(100, &[100, 100, 1]), [100, 100, 1]);
        assert_eq!(cut(100, &[]), Vec::<usize>::new());
    }

    #[test]
    fn the_number_of_chunks_stays_bounded() {
        for (large, small, gib) in [(4 << 10, 4 << 10, 16), (64 << 10, 8 << 10, 64)] {
            let mut cutter = Cutter::new(1 << 20, 1 << 18);
            let (mut chunks, mut count) = (Vec::new(), 0);
            let pieces = [Bytes::from(vec![1; large]), Bytes::from(vec![1; small])];
            let both = (large + small) as u64;
            for _ in 0..(gib << 30) / both {
                for piece in &pieces {
                    cutter.push(piece.clone(), &mut chunks);
                }
                count += chunks.len();
                chunks.clear();
            }
            assert!(
                (150_000..1 << 18).contains(&count),
                "{count} chunks of {gib} GiB"
            );
        }
    }
}
