//! A store that answers in time, or says at once that it does not.

mod breaker;
mod entry;
mod options;
mod workers;

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_core::{
    Backend, BoxFuture, Capabilities, ChangeListener, Cursor, EntryInfo, EntryReader, EntryWriter,
    Error, ErrorKind, Expiry, Key, Lease, Outcome, Page, Pruned, Rejection, Result, Usage, Watch,
    WriteMode, WriteOptions, runs_in_place,
};

use crate::stats::Counter;
use crate::timer::Sleep;
use breaker::Breaker;
pub use breaker::BreakerState;
pub use options::GuardOptions;
use options::due_in;
use workers::Workers;

/// The most operations of one store that hang or run on threads of their own; further ones wait for their
/// turn, within their deadlines.
const MOST_THREADS: usize = 128;

/// A store around another one that may hang, fail now and then, or be gone for a while.
///
/// - Every operation has a deadline, whatever runs its future; what is late fails with
///   [`ErrorKind::Timeout`].
/// - What failed with [`ErrorKind::Transient`] or [`ErrorKind::Timeout`] is tried again, as long as its
///   deadline allows, when trying again cannot do harm: not the writes and the commit of a started
///   entry, not a put that depends on what is there ([`WriteMode`]), and not leases.
/// - A store that keeps failing is not asked for a while: operations fail at once with
///   [`ErrorKind::Transient`], and say since when and until when. Then one operation at a time tries
///   whether it is back. Only what a store does counts (the two kinds above, [`ErrorKind::Permanent`],
///   [`ErrorKind::Authentication`]). Reads and writes are counted apart.
///
/// Bytes of an entry that are at hand ([`EntryReader::contiguous`]) are read as before: the store is
/// not asked. Clones share the store and what is known of it.
///
/// # Deadlines
///
/// An operation that is late is given up: its future is dropped, or ends by itself on its thread, as
/// does blocking work under way, and what comes of it is dropped. A lease is released with that, and
/// a started entry leaves the store as it was; but a put, a removal or a commit may still take effect.
///
/// Inside a tokio runtime (feature `tokio`) a deadline costs nothing as long as the store answers without
/// waiting. Under [`ck_core::block_on`] and in other executors the store may block the thread that polls,
/// so each operation with a deadline runs on a thread of the guard, which is used again; there are at
/// most 128.
///
/// What opens entries by reading all of them, such as an `Encrypted` store, belongs around a guard, not into it:
/// an open has the deadline of a small question.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use ck_cache::{Cache, Guard, GuardOptions, open_store};
///
/// # let dir = tempfile::tempdir()?;
/// # let url = format!("file:{}", dir.path().display());
/// # /*
/// let url = "file:/mnt/shared/ck";
/// # */
/// let options = GuardOptions::new().with_deadline(Duration::from_millis(500));
/// let store = Guard::new(open_store(&url)?, options)?;
/// let cache = Cache::builder(Arc::new(store.clone())).build();
/// # let _ = cache;
/// assert_eq!(store.stats().timeouts, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Guard(Arc<Shared>);

struct Shared {
    store: Arc<dyn Backend>,
    url: String,
    options: GuardOptions,
    reads: Breaker,
    writes: Breaker,
    workers: Workers,
    retries: Counter,
    timeouts: Counter,
}

/// What a [`Guard`] has seen of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GuardStats {
    /// Attempts after the first one of an operation.
    pub retries: u64,
    /// Operations that were given up at their deadline.
    pub timeouts: u64,
    /// How often a breaker opened after it was closed.
    pub openings: u64,
    /// Whether the store is asked to open, look at, list and read entries.
    pub reads: BreakerState,
    /// Whether it is asked for everything else.
    pub writes: BreakerState,
    /// Threads of the guard that run an operation, hang in one, or wait for the next. They end when they had
    /// nothing to do for a second.
    pub threads: usize,
}

