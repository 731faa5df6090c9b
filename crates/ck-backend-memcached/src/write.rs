use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use ck_core::{
    BoxFuture, EntryWriter, Error, Key, Outcome, Rejection, Result, WriteMode, WriteOptions,
    background, offload,
};
use ck_frame::Manifest;

use crate::bulk::{DRAFT_SECONDS, Ending};
use crate::cutter::{self, Chunk, Cutter};
use crate::deadline::Deadline;
use crate::error::Fault;
use crate::fleet::Fleet;

/// An entry being written.
///
/// Up to the limit for one item its pieces are only kept; then they are sent as chunks, which are
/// discarded with the writer.
pub(crate) struct Writer {
    fleet: Arc<Fleet>,
    key: Key,
    name: String,
    options: WriteOptions,
    /// The most bytes of an entry that is one item.
    limit: u64,
    /// The most chunks of an entry: what its manifest, which is one item, can describe.
    most_chunks: usize,
    /// Bytes of the entry so far, its head included.
    total: u64,
    kept: Vec<Bytes>,
    draft: Option<Draft>,
    /// A write failed, or its future was dropped.
    is_broken: bool,
}

/// The chunks of an entry that is being written. They live for a short time only, unless they are renewed.
struct Draft {
    fleet: Arc<Fleet>,
    generation: u128,
    cutter: Cutter,
    /// The lengths of the chunks so far; those of the head are guessed.
    lengths: Vec<u32>,
    /// The chunks that are left for the head.
    head_chunks: usize,
    chunk_limit: usize,
    renewed: std::time::Instant,
    is_published: bool,
}

impl Writer {
    pub(crate) fn start(
        fleet: &Arc<Fleet>,
        key: Key,
        name: String,
        options: WriteOptions,
    ) -> Result<ControlFlow<Rejection, Self>, Fault> {
        let deadline = fleet.deadline();
        let limit = fleet.value_limit(&name, deadline)?;
        let most_chunks = most_chunks(fleet.server_of(&name).known_value_limit());
        let hint = options.size_hint.unwrap_or(0);
        let mut writer = Self {
            fleet: Arc::clone(fleet),
            key,
            name,
            options,
            limit,
            most_chunks,
            total: options.head_len as u64,
            kept: Vec::new(),
            draft: None,
            is_broken: false,
        };
        if writer.is_too_large(hint.max(writer.total)) {
            return writer
                .reject(hint.max(writer.total), limit, deadline)
                .map(ControlFlow::Break);
        }
        if writer.total > limit {
            writer.draft = Some(Draft::start(&writer, deadline)?);
        }
        Ok(ControlFlow::Continue(writer))
    }

    fn is_too_large(&self, bytes: u64) -> bool {
        !self.fleet.settings.chunking && bytes > self.limit
    }

    /// The entry is too large to be stored, so the one that it was to replace is stale, and goes.
    fn reject(&self, bytes: u64, limit: u64, deadline: Deadline) -> Result<Rejection, Fault> {
        match self.options.mode {
            WriteMode::Overwrite => self.fleet.remove(&self.name, deadline)?,
            WriteMode::Update(version) => self.fleet.discard(&self.name, version, deadline)?,
            WriteMode::Create => false,
        };
        Ok(Rejection::ValueTooLarge { bytes, limit })
    }

    /// Takes the pieces, and gives them back as chunks that are ready to be sent.
    fn append(&mut self, parts: Vec<Bytes>, deadline: Deadline) -> Result<Vec<Chunk>, Fault> {
        let mut chunks = Vec::new();
        if self.draft.is_none() {
            self.kept
                .extend(parts.into_iter().filter(|part| !part.is_empty()));
            if self.total <= self.limit {
                return Ok(chunks);
            }
            self.draft = Some(Draft::start(self, deadline)?);
            return Ok(self.drain());
        }
        if let Some(draft) = &mut self.draft {
            for part in parts {
                draft.cutter.push(part, &mut chunks);
            }
        }
        Ok(chunks)
    }

    fn drain(&mut self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        if let Some(draft) = &mut self.draft {
            for part in self.kept.drain(..) {
                draft.cutter.push(part, &mut chunks);
            }
        }
        chunks
    }

