use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use ck_arrow::{TableReader, retained_bytes};
use ck_core::{EntryReader, Error, ErrorKind, MemoryBudget, Reservation, Result, background};
use tokio::sync::oneshot;

use crate::crew::Crew;
use crate::source::feeds_a_put;

/// How much larger columns are taken to be when they are decompressed, until a batch has shown more: no index
/// says it.
const PLAIN_FACTOR: u64 = 4;

/// What is read ahead holds at most so many bytes, so that large batches, whose bytes are several ranges under
/// way at once in any case, come one at a time: each thread that decodes them has a heap of its own, which the
/// C library lets grow to some batches.
const AHEAD_BYTES: u64 = 4 << 20;

/// Of narrow projections many batches fit into [`AHEAD_BYTES`]; so many hide the way to any server.
const MOST_AHEAD: usize = 16;

/// So many before any batch has shown how large they are.
const MOST_UNSEEN: usize = 2;

/// Reads batches of a table, each within the memory budget.
#[derive(Clone)]
pub(crate) struct BatchSource {
    pub(crate) reader: TableReader,
    pub(crate) entry: Arc<dyn EntryReader>,
    pub(crate) budget: MemoryBudget,
    /// Of the batches read so far, the one that shrank most.
    plain_factor: Arc<AtomicU64>,
}

impl BatchSource {
    pub(crate) fn new(
        reader: TableReader,
        entry: Arc<dyn EntryReader>,
        budget: MemoryBudget,
    ) -> Self {
        Self {
            reader,
            entry,
            budget,
            plain_factor: Arc::new(AtomicU64::new(PLAIN_FACTOR)),
        }
    }

    /// The batch at this place. One beyond the whole budget, which another writer may have made, takes all
    /// of it. A read for a put takes what is free, and does not wait.
    pub(crate) async fn batch(&self, place: usize) -> Result<RecordBatch> {
        let held = self.held(place)?;
        let _reservation = match feeds_a_put() {
            true => self.budget.try_reserve(held)?,
            false => Some(self.budget.reserve(held).await?),
        };
        self.read(place).await
    }

    /// The batch at this place, for which bytes are reserved; others are taken to shrink as well as it does.
    pub(crate) async fn read(&self, place: usize) -> Result<RecordBatch> {
        let batch = self.reader.batch(place).await?;
        if self.may_be_compressed(place)? {
            let stored = self.reader.fetched_bytes(place)?;
            let factor = own_bytes(&batch).div_ceil(stored.max(1));
            self.plain_factor.fetch_max(factor, Ordering::Relaxed);
        }
        Ok(batch)
    }

    /// Bytes that a read fetches and decompresses.
    pub(crate) fn held(&self, place: usize) -> Result<u64> {
        let stored = self.reader.fetched_bytes(place)?;
        let fetched = if self.is_in_place() { 0 } else { 1 };
        let plain = match self.may_be_compressed(place)? {
            true => self.plain_factor.load(Ordering::Relaxed),
            false => 0,
        };
        let held = stored.saturating_mul(fetched + plain);
        Ok(held.min(self.budget.limit()))
    }

    fn may_be_compressed(&self, place: usize) -> Result<bool> {
        Ok(self.reader.is_compressed(place)? != Some(false))
    }

    fn is_in_place(&self) -> bool {
        self.entry.contiguous().is_some()
    }

    /// Reads a batch beside the caller.
    fn start(&self, place: usize, reservation: Reservation) -> Option<Ahead> {
        let (sender, result) = oneshot::channel();
        let source = self.clone();
        let read = async move {
            let batch = source.read(place).await;
            drop(reservation);
            // Whoever asked may have gone.
            sender.send(batch).ok();
        };
        background(read).then_some(Ahead(result))
    }
}

/// Bytes of a batch alone: its dictionaries stay for as long as the reader.
fn own_bytes(batch: &RecordBatch) -> u64 {
    let (mut plain, mut bytes) = (Vec::new(), 0);
    for (place, column) in batch.columns().iter().enumerate() {
        match column.as_any_dictionary_opt() {
            Some(dictionary) => bytes += dictionary.keys().get_buffer_memory_size(),
            None => plain.push(place),
        }
    }
    bytes += batch.project(&plain).map_or(0, |b| retained_bytes([&b]));
    bytes as u64
}

/// A batch that is being read, or was.
struct Ahead(oneshot::Receiver<Result<RecordBatch>>);

/// All batches of a table one after the other; where they have to be fetched, small ones are under way before
/// they are asked for, as far as the budget is free.
pub(crate) struct InOrder {
    source: BatchSource,
    /// The next batch to give; those in `ahead` follow from it on.
    next: usize,
    ahead: VecDeque<Ahead>,
}

impl InOrder {
    /// For a caller who may stop early.
    pub(crate) fn new(source: BatchSource) -> Self {
        Self {
            source,
            next: 0,
            ahead: VecDeque::new(),
        }
    }

    /// All of them at once. What has to be fetched, two under way: while one is decoded the other is fetched.
    pub(crate) async fn read_all(source: BatchSource) -> Result<Vec<RecordBatch>> {
        if source.is_in_place() && source.reader.num_batches() > 1 && source.may_be_compressed(0)? {
            return Crew::new(source).read_all().await;
        }
        let mut batches = Vec::with_capacity(source.reader.num_batches());
        let mut all = Self::new(source);
        while all.len() > 0 {
            all.read_ahead(2);
            let batch = all.front().await;
            batches.push(all.give(batch)?);
        }
        Ok(batches)
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        self.source.reader.num_batches().saturating_sub(self.next)
    }

