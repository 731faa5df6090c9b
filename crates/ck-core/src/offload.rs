use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

thread_local! {
    /// Whether this thread is inside [`block_on`]: it may block, so nothing is worth a thread hop.
    static BLOCKING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which may block on a disk or burn CPU, away from async worker threads.
///
/// With the feature `tokio` and inside a tokio runtime it runs on the runtime's blocking pool.
/// Otherwise, and always under [`block_on`], it runs here and now, without any thread hop.
///
/// # Panics
///
/// A panic of `work` is passed on.
///
/// # Examples
///
/// ```
/// let sum = ck_core::block_on(ck_core::offload(|| (1..=10).sum::<u32>()));
/// assert_eq!(sum, 55);
/// ```
pub async fn offload<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    #[cfg(feature = "tokio")]
    if !BLOCKING.get()
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        match runtime.spawn_blocking(work).await {
            Ok(value) => return value,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: nobody polls us again.
                Err(_cancelled) => return std::future::pending().await,
            },
        }
    }
    work()
}

/// Whether [`offload`] would run its work on this very thread, and so block it: always so under
/// [`block_on`] and outside a tokio runtime.
///
/// # Examples
///
/// ```
/// assert!(ck_core::block_on(async { ck_core::runs_in_place() }));
/// ```
#[must_use]
pub fn runs_in_place() -> bool {
    #[cfg(feature = "tokio")]
    if !BLOCKING.get() && tokio::runtime::Handle::try_current().is_ok() {
        return false;
    }
    true
}

/// Runs `future` to its end on this thread, which sleeps while the future waits.
///
/// Work that the future hands to [`offload`] runs on this thread too, so that a blocking call takes no
/// thread hop, and works in the same way inside a runtime, outside, and while one shuts down.
///
/// # Examples
///
/// ```
/// assert_eq!(ck_core::block_on(async { 1 + 1 }), 2);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let _scope = BlockingScope(BLOCKING.replace(true));
    // Inside a task, tokio's own primitives would now and then ask it to yield to others, and be woken only
    // once it has: a thread that blocks never does.
    #[cfg(feature = "tokio")]
    let future = tokio::task::unconstrained(future);
    let mut future = pin!(future);
    // What is ready at once needs no waker. What is not is polled again, with one that works.
    let mut cx = Context::from_waker(Waker::noop());
    if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
        return output;
    }
    let alarm = Arc::new(Alarm {
        thread: thread::current(),
        rings: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&alarm));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        while !alarm.rings.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// Runs `future` to its end even if the returned future is dropped: what it publishes and what it holds
/// locked stay together.
///
/// With the feature `tokio` and inside a tokio runtime it becomes a task. Otherwise, and always under
/// [`block_on`], it is polled in place: [`offload`] does not suspend it there, and a caller that is
/// blocked drops nothing.
///
/// # Panics
///
/// A panic of `future` is passed on.
pub async fn complete<T, F>(future: F) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    #[cfg(feature = "tokio")]
    if !BLOCKING.get()
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        match runtime.spawn(future).await {
            Ok(value) => return value,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => return std::future::pending().await,
            },
        }
    }
    future.await
}

/// Runs `future` beside the caller: a task inside a tokio runtime (feature `tokio`); elsewhere, and always
/// under [`block_on`], whose thread may be the only one of its runtime, a thread of its own. `false` when the
/// system gives no thread; `future` is then dropped.
pub fn background<F>(future: F) -> bool
where
    F: Future<Output = ()> + Send + 'static,
{
    #[cfg(feature = "tokio")]
    let runtime = tokio::runtime::Handle::try_current().ok();
    #[cfg(feature = "tokio")]
    if let Some(runtime) = runtime.as_ref().filter(|_| !BLOCKING.get()) {
        runtime.spawn(future);
        return true;
    }
    let thread = thread::Builder::new().name("ck-background".to_owned());
    let run = move || {
        // What the future calls may need the runtime all the same.
        #[cfg(feature = "tokio")]
        let _inside = runtime.as_ref().map(tokio::runtime::Handle::enter);
        block_on(future);
    };
    thread.spawn(run).is_ok()
}

/// Puts the flag back, also when the future panics.
struct BlockingScope(bool);

impl Drop for BlockingScope {
    fn drop(&mut self) {
        BLOCKING.set(self.0);
    }
}

/// Wakes a parked thread. The thread's own token would not do: what a future runs in place, such as a
/// channel of the standard library, parks the same thread, and takes it.
struct Alarm {
    thread: Thread,
    rings: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rings.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_on_wakes_up_when_another_thread_wakes_it() {
        let mut waited = false;
        let output = block_on(std::future::poll_fn(|cx| {
            if waited {
                return Poll::Ready(7);
            }
            waited = true;
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake());
            Poll::Pending
        }));
        assert_eq!(output, 7);
    }

    #[test]
    fn block_on_wakes_up_when_the_future_itself_parks_the_thread_after_it_was_woken() {
        let mut polls = 0;
        let future = std::future::poll_fn(|cx| {
            polls += 1;
            // The first poll has a waker that does nothing.
            if polls < 3 {
                cx.waker().wake_by_ref();
                thread::park_timeout(std::time::Duration::from_millis(1));
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        let (done, is_done) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let blocked = scope.spawn(|| {
                block_on(future);
                done.send(()).unwrap();
            });
            let woke_up = is_done.recv_timeout(std::time::Duration::from_secs(10));
            while !blocked.is_finished() {
                blocked.thread().unpark();
                thread::yield_now();
            }
            woke_up.unwrap();
        });
    }

    #[cfg(feature = "tokio")]
    #[test]
    fn under_block_on_work_stays_on_the_thread_inside_a_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let here = thread::current().id();
        assert!(runs_in_place());
        let (hopped, stayed) = runtime.block_on(async {
            assert!(!runs_in_place());
            assert!(block_on(async { runs_in_place() }));
            let hopped = offload(|| thread::current().id()).await;
            (hopped, block_on(offload(|| thread::current().id())))
        });
        assert_ne!(hopped, here);
        assert_eq!(stayed, here);
        assert!(!BLOCKING.get());
    }
}
