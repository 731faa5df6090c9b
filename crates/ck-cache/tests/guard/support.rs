//! A store that can be told to misbehave.

use std::future::Future;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_backend_file::{FileBackend, ReadMode};
use ck_cache::{Guard, GuardOptions};
use ck_core::{
    Backend, BoxFuture, Capabilities, Cursor, EntryInfo, EntryReader, EntryWriter, Error,
    ErrorKind, Expiry, Key, Lease, Outcome, Page, Pruned, Rejection, Result, Usage, WriteOptions,
    offload,
};

/// What the store does with the next operations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// So many operations fail like this.
    Fails(ErrorKind, usize),
    /// The thread that polls, or the one the work is handed to, hangs until the gate opens.
    Blocks,
    /// Never answers, and blocks nothing.
    Silent,
    /// Fails once, then blocks.
    FailsThenBlocks,
    /// Takes that long.
    Slow(Duration),
    Panics,
    /// Works inside a runtime only.
    NeedsTokio,
}

/// Lets through when it is opened; after ten seconds in any case, so that a failing test ends.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let long = Duration::from_secs(10);
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_timeout_while(open, long, |open| !*open));
    }
}

/// What the store saw.
pub(crate) struct Watch {
    mood: Mutex<Mood>,
    pub(crate) gate: Gate,
    calls: AtomicUsize,
    /// Operations under way, writers and leases included.
    alive: AtomicUsize,
    /// Leases granted, and those not yet given up.
    pub(crate) granted: AtomicUsize,
    pub(crate) leases: AtomicUsize,
    thread: Mutex<Option<ThreadId>>,
}

impl Watch {
    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Operations that were begun.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    pub(crate) fn alive(&self) -> usize {
        self.alive.load(SeqCst)
    }

    /// Where the last operation ran.
    pub(crate) fn thread(&self) -> Option<ThreadId> {
        *self.thread.lock().unwrap()
    }

    /// The part that misbehaves.
    async fn step(self: &Arc<Self>) -> Result<()> {
        self.calls.fetch_add(1, SeqCst);
        *self.thread.lock().unwrap() = Some(thread::current().id());
        let mood = {
            let mut mood = self.mood.lock().unwrap();
            let now = *mood;
            match &mut *mood {
                Mood::Fails(_, left) if *left > 0 => *left -= 1,
                Mood::FailsThenBlocks => *mood = Mood::Blocks,
                _ => {}
            }
            now
        };
        match mood {
            Mood::Well | Mood::Fails(_, 0) => {}
            Mood::Fails(kind, _) => return Err(Error::new(kind, "as told")),
            Mood::FailsThenBlocks => return Err(Error::new(ErrorKind::Transient, "as told")),
            Mood::Blocks => {
                let watch = Arc::clone(self);
                offload(move || watch.gate.pass()).await;
            }
            Mood::Silent => std::future::pending().await,
            Mood::Slow(time) => offload(move || thread::sleep(time)).await,
            Mood::Panics => panic!("as told"),
            Mood::NeedsTokio => drop(tokio::runtime::Handle::current()),
        }
        Ok(())
    }
}

struct Alive(Arc<Watch>);

impl Alive {
    fn new(watch: &Arc<Watch>) -> Self {
        watch.alive.fetch_add(1, SeqCst);
        Self(Arc::clone(watch))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, SeqCst);
    }
}

/// A file store with moods.
pub(crate) struct Moody {
    inner: FileBackend,
    watch: Arc<Watch>,
    _dir: tempfile::TempDir,
}

impl std::fmt::Debug for Moody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Moody")
    }
}

impl Moody {
    fn after<'a, T: 'a>(
        &self,
        then: impl Future<Output = Result<T>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        after(&self.watch, then)
    }
}

fn after<'a, T: 'a>(
    watch: &Arc<Watch>,
    then: impl Future<Output = Result<T>> + Send + 'a,
) -> BoxFuture<'a, Result<T>> {
    let watch = Arc::clone(watch);
    Box::pin(async move {
        let _alive = Alive::new(&watch);
        watch.step().await?;
        then.await
    })
}

