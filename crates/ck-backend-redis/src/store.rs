use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ck_core::{Error, Result};
use ck_frame::Manifest;

use crate::builder::Settings;
use crate::connection::Connection;
use crate::engine::Engine;
use crate::error::Fault;
use crate::name;
use crate::pool::{Borrowed, Pool};
use crate::stream::Dialer;

/// How often an operation is tried whose slot is being moved, and how long it waits in between.
const MOVES: usize = 25;
const MOVE: Duration = Duration::from_millis(20);

/// What all operations of one store share.
pub(crate) struct Store {
    pub(crate) settings: Settings,
    pub(crate) pool: Pool,
    pub(crate) dialer: Dialer,
    pub(crate) engine: Engine,
}

impl Store {
    pub(crate) fn open(settings: Settings) -> Result<Self, Fault> {
        Ok(Self {
            pool: Pool::new(settings.address.clone(), settings.bulk_connections),
            dialer: Dialer::new(settings.certificates.clone()),
            engine: Engine::start()?,
            settings,
        })
    }

    /// Runs an operation on the store's threads, within the deadline for so many bytes. Errors say
    /// where it happened.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        entry: &str,
        bytes: u64,
        work: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T> {
        let deadline = self.settings.deadline(bytes);
        self.run_within(entry, deadline, work).await
    }

    pub(crate) async fn run_within<T: Send + 'static>(
        &self,
        entry: &str,
        deadline: Duration,
        work: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T> {
        let outcome = self.engine.run(deadline, work).await;
        if let Err(Fault::Deadline { .. }) = outcome {
            // Whoever is connected may be connected to nobody: the next operation finds out anew.
            self.pool.forget_all();
        }
        outcome.map_err(|fault| self.error(entry, fault))
    }

    pub(crate) fn error(&self, entry: &str, fault: Fault) -> Error {
        let error = Error::from(fault).with("store", &self.settings.url);
        if entry.is_empty() {
            return error;
        }
        error.with("key", shortened(entry))
    }

    /// Runs `work` on the connection of the small operations; once more on a new one when the
    /// connection breaks and `twice` says that doing it again does no harm.
    pub(crate) async fn small<T, F, W>(&self, twice: bool, work: W) -> Result<T, Fault>
    where
        W: Fn(Connection) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let (mut again, mut moves) = (twice, 0);
        loop {
            let (connection, generation) = self.pool.small().await?;
            match work(connection).await {
                Err(fault) if fault.spoils_connection() => {
                    self.pool.forget_small(generation).await;
                    self.pool.forget_idle();
                    // Nothing was done.
                    if matches!(fault, Fault::Moving) && moves < MOVES {
                        moves += 1;
                        tokio::time::sleep(MOVE).await;
                        continue;
                    }
                    if !(again && fault.is_lost_connection()) {
                        return Err(fault);
                    }
                    again = false;
                }
                outcome => return outcome,
            }
        }
    }

    /// Runs `work`, which can be done twice, on a connection for large transfers.
    pub(crate) async fn bulk<T, F, W>(&self, work: W) -> Result<T, Fault>
    where
        W: Fn(Connection) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let mut moves = 0;
        loop {
            let borrowed: Borrowed = self.pool.bulk().await?;
            match work(borrowed.clone()).await {
                Err(Fault::Moving) if moves < MOVES => {
                    moves += 1;
                    self.pool.forget_idle();
                    tokio::time::sleep(MOVE).await;
                }
                // It broke while nobody used it, and so did those that lay beside it.
                Err(fault) if fault.is_lost_connection() && !borrowed.is_fresh() => {
                    self.pool.forget_idle();
                }
                Err(fault) => return Err(fault),
                Ok(value) => {
                    borrowed.give_back();
                    return Ok(value);
                }
            }
        }
    }

    /// A connection for a large transfer that cannot be begun twice: one that was idle is tried first.
    pub(crate) async fn live_bulk(&self) -> Result<Borrowed, Fault> {
        loop {
            let mut borrowed = self.pool.bulk().await?;
            if borrowed.is_fresh() {
                return Ok(borrowed);
            }
            match borrowed.query(&redis::cmd("PING")).await {
                Ok(_pong) => return Ok(borrowed),
                Err(_broken) => self.pool.forget_idle(),
            }
        }
    }

    /// Removes the chunks of the entry that began so and is gone, if it had any, as far as that is possible
    /// without waiting. What stays behind is found by `prune`.
    pub(crate) fn drop_parts(self: &Arc<Self>, entry: &str, start: &[u8]) {
        let Some((generation, count)) = Manifest::decode_start(start) else {
            return;
        };
        let (store, entry) = (Arc::clone(self), entry.to_owned());
        let deadline = self.settings.deadline(0) * 4;
        self.engine.detach(deadline, async move {
            for index in 0..count {
                let name = name::of_part(&store.settings.prefix, &entry, generation, index);
                let unlink = store.small(true, |mut connection| {
                    let command = redis::cmd("UNLINK").arg(&name).take();
                    async move { connection.query(&command).await }
                });
                if let Err(fault) = unlink.await {
                    tracing::debug!(%fault, "a chunk of a replaced entry stays behind");
                }
            }
        });
    }

    pub(crate) fn part_names(&self, entry: &str, manifest: &Manifest) -> Vec<String> {
        let name = |index| {
            let generation = manifest.generation();
            name::of_part(&self.settings.prefix, entry, generation, index)
        };
        (0..manifest.chunk_count()).map(name).collect()
    }
}

/// A key that is fit for a message.
fn shortened(entry: &str) -> String {
    const MOST: usize = 200;
    if entry.len() <= MOST {
        return entry.to_owned();
    }
    let end = (0..=MOST).rev().find(|&end| entry.is_char_boundary(end));
    format!("{}...", &entry[..end.unwrap_or(0)])
}