impl Guard {
    /// Guards `store`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] for an option out of range.
    pub fn new(store: Arc<dyn Backend>, options: GuardOptions) -> Result<Self> {
        options.check()?;
        let url = store.url();
        Ok(Self(Arc::new(Shared {
            reads: Breaker::new(options.breaker(), &url, "reads"),
            writes: Breaker::new(options.breaker(), &url, "writes"),
            workers: Workers::new(MOST_THREADS),
            retries: Counter::new("ck_cache_retries_total"),
            timeouts: Counter::new("ck_cache_timeouts_total"),
            store,
            url,
            options,
        })))
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> GuardStats {
        let shared = &*self.0;
        GuardStats {
            retries: shared.retries.get(),
            timeouts: shared.timeouts.get(),
            openings: shared.reads.openings() + shared.writes.openings(),
            reads: shared.reads.state(),
            writes: shared.writes.state(),
            threads: shared.workers.threads(),
        }
    }

    /// Runs what `attempt` makes of a shared store, again if it failed and may succeed then.
    async fn repeat<T, F>(&self, what: What<'_>, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let options = &self.0.options;
        let due = self.due(&what);
        let mut failed: Option<Error> = None;
        let mut retry = 0;
        loop {
            // A breaker that opened meanwhile has less to say than the failure itself.
            let permit = match self.breaker(&what).permit() {
                Ok(permit) => permit,
                Err(refusal) => return Err(failed.unwrap_or(refusal)),
            };
            let result = match self.within(due, attempt()).await {
                Some(result) => result,
                None => Err(self.late(&what, failed.take())),
            };
            permit.record(&result);
            let error = match result {
                Err(error) if retry < options.retries() && may_pass(&error) => error,
                result => return result,
            };
            let pause = options.pause(retry);
            let Some(again) = due_in(Some(pause)) else {
                return Err(error);
            };
            if due.is_some_and(|due| again >= due) {
                return Err(error);
            }
            tracing::debug!(store = %self.0.url, operation = what.operation, ?pause, %error, "trying again");
            Sleep::until(again).await;
            self.0.retries.add(1);
            retry += 1;
            failed = Some(error);
        }
    }

    /// Runs `attempt` once.
    async fn once<T, F>(&self, what: What<'_>, attempt: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let permit = self.breaker(&what).permit()?;
        let result = match self.within(self.due(&what), attempt).await {
            Some(result) => result,
            None => Err(self.late(&what, None)),
        };
        permit.record(&result);
        result
    }

    /// What comes of `attempt`; `None` when it is late.
    async fn within<T, F>(&self, due: Option<Instant>, attempt: F) -> Option<Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let Some(due) = due else {
            return Some(attempt.await);
        };
        if runs_in_place() {
            let answer = self.0.workers.run(Box::pin(attempt));
            before(due, pin!(answer)).await
        } else {
            before(due, pin!(attempt)).await
        }
    }

    fn due(&self, what: &What<'_>) -> Option<Instant> {
        due_in(self.time(what))
    }

    fn time(&self, what: &What<'_>) -> Option<Duration> {
        self.0.options.time_for(what.bytes?)
    }

    fn breaker(&self, what: &What<'_>) -> &Breaker {
        if what.writes {
            &self.0.writes
        } else {
            &self.0.reads
        }
    }

    fn late(&self, what: &What<'_>, failed: Option<Error>) -> Error {
        self.0.timeouts.add(1);
        let mut error = Error::new(ErrorKind::Timeout, "the store did not answer in time")
            .with("store", &self.0.url)
            .with("operation", what.operation);
        if let Some(key) = what.key {
            error = error.with("key", key);
        }
        if let Some(time) = self.time(what) {
            error = error.with("deadline", format_args!("{time:.1?}"));
        }
        match failed {
            Some(failed) => error.with_source(failed),
            None => error,
        }
    }
}

/// What an operation is, for deadlines, breakers and messages.
#[derive(Clone, Copy)]
struct What<'a> {
    operation: &'static str,
    writes: bool,
    key: Option<&'a Key>,
    /// The bytes it moves; `None` when it is not hurried.
    bytes: Option<u64>,
}

impl<'a> What<'a> {
    fn reads(operation: &'static str, key: &'a Key) -> Self {
        Self {
            operation,
            writes: false,
            key: Some(key),
            bytes: Some(0),
        }
    }

    fn writes(operation: &'static str, key: &'a Key) -> Self {
        Self {
            writes: true,
            ..Self::reads(operation, key)
        }
    }

    /// Of the whole store.
    fn all(operation: &'static str) -> Self {
        Self {
            operation,
            writes: false,
            key: None,
            bytes: Some(0),
        }
    }

