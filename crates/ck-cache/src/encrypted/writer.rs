//! Entries on their way into the store.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ck_core::{
    BoxFuture, EntryWriter, Error, ErrorKind, Key, Outcome, Rejection, Result, WriteMode,
    WriteOptions, complete, offload,
};
use ck_crypto::{ChunkSealer, TAG_BYTES, new_salt};
use ck_frame::{Envelope, Probe};

use super::form::{Chunked, Described, LENGTH_BYTES};
use super::{Shared, single};
use crate::cache::is_corrupt;

/// Chunks are given to the store together up to so many bytes, or alone: each write to a file has its price.
const TOGETHER: usize = 128 << 10;

/// How much of an entry is proven at a time, to see whether it may be replaced.
const PROVEN_AT_ONCE: u64 = 1 << 20;

/// Starts an entry.
pub(super) async fn create(
    shared: &Arc<Shared>,
    key: &Key,
    options: WriteOptions,
) -> Result<ControlFlow<Rejection, Box<dyn EntryWriter>>> {
    let mut writer = Writer::gathering(shared, key, options).await?;
    // Gathered only as long as it may be short.
    let is_long = options
        .size_hint
        .is_some_and(|bytes| bytes > shared.options.chunked_above());
    if is_long && let ControlFlow::Break(rejection) = writer.begin().await? {
        // Some stores remove what is there when they refuse what is to replace it.
        shared.changed(key);
        return Ok(ControlFlow::Break(rejection));
    }
    Ok(ControlFlow::Continue(Box::new(writer)))
}

/// Stores an entry that is all at hand.
pub(super) async fn put(
    shared: &Arc<Shared>,
    key: &Key,
    head: Bytes,
    body: Vec<Bytes>,
    options: WriteOptions,
) -> Result<Outcome> {
    let entry_len = sum(&head, &body);
    let options = options.with_size_hint(Some(entry_len));
    // Nobody else reads it, however long it is.
    if described(shared, &head, entry_len).is_some_and(|(found, _)| found.is_python_value()) {
        let mut writer = Writer::gathering(shared, key, options).await?;
        writer.stage = Stage::Gathering {
            parts: body,
            bytes: entry_len,
        };
        return complete(writer.publish(head)).await;
    }
    let mut writer = match create(shared, key, options).await? {
        ControlFlow::Continue(writer) => writer,
        ControlFlow::Break(rejection) => return Ok(Outcome::Rejected(rejection)),
    };
    match writer.write(body).await? {
        ControlFlow::Continue(()) => writer.commit(head).await,
        ControlFlow::Break(rejection) => Ok(Outcome::Rejected(rejection)),
    }
}