impl Backend for Moody {
    fn url(&self) -> String {
        "moody:".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities().with_leases(true)
    }

    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>> {
        self.after(async move {
            let entry = self.inner.open(key).await?;
            let watch = Arc::clone(&self.watch);
            Ok(entry.map(|entry| Arc::new(MoodyReader { entry, watch }) as Arc<dyn EntryReader>))
        })
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        self.after(async move {
            let ControlFlow::Continue(inner) = self.inner.create(key, options).await? else {
                panic!("there is room");
            };
            let writer = MoodyWriter {
                inner,
                watch: Arc::clone(&self.watch),
                _alive: Alive::new(&self.watch),
            };
            Ok(ControlFlow::Continue(
                Box::new(writer) as Box<dyn EntryWriter>
            ))
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        head: Bytes,
        body: Vec<Bytes>,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        self.after(self.inner.put(key, head, body, options))
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        self.after(self.inner.stat(key))
    }

    fn touch<'a>(&'a self, key: &'a Key, expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        self.after(self.inner.touch(key, expiry))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        self.after(self.inner.remove(key))
    }

    fn list(&self, cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>> {
        self.after(self.inner.list(cursor, head_bytes))
    }

    fn lease<'a>(
        &'a self,
        _key: &'a Key,
        _term: Duration,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Lease>>>> {
        let watch = Arc::clone(&self.watch);
        let blocks = *watch.mood.lock().unwrap() == Mood::Blocks;
        if !blocks {
            return self.after(async move { Ok(Some(MoodyLease::grant(watch))) });
        }
        // Granted by the very work that blocks, as stores on a disk do.
        watch.calls.fetch_add(1, SeqCst);
        Box::pin(async move {
            Ok(offload(move || {
                watch.gate.pass();
                Some(MoodyLease::grant(watch))
            })
            .await)
        })
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        self.after(self.inner.usage())
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        self.after(self.inner.prune())
    }
}

#[derive(Debug)]
struct MoodyReader {
    entry: Arc<dyn EntryReader>,
    watch: Arc<Watch>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl EntryReader for MoodyReader {
    fn len(&self) -> u64 {
        self.entry.len()
    }

    fn expiry(&self) -> Expiry {
        self.entry.expiry()
    }

    fn contiguous(&self) -> Option<&Bytes> {
        self.entry.contiguous()
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        after(&self.watch, self.entry.read(range))
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        after(&self.watch, self.entry.discard())
    }
}

struct MoodyWriter {
    inner: Box<dyn EntryWriter>,
    watch: Arc<Watch>,
    _alive: Alive,
}

impl EntryWriter for MoodyWriter {
    fn write(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>> {
        after(&self.watch, self.inner.write(parts))
    }

    fn commit(self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>> {
        let Self {
            inner,
            watch,
            _alive,
        } = *self;
        after(&watch, async move {
            let _alive = _alive;
            inner.commit(head).await
        })
    }
}

struct MoodyLease(Arc<Watch>);

impl MoodyLease {
    fn grant(watch: Arc<Watch>) -> Box<dyn Lease> {
        watch.leases.fetch_add(1, SeqCst);
        watch.granted.fetch_add(1, SeqCst);
        Box::new(Self(watch))
    }
}

impl Lease for MoodyLease {
    fn renew(&mut self) -> BoxFuture<'_, Result<bool>> {
        after(&self.0, async { Ok(true) })
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        let watch = Arc::clone(&self.0);
        after(&watch, async move {
            drop(self);
            Ok(())
        })
    }
}

impl Drop for MoodyLease {
    fn drop(&mut self) {
        self.0.leases.fetch_sub(1, SeqCst);
    }
}

/// A guarded store with moods, and how to set them.
pub(crate) fn guarded(options: GuardOptions) -> (Guard, Arc<Watch>) {
    let dir = tempfile::tempdir().unwrap();
    let watch = Arc::new(Watch {
        mood: Mutex::new(Mood::Well),
        gate: Gate::default(),
        calls: AtomicUsize::new(0),
        alive: AtomicUsize::new(0),
        granted: AtomicUsize::new(0),
        leases: AtomicUsize::new(0),
        thread: Mutex::new(None),
    });
    let moody = Moody {
        // Large entries are read and not mapped.
        inner: FileBackend::builder(dir.path())
            .read_mode(ReadMode::Pread)
            .build()
            .unwrap(),
        watch: Arc::clone(&watch),
        _dir: dir,
    };
    (Guard::new(Arc::new(moody), options).unwrap(), watch)
}

/// Retries that do not take long.
pub(crate) fn options() -> GuardOptions {
    let short = Duration::from_millis(1);
    GuardOptions::new().with_pauses(short, short)
}

pub(crate) fn key() -> Key {
    Key::new("key")
}

pub(crate) async fn put(guard: &Guard, bytes: &'static [u8]) -> Result<Outcome> {
    let body = vec![Bytes::from_static(bytes)];
    guard
        .put(&key(), Bytes::new(), body, WriteOptions::new())
        .await
}

/// An entry too large to be read when it is opened.
pub(crate) async fn put_large(guard: &Guard) -> Bytes {
    let bytes = Bytes::from(vec![7; 1 << 20]);
    let body = || vec![bytes.clone()];
    let key = key();
    let put = || guard.put(&key, Bytes::new(), body(), WriteOptions::new());
    assert!(eventually(put).await.is_stored());
    bytes
}

pub(crate) async fn open(guard: &Guard) -> Arc<dyn EntryReader> {
    let key = key();
    eventually(|| guard.open(&key)).await.expect("an entry")
}

pub(crate) async fn create(guard: &Guard) -> Box<dyn EntryWriter> {
    let key = key();
    let created = eventually(|| guard.create(&key, WriteOptions::new())).await;
    created.continue_value().expect("there is room")
}

pub(crate) async fn lease(guard: &Guard) -> Box<dyn Lease> {
    let key = key();
    let lease = eventually(|| guard.lease(&key, Duration::from_secs(9))).await;
    lease.expect("it is free")
}

pub(crate) async fn bytes_of(guard: &Guard) -> Bytes {
    let entry = open(guard).await;
    entry.read(0..entry.len()).await.unwrap()
}

/// For what has to succeed within a short deadline on a machine that is busy with other things.
pub(crate) async fn eventually<T, F: Future<Output = Result<T>>>(operation: impl Fn() -> F) -> T {
    loop {
        match operation().await {
            Err(error) if error.kind() == ErrorKind::Timeout => {}
            result => return result.unwrap(),
        }
    }
}

#[track_caller]
pub(crate) fn kind_of<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error.kind(),
    }
}

/// Runs all at once, polled by one task.
pub(crate) async fn all<T>(futures: impl IntoIterator<Item = BoxFuture<'_, T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (future, None)).collect();
    std::future::poll_fn(move |cx| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let Poll::Ready(now) = future.as_mut().poll(cx)
            {
                *output = Some(now);
            }
        }
        if futures.iter().any(|(_, output)| output.is_none()) {
            return Poll::Pending;
        }
        Poll::Ready(
            futures
                .iter_mut()
                .filter_map(|(_, output)| output.take())
                .collect(),
        )
    })
    .await
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a test in every kind of executor.
pub(crate) fn everywhere<F: Future<Output = ()> + Send + 'static>(test: impl Fn() -> F) {
    ck_core::block_on(test());
    pollster::block_on(test());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(test());
    // Blocking inside of a runtime.
    runtime.block_on(async { ck_core::block_on(test()) });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let task = runtime.spawn(test());
    runtime.block_on(task).unwrap();
}
