use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use ck_arrow::{StoredBatch, TableReader, retained_bytes};
use ck_core::{
    EntryReader, Error, ErrorKind, MemoryBudget, Reservation, Result, background, lend,
    runs_in_place,
};
use tokio::sync::oneshot;

use crate::source::feeds_a_put;

/// How much larger columns are taken to be when they are decompressed, until a batch has shown more: no index
/// says it.
const PLAIN_FACTOR: u64 = 4;

/// What is read ahead holds at most so many bytes, so that large batches, whose bytes are several ranges under
/// way at once in any case, come one at a time.
const AHEAD_BYTES: u64 = 4 << 20;

/// Of narrow projections many batches fit into [`AHEAD_BYTES`]; so many hide the way to any server.
const MOST_AHEAD: usize = 16;

/// So many before any batch has shown how large they are.
const MOST_UNSEEN: usize = 2;

/// Reads batches of a table, each within the memory budget.
#[derive(Clone)]
pub(crate) struct BatchSource {
    pub(crate) reader: TableReader,
    entry: Arc<dyn EntryReader>,
    budget: MemoryBudget,
    /// Of the batches read so far, the one that shrank most.
    plain_factor: Arc<AtomicU64>,
}

/// A batch to be decoded, and the bytes reserved until that is done.
pub(crate) struct Brought {
    pub(crate) place: usize,
    pub(crate) batch: StoredBatch,
    pub(crate) reservation: Option<Reservation>,
}

impl Brought {
    pub(crate) async fn decode(self) -> Result<RecordBatch> {
        let batch = self.batch.into_batch().await;
        drop(self.reservation);
        batch
    }
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

    /// The batch at this place.
    pub(crate) async fn batch(&self, place: usize) -> Result<RecordBatch> {
        let batch = self.bring(place).await?.decode().await?;
        self.note(place, &batch)?;
        Ok(batch)
    }

    /// The bytes of the batch at this place. One beyond the whole budget, which another writer may have made,
    /// takes all of it. A read for a put takes what is free, and does not wait.
    async fn bring(&self, place: usize) -> Result<Brought> {
        let held = self.held(place)?;
        let reservation = match feeds_a_put() {
            true => self.budget.try_reserve(held)?,
            false => Some(self.budget.reserve(held).await?),
        };
        self.fetch(place, reservation).await
    }

    async fn fetch(&self, place: usize, reservation: Option<Reservation>) -> Result<Brought> {
        Ok(Brought {
            place,
            batch: self.reader.fetch(place).await?,
            reservation,
        })
    }

