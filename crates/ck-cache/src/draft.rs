//! Entries on their way into the store: everything written, nothing published.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use arrow_schema::SchemaRef;
use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, Encoder, Table};
use ck_core::{
    Backend, EntryWriter, Key, Outcome, Rejection, Result, WriteMode, WriteOptions, offload,
};
use ck_frame::Header;
use serde_json::{Value, json};
use twox_hash::XxHash3_64;

use crate::PutOptions;
use crate::cache::{EXTENSION, Shared};
use crate::contents::{ABSENT, BYTES};
use crate::held::{Content, Form};
use crate::source::{Producer, Source};
use crate::trace::stage;

/// Longer keys are not recorded in entries; as for tables.
const MAX_RECORDED_KEY: usize = 1024;

/// Hashing less than this is quicker than a hop to another thread.
const INLINE_HASH_BYTES: usize = 256 << 10;

/// An entry that needs only to be published.
pub(crate) enum Draft {
    /// Written; its head is missing.
    Written {
        writer: Box<dyn EntryWriter>,
        head: Bytes,
    },
    /// All at hand.
    Whole {
        head: Bytes,
        body: Bytes,
        options: WriteOptions,
    },
    /// The store will not have it.
    Rejected(Rejection),
}

impl Draft {
    pub(crate) async fn commit(self, backend: &dyn Backend, key: &Key) -> Result<Outcome> {
        match self {
            Self::Written { writer, head } => writer.commit(head).await,
            Self::Whole {
                head,
                body,
                options,
            } => backend.put(key, head, vec![body], options).await,
            Self::Rejected(rejection) => Ok(Outcome::Rejected(rejection)),
        }
    }
}

impl Shared {
    /// Writes a value that is all in memory.
    pub(crate) async fn draft(
        &self,
        backend: &dyn Backend,
        key: &Key,
        form: Form,
        content: &Content,
        options: &PutOptions,
        mode: WriteMode,
    ) -> Result<Draft> {
        match (content, form) {
            (Content::Table(table), _) => {
                let schema = table.schema().clone();
                let batches = table.clone().into_batches().into_iter().map(Ok);
                let source = Source::Blocking(Box::new(batches));
                self.draft_table(backend, key, schema, source, Some(table), options, mode)
                    .await
            }
            (Content::Bytes(bytes), _) => draft_bytes(key, BYTES, bytes, options, mode).await,
            (Content::Absent, _) => draft_bytes(key, ABSENT, &Bytes::new(), options, mode).await,
            (Content::Value(value), Form::Value(form)) => {
                self.draft_value(backend, key, form, value, options, mode)
                    .await
            }
            (Content::Value(_), _) => Ok(Draft::Rejected(Rejection::NoTier)),
        }
    }

