use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use ck_codec::CacheKey;
use ck_core::{
    Backend, BoxFuture, Error, ErrorKind, Expiry, Key, Lease, Outcome, Result, WriteMode,
    background, complete,
};
use tokio::sync::oneshot;
use tracing::{Instrument, Span, debug_span};

use crate::cache::{Shared, with_key};
use crate::draft::Draft;
use crate::flight::Turn;
use crate::held::{Content, Form, Held, Life, ValueForm};
use crate::order::Moment;
use crate::tiers::{Landed, Lookup};
use crate::timer::Sleep;
use crate::trace::stage;
use crate::{Cache, LoadOptions, Table};

/// How long to wait before looking again whether another process has finished its load.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long a value that the process holds is not made anew after that has failed.
const REFRESH_AGAIN: Duration = Duration::from_secs(1);

/// A lease is renewed after a third of its term, within these bounds.
const SHORTEST_RENEWAL: Duration = Duration::from_millis(1);
const LONGEST_RENEWAL: Duration = Duration::from_secs(3600);

/// Makes a value when no tier has it.
type Loader = Box<dyn FnOnce() -> BoxFuture<'static, Result<Content>> + Send>;

impl Cache {
    /// The table under `key`; when there is none, the one that `loader` makes, which is then kept. `None`
    /// when the loader says that there is no such table; a stale one is removed then.
    ///
    /// However many tasks, threads and processes (on a store with leases) ask for a key at the same time,
    /// one of them loads and the others wait for its result or its error. If it goes away before it is
    /// done, another one takes over with its own loader. What was put or removed while a load was under
    /// way is newer than what it loads: its callers are given the loaded table, and it is not kept. A
    /// loader that panics fails.
    ///
    /// A stale table is handed out while one call makes a new one in the background. If that fails, and the
    /// process keeps the stale one, it is tried again after a second.
    ///
    /// A table that can be loaded but not kept is handed out all the same; see
    /// [`Stats::store_failures`](crate::Stats::store_failures) and [`Stats::rejected`](crate::Stats::rejected).
    ///
    /// # Errors
    ///
    /// As [`Cache::get_table`] and [`Cache::put_table`], and what the loader reports, shared by all who
    /// waited: an [`Error`] as it is, others as the source of one of the kind
    /// [`ErrorKind::Permanent`](crate::ErrorKind::Permanent).
    pub async fn get_or_load_table<F, L, E>(
        &self,
        key: impl Into<Key>,
        options: &LoadOptions,
        loader: F,
    ) -> Result<Option<Table>>
    where
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Option<Table>, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let loader = || erased(loader, Content::Table);
        let held = self.load(key.into(), Form::Table, options, loader).await?;
        Ok(held.table())
    }

    /// The typed value under `key`; when there is none, the one that `loader` makes, as
    /// [`Cache::get_or_load_table`] does.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get_or_load<K, F, L, V, E>(
        &self,
        key: &K,
        options: &LoadOptions,
        loader: F,
    ) -> Result<Option<Arc<K::Value>>>
    where
        K: CacheKey,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Option<V>, E>> + Send + 'static,
        V: Into<Arc<K::Value>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let loader = || {
            erased(loader, |value: V| {
                let value: Arc<K::Value> = value.into();
                Content::Value(value)
            })
        };
        let form = Form::Value(ValueForm::of(key));
        let held = self
            .load(Key::new(key.key()), form, options, loader)
            .await?;
        Ok(held.value())
    }

    async fn load(
        &self,
        key: Key,
        form: Form,
        options: &LoadOptions,
        loader: impl FnOnce() -> Loader,
    ) -> Result<Arc<Held>> {
        let span = debug_span!("ck.load", %key, kind = form.kind().name());
        self.load_here(key, form, options, loader)
            .instrument(span)
            .await
    }

    async fn load_here(
        &self,
        key: Key,
        form: Form,
        options: &LoadOptions,
        loader: impl FnOnce() -> Loader,
    ) -> Result<Arc<Held>> {
        let key = self.resolve_to_find(key).await?;
        let shared = &self.shared;
        let near = shared.l1_get(&key, form.kind());
        if let Some(held) = near
            .as_ref()
            .filter(|held| held.is_fresh() && !options.is_due(held))
        {
            shared.counters.hits.add(1);
            return Ok(Arc::clone(held));
        }
        // Boxed, so that what finds its value in the process has no large future to move around.
        let loaded = Box::pin(shared.find_or_load(&key, form, options, loader(), near));
        loaded.await.map_err(with_key(&key))
    }
}