impl Shared {
    /// Where nothing may be replaced, what is a miss to those who have the key may all the same.
    async fn replaceable(self: &Arc<Self>, key: &Key) -> Result<WriteMode> {
        let Some(entry) = self.store.open(key).await? else {
            return Ok(WriteMode::Create);
        };
        let plain = self.prove(key, &entry).await?;
        let mut start = 0;
        loop {
            let end = plain.len().min(start + PROVEN_AT_ONCE);
            match plain.read(start..end).await {
                Ok(_) if end == plain.len() => return Ok(WriteMode::Create),
                Ok(_) => start = end,
                Err(error) if is_corrupt(&error) => return Ok(WriteMode::Update(entry.version())),
                Err(error) => return Err(error),
            }
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    key: Key,
    options: WriteOptions,
    stage: Stage,
}

enum Stage {
    /// The entry may be encrypted at once.
    Gathering {
        parts: Vec<Bytes>,
        bytes: u64,
    },
    Chunks(Box<Chunks>),
    /// After a failure.
    Broken,
}

/// An entry that is encrypted in chunks.
struct Chunks {
    inner: Box<dyn EntryWriter>,
    cipher: ChunkCutter,
}

/// Cuts a body into chunks and encrypts them.
struct ChunkCutter {
    form: Chunked,
    sealer: ChunkSealer,
    /// Encrypted chunks with their tags, then the one under way. A full one stays, because it may be the last.
    chunks: BytesMut,
    /// Where the one under way starts.
    start: usize,
    /// Memory that was written.
    spare: BytesMut,
    chunk_len: usize,
    body_len: u64,
}

impl Writer {
    async fn gathering(shared: &Arc<Shared>, key: &Key, options: WriteOptions) -> Result<Self> {
        let options = match options.mode {
            WriteMode::Create => options.with_mode(shared.replaceable(key).await?),
            _ => options,
        };
        Ok(Self {
            shared: Arc::clone(shared),
            key: key.clone(),
            options: options.with_mappable(false),
            stage: Stage::Gathering {
                parts: Vec::new(),
                bytes: options.head_len as u64,
            },
        })
    }

    /// Begins an entry in chunks with what was gathered.
    async fn begin(&mut self) -> Result<ControlFlow<Rejection>> {
        let Stage::Gathering { parts, .. } = std::mem::replace(&mut self.stage, Stage::Broken)
        else {
            return Err(broken());
        };
        let cipher = ChunkCutter::new(&self.shared, &self.key, self.options.head_len)?;
        let head_len = usize::try_from(cipher.form.body_start()).map_err(|_| broken())?;
        let body_len = |bytes: u64| bytes.saturating_sub(self.options.head_len as u64);
        let bytes = self
            .options
            .size_hint
            .and_then(|bytes| cipher.form.entry_len(body_len(bytes)));
        let options = self.options.with_head_len(head_len).with_size_hint(bytes);
        let inner = match self.shared.store.create(&self.key, options).await? {
            ControlFlow::Continue(inner) => inner,
            ControlFlow::Break(rejection) => return Ok(ControlFlow::Break(rejection)),
        };
        let mut chunks = Box::new(Chunks { inner, cipher });
        let flow = chunks.write(parts).await?;
        self.stage = Stage::Chunks(chunks);
        Ok(flow)
    }

    async fn append(&mut self, more: Vec<Bytes>) -> Result<ControlFlow<Rejection>> {
        // What is dropped halfway through must not go on.
        match std::mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Broken => Err(broken()),
            Stage::Chunks(mut chunks) => {
                let flow = chunks.write(more).await?;
                self.stage = Stage::Chunks(chunks);
                Ok(flow)
            }
            Stage::Gathering { mut parts, bytes } => {
                let bytes = bytes + sum(&Bytes::new(), &more);
                parts.extend(more);
                self.stage = Stage::Gathering { parts, bytes };
                if bytes > self.shared.options.chunked_above() {
                    self.begin().await
                } else {
                    Ok(ControlFlow::Continue(()))
                }
            }
        }
    }

    async fn publish(self, head: Bytes) -> Result<Outcome> {
        if head.len() != self.options.head_len {
            return Err(Error::new(
                ErrorKind::Misuse,
                "the head does not have the promised length",
            )
            .with("promised", self.options.head_len)
            .with("found", head.len()));
        }
        let _changing = self.shared.changing(&self.key);
        match self.stage {
            Stage::Broken => Err(broken()),
            Stage::Chunks(chunks) => chunks.commit(head).await,
            Stage::Gathering { parts, .. } => {
                let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
                let (head, body) = offload(move || encrypt(&shared, &key, &head, &parts)).await?;
                let bytes = sum(&head, &body);
                let options = self
                    .options
                    .with_head_len(head.len())
                    .with_size_hint(Some(bytes));
                self.shared.store.put(&self.key, head, body, options).await
            }
        }
    }
}

impl EntryWriter for Writer {
    fn write(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>> {
        Box::pin(async move {
            let flow = self.append(parts).await?;
            if flow.is_break() {
                self.shared.changed(&self.key);
            }
            Ok(flow)
        })
    }

    fn commit(self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>> {
        Box::pin(complete(self.publish(head)))
    }
}

/// Encrypts a whole entry: its head and the rest, as they are stored.
fn encrypt(
    shared: &Shared,
    key: &Key,
    head: &Bytes,
    body: &[Bytes],
) -> Result<(Bytes, Vec<Bytes>)> {
    let entry_len = sum(head, body);
    if let Some((described, rest)) = described(shared, head, entry_len)
        && (entry_len <= shared.options.chunked_above() || described.is_python_value())
    {
        let body = body.iter().map(|part| &part[..]);
        let payload: Vec<&[u8]> = [&rest[..]].into_iter().chain(body).collect();
        if let Some((header, sealed)) = single::seal(shared, key, &described, &payload)? {
            return Ok((header, vec![sealed]));
        }
        if described.is_python_value() {
            return Err(Error::new(
                ErrorKind::TooLarge,
                "a value of the Python client's default serializer is encrypted at once, and this one is too long to be \
                 decrypted again; raise whole_bytes",
            )
            .with("bytes", entry_len)
            .with("whole_bytes", shared.options.whole_bytes()));
        }
    }
    let mut cipher = ChunkCutter::new(shared, key, head.len())?;
    let mut chunks = Vec::new();
    for part in body {
        let mut part = &part[..];
        while !part.is_empty() {
            chunks.extend(cipher.take(&mut part)?);
        }
    }
    chunks.extend(cipher.last()?);
    let chunks = chunks
        .iter()
        .flat_map(|chunks| cipher.parts(chunks))
        .collect();
    Ok((cipher.first(head)?, chunks))
}

/// What the Python client would read of a plain entry with this head, and what of the head is payload.
fn described(shared: &Shared, head: &Bytes, entry_len: u64) -> Option<(Described, Bytes)> {
    let Ok(Probe::Ready(Envelope::V3 {
        header,
        payload_offset,
    })) = ck_frame::probe(head, entry_len)
    else {
        return None;
    };
    let rest = head.get(usize::try_from(payload_offset).ok()?..)?;
    Some((
        Described::of_plain(&header, &shared.keys)?,
        head.slice_ref(rest),
    ))
}

fn sum(head: &Bytes, body: &[Bytes]) -> u64 {
    head.len() as u64 + body.iter().map(|part| part.len() as u64).sum::<u64>()
}

impl Chunks {
    async fn write(&mut self, parts: Vec<Bytes>) -> Result<ControlFlow<Rejection>> {
        for part in parts {
            let mut part = &part[..];
            while !part.is_empty() {
                let Some(chunks) = self.cipher.take(&mut part)? else {
                    continue;
                };
                let written = self.inner.write(self.cipher.parts(&chunks)).await?;
                if let ControlFlow::Break(rejection) = written {
                    return Ok(ControlFlow::Break(rejection));
                }
                self.cipher.reuse(chunks);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn commit(mut self: Box<Self>, head: Bytes) -> Result<Outcome> {
        if let Some(chunks) = self.cipher.last()?
            && let ControlFlow::Break(rejection) =
                self.inner.write(self.cipher.parts(&chunks)).await?
        {
            return Ok(Outcome::Rejected(rejection));
        }
        let head = self.cipher.first(&head)?;
        self.inner.commit(head).await
    }
}

impl ChunkCutter {
    fn new(shared: &Shared, key: &Key, head_len: usize) -> Result<Self> {
        let chunk_bytes = shared.options.chunk_bytes();
        let form = Chunked::new(&shared.keys, chunk_bytes, head_len, new_salt()?)?;
        let sealer = {
            let name = shared.store.name_of(key);
            ChunkSealer::new(&shared.keys, &form.salt, &form.header, &name)?
        };
        let chunk_len = usize::try_from(chunk_bytes).map_err(|_| broken())?;
        Ok(Self {
            form,
            sealer,
            chunks: BytesMut::new(),
            start: 0,
            spare: BytesMut::new(),
            chunk_len,
            body_len: 0,
        })
    }

    /// Takes bytes off the start of `part`, of which there are some; gives encrypted chunks when there are enough of them.
    fn take(&mut self, part: &mut &[u8]) -> Result<Option<Bytes>> {
        let together = (TOGETHER / self.chunk_len).max(1) * (self.chunk_len + TAG_BYTES);
        if self.chunks.len() - self.start == self.chunk_len {
            self.seal(false)?;
            if self.start >= together {
                return Ok(Some(self.give()));
            }
        }
        if self.chunks.is_empty() {
            self.chunks = std::mem::take(&mut self.spare);
            self.chunks.reserve(together);
        }
        let room = self.chunk_len - (self.chunks.len() - self.start);
        let (taken, rest) = part.split_at(part.len().min(room));
        self.chunks.extend_from_slice(taken);
        self.body_len += taken.len() as u64;
        *part = rest;
        Ok(None)
    }

    /// The last chunk and what stands before it, unless the body is empty.
    fn last(&mut self) -> Result<Option<Bytes>> {
        if self.body_len == 0 {
            return Ok(None);
        }
        self.seal(true)?;
        Ok(Some(self.give()))
    }

    /// The head of the stored entry: its header and chunk 0.
    fn first(self, head: &[u8]) -> Result<Bytes> {
        let header = self.form.header;
        let mut first = Vec::with_capacity(header.len() + LENGTH_BYTES + head.len() + TAG_BYTES);
        first.extend_from_slice(&header);
        first.extend_from_slice(&self.body_len.to_be_bytes());
        first.extend_from_slice(head);
        let tag = self
            .sealer
            .seal_first(&mut first[header.len()..], self.body_len == 0)?;
        first.extend_from_slice(&tag);
        Ok(first.into())
    }

    /// Encrypts the chunk under way.
    fn seal(&mut self, is_last: bool) -> Result<()> {
        let tag = self.sealer.seal(&mut self.chunks[self.start..], is_last)?;
        self.chunks.extend_from_slice(&tag);
        self.start = self.chunks.len();
        Ok(())
    }

    fn give(&mut self) -> Bytes {
        self.start = 0;
        std::mem::take(&mut self.chunks).freeze()
    }

    /// Each of the chunks, for stores that cut entries where their parts begin.
    fn parts(&self, chunks: &Bytes) -> Vec<Bytes> {
        let stored_len = self.chunk_len + TAG_BYTES;
        let starts = (0..chunks.len()).step_by(stored_len);
        let parts = starts.map(|start| chunks.slice(start..chunks.len().min(start + stored_len)));
        parts.collect()
    }

    /// Takes the memory of chunks back, unless the store still has it.
    fn reuse(&mut self, chunks: Bytes) {
        if let Ok(mut chunks) = chunks.try_into_mut() {
            chunks.clear();
            self.spare = chunks;
        }
    }
}

fn broken() -> Error {
    Error::new(
        ErrorKind::Misuse,
        "the entry cannot be written after a failure",
    )
}
