//! One server: its connections and its limits.

use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::builder::Settings;
use crate::command;
use crate::deadline::Deadline;
use crate::error::Fault;
use crate::wire::Wire;

/// What memcached allows when nobody has told it otherwise.
const DEFAULT_ITEM_SIZE: u64 = 1 << 20;
/// Of the limit for an item, what its name, flags and links take, and then some.
const ITEM_OVERHEAD: u64 = 512;

/// What a connection is for. Small operations never wait for bulk transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Small,
    Bulk,
}

/// Whether an operation may be sent once more when a connection turns out to be dead: when it does the
/// same if it is done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Yes,
    No,
}

pub(crate) struct Server {
    name: Arc<str>,
    host: String,
    port: u16,
    settings: Arc<Settings>,
    small: Pool,
    bulk: Pool,
    /// The server's own limit for an item; 0 before the first connection.
    item_size_max: AtomicU64,
    /// The server's limit for all items; 0 before the first connection.
    memory: AtomicU64,
}

/// At most so many connections, of which some are idle.
struct Pool {
    most: usize,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Wire>,
    taken: usize,
}

impl Server {
    pub(crate) fn new(host: String, port: u16, settings: Arc<Settings>) -> Self {
        Self {
            name: format!("{host}:{port}").into(),
            host,
            port,
            small: Pool::new(settings.connections),
            bulk: Pool::new(settings.bulk_connections),
            settings,
            item_size_max: AtomicU64::new(0),
            memory: AtomicU64::new(0),
        }
    }

    /// `host:port`, as it was given: by this name keys are spread.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The most bytes of one item, as far as it is known; otherwise memcached's default.
    pub(crate) fn known_value_limit(&self) -> u64 {
        match self.item_size_max.load(Ordering::Relaxed) {
            0 => DEFAULT_ITEM_SIZE,
            known => known,
        }
        .saturating_sub(ITEM_OVERHEAD)
    }

    /// The most bytes of one item. Asks the server if nobody has yet.
    pub(crate) fn value_limit(&self, deadline: Deadline) -> Result<u64, Fault> {
        if self.item_size_max.load(Ordering::Relaxed) == 0 {
            // Every connection begins with the question.
            self.run(Use::Small, Again::Yes, deadline, |_| Ok(()))?;
        }
        Ok(self.known_value_limit())
    }

    pub(crate) fn knows_limit(&self) -> bool {
        self.item_size_max.load(Ordering::Relaxed) != 0
    }

    /// Bytes that the server may use, 0 if it was never reached.
    pub(crate) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// The most bytes that an answer can have.
    pub(crate) fn longest_answer(&self) -> u64 {
        self.item_size_max
            .load(Ordering::Relaxed)
            .max(DEFAULT_ITEM_SIZE)
    }

    /// How many further connections for this use may be had without waiting.
    pub(crate) fn spare(&self, purpose: Use) -> usize {
        let pool = self.pool(purpose);
        pool.most.saturating_sub(pool.lock().taken)
    }

    /// Runs an operation on a connection, which is used again afterwards if the operation succeeds.
    pub(crate) fn run<T>(
        &self,
        purpose: Use,
        again: Again,
        deadline: Deadline,
        mut work: impl FnMut(&mut Wire) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let pool = self.pool(purpose);
        let mut place = pool.take(self, deadline)?;
        let mut wire = match place.wire.take() {
            Some(mut wire) => {
                wire.begin(deadline);
                match work(&mut wire) {
                    // Closed by the server while it was idle.
                    Err(Fault::Io { .. }) if again == Again::Yes && !wire.has_heard() => {
                        pool.lock().idle.clear();
                        self.connect(deadline)?
                    }
                    outcome => return self.finish(place, wire, outcome),
                }
            }
            None => self.connect(deadline)?,
        };
        wire.begin(deadline);
        let outcome = work(&mut wire);
        self.finish(place, wire, outcome)
    }