fn erased<F, L, T, E>(loader: F, content: impl FnOnce(T) -> Content + Send + 'static) -> Loader
where
    F: FnOnce() -> L + Send + 'static,
    L: Future<Output = Result<Option<T>, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Box::new(move || {
        Box::pin(async move {
            let loaded = loader().await.map_err(load_error)?;
            Ok(loaded.map_or(Content::Absent, content))
        })
    })
}

impl Shared {
    async fn find_or_load(
        self: &Arc<Self>,
        key: &Key,
        form: Form,
        options: &LoadOptions,
        loader: Loader,
        near: Option<Arc<Held>>,
    ) -> Result<Arc<Held>> {
        let kind = form.kind();
        let mut lookup = match near {
            Some(held) => Lookup::Found(held),
            None => self.lookup_behind(key, form).await?,
        };
        loop {
            if let Some(held) = lookup.found() {
                let is_fresh = held.is_fresh();
                self.counters.hits.add(1);
                if !is_fresh {
                    self.counters.stale_hits.add(1);
                }
                if !is_fresh || options.is_due(&held) {
                    self.refresh(key, form, options, loader, &held);
                }
                return Ok(held);
            }
            match self.loads.join(key.clone()).await {
                Turn::Shared(landed) if landed.kind == kind => {
                    self.counters.shared_loads.add(1);
                    return landed.result;
                }
                Turn::Shared(_) => lookup = self.lookup(key, form).await?,
                Turn::Lead(lead) => {
                    // Boxed, so that those who wait hold nothing of the work.
                    let load = self.load(key, form, options, loader, Waiting::Long);
                    let result = Box::pin(load).await;
                    // Only a refresh gives way to somebody else.
                    let result = result.and_then(|held| {
                        held.ok_or_else(|| Error::new(ErrorKind::Transient, "nobody has loaded"))
                    });
                    lead.finish(Landed {
                        kind,
                        result: result.clone(),
                    });
                    return result;
                }
            }
        }
    }

