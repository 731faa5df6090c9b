//! The servers together, and what is done to one entry. Everything here blocks.

use std::sync::Arc;

use bytes::Bytes;
use ck_core::{EntryInfo, Expiry, Key, Outcome, Rejection, Version, WriteMode};
use ck_frame::Manifest;
use twox_hash::XxHash3_64;

use crate::builder::Settings;
use crate::bulk::Ending;
use crate::command::{self, Done, Item, Meta, Mode};
use crate::deadline::Deadline;
use crate::error::Fault;
use crate::server::{Again, Server, Use};
use crate::{names, ring, time};

/// How often a change is tried again because somebody else was faster.
const ATTEMPTS: usize = 32;
/// Items up to this size are stored anew when they are touched, so that their expiry is recorded.
const REWRITTEN: u64 = 1 << 20;

pub(crate) struct Fleet {
    pub(crate) servers: Vec<Server>,
    pub(crate) settings: Arc<Settings>,
    /// The most connections to one server that one transfer uses: more than every other processor has to
    /// do with only keep small operations from running.
    pub(crate) lanes: usize,
}

/// What is found under a key.
pub(crate) struct Found {
    pub(crate) meta: Meta,
    pub(crate) expiry: Expiry,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Whole(Bytes),
    Chunks(Manifest),
}

/// One server, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// `host:port`.
    pub server: String,
    /// The version of memcached.
    pub version: String,
    /// Items: entries, chunks, leases, and what others have stored.
    pub items: u64,
    /// Bytes of all items, with what the server needs for each.
    pub bytes: u64,
    /// The most bytes of all items.
    pub limit_bytes: u64,
    /// The most bytes of one item.
    pub item_limit_bytes: u64,
    /// Items that made room for others since the server started.
    pub evictions: u64,
    /// Seconds since the server started.
    pub uptime_seconds: u64,
}

