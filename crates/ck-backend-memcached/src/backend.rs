use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use ck_core::{
    Backend, BoxFuture, Capabilities, Cursor, EntryInfo, EntryReader, EntryWriter, Error, Expiry,
    Key, Lease, Page, Pruned, Rejection, Result, Usage, WriteOptions, offload,
};

use crate::builder::{MemcachedBuilder, Settings};
use crate::deadline::Deadline;
use crate::error::Fault;
use crate::fleet::{Fleet, ServerStats};
use crate::lease;
use crate::read::Reader;
use crate::write::{Handle, Writer};

/// Entries on memcached servers.
///
/// Cloning is cheap, and clones share their connections. Servers keep nothing when they are restarted, and
/// let go of what was used longest ago when they are full: an entry that was stored may be gone.
///
/// # Examples
///
/// ```no_run
/// use ck_backend_memcached::MemcachedBackend;
///
/// let backend = MemcachedBackend::builder(["cache-1:11211", "cache-2:11211"])
///     .key_prefix("app:")
///     .build()?;
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Clone)]
pub struct MemcachedBackend {
    fleet: Arc<Fleet>,
}

impl MemcachedBackend {
    /// A store on these servers, each `host` or `host:port`, with the default options.
    ///
    /// Keys are spread by the servers' texts as they are written here: all clients, the Python one
    /// included, must use the same.
    ///
    /// # Errors
    ///
    /// As [`MemcachedBuilder::build`].
    pub fn open<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Result<Self> {
        Self::builder(servers).build()
    }

    /// Options for a store on these servers, each `host` or `host:port`.
    pub fn builder<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> MemcachedBuilder {
        MemcachedBuilder::new(servers.into_iter().map(Into::into).collect())
    }

    /// What each server says of itself, in the order in which they were given.
    ///
    /// # Errors
    ///
    /// As [`Backend::open`], when one of them does not answer.
    pub async fn server_stats(&self) -> Result<Vec<ServerStats>> {
        self.run(None, Fleet::stats).await
    }

    pub(crate) fn with_settings(servers: Vec<(String, u16)>, settings: Settings) -> Self {
        Self {
            fleet: Arc::new(Fleet::new(servers, settings)),
        }
    }

    /// Runs blocking work, and says in errors where it happened.
    async fn run<T: Send + 'static>(
        &self,
        key: Option<&Key>,
        work: impl FnOnce(&Fleet, Deadline) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let fleet = Arc::clone(&self.fleet);
        let done = offload(move || work(&fleet, fleet.deadline())).await;
        done.map_err(|fault| self.error(fault, key))
    }

    /// Runs blocking work on the item of a key.
    async fn run_on<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&Fleet, &str, Deadline) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let name = self.fleet.entry_name(key);
        self.run(Some(key), move |fleet, deadline| {
            work(fleet, &name, deadline)
        })
        .await
    }

    fn error(&self, fault: Fault, key: Option<&Key>) -> Error {
        let error = Error::from(fault);
        let error = match key {
            Some(key) => error.with("key", key),
            None => error,
        };
        error.with("store", self.fleet.url())
    }
}

impl Backend for MemcachedBackend {
    fn url(&self) -> String {
        self.fleet.url()
    }

    /// With the prefix, and as the client sees it: long keys are hashed only in the names of items.
    fn name_of(&self, key: &Key) -> String {
        format!("{}{key}", self.fleet.settings.prefix)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().with_leases(true)
    }

    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>> {
        Box::pin(async move {
            let name = self.fleet.entry_name(key);
            let found = self.run_on(key, Fleet::find).await?;
            Ok(found.map(|found| -> Arc<dyn EntryReader> {
                let fleet = Arc::clone(&self.fleet);
                Arc::new(Reader::new(fleet, key.clone(), name, found))
            }))
        })
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        Box::pin(async move {
            let (fleet, name) = (Arc::clone(&self.fleet), self.fleet.entry_name(key));
            // Then there is nothing to ask a server.
            let at_once =
                fleet.settings.chunking && fleet.is_known_to_take(&name, options.head_len);
            let owned = key.clone();
            let start = move || Writer::start(&fleet, owned, name, options);
            let started = if at_once {
                start()
            } else {
                offload(start).await
            };
            match started {
                Ok(ControlFlow::Continue(writer)) => {
                    let writer: Box<dyn EntryWriter> = Box::new(Handle(Some(writer)));
                    Ok(ControlFlow::Continue(writer))
                }
                Ok(ControlFlow::Break(rejection)) => Ok(ControlFlow::Break(rejection)),
                Err(fault) => Err(self.error(fault, Some(key))),
            }
        })
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        let owned = key.clone();
        Box::pin(self.run_on(key, move |fleet, name, deadline| {
            fleet.stat(&owned, name, deadline)
        }))
    }

    fn touch<'a>(&'a self, key: &'a Key, expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.run_on(key, move |fleet, name, deadline| {
            fleet.touch(name, expiry, deadline)
        }))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.run_on(key, Fleet::remove))
    }

    /// Goes through all items of a server for each page. With `head_bytes` each entry that is one item is
    /// transferred whole, because memcached gives out nothing less.
    fn list(&self, cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>> {
        Box::pin(self.run(None, move |fleet, _| {
            fleet.list(cursor.as_ref(), head_bytes)
        }))
    }

    fn lease<'a>(
        &'a self,
        key: &'a Key,
        term: Duration,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Lease>>>> {
        Box::pin(async move {
            let (fleet, owned) = (Arc::clone(&self.fleet), key.clone());
            let taken = offload(move || lease::take(&fleet, &owned, term)).await;
            let taken = taken.map_err(|fault| self.error(fault, Some(key)))?;
            Ok(taken.map(|lease| -> Box<dyn Lease> { Box::new(lease) }))
        })
    }

    /// Goes through all items of all servers. The limit is that of the servers, which others may share; for
    /// what the servers count themselves see [`MemcachedBackend::server_stats`].
    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        Box::pin(self.run(None, |fleet, _| fleet.usage()))
    }

    /// Does nothing: the servers forget what is expired by themselves.
    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        Box::pin(std::future::ready(Ok(Pruned::new())))
    }
}

impl fmt::Debug for MemcachedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedBackend")
            .field("url", &self.fleet.url())
            .field("settings", &self.fleet.settings)
            .finish()
    }
}
