//! Typed values as entries.

use std::hash::Hasher;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ck_codec::CacheCodec;
use ck_core::{
    Backend, EntryReader, EntryWriter, Error, ErrorKind, Key, Rejection, Result, WriteMode,
    block_on, offload,
};
use ck_frame::Header;
use twox_hash::XxHash3_64;

use crate::PutOptions;
use crate::cache::{EXTENSION, Shared};
use crate::contents::{ABSENT, VALUE, check, read_payload, stale_for};
use crate::draft::{Draft, seal};
use crate::held::{AnyValue, Content, ValueForm};
use crate::trace::stage;

/// What is collected of a value before it is written. Two of them are in flight.
const CHUNK_BYTES: usize = 1 << 20;

/// Parts of a value lie at multiples of this in memory and in files that are mapped.
const ALIGNMENT: usize = 64;

impl Shared {
    /// Serializes a value into the store, chunk by chunk.
    pub(crate) async fn draft_value(
        &self,
        backend: &dyn Backend,
        key: &Key,
        form: ValueForm,
        value: &AnyValue,
        options: &PutOptions,
        mode: WriteMode,
    ) -> Result<Draft> {
        let Some(codec) = form.codec else {
            return Ok(Draft::Rejected(Rejection::NoTier));
        };
        let _reservation = self.budget.reserve(2 * CHUNK_BYTES as u64).await?;
        let header = header(&codec).with_extension(EXTENSION, seal(key, options, 0, 0));
        let head = header.reserve(ALIGNMENT, backend.capabilities().outer_offset)?;
        let write_options = options.write_options(mode)?.with_head_len(head.len());
        let writer = match backend.create(key, write_options).await? {
            ControlFlow::Continue(writer) => writer,
            ControlFlow::Break(rejection) => return Ok(Draft::Rejected(rejection)),
        };
        let value = Arc::clone(value);
        let written = offload(move || {
            let mut sink = Sink::new(writer);
            let serialized = codec.serialize(&value, &mut sink);
            sink.finish(serialized)
        });
        let (writer, length, hash) = match written.await? {
            ControlFlow::Continue(written) => written,
            ControlFlow::Break(rejection) => return Ok(Draft::Rejected(rejection)),
        };
        stage("put", key, "written");
        let head = head.patch(EXTENSION, seal(key, options, length, hash))?;
        Ok(Draft::Written { writer, head })
    }
}

fn header(codec: &CacheCodec) -> Header {
    Header::new(VALUE)
        .with_metadata("format", VALUE)
        .with_metadata("type", codec.type_name())
        .with_metadata("type_version", codec.version())
}

/// A value of this form out of an entry, or the knowledge that there is none.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] for anything else that is intact.
pub(crate) async fn read_value(
    entry: &dyn EntryReader,
    form: ValueForm,
) -> Result<(Content, Duration)> {
    let frame = read_payload(entry).await?;
    let (header, payload) = (frame.header, frame.payload);
    let unsupported = |message: &str| {
        Error::new(ErrorKind::Unsupported, message).with("serializer", header.serializer())
    };
    match (header.serializer(), form.codec) {
        (ABSENT, _) => {
            check(&header, &payload).await?;
            return Ok((Content::Absent, stale_for(&header)));
        }
        (VALUE, Some(_)) => {}
        _ => return Err(unsupported("the entry holds no typed value")),
    }
    let Some(codec) = form.codec else {
        return Err(unsupported("values of this type stay in the process"));
    };
    check(&header, &payload).await?;
    let value = offload(move || codec.deserialize(&payload)).await?;
    Ok((Content::Value(value), stale_for(&header)))
}

/// Collects what a value serializes and hands it to the store in chunks.
struct Sink {
    writer: Box<dyn EntryWriter>,
    chunk: BytesMut,
    hasher: XxHash3_64,
    length: u64,
    /// Why the store takes no more.
    stopped: Option<Stop>,
}

enum Stop {
    Rejected(Rejection),
    Failed(Error),
}

type Written = (Box<dyn EntryWriter>, u64, u64);

impl Sink {
    fn new(writer: Box<dyn EntryWriter>) -> Self {
        Self {
            writer,
            chunk: BytesMut::new(),
            hasher: XxHash3_64::new(),
            length: 0,
            stopped: None,
        }
    }

    fn send(&mut self, chunk: Bytes) -> io::Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.hasher.write(&chunk);
        self.length += chunk.len() as u64;
        self.stopped = match block_on(self.writer.write(vec![chunk])) {
            Ok(ControlFlow::Continue(())) => return Ok(()),
            Ok(ControlFlow::Break(rejection)) => Some(Stop::Rejected(rejection)),
            Err(error) => Some(Stop::Failed(error)),
        };
        Err(io::Error::other("the store takes no more"))
    }

    /// The store's own reason to stop comes before what the serializer made of it.
    fn finish(mut self, serialized: Result<()>) -> Result<ControlFlow<Rejection, Written>> {
        if serialized.is_ok() && self.stopped.is_none() {
            let rest = self.chunk.split().freeze();
            // A failure is kept in `stopped`.
            let _ = self.send(rest);
        }
        match (self.stopped, serialized) {
            (Some(Stop::Rejected(rejection)), _) => Ok(ControlFlow::Break(rejection)),
            (Some(Stop::Failed(error)), _) | (None, Err(error)) => Err(error),
            (None, Ok(())) => Ok(ControlFlow::Continue((
                self.writer,
                self.length,
                self.hasher.finish(),
            ))),
        }
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stopped.is_some() {
            return Err(io::Error::other("the store takes no more"));
        }
        if self.chunk.capacity() == 0 {
            self.chunk.reserve(CHUNK_BYTES.min(bytes.len().max(4096)));
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            let chunk = self.chunk.split().freeze();
            self.send(chunk)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