    /// Others are taken to shrink as well as this batch.
    pub(crate) fn note(&self, place: usize, batch: &RecordBatch) -> Result<()> {
        if self.may_be_compressed(place)? {
            let stored = self.reader.fetched_bytes(place)?;
            let factor = own_bytes(batch).div_ceil(stored.max(1));
            self.plain_factor.fetch_max(factor, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Bytes that a read fetches and decompresses.
    fn held(&self, place: usize) -> Result<u64> {
        let stored = self.reader.fetched_bytes(place)?;
        let fetched = if self.is_in_place() { 0 } else { 1 };
        let plain = match self.may_be_compressed(place)? {
            true => self.plain_factor.load(Ordering::Relaxed),
            false => 0,
        };
        let held = stored.saturating_mul(fetched + plain);
        Ok(held.min(self.budget.limit()))
    }

    pub(crate) fn may_be_compressed(&self, place: usize) -> Result<bool> {
        Ok(self.reader.is_compressed(place)? != Some(false))
    }

    fn is_in_place(&self) -> bool {
        self.entry.contiguous().is_some()
    }

    /// Brings a batch beside the caller, who decodes it: see [`StoredBatch`].
    fn start(&self, place: usize, reservation: Reservation, keeps: bool) -> Option<Ahead> {
        let (sender, result) = oneshot::channel();
        let source = self.clone();
        let bring = async move {
            let mut brought = source.fetch(place, Some(reservation)).await;
            if let Ok(brought) = &mut brought
                && !keeps
            {
                brought.reservation = None;
            }
            // Whoever asked may have gone.
            drop(sender.send(brought));
        };
        // A task has no thread of its own, and goes from heap to heap: what it took would lie in all of them.
        let memory = match self.reader.fetched_bytes(place) {
            Ok(bytes) if runs_in_place() => {
                let bytes = bytes.saturating_add(self.entry.read_overhead(bytes));
                match self.may_be_compressed(place) {
                    // Freed soon, among what stays: where it was the next should fit, which is a little larger or smaller. A
                    // sixteenth more at most, so that with what encryption adds the loan still fits its read.
                    Ok(true) => bytes.next_multiple_of((bytes / 32).next_power_of_two()),
                    _ => bytes,
                }
            }
            _ => 0,
        };
        background(lend(memory, bring)).then_some(Ahead(result))
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

/// A batch that is being brought, or was.
struct Ahead(oneshot::Receiver<Result<Brought>>);

/// The stored batches of a table one after the other; where they have to be fetched, some are under way before
/// they are asked for, as far as the budget is free.
pub(crate) struct Fetches {
    source: BatchSource,
    /// The next batch to give.
    next: usize,
    /// It, and those that follow from it on.
    ahead: VecDeque<Ahead>,
    /// Whether what was read ahead stays reserved until it is asked for.
    keeps: bool,
}

impl Fetches {
    /// For a caller who asks for batch after batch, and for nothing else meanwhile.
    pub(crate) fn new(source: BatchSource) -> Self {
        Self {
            source,
            next: 0,
            ahead: VecDeque::new(),
            keeps: true,
        }
    }

    /// For a caller who may take any time between two batches, and wait for the budget himself: what was read
    /// ahead, [`AHEAD_BYTES`] at most, must not keep it from others.
    fn unhurried(source: BatchSource) -> Self {
        Self {
            keeps: false,
            ..Self::new(source)
        }
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        self.source.reader.num_batches().saturating_sub(self.next)
    }

    /// The next batch. Dropping the future loses none. Nothing comes after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Brought>> {
        if self.len() == 0 {
            return None;
        }
        let brought = match self.ahead.front_mut() {
            Some(front) => {
                let brought = (&mut front.0).await.unwrap_or_else(|_lost| {
                    Err(Error::new(
                        ErrorKind::Transient,
                        "the runtime that read ahead is shutting down",
                    ))
                });
                self.ahead.pop_front();
                brought
            }
            None => self.source.bring(self.next).await,
        };
        self.go_on(&brought);
        Some(brought)
    }

    /// The next batch if there is nothing to wait for, neither bytes nor budget.
    pub(crate) async fn next_now(&mut self) -> Option<Result<Brought>> {
        if self.len() == 0 {
            return None;
        }
        let brought = if self.source.is_in_place() {
            // What fails here fails again in `next`.
            let held = self.source.held(self.next).ok()?;
            let reservation = self.source.budget.try_reserve(held).ok()??;
            self.source.fetch(self.next, Some(reservation)).await
        } else {
            let brought = self.ahead.front_mut()?.0.try_recv().ok()?;
            self.ahead.pop_front();
            brought
        };
        self.go_on(&brought);
        Some(brought)
    }

    fn go_on(&mut self, brought: &Result<Brought>) {
        self.next = match brought {
            Ok(_) => self.next + 1,
            Err(_) => {
                self.ahead.clear();
                usize::MAX
            }
        };
    }

    async fn decode(&self, brought: Brought) -> Result<RecordBatch> {
        let place = brought.place;
        let batch = brought.decode().await?;
        self.source.note(place, &batch)?;
        Ok(batch)
    }

    /// Starts what fits, and so many batches in any case.
    pub(crate) fn read_ahead(&mut self, least: usize) {
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
            let Some(ahead) = self.source.start(place, reservation, self.keeps) else {
                return;
            };
            self.ahead.push_back(ahead);
        }
    }
}

/// All batches of a table one after the other, for a caller who may stop early and keeps none.
pub(crate) struct InOrder {
    /// `None` at the end: the memory of the batches goes with it.
    fetches: Option<Fetches>,
}

impl InOrder {
    pub(crate) fn new(mut source: BatchSource) -> Self {
        source.reader = source.reader.reusing_memory();
        Self {
            fetches: Some(Fetches::unhurried(source)),
        }
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        self.fetches.as_ref().map_or(0, Fetches::len)
    }

    /// The next batch, which is lost if the future is dropped. Nothing comes after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let fetches = self.fetches.as_mut()?;
        let is_first = fetches.next == 0;
        let batch = match fetches.next().await {
            Some(Ok(brought)) => fetches.decode(brought).await,
            Some(Err(error)) => Err(error),
            None => {
                self.fetches = None;
                return None;
            }
        };
        if batch.is_err() {
            self.fetches = None;
        } else if !is_first {
            // Whoever asked for one batch may want no other; whoever asked for two wants all.
            fetches.read_ahead(0);
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
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
            let fetches = all.fetches.as_ref().unwrap();
            let ahead = fetches.ahead.len();
            assert!(ahead as u64 * PLAIN <= AHEAD_BYTES);
            assert!(all.len() < 4 || ahead > 0);
            assert!(all.len() == 0 || fetches.source.held(fetches.next).unwrap() >= PLAIN);
        }
    }

    #[test]
    fn a_whole_get_begins_with_two_batches_until_one_has_shown_its_size() {
        let mut all = Fetches::new(constants());
        all.read_ahead(2);
        assert_eq!(all.ahead.len(), 2);
        let brought = block_on(all.next()).unwrap().unwrap();
        let batch = block_on(brought.decode()).unwrap();
        all.source.note(0, &batch).unwrap();
        all.read_ahead(2);
        assert!((2..=4).contains(&all.ahead.len()));
        assert!(all.source.budget.used() <= (2 * PLAIN).max(AHEAD_BYTES));
    }

    #[test]
    fn whoever_gives_up_waiting_gets_the_same_batch_later() {
        let mut all = Fetches::new(constants());
        all.read_ahead(2);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let polled = std::pin::pin!(all.next()).poll(&mut cx).is_ready();
        let place = usize::from(polled);
        assert_eq!(block_on(all.next()).unwrap().unwrap().place, place);
        assert_eq!(block_on(all.next()).unwrap().unwrap().place, place + 1);
    }

    #[test]
    fn a_caller_who_stops_between_two_batches_keeps_nothing_of_the_budget() {
        let source = constants();
        let budget = source.budget.clone();
        let mut all = InOrder::new(source);
        for _ in 0..3 {
            block_on(all.next()).unwrap().unwrap();
        }
        let fetches = all.fetches.as_ref().unwrap();
        assert!(!fetches.ahead.is_empty());
        // Waits for ever if anything stays reserved.
        drop(block_on(budget.reserve(budget.limit())).unwrap());
        assert!(block_on(all.next()).unwrap().is_ok());
    }

    #[test]
    fn batches_that_are_let_go_of_lend_their_memory_to_the_next() {
        let mut all = InOrder::new(constants());
        let mut addresses = std::collections::BTreeSet::new();
        while let Some(batch) = block_on(all.next()) {
            let column = batch.unwrap().column(0).to_data();
            addresses.insert(column.buffers()[0].as_ptr().addr());
        }
        assert_eq!(addresses.len(), 1);
    }
}
