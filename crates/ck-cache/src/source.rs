//! Where the batches of a put come from, and how they are pulled through the encoder.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;

use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use ck_arrow::{Encoded, Encoder};
use ck_core::{Error, ErrorKind, Result, offload};
use futures_core::Stream;

/// Batches still to come.
pub(crate) enum Source<'a> {
    /// May block or burn CPU when pulled.
    Blocking(Box<dyn Iterator<Item = Result<RecordBatch>> + Send>),
    /// Waits asynchronously.
    Stream(Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send + 'a>>),
}

impl Source<'_> {
    /// All batches, if their rows have no more than `limit` bytes together.
    pub(crate) async fn collect(self, limit: u64) -> Result<Collected> {
        let mut all = Collected::default();
        match self {
            Self::Blocking(mut batches) => {
                let collect = move || {
                    while all.bytes <= limit
                        && let Some(batch) = batches.next()
                    {
                        all.push(batch?);
                    }
                    Ok(all)
                };
                offload(collect).await
            }
            Self::Stream(mut stream) => {
                while all.bytes <= limit
                    && let Some(batch) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await
                {
                    all.push(batch?);
                }
                Ok(all)
            }
        }
    }
}

/// The batches of a source.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) batches: Vec<RecordBatch>,
    /// What their rows take; with more than the limit, there are more batches.
    pub(crate) bytes: u64,
}

impl Collected {
    fn push(&mut self, batch: RecordBatch) {
        let bytes = batch.columns().iter().map(|column| {
            let rows = column.to_data().get_slice_memory_size();
            rows.unwrap_or_else(|_| column.get_buffer_memory_size())
        });
        self.bytes = self.bytes.saturating_add(bytes.sum::<usize>() as u64);
        self.batches.push(batch);
    }
}

/// A failure of the caller's source, told apart from those of the store by its `source()`.
pub(crate) fn source_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => {
            Error::new(ErrorKind::Permanent, "the source of the table failed").with_source(error)
        }
    }
}

thread_local! {
    static FEEDS_A_PUT: Cell<bool> = const { Cell::new(false) };
}

/// Asks a source for more. The put has its share of the memory budget already, so whatever the source reads
/// from a cache with the same budget must not wait for more: each of several puts could wait for the others.
fn feeding<T>(ask: impl FnOnce() -> T) -> T {
    struct Scope(bool);
    impl Drop for Scope {
        fn drop(&mut self) {
            FEEDS_A_PUT.set(self.0);
        }
    }
    let _scope = Scope(FEEDS_A_PUT.replace(true));
    ask()
}

/// Whether this thread asks the source of a put for more.
pub(crate) fn feeds_a_put() -> bool {
    FEEDS_A_PUT.get()
}

/// Turns a source into encoded segments, away from async threads.
pub(crate) struct Producer<'a> {
    // In `Option`s because each step moves them to another thread and back.
    work: Option<Work>,
    stream: Option<Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send + 'a>>>,
}

/// What a step needs on whatever thread it runs.
struct Work {
    encoder: Encoder,
    iterator: Option<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>>,
    ended: bool,
}

enum Step {
    Segment(Vec<Bytes>),
    Hungry,
    Done,
}

impl<'a> Producer<'a> {
    pub(crate) fn new(encoder: Encoder, source: Source<'a>) -> Self {
        let (iterator, stream) = match source {
            Source::Blocking(iterator) => (Some(iterator), None),
            Source::Stream(stream) => (None, Some(stream)),
        };
        Self {
            work: Some(Work {
                encoder,
                iterator,
                ended: false,
            }),
            stream,
        }
    }

    /// The next bytes to store; `None` at the end. Not to be called again after an error.
    pub(crate) async fn next_segment(&mut self) -> Result<Option<Vec<Bytes>>> {
        loop {
            let work = self.take()?;
            let (mut work, step) = offload(move || work.step()).await?;
            if let (Step::Hungry, Some(stream)) = (&step, &mut self.stream) {
                match poll_fn(|cx| feeding(|| stream.as_mut().poll_next(cx))).await {
                    Some(batch) => work.encoder.push(batch?)?,
                    None => work.end(),
                }
            }
            self.work = Some(work);
            match step {
                Step::Segment(parts) => return Ok(Some(parts)),
                Step::Done => return Ok(None),
                Step::Hungry => {}
            }
        }
    }

    /// The head of the entry, once all segments are out.
    pub(crate) fn finish(mut self) -> Result<Encoded> {
        self.take()?.encoder.finish()
    }

    fn take(&mut self) -> Result<Work> {
        self.work.take().ok_or_else(|| {
            Error::new(
                ErrorKind::Misuse,
                "the encoder is gone because an earlier step failed",
            )
        })
    }
}

impl Work {
    /// Goes on until there is something to store, or until the stream has to be asked.
    fn step(mut self) -> Result<(Self, Step)> {
        loop {
            if let Some(parts) = self.encoder.next_segment()? {
                return Ok((self, Step::Segment(parts)));
            }
            if self.ended {
                return Ok((self, Step::Done));
            }
            let Some(iterator) = &mut self.iterator else {
                return Ok((self, Step::Hungry));
            };
            match feeding(|| iterator.next()) {
                Some(batch) => self.encoder.push(batch?)?,
                None => self.end(),
            }
        }
    }

    fn end(&mut self) {
        self.encoder.end();
        self.ended = true;
        // The source may hold much: it goes before the last bytes are written.
        self.iterator = None;
    }
}