    fn write_blocking(&mut self, parts: Vec<Bytes>) -> Result<ControlFlow<Rejection>, Fault> {
        if self.is_broken {
            return Err(Fault::WriterBroken);
        }
        self.is_broken = true;
        let deadline = self.fleet.deadline();
        let more: u64 = parts.iter().map(|part| part.len() as u64).sum();
        self.total = self.total.saturating_add(more);
        if self.is_too_large(self.total) {
            return self
                .reject(self.total, self.limit, deadline)
                .map(ControlFlow::Break);
        }
        let chunks = self.append(parts, deadline)?;
        if let Some(draft) = &mut self.draft {
            match draft.send(chunks, deadline) {
                Err(Fault::OutOfMemory { .. }) => return Ok(ControlFlow::Break(self.is_full())),
                sent => sent?,
            }
            if draft.lengths.len() > self.most_chunks {
                return self
                    .reject(self.total, self.total - more, deadline)
                    .map(ControlFlow::Break);
            }
        }
        self.is_broken = false;
        Ok(ControlFlow::Continue(()))
    }

    fn commit_blocking(mut self, head: Bytes) -> Result<Outcome, Fault> {
        if self.is_broken {
            return Err(Fault::WriterBroken);
        }
        if head.len() != self.options.head_len {
            return Err(Fault::HeadLength {
                promised: self.options.head_len,
                got: head.len(),
            });
        }
        let deadline = self.fleet.deadline();
        let (expiry, mode) = (self.options.expiry, self.options.mode);
        let Some(mut draft) = self.draft.take() else {
            let mut parts = Vec::with_capacity(self.kept.len() + 1);
            parts.push(head);
            parts.append(&mut self.kept);
            return self
                .fleet
                .publish(&self.name, deadline, &parts, false, expiry, mode);
        };
        match draft.finish(head, deadline) {
            Err(Fault::OutOfMemory { .. }) => return Ok(Outcome::Rejected(self.is_full())),
            finished => finished?,
        }
        if draft.lengths.len() > self.most_chunks {
            return self
                .reject(self.total, self.total - 1, deadline)
                .map(Outcome::Rejected);
        }
        let manifest = draft.manifest()?;
        // From now on they live as long as the entry, and all of them are still there.
        let missing = self.fleet.keep_chunks(&manifest, expiry, deadline)?;
        if missing > 0 {
            tracing::warn!(key = %self.key, missing, "chunks were evicted while they were written");
            return Ok(Outcome::Rejected(self.is_full()));
        }
        let encoded = manifest
            .encode()
            .map_err(|_| Fault::Unsupported("the manifest cannot be written"))?;
        let published = self
            .fleet
            .publish(&self.name, deadline, &[encoded], true, expiry, mode)?;
        Ok(match published {
            Outcome::Stored { .. } => {
                draft.is_published = true;
                Outcome::Stored { bytes: self.total }
            }
            rejected @ Outcome::Rejected(_) => rejected,
        })
    }

    /// The servers have no room for the chunks, or let go of them while others were written.
    fn is_full(&self) -> Rejection {
        Rejection::StoreFull {
            bytes: self.total,
            limit: self
                .fleet
                .servers
                .iter()
                .map(|server| server.memory())
                .sum(),
        }
    }

    /// Whether writing so many more bytes only keeps them.
    fn only_keeps(&self, more: u64) -> bool {
        self.draft.is_none() && self.total.saturating_add(more) <= self.limit
    }
}

/// The writer, out of which the blocking work takes what it needs and puts it back.
pub(crate) struct Handle(pub(crate) Option<Writer>);