impl Fleet {
    pub(crate) fn new(addresses: Vec<(String, u16)>, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let server = |(host, port)| Server::new(host, port, Arc::clone(&settings));
        Self {
            servers: addresses.into_iter().map(server).collect(),
            settings,
            lanes: std::thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2)),
        }
    }

    pub(crate) fn url(&self) -> String {
        let names: Vec<&str> = self.servers.iter().map(|server| &**server.name()).collect();
        format!("memcached://{}", names.join(","))
    }

    /// The deadline of an operation that starts now. Whatever it does together must be over by then.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::new(self.settings.timeout, self.settings.min_throughput)
    }

    pub(crate) fn entry_name(&self, key: &Key) -> String {
        names::entry(&self.settings.prefix, key)
    }

    pub(crate) fn chunk_name(&self, generation: u128, index: usize) -> String {
        names::chunk(&self.settings.prefix, generation, index)
    }

    /// The index of the server that has the item.
    pub(crate) fn index_of(&self, name: &str) -> usize {
        if self.servers.len() == 1 {
            return 0;
        }
        ring::choose(self.servers.iter().map(|server| &**server.name()), name)
    }

    pub(crate) fn server_of(&self, name: &str) -> &Server {
        &self.servers[self.index_of(name)]
    }

    /// The most bytes of an entry under this name that is one item.
    pub(crate) fn value_limit(&self, name: &str, deadline: Deadline) -> Result<u64, Fault> {
        let limit = self.server_of(name).value_limit(deadline)?;
        Ok(limit.min(self.settings.single_value_bytes))
    }

    /// The most bytes of a chunk: what every server takes. One that is down is taken for an ordinary one.
    pub(crate) fn chunk_limit(&self, deadline: Deadline) -> usize {
        let limits = self.servers.iter().map(|server| {
            let limit = server.value_limit(deadline);
            limit.unwrap_or_else(|_| server.known_value_limit())
        });
        let limit = limits.min().unwrap_or(u64::MAX);
        usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .min(self.settings.chunk_bytes)
    }

    /// Whether so many bytes are one item, without asking a server.
    pub(crate) fn is_known_to_take(&self, name: &str, bytes: usize) -> bool {
        let server = self.server_of(name);
        let limit = server
            .known_value_limit()
            .min(self.settings.single_value_bytes);
        server.knows_limit() && bytes as u64 <= limit
    }

    /// The live entry under this name. What is torn is none.
    pub(crate) fn find(&self, name: &str, deadline: Deadline) -> Result<Option<Found>, Fault> {
        let Some(item) = self.get(name, deadline)? else {
            return Ok(None);
        };
        let expiry = time::expiry(&item.meta);
        if expiry.is_expired() {
            return Ok(None);
        }
        let content = match Manifest::decode(&item.value) {
            Ok(Some(manifest)) => Content::Chunks(manifest),
            Ok(None) => Content::Whole(item.value),
            Err(error) => {
                tracing::warn!(item = name, %error, "a damaged manifest is taken for a miss");
                return Ok(None);
            }
        };
        Ok(Some(Found {
            meta: item.meta,
            expiry,
            content,
        }))
    }

    /// What is known of the live entry under this name.
    pub(crate) fn stat(
        &self,
        key: &Key,
        name: &str,
        deadline: Deadline,
    ) -> Result<Option<EntryInfo>, Fault> {
        let Some(meta) = self.head(name, deadline)? else {
            return Ok(None);
        };
        let expiry = time::expiry(&meta);
        if expiry.is_expired() {
            return Ok(None);
        }
        let bytes = if time::is_manifest(&meta) {
            match self.peek_manifest(name, deadline)? {
                Some(manifest) => manifest.total_len(),
                None => return Ok(None),
            }
        } else {
            meta.size
        };
        let info = EntryInfo::new(name, bytes).with_key(key.clone());
        let info = info.with_last_used(time::last_used(&meta));
        Ok(Some(info.with_expiry(expiry)))
    }

    /// Puts `parts` under this name, as the entry itself or as its manifest, and lets go of the chunks of
    /// what was there.
    pub(crate) fn publish(
        &self,
        name: &str,
        deadline: Deadline,
        parts: &[Bytes],
        is_manifest: bool,
        expiry: Expiry,
        mode: WriteMode,
    ) -> Result<Outcome, Fault> {
        let superseded = Ok(Outcome::Rejected(Rejection::Superseded));
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let flags = time::flags(expiry, is_manifest);
        for attempt in 0..ATTEMPTS {
            let mut replaced = None;
            let store = match mode {
                WriteMode::Overwrite => match self.head(name, deadline)? {
                    // Chunks that nobody will find again.
                    Some(meta) if time::is_manifest(&meta) && attempt + 1 < ATTEMPTS => {
                        match self.get(name, deadline)? {
                            Some(item) => {
                                replaced = Manifest::decode(&item.value).ok().flatten();
                                Mode::Swap(item.meta.cas)
                            }
                            None => Mode::Set,
                        }
                    }
                    _ => Mode::Set,
                },
                WriteMode::Create => match self.head(name, deadline)? {
                    None => Mode::Add,
                    // The server lets go of it within two seconds.
                    Some(meta) if time::expiry(&meta).is_expired() => Mode::Swap(meta.cas),
                    Some(_) => return superseded,
                },
                WriteMode::Update(version) => match self.find(name, deadline)? {
                    Some(found) if found.version() == version => {
                        let cas = found.meta.cas;
                        if let Content::Chunks(manifest) = found.content {
                            replaced = Some(manifest);
                        }
                        Mode::Swap(cas)
                    }
                    _ => return superseded,
                },
            };
            let ttl = time::ttl(expiry, 0);
            let again = match store {
                Mode::Set => Again::Yes,
                Mode::Add | Mode::Swap(_) => Again::No,
            };
            let stored = self
                .server_of(name)
                .run(Use::Small, again, deadline, |wire| {
                    command::set(wire, name, parts, flags, ttl, store)
                });
            match stored {
                Ok(Done::Yes) => {
                    if let Some(manifest) = replaced {
                        self.end_chunks(&manifest, Ending::Soon, deadline);
                    }
                    return Ok(Outcome::Stored { bytes });
                }
                // Look again at what is there now.
                Ok(Done::Exists | Done::Missing) => {}
                Err(Fault::OutOfMemory { .. }) => {
                    let limit = self.server_of(name).memory();
                    return Ok(Outcome::Rejected(Rejection::StoreFull { bytes, limit }));
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::Contended)
    }

    /// Gives the live entry under this name a new expiry.
    pub(crate) fn touch(
        &self,
        name: &str,
        expiry: Expiry,
        deadline: Deadline,
    ) -> Result<bool, Fault> {
        if expiry.is_expired() {
            return self.remove(name, deadline);
        }
        for _ in 0..ATTEMPTS {
            let Some(meta) = self.head(name, deadline)? else {
                return Ok(false);
            };
            if time::expiry(&meta).is_expired() {
                return Ok(false);
            }
            let ttl = time::ttl(expiry, 0);
            if !time::is_manifest(&meta) && meta.size > REWRITTEN {
                return self.run(name, deadline, Again::Yes, |wire| {
                    command::touch(wire, name, ttl)
                });
            }
            let Some(item) = self.get(name, deadline)? else {
                return Ok(false);
            };
            let manifest = Manifest::decode(&item.value).ok().flatten();
            if let Some(manifest) = &manifest
                && self.keep_chunks(manifest, expiry, deadline)? > 0
            {
                if self.discard_item(name, item.meta.cas, deadline)? == Done::Yes {
                    self.end_chunks(manifest, Ending::Now, deadline);
                }
                return Ok(false);
            }
            let flags = time::flags(expiry, manifest.is_some());
            let (value, swap) = ([item.value], Mode::Swap(item.meta.cas));
            match self.run(name, deadline, Again::No, |wire| {
                command::set(wire, name, &value, flags, ttl, swap)
            })? {
                Done::Yes => return Ok(true),
                Done::Missing => return Ok(false),
                Done::Exists => {}
            }
        }
        Err(Fault::Contended)
    }

    /// Removes the entry under this name with its chunks; `false` when there was none.
    pub(crate) fn remove(&self, name: &str, deadline: Deadline) -> Result<bool, Fault> {
        for _ in 0..ATTEMPTS {
            let Some(meta) = self.head(name, deadline)? else {
                return Ok(false);
            };
            let was_live = !time::expiry(&meta).is_expired();
            if !time::is_manifest(&meta) {
                let done = self.run(name, deadline, Again::Yes, |wire| {
                    command::delete(wire, name, None)
                })?;
                return Ok(done == Done::Yes && was_live);
            }
            let Some(item) = self.get(name, deadline)? else {
                return Ok(false);
            };
            let manifest = Manifest::decode(&item.value).ok().flatten();
            match self.discard_item(name, item.meta.cas, deadline)? {
                Done::Yes => {
                    if let Some(manifest) = manifest {
                        self.end_chunks(&manifest, Ending::Now, deadline);
                    }
                    return Ok(was_live);
                }
                Done::Missing => return Ok(false),
                Done::Exists => {}
            }
        }
        Err(Fault::Contended)
    }

    /// Removes this very entry; `false` when it is gone.
    pub(crate) fn discard(
        &self,
        name: &str,
        version: Version,
        deadline: Deadline,
    ) -> Result<bool, Fault> {
        for _ in 0..ATTEMPTS {
            let Some(found) = self.find(name, deadline)? else {
                return Ok(false);
            };
            if found.version() != version {
                return Ok(false);
            }
            match self.discard_item(name, found.meta.cas, deadline)? {
                Done::Yes => {
                    if let Content::Chunks(manifest) = found.content {
                        self.end_chunks(&manifest, Ending::Now, deadline);
                    }
                    return Ok(true);
                }
                Done::Missing => return Ok(false),
                // Touched meanwhile, or replaced.
                Done::Exists => {}
            }
        }
        Err(Fault::Contended)
    }

    /// What every server says of itself.
    pub(crate) fn stats(&self, deadline: Deadline) -> Result<Vec<ServerStats>, Fault> {
        let stats = |server: &Server| {
            let stats = server.run(Use::Small, Again::Yes, deadline, |wire| {
                command::stats(wire, "")
            })?;
            let text = |wanted: &str| {
                let found = stats.iter().find(|(name, _)| name == wanted);
                found.map_or("", |(_, value)| value)
            };
            let number = |wanted: &str| text(wanted).parse().unwrap_or(0);
            Ok(ServerStats {
                server: server.name().to_string(),
                version: text("version").to_owned(),
                items: number("curr_items"),
                bytes: number("bytes"),
                limit_bytes: number("limit_maxbytes"),
                item_limit_bytes: server.known_value_limit(),
                evictions: number("evictions"),
                uptime_seconds: number("uptime"),
            })
        };
        self.servers.iter().map(stats).collect()
    }

    pub(crate) fn get(&self, name: &str, deadline: Deadline) -> Result<Option<Item>, Fault> {
        let server = self.server_of(name);
        server.run(Use::Small, Again::Yes, deadline, |wire| {
            command::get(wire, name, server.longest_answer())
        })
    }

    /// The manifest under this name, without using it; `None` when it is gone or none.
    pub(crate) fn peek_manifest(
        &self,
        name: &str,
        deadline: Deadline,
    ) -> Result<Option<Manifest>, Fault> {
        let item = self.peek(name, u64::MAX, deadline)?;
        Ok(item.and_then(|item| Manifest::decode(&item.value).ok().flatten()))
    }

    /// The first bytes of an item, without using it.
    pub(crate) fn peek(
        &self,
        name: &str,
        most: u64,
        deadline: Deadline,
    ) -> Result<Option<Item>, Fault> {
        let server = self.server_of(name);
        server.run(Use::Small, Again::Yes, deadline, |wire| {
            command::peek(wire, name, most, server.longest_answer())
        })
    }

    fn head(&self, name: &str, deadline: Deadline) -> Result<Option<Meta>, Fault> {
        self.run(name, deadline, Again::Yes, |wire| command::head(wire, name))
    }

    fn discard_item(&self, name: &str, cas: u64, deadline: Deadline) -> Result<Done, Fault> {
        self.run(name, deadline, Again::No, |wire| {
            command::delete(wire, name, Some(cas))
        })
    }

    /// Runs a small operation on the server that has the item.
    pub(crate) fn run<T>(
        &self,
        name: &str,
        deadline: Deadline,
        again: Again,
        work: impl FnMut(&mut crate::wire::Wire) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.server_of(name).run(Use::Small, again, deadline, work)
    }
}

impl Found {
    /// The generation of an entry in chunks. Of one item: a hash of its length, its first and its last KiB,
    /// of which the first holds a random number in what this project writes. Touching an item changes its
    /// unique number on the server, so that is no version.
    pub(crate) fn version(&self) -> Version {
        const PART: usize = 1 << 10;
        match &self.content {
            Content::Chunks(manifest) => Version(manifest.generation()),
            Content::Whole(value) => {
                let first = &value[..value.len().min(PART)];
                let last = &value[value.len().saturating_sub(PART)..];
                let half = |seed: u64| {
                    let mut hash = XxHash3_64::with_seed(seed);
                    let len = (value.len() as u64).to_be_bytes();
                    for part in [&len[..], first, last] {
                        std::hash::Hasher::write(&mut hash, part);
                    }
                    u128::from(std::hash::Hasher::finish(&hash))
                };
                Version(half(0) << 64 | half(1))
            }
        }
    }
}