    /// Makes the value anew beside the caller, unless somebody does already.
    fn refresh(
        self: &Arc<Self>,
        key: &Key,
        form: Form,
        options: &LoadOptions,
        loader: Loader,
        old: &Arc<Held>,
    ) {
        if !old.may_be_refreshed() {
            return;
        }
        let Some(lead) = self.loads.try_lead(key.clone()) else {
            return;
        };
        let (shared, key, options) = (Arc::clone(self), key.clone(), options.clone());
        let old = Arc::clone(old);
        let span = debug_span!(parent: None, "ck.refresh", %key, kind = form.kind().name());
        span.follows_from(Span::current());
        let refresh = async move {
            shared.counters.refreshes.add(1);
            let loaded = shared
                .load(&key, form, &options, loader, Waiting::Not)
                .await;
            let result = match loaded {
                Ok(Some(held)) => Ok(held),
                // Another process is at it: dropping the lead leaves the rest to those who wait.
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%key, %error, "the value could not be made anew");
                    old.put_off_refresh(REFRESH_AGAIN);
                    Err(error)
                }
            };
            lead.finish(Landed {
                kind: form.kind(),
                result,
            });
        };
        if !background(refresh.instrument(span)) {
            tracing::warn!("no thread for a refresh");
        }
    }

    /// Loads and publishes, unless another process has in the meantime. `None` when another one is at it
    /// and `waiting` says not to wait for it.
    async fn load(
        self: &Arc<Self>,
        key: &Key,
        form: Form,
        options: &LoadOptions,
        loader: Loader,
        waiting: Waiting,
    ) -> Result<Option<Arc<Held>>> {
        let before = self.order.now(key);
        let backend = self.backend.as_ref().filter(|_| form.is_storable());
        let mut lease = None;
        if let Some(backend) = backend
            && backend.capabilities().leases
            && let Some(term) = options.lease_term()
        {
            match self.acquire(backend, key, form, term, waiting).await? {
                Acquired::Lease(taken) => {
                    lease = taken.and_then(|taken| Renewal::start(taken, term))
                }
                Acquired::Found(held) => return Ok(Some(held)),
                Acquired::Busy => return Ok(None),
            }
        }
        // Somebody may have finished since the last look.
        let is_enough = |held: &Held| match waiting {
            Waiting::Long => true,
            Waiting::Not => !options.is_due(held),
        };
        let lookup = self.look_again(backend, key, form, is_enough).await?;
        let loaded = match lookup.fresh().filter(|held| is_enough(held)) {
            Some(held) => Ok(Arc::clone(held)),
            None => {
                // A value that the store did not take is in the process alone.
                let replaces = lookup.found().is_some() || self.l1_get(key, form.kind()).is_some();
                self.make(key, form, options, loader, before, replaces)
                    .await
            }
        };
        if let Some(lease) = lease {
            lease.end().await;
        }
        loaded.map(Some)
    }

    /// What is stored now, past the process's own tier when what that has is stale or not enough.
    async fn look_again(
        self: &Arc<Self>,
        backend: Option<&Arc<dyn Backend>>,
        key: &Key,
        form: Form,
        is_enough: impl Fn(&Held) -> bool,
    ) -> Result<Lookup> {
        match backend {
            None => self.lookup(key, form).await,
            Some(backend) => {
                let held = self.l1_fresh(key, form.kind());
                if let Some(held) = held.filter(|held| is_enough(held)) {
                    return Ok(Lookup::Found(held));
                }
                self.read_through(backend, key, form).await
            }
        }
    }

    /// Takes the lease on `key`, or finds what its holder has made.
    async fn acquire(
        self: &Arc<Self>,
        backend: &Arc<dyn Backend>,
        key: &Key,
        form: Form,
        term: Duration,
        waiting: Waiting,
    ) -> Result<Acquired> {
        let mut pause = FIRST_PAUSE;
        loop {
            match backend.lease(key, term).await {
                Ok(Some(lease)) => return Ok(Acquired::Lease(Some(lease))),
                Ok(None) => {}
                Err(error) => {
                    // Without a lease two processes may load: better than none.
                    self.counters.store_failures.add(1);
                    tracing::warn!(%key, %error, "no lease from the store");
                    return Ok(Acquired::Lease(None));
                }
            }
            if matches!(waiting, Waiting::Not) {
                return Ok(Acquired::Busy);
            }
            Sleep::until(Instant::now() + pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let lookup = self.look_again(Some(backend), key, form, |_| true).await?;
            if let Some(held) = lookup.fresh() {
                return Ok(Acquired::Found(Arc::clone(held)));
            }
        }
    }

    /// Runs the loader and publishes what it made, in place of a stale or due value if `replaces` says so.
    async fn make(
        self: &Arc<Self>,
        key: &Key,
        form: Form,
        options: &LoadOptions,
        loader: Loader,
        before: Moment,
        replaces: bool,
    ) -> Result<Arc<Held>> {
        let backend = self.backend.as_ref().filter(|_| form.is_storable());
        // What is loaded from here on is newer than what is stored now, and than nothing else.
        let (mode, until) = match backend {
            Some(backend) => self.replaceable(backend, key).await,
            None => (WriteMode::Overwrite, Expiry::NEVER),
        };
        // Before the work, not after it.
        options.put().write_options(WriteMode::Overwrite)?;
        stage("load", key, "started");
        let reservation = self.budget.reserve(options.load_bytes()).await?;
        let loaded = unpanicked(loader)
            .instrument(debug_span!("ck.loader"))
            .await;
        drop(reservation);
        stage("load", key, "loaded");
        let content = loaded.inspect_err(|_| self.counters.load_failures.add(1))?;
        self.counters.loads.add(1);

        let put = match (&content, options.absent_ttl()) {
            // Not to be remembered; nor is what it would have replaced to be handed out again.
            (Content::Absent, None) => {
                if replaces {
                    self.withdraw(key, backend, mode, before).await;
                }
                return Ok(Arc::new(Held::new(content, Life::default())));
            }
            (Content::Absent, Some(ttl)) => options.put().with_life(ttl),
            _ => options.put().clone(),
        };
        let held = Arc::new(self.hold(form, content, put.life(), None));
        // What was to be replaced may be over by now, as it would be without this load.
        let mode = match mode {
            WriteMode::Update(_) if until.is_expired() => WriteMode::Create,
            mode => mode,
        };
        let draft = match backend {
            None => None,
            Some(backend) => {
                let draft = self.draft(&**backend, key, form, &held.content, &put, mode);
                draft
                    .instrument(debug_span!("ck.encode"))
                    .await
                    .map_or_else(
                        |error| {
                            self.not_kept(key, &error);
                            None
                        },
                        Some,
                    )
            }
        };
        if let Some(Draft::Rejected(rejection)) = &draft {
            tracing::debug!(%key, %rejection, "the store does not take a loaded value");
        }
        match self
            .publish(key, draft, Some(Arc::clone(&held)), Some(before))
            .await
        {
            Ok(Outcome::Stored { bytes }) => {
                self.counters.stored.add(1);
                self.counters.stored_bytes.add(bytes);
            }
            Ok(Outcome::Rejected(_)) => self.counters.rejected.add(1),
            Err(error) => self.not_kept(key, &error),
        }
        Ok(held)
    }

    /// Removes what a load was to replace, unless somebody has changed it since.
    async fn withdraw(
        self: &Arc<Self>,
        key: &Key,
        backend: Option<&Arc<dyn Backend>>,
        mode: WriteMode,
        before: Moment,
    ) {
        let (shared, key, backend) = (Arc::clone(self), key.clone(), backend.cloned());
        complete(async move {
            let mut publication = shared.order.lock(&key).await;
            if !publication.is_still(&before) {
                return;
            }
            publication.change();
            if let Some(l1) = &shared.l1 {
                l1.remove(&key);
            }
            if let (Some(backend), WriteMode::Update(version)) = (backend, mode) {
                let removed = async {
                    match backend.open(&key).await? {
                        Some(entry) if entry.version() == version => entry.discard().await,
                        _ => Ok(false),
                    }
                };
                if let Err(error) = removed.await {
                    shared.counters.store_failures.add(1);
                    tracing::warn!(%key, store = shared.store_url(), %error, "a value that is no more could not be removed");
                }
            }
            shared.lookups.detach(&key);
        })
        .await;
    }

    /// What may be replaced: the present entry, which lives so long.
    async fn replaceable(&self, backend: &Arc<dyn Backend>, key: &Key) -> (WriteMode, Expiry) {
        match backend.open(key).await {
            Ok(Some(entry)) => (WriteMode::Update(entry.version()), entry.expiry()),
            // When the store cannot say, the write will tell.
            Ok(None) | Err(_) => (WriteMode::Create, Expiry::NEVER),
        }
    }

    /// The value is there, only the store does not have it.
    fn not_kept(&self, key: &Key, error: &Error) {
        self.counters.store_failures.add(1);
        tracing::warn!(%key, store = self.store_url(), %error, "a loaded value could not be stored");
    }
}