    fn moving(self, bytes: u64) -> Self {
        Self {
            bytes: Some(bytes),
            ..self
        }
    }

    fn unhurried(self) -> Self {
        Self {
            bytes: None,
            ..self
        }
    }
}

fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Transient | ErrorKind::Timeout)
}

fn len_of<'a>(parts: impl IntoIterator<Item = &'a Bytes>) -> u64 {
    parts.into_iter().map(|part| part.len() as u64).sum()
}

/// What comes of `future`; `None` when it is not there at `due`. Asks for no timer before the future
/// has to wait.
async fn before<F: Future>(due: Instant, mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut sleep = Sleep::until(due);
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| None)
    })
    .await
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("store", &self.0.store)
            .field("options", &self.0.options)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Backend for Guard {
    fn url(&self) -> String {
        self.0.url.clone()
    }

    fn name_of(&self, key: &Key) -> String {
        self.0.store.name_of(key)
    }

    fn capabilities(&self) -> Capabilities {
        self.0.store.capabilities()
    }

    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>> {
        Box::pin(async move {
            let opened = self.repeat(What::reads("open", key), || {
                let (store, key) = (Arc::clone(&self.0.store), key.clone());
                async move { store.open(&key).await }
            });
            let entry = opened.await?;
            Ok(entry.map(|entry| entry::guard_reader(self, key, entry)))
        })
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        Box::pin(async move {
            let created = self.repeat(What::writes("create", key), || {
                let (store, key) = (Arc::clone(&self.0.store), key.clone());
                async move { store.create(&key, options).await }
            });
            Ok(match created.await? {
                ControlFlow::Continue(writer) => {
                    ControlFlow::Continue(entry::guard_writer(self, key, writer))
                }
                rejected @ ControlFlow::Break(_) => rejected,
            })
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        head: Bytes,
        body: Vec<Bytes>,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        let bytes = len_of(body.iter().chain([&head]));
        let what = What::writes("put", key).moving(bytes);
        let put = move |head, body| {
            let (store, key) = (Arc::clone(&self.0.store), key.clone());
            async move { store.put(&key, head, body, options).await }
        };
        if options.mode == WriteMode::Overwrite {
            Box::pin(self.repeat(what, move || put(head.clone(), body.clone())))
        } else {
            // If the first attempt succeeded and only its answer was lost, the second would say that
            // another writer was there.
            Box::pin(self.once(what, put(head, body)))
        }
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        Box::pin(self.repeat(What::reads("stat", key), || {
            let (store, key) = (Arc::clone(&self.0.store), key.clone());
            async move { store.stat(&key).await }
        }))
    }

    fn touch<'a>(&'a self, key: &'a Key, expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.repeat(What::writes("touch", key), move || {
            let (store, key) = (Arc::clone(&self.0.store), key.clone());
            async move { store.touch(&key, expiry).await }
        }))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.repeat(What::writes("remove", key), || {
            let (store, key) = (Arc::clone(&self.0.store), key.clone());
            async move { store.remove(&key).await }
        }))
    }

    fn list(&self, cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>> {
        Box::pin(self.repeat(What::all("list").unhurried(), move || {
            let (store, cursor) = (Arc::clone(&self.0.store), cursor.clone());
            async move { store.list(cursor, head_bytes).await }
        }))
    }

    fn lease<'a>(
        &'a self,
        key: &'a Key,
        term: Duration,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Lease>>>> {
        Box::pin(async move {
            // Not tried again: a lease whose grant was lost would look like somebody else's.
            let (store, name) = (Arc::clone(&self.0.store), key.clone());
            let asked = async move { store.lease(&name, term).await };
            let lease = self.once(What::writes("lease", key), asked).await?;
            Ok(lease.map(|lease| entry::guard_lease(self, key, lease)))
        })
    }

    fn watch(&self, listener: Arc<dyn ChangeListener>) -> Result<Watch> {
        self.0.store.watch(listener)
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        Box::pin(self.repeat(What::all("usage"), || {
            let store = Arc::clone(&self.0.store);
            async move { store.usage().await }
        }))
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        let what = What {
            writes: true,
            ..What::all("prune").unhurried()
        };
        Box::pin(self.repeat(what, || {
            let store = Arc::clone(&self.0.store);
            async move { store.prune().await }
        }))
    }
}
