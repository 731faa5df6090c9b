use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use arrow_array::RecordBatch;
use ck_core::{Error, ErrorKind, Result, background};
use tokio::sync::{Semaphore, mpsc};

use crate::batches::{BatchSource, Brought, Fetches};

/// As many as compress a table.
const MOST_WORKERS: usize = 4;

/// Fewer stored bytes than this for each worker are not worth a thread.
const WORKER_BYTES: u64 = 1 << 20;

static CORES: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// Who decodes the batches of a table together, the caller first of all. The caller brings the batches and takes
/// the memory for them: what each decodes into a heap of its own stays with the process when the table goes.
pub(crate) struct Crew {
    source: BatchSource,
    work: Arc<Work>,
}

impl Crew {
    pub(crate) fn new(source: BatchSource) -> Self {
        let work = Work {
            ready: Mutex::default(),
            count: Semaphore::new(0),
        };
        Self {
            source,
            work: Arc::new(work),
        }
    }

    /// All batches, in order. What has to be fetched, two under way: while one is decoded the other is fetched.
    /// Once the future is dropped, helpers finish the batch they are at.
    pub(crate) async fn read_all(self) -> Result<Vec<RecordBatch>> {
        if self.source.reader.num_batches() == 1 {
            return Ok(vec![self.source.batch(0).await?]);
        }
        let helpers = self.helpers()?;
        self.read_with(helpers).await
    }

    async fn read_with(self, helpers: usize) -> Result<Vec<RecordBatch>> {
        let mut all = All {
            batches: vec![None; self.source.reader.num_batches()],
            source: &self.source,
        };
        let mut others = self.start_helpers(helpers);
        let mut fetches = Fetches::new(self.source.clone());
        loop {
            fetches.read_ahead(2);
            // One for everybody. Waiting is for those who have nothing to do.
            while self.work.len() <= helpers {
                let brought = match self.work.len() {
                    0 => fetches.next().await,
                    _ => fetches.next_now().await,
                };
                let Some(brought) = brought else { break };
                let mut brought = brought?;
                // Where the bytes of an earlier batch were, those of the next fit; what stays would leave holes.
                fetches.read_ahead(2);
                brought.batch.reserve();
                self.work.add(brought);
            }
            let Some(brought) = self.work.take() else {
                if fetches.len() == 0 {
                    break;
                }
                continue;
            };
            let place = brought.place;
            all.set(place, brought.decode().await)?;
            while let Ok((place, batch)) = others.try_recv() {
                all.set(place, batch)?;
            }
        }
        // Helpers that no runtime comes to have begun nothing, and end.
        for brought in self.work.end() {
            let place = brought.place;
            all.set(place, brought.decode().await)?;
        }
        while all.batches.iter().any(Option::is_none)
            && let Some((place, batch)) = others.recv().await
        {
            all.set(place, batch)?;
        }
        let all = all.batches.into_iter().collect::<Option<Vec<_>>>();
        all.ok_or_else(|| {
            Error::new(
                ErrorKind::Transient,
                "a thread that decoded a table has ended before its work was done",
            )
        })
    }

    /// How many are worth their thread.
    fn helpers(&self) -> Result<usize> {
        let reader = &self.source.reader;
        let most = CORES.min(MOST_WORKERS).min(reader.num_batches());
        let (mut helpers, mut bytes) = (0, 0);
        for place in 0..reader.num_batches() {
            if helpers + 1 >= most || !self.source.may_be_compressed(place)? {
                break;
            }
            bytes += reader.fetched_bytes(place)?;
            if bytes > WORKER_BYTES {
                (helpers, bytes) = (helpers + 1, 0);
            }
        }
        Ok(helpers)
    }

    /// Has others do what the caller does not come to.
    fn start_helpers(&self, count: usize) -> mpsc::UnboundedReceiver<(usize, Result<RecordBatch>)> {
        let (sender, batches) = mpsc::unbounded_channel();
        for _ in 0..count {
            let (work, sender) = (Arc::clone(&self.work), sender.clone());
            let help = async move {
                while let Some(brought) = work.wait().await {
                    let place = brought.place;
                    // Whoever asked may have gone.
                    sender.send((place, brought.decode().await)).ok();
                }
            };
            if !background(help) {
                break;
            }
        }
        batches
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        drop(self.work.end());
    }
}

/// What was decoded so far.
struct All<'a> {
    batches: Vec<Option<RecordBatch>>,
    source: &'a BatchSource,
}

impl All<'_> {
    fn set(&mut self, place: usize, batch: Result<RecordBatch>) -> Result<()> {
        let batch = batch?;
        self.source.note(place, &batch)?;
        self.batches[place] = Some(batch);
        Ok(())
    }
}

/// The batches that nobody has begun.
struct Work {
    ready: Mutex<VecDeque<Brought>>,
    /// How many there are; closed when there will be no more.
    count: Semaphore,
}