/// Whether to wait for another process's load.
#[derive(Clone, Copy)]
enum Waiting {
    Long,
    Not,
}

enum Acquired {
    /// The lease; `None` when the store could not say.
    Lease(Option<Box<dyn Lease>>),
    Found(Arc<Held>),
    Busy,
}

/// A lease that is renewed beside the load until it ends.
struct Renewal {
    stop: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

impl Renewal {
    /// `None` when there is nothing to run it on: the lease is given up.
    fn start(mut lease: Box<dyn Lease>, term: Duration) -> Option<Self> {
        let pause = (term / 3).clamp(SHORTEST_RENEWAL, LONGEST_RENEWAL);
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (done, released) = oneshot::channel();
        let started = background(async move {
            let mut is_ours = true;
            loop {
                let mut sleep = Sleep::until(Instant::now() + pause);
                let is_over = poll_fn(|cx| {
                    // Also when the load was given up and its end of the channel is gone.
                    if Pin::new(&mut stopped).poll(cx).is_ready() {
                        return Poll::Ready(true);
                    }
                    Pin::new(&mut sleep).poll(cx).map(|()| false)
                });
                if is_over.await {
                    break;
                }
                if is_ours {
                    match lease.renew().await {
                        Ok(kept) => is_ours = kept,
                        Err(error) => tracing::warn!(%error, "a lease was not renewed"),
                    }
                }
            }
            if let Err(error) = lease.release().await {
                tracing::warn!(%error, "a lease was not released");
            }
            // Nobody may be waiting.
            let _ = done.send(());
        });
        started.then_some(Self { stop, released })
    }

    /// Gives the lease up, and waits until it is free for others.
    async fn end(self) {
        drop(self.stop);
        let _ = self.released.await;
    }
}

/// Runs the loader; a panic is an error.
async fn unpanicked(loader: Loader) -> Result<Content> {
    let mut future = match catch_unwind(AssertUnwindSafe(loader)) {
        Ok(future) => future,
        Err(panic) => return Err(panicked(&*panic)),
    };
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Err(panicked(&*panic))),
        },
    )
    .await
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::new(ErrorKind::Permanent, "the loader panicked")
        .with("panic", message.unwrap_or("without a message"))
}

fn load_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => {
            Error::new(ErrorKind::Permanent, "the value could not be loaded").with_source(error)
        }
    }
}
