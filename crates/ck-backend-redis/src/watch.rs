use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ck_core::{ChangeListener, Key};
use redis::{PushInfo, PushKind, Value};

#[cfg(feature = "cluster")]
use crate::address::Address;
use crate::engine::Task;
use crate::error::Fault;
use crate::name;
use crate::store::Store;

/// How often the connection is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Tells a listener what the server says over the connection of the small operations (server-assisted
/// caching, `CLIENT TRACKING`).
///
/// What this store changes itself is told too: `NOLOOP` does not know that a script runs for the connection that
/// sent it (Redis 7.0).
pub(crate) struct Tracker {
    listener: Arc<dyn ChangeListener>,
    prefix: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many connections there were.
    connections: u64,
    /// Whether changes are told over the last one.
    watching: bool,
    /// Whether the listener wants to hear no more.
    ended: bool,
}

impl Tracker {
    /// Starts telling, until what is returned is dropped.
    pub(crate) fn start(
        store: &Arc<Store>,
        listener: Arc<dyn ChangeListener>,
    ) -> Result<Watching, Fault> {
        #[cfg(feature = "cluster")]
        if let Address::Cluster { .. } = &store.settings.address {
            return Err(Fault::CannotWatch);
        }
        let tracker = Arc::new(Self {
            listener,
            prefix: store.settings.prefix.clone(),
            state: Mutex::default(),
        });
        if !store.pool.track(Some(Arc::clone(&tracker))) {
            return Err(Fault::Watched);
        }
        let watched = Arc::clone(store);
        let task = store.engine.spawn(async move {
            loop {
                let ping = watched.small(true, |mut connection| async move {
                    connection.query(&redis::cmd("PING")).await
                });
                match tokio::time::timeout(watched.settings.deadline(0), ping).await {
                    Ok(Ok(_pong)) => {}
                    _ => watched.pool.forget_all(),
                }
                tokio::time::sleep(PERIOD).await;
            }
        })?;
        let store = Arc::clone(store);
        Ok(Watching {
            store,
            tracker,
            _task: task,
        })
    }

    /// The command after which the server tells of changes.
    pub(crate) fn command(&self) -> redis::Cmd {
        let mut command = redis::cmd("CLIENT");
        command.arg("TRACKING").arg("ON").arg("BCAST");
        command.arg("PREFIX").arg(&self.prefix).take()
    }

    /// A number for a new connection. Whatever the last one told, it tells no more.
    pub(crate) fn connect(&self) -> u64 {
        let mut state = self.state();
        self.stop(&mut state);
        state.connections += 1;
        state.connections
    }

    /// The server tells of changes from now on.
    pub(crate) fn connected(&self, connection: u64) {
        let mut state = self.state();
        if state.connections == connection && !state.ended {
            state.watching = true;
            self.listener.watching();
        }
    }

    /// The last connection is used no more.
    pub(crate) fn disconnect(&self) {
        self.stop(&mut self.state());
    }

    /// Something that the server says unasked.
    pub(crate) fn hear(&self, connection: u64, push: &PushInfo) {
        let mut state = self.state();
        if state.connections != connection || state.ended {
            return;
        }
        match (&push.kind, push.data.first()) {
            (PushKind::Disconnection, _) => self.stop(&mut state),
            (PushKind::Invalidate, Some(Value::Array(names))) => {
                for name in names {
                    if let Value::BulkString(name) = name
                        && let Some(key) = self.key(name)
                    {
                        self.listener.changed(&key);
                    }
                }
            }
            // Everything was removed at once.
            (PushKind::Invalidate, _) if state.watching => {
                self.listener.lost();
                self.listener.watching();
            }
            _ => {}
        }
    }

    /// Tells nothing any more.
    fn silence(&self) {
        let mut state = self.state();
        state.ended = true;
        state.watching = false;
    }

    fn stop(&self, state: &mut State) {
        if std::mem::take(&mut state.watching) {
            self.listener.lost();
        }
    }

    /// The key of the entry with this name on the server.
    fn key(&self, name: &[u8]) -> Option<Key> {
        if name::is_part(&self.prefix, name) {
            return None;
        }
        let key = std::str::from_utf8(name).ok()?.strip_prefix(&self.prefix)?;
        Some(Key::new(key))
    }

    /// Listeners do not panic; if one does, the others hear no worse.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the telling when it is dropped.
pub(crate) struct Watching {
    store: Arc<Store>,
    tracker: Arc<Tracker>,
    _task: Task<()>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.tracker.silence();
        self.store.pool.track(None);
    }
}