    /// The next batch. Dropping the future loses none. Nothing comes after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.len() == 0 {
            return None;
        }
        let batch = self.front().await;
        let is_first = self.next == 0;
        let batch = self.give(batch);
        // Whoever asked for one batch may want no other; whoever asked for two wants all.
        if !is_first && batch.is_ok() {
            self.read_ahead(0);
        }
        Some(batch)
    }

    /// The batch at `next`.
    async fn front(&mut self) -> Result<RecordBatch> {
        match self.ahead.front_mut() {
            Some(front) => (&mut front.0).await.unwrap_or_else(|_lost| {
                Err(Error::new(
                    ErrorKind::Transient,
                    "the runtime that read ahead is shutting down",
                ))
            }),
            None => self.source.batch(self.next).await,
        }
    }

    /// Goes on to the next batch, or to the end after an error.
    fn give(&mut self, batch: Result<RecordBatch>) -> Result<RecordBatch> {
        self.ahead.pop_front();
        self.next = match &batch {
            Ok(_) => self.next + 1,
            Err(_) => usize::MAX,
        };
        batch
    }

    /// Starts what fits, and so many batches in any case.
    fn read_ahead(&mut self, least: usize) {
        if self.source.is_in_place() {
            return;
        }
        // By what is known now, not when they were started.
        let started = self.next..self.next + self.ahead.len();
        let Ok(mut bytes) = started
            .map(|place| self.source.held(place))
            .sum::<Result<u64>>()
        else {
            return;
        };
        let most = if self.next == 0 {
            MOST_UNSEEN
        } else {
            MOST_AHEAD
        };
        while self.ahead.len() < most.min(self.len()) {
            let place = self.next + self.ahead.len();
            // What fails here fails again when it is this batch's turn.
            let Ok(held) = self.source.held(place) else {
                return;
            };
            bytes = bytes.saturating_add(held);
            if self.ahead.len() >= least && bytes > AHEAD_BYTES {
                return;
            }
            let Ok(Some(reservation)) = self.source.budget.try_reserve(held) else {
                return;
            };
            let Some(ahead) = self.source.start(place, reservation) else {
                return;
            };
            self.ahead.push_back(ahead);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use arrow_array::{ArrayRef, Int64Array};
    use bytes::Bytes;
    use ck_arrow::{Codec, EncodeOptions, Encoder, Verification};
    use ck_core::{BoxFuture, Expiry, MemoryEntry, block_on};

    use super::*;

    /// Has to be fetched.
    #[derive(Debug)]
    struct Apart(MemoryEntry);

    impl EntryReader for Apart {
        fn len(&self) -> u64 {
            self.0.len()
        }

        fn expiry(&self) -> Expiry {
            self.0.expiry()
        }

        fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
            self.0.read(range)
        }

        fn discard(&self) -> BoxFuture<'_, Result<bool>> {
            self.0.discard()
        }
    }

    const PLAIN: u64 = 1 << 20;

    /// Twenty batches of 1 MiB, each stored in less than a thousandth of that.
    fn constants() -> BatchSource {
        let column: ArrayRef = Arc::new(Int64Array::from_value(7, 20 << 17));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let options = EncodeOptions::new()
            .with_codec(Codec::Zstd(3))
            .with_batch_bytes(1 << 20);
        let mut encoder = Encoder::new(batch.schema(), options).unwrap();
        encoder.push(batch).unwrap();
        encoder.end();
        let mut body = Vec::new();
        while let Some(segment) = encoder.next_segment().unwrap() {
            body.extend(segment);
        }
        let bytes = [&encoder.finish().unwrap().head[..], &body.concat()].concat();
        let entry: Arc<dyn EntryReader> = Arc::new(Apart(MemoryEntry::new(bytes)));
        let opened = TableReader::open(Arc::clone(&entry), Verification::OnTouch);
        let source = BatchSource::new(
            block_on(opened).unwrap(),
            entry,
            MemoryBudget::new(64 << 20),
        );
        assert!(source.reader.num_batches() >= 20);
        assert!(source.held(0).unwrap() < PLAIN / 100);
        source
    }

    #[test]
    fn as_much_is_read_ahead_as_the_batches_before_have_shown_to_be_plain() {
        let mut all = InOrder::new(constants());
        for _ in 0..2 {
            block_on(all.next()).unwrap().unwrap();
        }
        while let Some(batch) = block_on(all.next()) {
            let batch = batch.unwrap();
            assert_eq!(batch.num_rows(), 1 << 17);
            assert!(all.ahead.len() as u64 * PLAIN <= AHEAD_BYTES);
            assert!(all.len() < 4 || !all.ahead.is_empty());
            assert!(all.len() == 0 || all.source.held(all.next).unwrap() >= PLAIN);
        }
    }

    #[test]
    fn a_whole_get_begins_with_two_batches_until_one_has_shown_its_size() {
        let mut all = InOrder::new(constants());
        all.read_ahead(2);
        assert_eq!(all.ahead.len(), 2);
        let batch = block_on(all.front());
        all.give(batch).unwrap();
        all.read_ahead(2);
        assert!((2..=4).contains(&all.ahead.len()));
        assert!(all.source.budget.used() <= (2 * PLAIN).max(AHEAD_BYTES));
    }
}
