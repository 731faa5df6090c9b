use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ck_core::{
    Backend, BoxFuture, Capabilities, ChangeListener, Cursor, EntryInfo, EntryReader, EntryWriter,
    Expiry, Key, Lease, Outcome, Page, Pruned, Rejection, Result, Usage, Watch, WriteOptions,
};

use crate::RedisBackendBuilder;
use crate::builder::Settings;
use crate::catalogue;
use crate::lease::Held;
use crate::name;
use crate::read::Entry;
use crate::store::Store;
use crate::watch::Tracker;
use crate::write::{self, Writer};

/// A Redis server or cluster as a store. Clones share its connections.
///
/// # Examples
///
/// ```no_run
/// use bytes::Bytes;
/// use ck_backend_redis::RedisBackend;
/// use ck_core::{Backend, Key, WriteOptions, block_on};
///
/// let store = RedisBackend::open("redis://127.0.0.1:6379")?;
/// let key = Key::new("greeting");
/// let body = vec![Bytes::from("hello")];
/// assert!(block_on(store.put(&key, Bytes::new(), body, WriteOptions::new()))?.is_stored());
///
/// let entry = block_on(store.open(&key))?.expect("it was just stored");
/// assert_eq!(&block_on(entry.read(0..entry.len()))?[..], b"hello");
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisBackend(Arc<Store>);

impl RedisBackend {
    /// The store at `url`, with the defaults of [`RedisBackendBuilder`]. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// As [`RedisBackendBuilder::build`].
    pub fn open(url: impl Into<String>) -> Result<Self> {
        Self::builder(url).build()
    }

    /// Options for the store at `url`:
    ///
    /// - `redis://user:password@host:port/database`, `rediss://...` over TLS;
    /// - `redis+unix:///path/to/socket?db=1&user=..&pass=..`;
    /// - `redis-cluster://user:password@host1:port,host2:port`, `rediss-cluster://...`: any nodes of a
    ///   cluster, which tell of the others;
    /// - `redis-sentinel://user:password@host1:port,host2:port/name?db=0`, `rediss-sentinel://...`: the
    ///   primary that the sentinels at these hosts know by this name.
    ///
    /// `?protocol=resp3` chooses the newer protocol.
    pub fn builder(url: impl Into<String>) -> RedisBackendBuilder {
        RedisBackendBuilder::new(url.into())
    }

    pub(crate) fn with_settings(settings: Settings) -> Result<Self> {
        Ok(Self(Arc::new(Store::open(settings)?)))
    }

    fn name(&self, key: &Key) -> String {
        name::of_entry(&self.0.settings.prefix, key)
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("url", &self.0.settings.url)
            .field("key_prefix", &self.0.settings.prefix)
            .finish_non_exhaustive()
    }
}

impl Backend for RedisBackend {
    fn url(&self) -> String {
        self.0.settings.url.clone()
    }

    fn name_of(&self, key: &Key) -> String {
        name::of_entry(&self.0.settings.prefix, key)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().with_leases(true)
    }

    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>> {
        let (store, entry) = (Arc::clone(&self.0), self.name(key));
        Box::pin(async move {
            let name = entry.clone();
            let open = async move { Entry::open(store, &name).await };
            let entry = self.0.run(&entry, 0, open).await?;
            Ok(entry.map(|entry| Arc::new(entry) as Arc<dyn EntryReader>))
        })
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        let entry = self.name(key);
        let writer = Writer::create(&self.0, entry.clone(), options);
        let flow = match writer.map_err(|fault| self.0.error(&entry, fault)) {
            Ok(ControlFlow::Continue(writer)) => Ok(ControlFlow::Continue(
                Box::new(writer) as Box<dyn EntryWriter>
            )),
            Ok(ControlFlow::Break(rejection)) => Ok(ControlFlow::Break(rejection)),
            Err(error) => Err(error),
        };
        Box::pin(std::future::ready(flow))
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        head: Bytes,
        body: Vec<Bytes>,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        let entry = self.name(key);
        Box::pin(write::put(&self.0, entry, head, body, options))
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        let (store, entry) = (Arc::clone(&self.0), self.name(key));
        Box::pin(async move {
            let name = entry.clone();
            let stat = async move { catalogue::stat(&store, &name).await };
            self.0.run(&entry, 0, stat).await
        })
    }

    fn touch<'a>(&'a self, key: &'a Key, expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        let (store, entry) = (Arc::clone(&self.0), self.name(key));
        Box::pin(async move {
            let name = entry.clone();
            let touch = async move { catalogue::touch(&store, &name, expiry).await };
            self.0.run(&entry, 0, touch).await
        })
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        let (store, entry) = (Arc::clone(&self.0), self.name(key));
        Box::pin(async move {
            let name = entry.clone();
            let remove = async move { catalogue::remove(&store, &name).await };
            self.0.run(&entry, 0, remove).await
        })
    }

    fn list(&self, cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>> {
        let store = Arc::clone(&self.0);
        let list = async move { catalogue::list(&store, cursor, head_bytes).await };
        Box::pin(self.0.run("", 0, list))
    }

    fn lease<'a>(
        &'a self,
        key: &'a Key,
        term: Duration,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Lease>>>> {
        let (store, entry) = (Arc::clone(&self.0), self.name(key));
        Box::pin(async move {
            let name = entry.clone();
            let take = async move { Held::take(store, &name, term).await };
            let lease = self.0.run(&entry, 0, take).await?;
            Ok(lease.map(|lease| Box::new(lease) as Box<dyn Lease>))
        })
    }

    fn watch(&self, listener: Arc<dyn ChangeListener>) -> Result<Watch> {
        let watching = Tracker::start(&self.0, listener);
        let watching = watching.map_err(|fault| self.0.error("", fault))?;
        Ok(Watch::new(watching))
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        let store = Arc::clone(&self.0);
        let usage = async move { catalogue::usage(&store).await };
        Box::pin(
            self.0
                .run_within("", self.0.settings.walk_deadline(), usage),
        )
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        let store = Arc::clone(&self.0);
        let prune = async move { catalogue::prune(&store).await };
        Box::pin(
            self.0
                .run_within("", self.0.settings.walk_deadline(), prune),
        )
    }
}
