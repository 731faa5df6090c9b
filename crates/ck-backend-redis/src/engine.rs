use std::future::Future;
use std::time::Duration;

use ck_core::Result;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::error::Fault;

/// The threads that do all input and output of one store.
///
/// Connections belong to a runtime. With one of its own the store outlives the runtimes of its callers,
/// works without any, and can finish what it began when a caller goes away.
#[derive(Debug)]
pub(crate) struct Engine {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Engine {
    /// One thread would let the copying of a large transfer delay a small operation.
    const THREADS: usize = 2;

    pub(crate) fn start() -> Result<Self, Fault> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(Self::THREADS)
            .thread_name("ck-redis")
            .enable_all()
            .build()
            .map_err(|error| Fault::Threads(error.to_string()))?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Runs `work` to its end or to `deadline`; dropping the returned future stops it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T, Fault> {
        let timed = async move {
            match tokio::time::timeout(deadline, work).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => Err(Fault::Deadline { deadline }),
            }
        };
        let Some(runtime) = &self.runtime else {
            return Err(Fault::Closed);
        };
        Task(runtime.spawn(timed)).join().await?
    }

    /// Runs `work` until what is returned is dropped.
    pub(crate) fn spawn(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Task<()>, Fault> {
        let runtime = self.runtime.as_ref().ok_or(Fault::Closed)?;
        Ok(Task(runtime.spawn(work)))
    }

    /// Runs `work` to its end or to `deadline`, whatever becomes of the caller.
    pub(crate) fn detach(
        &self,
        deadline: Duration,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        if let Some(runtime) = &self.runtime {
            // A deadline that passes is as good as any other failure: nobody waits.
            runtime.spawn(async move { tokio::time::timeout(deadline, work).await.ok() });
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The last owner may be one of the runtime's own tasks, which must not wait for the others.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    /// Runs `work` beside the caller, which must be on the store's threads.
    pub(crate) fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// What the task made.
    pub(crate) async fn join(mut self) -> Result<T, Fault> {
        match (&mut self.0).await {
            Ok(value) => Ok(value),
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => Err(Fault::Closed),
            },
        }
    }

    /// Ends the task, and waits until it does nothing more.
    pub(crate) async fn end(mut self) {
        self.0.abort();
        // Whether it was faster does not matter.
        let _ = (&mut self.0).await;
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