impl Work {
    /// No code panics while it holds the lock, so a poisoned one still guards a sound state.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Brought>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.count.available_permits()
    }

    fn add(&self, brought: Brought) {
        self.lock().push_back(brought);
        self.count.add_permits(1);
    }

    /// The next one, if there is any.
    fn take(&self) -> Option<Brought> {
        self.count.try_acquire().ok()?.forget();
        self.lock().pop_front()
    }

    /// The next one, once there is one; `None` when there will be none.
    async fn wait(&self) -> Option<Brought> {
        self.count.acquire().await.ok()?.forget();
        self.lock().pop_front()
    }

    /// Nobody begins anything more; what nobody has begun.
    fn end(&self) -> VecDeque<Brought> {
        self.count.close();
        std::mem::take(&mut self.lock())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use arrow_array::{ArrayRef, Int64Array};
    use ck_arrow::{Codec, EncodeOptions, Encoder, TableReader, Verification};
    use ck_core::{EntryReader, MemoryBudget, MemoryEntry, block_on};

    use super::*;

    const BATCHES: usize = 40;

    fn entry() -> (RecordBatch, Vec<u8>) {
        let values = (0..BATCHES as i64 * 8192).map(|n| n.wrapping_mul(0x9E37_79B9) % 100_003);
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let options = EncodeOptions::new()
            .with_codec(Codec::Zstd(3))
            .with_batch_bytes(64 << 10);
        let mut encoder = Encoder::new(batch.schema(), options).unwrap();
        encoder.push(batch.clone()).unwrap();
        encoder.end();
        let mut body = Vec::new();
        while let Some(segment) = encoder.next_segment().unwrap() {
            body.extend(segment);
        }
        let bytes = [&encoder.finish().unwrap().head[..], &body.concat()].concat();
        (batch, bytes)
    }

    fn crew(bytes: Vec<u8>, budget: u64) -> (Arc<dyn EntryReader>, MemoryBudget, Crew) {
        let entry: Arc<dyn EntryReader> = Arc::new(MemoryEntry::new(bytes));
        let opened = TableReader::open(Arc::clone(&entry), Verification::OnTouch);
        let reader = block_on(opened).unwrap();
        assert!(reader.num_batches() >= BATCHES);
        let budget = MemoryBudget::new(budget);
        let source = BatchSource::new(reader, Arc::clone(&entry), budget.clone());
        (entry, budget, Crew::new(source))
    }

    /// Helpers end by themselves.
    fn until(mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_in_order(batches: &[RecordBatch], expected: &RecordBatch) {
        let mut row = 0;
        for batch in batches {
            assert_eq!(*batch, expected.slice(row, batch.num_rows()));
            row += batch.num_rows();
        }
        assert_eq!(row, expected.num_rows());
    }

    #[test]
    fn batches_come_in_order_whoever_decodes_them_and_nothing_is_held_afterwards() {
        let (expected, bytes) = entry();
        let current = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let multi = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        // Room for all, and for one batch alone.
        for room in [1 << 30, 1] {
            for way in 0..4 {
                let (entry, budget, crew) = crew(bytes.clone(), room);
                let read = crew.read_with(3);
                let batches = match way {
                    0 => block_on(read),
                    1 => current.block_on(read),
                    2 => multi.block_on(multi.spawn(read)).unwrap(),
                    _ => current.block_on(async { block_on(read) }),
                };
                is_in_order(&batches.unwrap(), &expected);
                until(|| budget.used() == 0 && Arc::strong_count(&entry) == 1);
            }
        }
    }

    #[test]
    fn a_helper_decodes_what_the_caller_does_not_come_to() {
        let (expected, bytes) = entry();
        let (_entry, _budget, crew) = crew(bytes, 1 << 30);
        let mut others = crew.start_helpers(1);
        let mut fetches = Fetches::new(crew.source.clone());
        let mut batches = Vec::new();
        while let Some(brought) = block_on(fetches.next()) {
            crew.work.add(brought.unwrap());
            let (place, batch) = block_on(others.recv()).unwrap();
            assert_eq!(place, batches.len());
            batches.push(batch.unwrap());
        }
        is_in_order(&batches, &expected);
    }

    #[test]
    fn damage_is_an_error_whoever_finds_it() {
        let (_, bytes) = entry();
        for place in 1..8 {
            let mut bytes = bytes.clone();
            let at = bytes.len() * place / 10;
            bytes[at] ^= 1;
            let (_entry, budget, crew) = crew(bytes, 1 << 30);
            let error = block_on(crew.read_with(3)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            until(|| budget.used() == 0);
        }
    }

    #[test]
    fn helpers_of_a_caller_who_has_gone_begin_nothing_more() {
        let (_, bytes) = entry();
        let (entry, budget, crew) = crew(bytes, 1 << 30);
        let work = Arc::clone(&crew.work);
        let mut fetches = Fetches::new(crew.source.clone());
        work.add(block_on(fetches.next()).unwrap().unwrap());
        drop((fetches, crew));
        assert!(block_on(work.wait()).is_none());
        assert_eq!((budget.used(), Arc::strong_count(&entry)), (0, 1));
    }
}