    fn finish<T>(
        &self,
        mut place: Place<'_>,
        wire: Wire,
        outcome: Result<T, Fault>,
    ) -> Result<T, Fault> {
        match &outcome {
            Ok(_) => place.wire = Some(wire),
            Err(fault) if fault.is_outage() => {
                tracing::debug!(server = %self.name, %fault, "connections to memcached are dropped");
                for pool in [&self.small, &self.bulk] {
                    pool.lock().idle.clear();
                }
            }
            // What is left of the answer is lost with the connection.
            Err(_) => {}
        }
        outcome
    }

    fn pool(&self, purpose: Use) -> &Pool {
        match purpose {
            Use::Small => &self.small,
            Use::Bulk => &self.bulk,
        }
    }

    fn connect(&self, deadline: Deadline) -> Result<Wire, Fault> {
        let unreachable = |source| Fault::Io {
            action: "find the address of",
            server: Arc::clone(&self.name),
            source,
        };
        let addresses = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(unreachable)?;
        let mut last = unreachable(std::io::ErrorKind::NotFound.into());
        for address in addresses {
            let timeout = self.settings.connect_timeout;
            match Wire::connect(&address, Arc::clone(&self.name), timeout, deadline) {
                Ok(mut wire) => {
                    self.greet(&mut wire)?;
                    return Ok(wire);
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Logs in, and asks for version and limits: another server may have taken the place of the old one.
    fn greet(&self, wire: &mut Wire) -> Result<(), Fault> {
        if let Some((user, password)) = &self.settings.credentials {
            command::authenticate(wire, user, password)?;
        }
        let version = command::version(wire)?;
        if !has_meta_commands(&version) {
            let server = Arc::clone(&self.name);
            return Err(Fault::TooOld { server, version });
        }
        let settings = command::stats(wire, "settings")?;
        let number = |wanted: &str| {
            let found = settings.iter().find(|(name, _)| name == wanted);
            found.and_then(|(_, value)| value.parse::<u64>().ok())
        };
        let item_size = number("item_size_max").filter(|&bytes| bytes >= 2 * ITEM_OVERHEAD);
        let item_size = item_size.unwrap_or(DEFAULT_ITEM_SIZE);
        self.item_size_max.store(item_size, Ordering::Relaxed);
        let memory = number("maxbytes").unwrap_or(0);
        self.memory.store(memory, Ordering::Relaxed);
        Ok(())
    }
}

/// Meta commands are there since 1.6.
fn has_meta_commands(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (1, 6),
        // Not a number: a build of somebody's own.
        _ => true,
    }
}

/// The right to one connection, and an idle one if there was any.
struct Place<'a> {
    pool: &'a Pool,
    wire: Option<Wire>,
}

impl Pool {
    fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, server: &Server, deadline: Deadline) -> Result<Place<'_>, Fault> {
        let mut state = self.lock();
        while state.taken >= self.most {
            let Some(left) = deadline.left() else {
                return Err(Fault::Busy {
                    server: Arc::clone(&server.name),
                    connections: self.most,
                    waited: deadline.allowed(),
                });
            };
            let waited = self.returned.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.taken += 1;
        // The one used last: the others grow old and are closed by the server.
        let mut place = Place {
            pool: self,
            wire: state.idle.pop(),
        };
        drop(state);
        while place.wire.as_ref().is_some_and(|wire| !wire.is_fresh()) {
            place.wire = self.lock().idle.pop();
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.taken -= 1;
        state.idle.extend(self.wire.take());
        drop(state);
        self.pool.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_commands_came_with_1_6() {
        for version in ["1.6.0", "1.6.18", "1.10.1", "2.0", "1.6.38_custom", "own"] {
            assert!(has_meta_commands(version), "{version}");
        }
        for version in ["1.5.22", "1.4.13", "0.9.1"] {
            assert!(!has_meta_commands(version), "{version}");
        }
    }
}