    /// Encodes a table into the store, batch by batch. `table` is what `source` gives, where that is known.
    #[expect(
        clippy::too_many_arguments,
        reason = "what, where, how: each of them once"
    )]
    pub(crate) async fn draft_table(
        &self,
        backend: &dyn Backend,
        key: &Key,
        schema: SchemaRef,
        source: Source<'_>,
        table: Option<&Table>,
        options: &PutOptions,
        mode: WriteMode,
    ) -> Result<Draft> {
        let write_options = options.write_options(mode)?;
        let capabilities = backend.capabilities();
        let codec = options.compression().resolve(capabilities.maps)?;
        // Nothing is compressed: one batch is being written and the next is being hashed.
        let workers = if codec == Codec::None {
            0
        } else {
            options.workers()
        };
        let in_flight = (options.batch_bytes() as u64).saturating_mul(workers as u64 + 2);
        let source_bytes = table.map(|table| ck_arrow::retained_bytes(table.batches()) as u64);
        let in_flight = source_bytes.map_or(in_flight, |bytes| bytes.min(in_flight));
        let _reservation = self.budget.reserve(in_flight).await?;

        let encode_options = EncodeOptions::new()
            .with_batch_bytes(options.batch_bytes())
            .with_codec(codec)
            .with_workers(options.workers())
            .with_outer_offset(capabilities.outer_offset)
            .with_stale_for(options.stale_for())
            .with_key(key);
        // A file grows as it comes; a server does much better when it knows the length.
        let length = match table.filter(|_| !capabilities.maps) {
            None => None,
            Some(table) => {
                let (batches, options) = (table.clone().into_batches(), encode_options.clone());
                let schema = Arc::clone(&schema);
                offload(move || Encoder::measure(schema, options, batches)).await?
            }
        };
        let encoder = Encoder::new(schema, encode_options)?;
        let write_options = write_options
            .with_head_len(encoder.head_len())
            .with_size_hint(length)
            .with_mappable(codec == Codec::None);
        let mut writer = match backend.create(key, write_options).await? {
            ControlFlow::Continue(writer) => writer,
            ControlFlow::Break(rejection) => return Ok(Draft::Rejected(rejection)),
        };
        stage("put", key, "started");

        // While one segment is written the next is encoded, and no more than that one.
        let mut producer = Producer::new(encoder, source);
        let mut segment = producer.next_segment().await?;
        while let Some(parts) = segment {
            let (written, next) = join(writer.write(parts), producer.next_segment()).await;
            if let ControlFlow::Break(rejection) = written? {
                return Ok(Draft::Rejected(rejection));
            }
            segment = next?;
            stage("put", key, "segment");
        }
        let head = producer.finish()?.head;
        stage("put", key, "written");
        Ok(Draft::Written { writer, head })
    }
}

/// An entry of bytes, or of nothing, with its length and hash.
async fn draft_bytes(
    key: &Key,
    serializer: &str,
    bytes: &Bytes,
    options: &PutOptions,
    mode: WriteMode,
) -> Result<Draft> {
    let seal = seal(key, options, bytes.len() as u64, hash(bytes).await);
    let head = Header::new(serializer)
        .with_metadata("format", serializer)
        .with_extension(EXTENSION, seal)
        .encode()?;
    let write_options = options
        .write_options(mode)?
        .with_head_len(head.len())
        .with_size_hint(Some((head.len() + bytes.len()) as u64));
    Ok(Draft::Whole {
        head,
        body: bytes.clone(),
        options: write_options,
    })
}

/// What proves a payload, and what the entry says of itself. Its length depends only on the key's and on
/// `stale_for`.
pub(crate) fn seal(key: &Key, options: &PutOptions, length: u64, hash: u64) -> Value {
    let mut seal = json!({
        "layout": 1,
        "length": format!("{length:016x}"),
        "xxh3": format!("{hash:016x}"),
    });
    if let Some(seal) = seal.as_object_mut() {
        if key.as_str().len() <= MAX_RECORDED_KEY {
            seal.insert("key".to_owned(), key.as_str().into());
        }
        let stale = options.stale_for().as_secs();
        if stale > 0 {
            seal.insert("stale".to_owned(), stale.into());
        }
    }
    seal
}

/// The xxh3-64 of `bytes`; large ones are hashed away from async threads.
pub(crate) async fn hash(bytes: &Bytes) -> u64 {
    if bytes.len() <= INLINE_HASH_BYTES {
        return XxHash3_64::oneshot(bytes);
    }
    let bytes = bytes.clone();
    offload(move || XxHash3_64::oneshot(&bytes)).await
}
/// Polls both until both are done, the first one first.
async fn join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut left, mut right) = (None, None);
    poll_fn(|cx| {
        if left.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            left = Some(output);
        }
        if right.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            right = Some(output);
        }
        match (left.take(), right.take()) {
            (Some(left), Some(right)) => Poll::Ready((left, right)),
            (l, r) => {
                (left, right) = (l, r);
                Poll::Pending
            }
        }
    })
    .await
}
