use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};

use crate::hash::Hashes;
use crate::index::{Block, IndexWriter};

/// From this size on, a message is hashed on a thread of its own while the store writes it.
const BESIDE_BYTES: u64 = 1 << 20;

/// The hashes and the index of what has gone out.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) hashes: Hashes,
    pub(crate) index: IndexWriter,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            hashes: Hashes::new(),
            index: IndexWriter::default(),
        }
    }

    /// Adds a message: its metadata, then the pieces of its body, units one after the other.
    fn add(&mut self, mut block: Block, message: &[Bytes]) {
        let mut pieces = message.iter();
        if let Some(metadata) = pieces.next() {
            self.hashes.add(metadata);
        }
        for unit in &mut block.units {
            let mut left = unit.span.len;
            while left > 0
                && let Some(piece) = pieces.next()
            {
                self.hashes.add_to_unit(piece);
                left = left.saturating_sub(piece.len() as u64);
            }
            unit.hash = self.hashes.end_unit();
        }
        self.index.add(&block);
    }
}

/// Keeps the [`Record`], here or on a thread beside.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// `None` while the thread has it.
    here: Option<Record>,
    /// Whether large messages may go to the thread.
    may_start: bool,
    beside: Option<Beside>,
    /// Whether messages are counted only: the index then has the right length, and no hash is one.
    counts: bool,
}

#[derive(Debug)]
struct Beside {
    jobs: Sender<Job>,
    done: Receiver<Record>,
}

/// The record, and the message to add to it.
type Job = (Record, Block, Vec<Bytes>);

impl Recorder {
    /// `beside` allows a thread, for as long as the recorder lives.
    pub(crate) fn new(record: Record, beside: bool) -> Self {
        Self {
            here: Some(record),
            may_start: beside,
            beside: None,
            counts: false,
        }
    }

    /// From here on nothing is hashed.
    pub(crate) fn count_only(&mut self) {
        self.counts = true;
    }

    /// Adds a message, whose first piece is its metadata. Its pieces are held until
    /// [`Recorder::settle`].
    pub(crate) fn add(&mut self, block: Block, message: &[Bytes]) -> Result<()> {
        if self.counts {
            self.settle()?.index.add(&block);
            return Ok(());
        }
        if self.may_start && block.body_len >= BESIDE_BYTES {
            self.may_start = false;
            // Without a thread everything is hashed here.
            self.beside = Beside::start().ok();
        }
        let mut record = self.take()?;
        match &self.beside {
            Some(beside) if block.body_len >= BESIDE_BYTES => {
                // Fails only when the thread is gone; `settle` then says so.
                drop(beside.jobs.send((record, block, message.to_vec())));
            }
            _ => {
                record.add(block, message);
                self.here = Some(record);
            }
        }
        Ok(())
    }

    /// Waits until everything added is in the record.
    pub(crate) fn settle(&mut self) -> Result<&mut Record> {
        let record = self.take()?;
        Ok(self.here.insert(record))
    }

    fn take(&mut self) -> Result<Record> {
        if let Some(record) = self.here.take() {
            return Ok(record);
        }
        let record = self
            .beside
            .as_ref()
            .and_then(|beside| beside.done.recv().ok());
        record.ok_or_else(|| {
            Error::new(
                ErrorKind::Permanent,
                "the hashing thread ended before its work was done",
            )
        })
    }
}

impl Beside {
    fn start() -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let (results, done) = channel();
        std::thread::Builder::new()
            .name("ck-hash".into())
            .spawn(move || {
                for (mut record, block, message) in queue {
                    record.add(block, &message);
                    // The pieces go before the record is seen to be complete.
                    drop(message);
                    if results.send(record).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { jobs, done })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Unit;
    use crate::message::Span;

    /// Two units, of one and of two pieces.
    fn message(seed: u8, len: usize) -> (Block, Vec<Bytes>) {
        let piece = |step: u8, len: usize| Bytes::from(vec![seed.wrapping_add(step); len]);
        let pieces = vec![piece(0, 64), piece(1, len), piece(2, len), piece(3, 64)];
        let unit = |offset: usize, len: usize| Unit {
            columns: 1,
            span: Span {
                offset: offset as u64,
                len: len as u64,
            },
            hash: 0,
        };
        let block = Block {
            body_len: 2 * len as u64 + 64,
            units: vec![unit(0, len), unit(len, len + 64)],
            ..Block::default()
        };
        (block, pieces)
    }

    #[test]
    fn small_and_large_messages_give_the_same_record_here_and_beside() {
        let record = |beside| {
            let mut recorder = Recorder::new(Record::new(), beside);
            for (seed, len) in [64, 4 << 20, 128, 4 << 20, 4 << 20, 64]
                .into_iter()
                .enumerate()
            {
                let (block, pieces) = message(u8::try_from(seed).unwrap(), len);
                recorder.add(block, &pieces).unwrap();
            }
            let record = recorder.settle().unwrap();
            let hash = record.hashes.whole();
            (hash, std::mem::take(&mut record.index).finish())
        };
        assert_eq!(record(true), record(false));
    }

    #[test]
    fn every_unit_is_hashed_by_itself() {
        let mut recorder = Recorder::new(Record::new(), true);
        let (block, pieces) = message(9, 2 << 20);
        recorder.add(block, &pieces).unwrap();
        let index = std::mem::take(&mut recorder.settle().unwrap().index);
        let index = crate::index::Index::decode(&index.finish().concat(), u64::MAX, 2).unwrap();
        let wanted =
            [pieces[1].to_vec(), pieces[2..].concat()].map(|unit| crate::hash::xxh3(&unit));
        let units = &index.batches[0].units;
        assert_eq!(
            units.iter().map(|unit| unit.hash).collect::<Vec<_>>(),
            wanted
        );
        assert_eq!(
            recorder.settle().unwrap().hashes.whole(),
            crate::hash::xxh3(&pieces.concat())
        );
    }
}
