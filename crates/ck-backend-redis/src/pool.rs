use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use ck_core::BoxFuture;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::address::Address;
use crate::connection::Connection;
use crate::error::Fault;
use crate::watch::Tracker;

/// The connections of one store: one that all small operations share, and some that large transfers
/// borrow.
pub(crate) struct Pool {
    address: Address,
    small: Mutex<Slot>,
    bulk: Arc<Bulk>,
    /// Whom the small connection tells of changes.
    tracker: StdMutex<Option<Arc<Tracker>>>,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// How many connections there were before.
    generation: u64,
}

struct Bulk {
    permits: Arc<Semaphore>,
    idle: StdMutex<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(address: Address, bulk_connections: usize) -> Self {
        Self {
            address,
            small: Mutex::default(),
            tracker: StdMutex::default(),
            bulk: Arc::new(Bulk {
                permits: Arc::new(Semaphore::new(bulk_connections)),
                idle: StdMutex::default(),
            }),
        }
    }

    /// The shared connection, which is opened when there is none, and its generation.
    pub(crate) async fn small(&self) -> Result<(Connection, u64), Fault> {
        let mut slot = self.small.lock().await;
        let connection = match &slot.connection {
            Some(connection) => connection.clone(),
            None => {
                // Boxed: the client library's futures are deep.
                let open: BoxFuture<'_, _> = match self.tracker() {
                    None => Box::pin(Connection::open(&self.address)),
                    Some(tracker) => Box::pin(Connection::open_tracking(&self.address, tracker)),
                };
                let connection = open.await?;
                slot.generation += 1;
                slot.connection.insert(connection).clone()
            }
        };
        Ok((connection, slot.generation))
    }

    /// Lets the next operation open a new shared connection in place of this one.
    pub(crate) async fn forget_small(&self, generation: u64) {
        let mut slot = self.small.lock().await;
        if slot.generation == generation {
            slot.connection = None;
            if let Some(tracker) = self.tracker() {
                tracker.disconnect();
            }
        }
    }

    /// A connection of one's own, as soon as one is free.
    pub(crate) async fn bulk(&self) -> Result<Borrowed, Fault> {
        let permits = Arc::clone(&self.bulk.permits);
        let permit = permits.acquire_owned().await.map_err(|_| Fault::Closed)?;
        let idle = self.bulk.idle().pop();
        let fresh = idle.is_none();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let open: BoxFuture<'_, _> = Box::pin(Connection::open(&self.address));
                open.await?
            }
        };
        Ok(Borrowed {
            connection,
            fresh,
            home: Arc::clone(&self.bulk),
            keep: false,
            _permit: permit,
        })
    }

    /// Lets every later operation open a new connection.
    pub(crate) fn forget_all(&self) {
        self.forget_idle();
        // Whoever holds the lock is opening a new one.
        if let Ok(mut slot) = self.small.try_lock() {
            slot.connection = None;
            if let Some(tracker) = self.tracker() {
                tracker.disconnect();
            }
        }
    }

    /// Lets later small connections tell this one of changes, or nobody; `false` when they tell another.
    pub(crate) fn track(&self, tracker: Option<Arc<Tracker>>) -> bool {
        let mut current = self.tracker.lock().unwrap_or_else(PoisonError::into_inner);
        let free = current.is_none() || tracker.is_none();
        if free {
            *current = tracker;
        }
        drop(current);
        if free {
            self.forget_all();
        }
        free
    }

    /// Whom changes are told.
    pub(crate) fn tracker(&self) -> Option<Arc<Tracker>> {
        let tracker = self.tracker.lock().unwrap_or_else(PoisonError::into_inner);
        tracker.clone()
    }

    /// Closes the connections that nobody uses: after an outage they are all broken.
    pub(crate) fn forget_idle(&self) {
        self.bulk.idle().clear();
    }
}

impl Bulk {
    /// No code panics while it holds the lock.
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for a large transfer. It is closed when it is dropped, because answers may be under way,
/// unless it was given back.
pub(crate) struct Borrowed {
    connection: Connection,
    fresh: bool,
    home: Arc<Bulk>,
    keep: bool,
    _permit: OwnedSemaphorePermit,
}

impl Borrowed {
    /// Whether it was opened for this very transfer: if it is broken, so would be the next.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Gives it back for others: all answers have arrived.
    pub(crate) fn give_back(mut self) {
        self.keep = true;
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.keep {
            self.home.idle().push(self.connection.clone());
        }
    }
}

impl Deref for Borrowed {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}
