use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::RecordBatch;
use ck_arrow::TableReader;
use ck_core::{EntryReader, Error, ErrorKind, MemoryBudget, Reservation, Result, background};
use tokio::sync::oneshot;

use crate::source::feeds_a_put;

/// How much larger columns are taken to be when they are decompressed: no index says it.
const PLAIN_FACTOR: u64 = 4;

/// What is read ahead holds at most so many bytes, so that large batches, whose bytes are several ranges under
/// way at once in any case, come one at a time: each thread that decodes them has a heap of its own, which the
/// C library lets grow to some batches.
const AHEAD_BYTES: u64 = 4 << 20;

/// Of narrow projections many batches fit into [`AHEAD_BYTES`]; so many hide the way to any server.
const MOST_AHEAD: usize = 16;

/// Reads batches of a table, each within the memory budget.
#[derive(Clone)]
pub(crate) struct BatchSource {
    pub(crate) reader: TableReader,
    pub(crate) entry: Arc<dyn EntryReader>,
    pub(crate) budget: MemoryBudget,
}

impl BatchSource {
    /// The batch at this place. One beyond the whole budget, which another writer may have made, takes all
    /// of it. A read for a put takes what is free, and does not wait.
    pub(crate) async fn batch(&self, place: usize) -> Result<RecordBatch> {
        let held = self.held(place)?;
        let _reservation = match feeds_a_put() {
            true => self.budget.try_reserve(held)?,
            false => Some(self.budget.reserve(held).await?),
        };
        self.reader.batch(place).await
    }

    /// Bytes that a read fetches and decompresses.
    fn held(&self, place: usize) -> Result<u64> {
        let stored = self.reader.fetched_bytes(place)?;
        let fetched = if self.is_in_place() { 0 } else { 1 };
        let plain = match self.reader.is_compressed(place)? {
            Some(false) => 0,
            Some(true) | None => PLAIN_FACTOR,
        };
        let held = stored.saturating_mul(fetched + plain);
        Ok(held.min(self.budget.limit()))
    }

    fn is_in_place(&self) -> bool {
        self.entry.contiguous().is_some()
    }

    /// Reads a batch beside the caller.
    fn start(&self, place: usize, reservation: Reservation) -> Option<Ahead> {
        let bytes = reservation.bytes();
        let (sender, result) = oneshot::channel();
        let reader = self.reader.clone();
        let read = async move {
            let batch = reader.batch(place).await;
            drop(reservation);
            // Whoever asked may have gone.
            sender.send(batch).ok();
        };
        background(read).then_some(Ahead { bytes, result })
    }
}

/// A batch that is being read, or was.
struct Ahead {
    bytes: u64,
    result: oneshot::Receiver<Result<RecordBatch>>,
}

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

    /// All of them at once, two under way: while one is decoded the other is fetched.
    pub(crate) async fn read_all(source: BatchSource) -> Result<Vec<RecordBatch>> {
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
            Some(front) => (&mut front.result).await.unwrap_or_else(|_lost| {
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
        let mut bytes: u64 = self.ahead.iter().map(|ahead| ahead.bytes).sum();
        while self.ahead.len() < MOST_AHEAD.min(self.len()) {
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
