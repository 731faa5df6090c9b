use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use ck_core::{BoxFuture, Error, ErrorKind, Result, block_on};

/// How long a thread waits for the next operation before it ends.
const IDLE: Duration = Duration::from_secs(1);

/// Threads that run futures which may block, so that whoever waits for one can give up.
///
/// A thread is started when none is free, and ends when it had nothing to do for a second. When all are
/// busy, operations wait for their turn; one that was given up while it waited is never begun.
#[derive(Debug)]
pub(super) struct Workers(Arc<Pool>);

struct Pool {
    most_threads: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Box<dyn Job>>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Workers {
    pub(super) fn new(most_threads: usize) -> Self {
        Self(Arc::new(Pool {
            most_threads,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                threads: 0,
                idle: 0,
                closed: false,
            }),
            changed: Condvar::new(),
        }))
    }

    pub(super) fn threads(&self) -> usize {
        self.0.lock().threads
    }

    /// Has `future` run by a thread. Dropping the answer gives it up: what runs already ends by itself, and
    /// what comes of it is dropped.
    pub(super) fn run<T: Send + 'static>(
        &self,
        future: BoxFuture<'static, Result<T>>,
    ) -> Answer<T> {
        let slot = Arc::new(Slot(Mutex::new(Progress::Running(None))));
        let job = Box::new(Call {
            future: Some(future),
            slot: Arc::clone(&slot),
            span: tracing::Span::current(),
            #[cfg(feature = "tokio")]
            runtime: tokio::runtime::Handle::try_current().ok(),
        });
        self.0.submit(job);
        Answer {
            slot,
            pool: Arc::clone(&self.0),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(self: &Arc<Self>, job: Box<dyn Job>) {
        let mut state = self.lock();
        if state.idle > state.waiting.len() || state.threads >= self.most_threads {
            state.waiting.push_back(job);
            drop(state);
            self.changed.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let pool = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("ck-guard".to_owned())
            .spawn(move || pool.work(job));
        if let Err(error) = thread {
            // The job is gone, and with that its answer is an error.
            tracing::warn!(%error, "cannot start a thread for an operation on a store");
            self.lock().threads -= 1;
        }
    }

    /// A thread's life.
    fn work(&self, first: Box<dyn Job>) {
        let mut job = Some(first);
        loop {
            if let Some(job) = job.take() {
                job.run();
            }
            let mut state = self.lock();
            if state.waiting.is_empty() && !state.closed {
                state.idle += 1;
                let waited = self.changed.wait_timeout_while(state, IDLE, |state| {
                    state.waiting.is_empty() && !state.closed
                });
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
            job = state.waiting.pop_front();
            if job.is_none() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// Drops what waits for a thread and was given up.
    fn forget_abandoned(&self) {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            return;
        }
        let (gone, waiting): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition(|job| job.is_abandoned());
        state.waiting = waiting;
        drop(state);
        // Dropping a future may run anything.
        drop(gone);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Pool")
            .field("most_threads", &self.most_threads)
            .field("threads", &state.threads)
            .field("idle", &state.idle)
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}

trait Job: Send {
    fn run(self: Box<Self>);
    fn is_abandoned(&self) -> bool;
}

/// A future to be run, and where its outcome goes.
struct Call<T> {
    future: Option<BoxFuture<'static, Result<T>>>,
    slot: Arc<Slot<T>>,
    span: tracing::Span,
    /// Where the caller was: the store may need it.
    #[cfg(feature = "tokio")]
    runtime: Option<tokio::runtime::Handle>,
}

impl<T: Send> Job for Call<T> {
    fn run(mut self: Box<Self>) {
        let Some(future) = self.future.take() else {
            return;
        };
        if self.is_abandoned() {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(feature = "tokio")]
            let _inside = self.runtime.as_ref().map(tokio::runtime::Handle::enter);
            self.span.in_scope(|| block_on(future))
        }));
        self.slot.finish(outcome);
    }

    fn is_abandoned(&self) -> bool {
        matches!(*self.slot.lock(), Progress::Abandoned)
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        if !matches!(*self.slot.lock(), Progress::Running(_)) {
            return;
        }
        let error = Error::new(
            ErrorKind::Transient,
            "cannot start a thread for an operation on a store",
        );
        self.slot.finish(Ok(Err(error)));
    }
}

struct Slot<T>(Mutex<Progress<T>>);

enum Progress<T> {
    Running(Option<Waker>),
    /// Or a panic.
    Done(Result<Result<T>, Box<dyn Any + Send>>),
    /// Nobody waits, or the outcome was taken.
    Abandoned,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, Progress<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the outcome over. When nobody waits it is dropped, here and not under the lock.
    fn finish(&self, outcome: Result<Result<T>, Box<dyn Any + Send>>) {
        let mut progress = self.lock();
        if let Progress::Running(waker) = &mut *progress {
            let waker = waker.take();
            *progress = Progress::Done(outcome);
            drop(progress);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// What a thread makes of a future.
pub(super) struct Answer<T> {
    slot: Arc<Slot<T>>,
    pool: Arc<Pool>,
}

impl<T> Future for Answer<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let mut progress = self.slot.lock();
        if let Progress::Running(waker) = &mut *progress {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let outcome = std::mem::replace(&mut *progress, Progress::Abandoned);
        drop(progress);
        match outcome {
            Progress::Done(Ok(result)) => Poll::Ready(result),
            Progress::Done(Err(panic)) => resume_unwind(panic),
            // Polled again after the end.
            Progress::Running(_) | Progress::Abandoned => Poll::Pending,
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *self.slot.lock(), Progress::Abandoned);
        if let Progress::Running(_) = before {
            self.pool.forget_abandoned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        Box::pin(async move { Ok(work()) })
    }

    #[test]
    fn threads_are_used_again_and_their_number_is_bounded() {
        let workers = Workers::new(1);
        let thread = || blocking(|| thread::current().id());
        let first = block_on(workers.run(thread())).unwrap();
        assert_eq!(block_on(workers.run(thread())).unwrap(), first);

        let workers = Workers::new(2);
        let gates: Vec<_> = (0..4).map(|_| mpsc::channel::<()>()).collect();
        let (open, gates): (Vec<_>, Vec<_>) = gates.into_iter().unzip();
        let answers: Vec<_> = gates
            .into_iter()
            .map(|gate| workers.run(blocking(move || gate.recv())))
            .collect();
        assert_eq!(workers.threads(), 2);
        drop(open);
        for answer in answers {
            assert!(block_on(answer).unwrap().is_err());
        }
    }

    #[test]
    fn what_was_given_up_while_it_waited_is_dropped_at_once_and_never_begun() {
        let workers = Workers::new(1);
        let (open, gate) = mpsc::channel::<()>();
        let busy = workers.run(blocking(move || gate.recv().is_err()));
        let held = Arc::new(());
        let copy = Arc::clone(&held);
        let waiting = workers.run(blocking(move || drop(copy)));
        let last = workers.run(blocking(|| 7));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(waiting);
        assert_eq!(Arc::strong_count(&held), 1);
        drop(open);
        assert!(block_on(busy).unwrap());
        assert_eq!(block_on(last).unwrap(), 7);
    }

    #[test]
    fn a_panic_reaches_the_one_who_waits_and_the_thread_lives_on() {
        let workers = Workers::new(1);
        let answer = workers.run(blocking(|| -> () { panic!("the store's mistake") }));
        let panic = catch_unwind(AssertUnwindSafe(|| block_on(answer))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the store's mistake"));
        assert_eq!(block_on(workers.run(blocking(|| 7))).unwrap(), 7);
    }

    #[test]
    fn a_late_outcome_is_dropped() {
        let workers = Workers::new(1);
        let (open, gate) = mpsc::channel::<()>();
        let held = Arc::new(());
        let copy = Arc::clone(&held);
        let (begun, begins) = mpsc::channel();
        let answer = workers.run(blocking(move || {
            begun.send(()).unwrap();
            gate.recv().unwrap_err();
            copy
        }));
        begins.recv().unwrap();
        drop(answer);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(open);
        block_on(workers.run(blocking(|| ()))).unwrap();
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