impl EntryWriter for Handle {
    fn write(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>> {
        Box::pin(async move {
            // None: the future of an earlier write was dropped.
            let Some(mut writer) = self.0.take() else {
                return Err(Fault::WriterBroken.into());
            };
            let describe = describe(&writer);
            let more = parts.iter().map(|part| part.len() as u64).sum();
            let (writer, written) = if writer.only_keeps(more) {
                let written = writer.write_blocking(parts);
                (writer, written)
            } else {
                offload(move || {
                    let written = writer.write_blocking(parts);
                    (writer, written)
                })
                .await
            };
            self.0 = Some(writer);
            written.map_err(describe)
        })
    }

    fn commit(self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>> {
        Box::pin(async move {
            let Some(writer) = self.0 else {
                return Err(Fault::WriterBroken.into());
            };
            let describe = describe(&writer);
            offload(move || writer.commit_blocking(head))
                .await
                .map_err(describe)
        })
    }
}

fn describe(writer: &Writer) -> impl FnOnce(Fault) -> Error + use<> {
    let (fleet, key) = (Arc::clone(&writer.fleet), writer.key.clone());
    move |fault| {
        Error::from(fault)
            .with("key", key)
            .with("store", fleet.url())
    }
}

impl Draft {
    fn start(writer: &Writer, deadline: Deadline) -> Result<Self, Fault> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|source| Fault::Random { source })?;
        let chunk_limit = writer.fleet.chunk_limit(deadline).max(1);
        let head_chunks = writer.options.head_len.div_ceil(chunk_limit);
        Ok(Self {
            fleet: Arc::clone(&writer.fleet),
            generation: u128::from_be_bytes(random),
            cutter: Cutter::new(chunk_limit, writer.most_chunks),
            lengths: vec![0; head_chunks],
            head_chunks,
            chunk_limit,
            renewed: std::time::Instant::now(),
            is_published: false,
        })
    }

    fn send(&mut self, chunks: Vec<Chunk>, deadline: Deadline) -> Result<(), Fault> {
        let mut named = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let name = self.fleet.chunk_name(self.generation, self.lengths.len());
            // A chunk has at most 64 MiB.
            self.lengths
                .push(u32::try_from(cutter::len(&chunk)).unwrap_or(u32::MAX));
            named.push((name, chunk));
        }
        self.fleet.write_chunks(named, deadline)?;
        self.renew(deadline)
    }

    /// A slow source: the first chunks must not expire before the last are written.
    fn renew(&mut self, deadline: Deadline) -> Result<(), Fault> {
        let half = std::time::Duration::from_secs(DRAFT_SECONDS.unsigned_abs() / 2);
        if self.renewed.elapsed() < half {
            return Ok(());
        }
        self.renewed = std::time::Instant::now();
        let names = self.names(self.head_chunks);
        let missing = self.fleet.touch_chunks(names, DRAFT_SECONDS, deadline)?;
        if missing > 0 {
            return Err(Fault::ChunksEvicted { missing });
        }
        Ok(())
    }

    /// Sends what is left, and the head.
    fn finish(&mut self, mut head: Bytes, deadline: Deadline) -> Result<(), Fault> {
        let mut chunks = Vec::new();
        self.cutter.finish(&mut chunks);
        self.send(chunks, deadline)?;
        let mut named = Vec::with_capacity(self.head_chunks);
        for index in 0..self.head_chunks {
            let part = head.split_to(head.len().min(self.chunk_limit));
            self.lengths[index] = u32::try_from(part.len()).unwrap_or(u32::MAX);
            named.push((self.fleet.chunk_name(self.generation, index), vec![part]));
        }
        self.fleet.write_chunks(named, deadline)
    }

    fn manifest(&self) -> Result<Manifest, Fault> {
        Manifest::new(self.generation, self.lengths.iter().copied())
            .map_err(|_| Fault::Unsupported("the entry has no chunks"))
    }

    fn names(&self, from: usize) -> impl Iterator<Item = String> + use<> {
        let (fleet, generation) = (Arc::clone(&self.fleet), self.generation);
        (from..self.lengths.len()).map(move |index| fleet.chunk_name(generation, index))
    }
}

impl Drop for Draft {
    /// The chunks of an entry that was not published go, in the background; at the latest they expire.
    fn drop(&mut self) {
        if self.is_published || self.lengths.is_empty() {
            return;
        }
        let fleet = Arc::clone(&self.fleet);
        let names: Vec<String> = self.names(0).collect();
        background(offload(move || {
            fleet.end_chunks_named(names.into_iter(), Ending::Now, fleet.deadline());
        }));
    }
}

/// How many chunks a manifest of so many bytes describes.
fn most_chunks(bytes: u64) -> usize {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let most = bytes.saturating_sub(Manifest::encoded_len(0)) / 4;
    most.min(Manifest::MAX_CHUNKS)
}
