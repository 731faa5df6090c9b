use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use ck_arrow::{Codec, EncodeOptions, Encoder, retained_bytes};
use ck_core::{BoxFuture, Key, Outcome, Result, WriteOptions, offload};
use ck_frame::Header;
use futures_core::Stream;
use serde_json::json;
use twox_hash::XxHash3_64;

use crate::cache::{EXTENSION, Shared, with_key};
use crate::source::{Producer, Source, source_error};
use crate::{Cache, PutOptions, Table};

/// The serializer name of entries that hold plain bytes.
pub(crate) const BYTES: &str = "bytes";

/// Longer keys are not recorded in entries; as for tables.
const MAX_RECORDED_KEY: usize = 1024;

/// Hashing less than this is quicker than a hop to another thread.
const INLINE_HASH_BYTES: usize = 256 << 10;

impl Cache {
    /// Stores a table in memory under `key`, in place of any older entry.
    ///
    /// Dropping the future before it is done leaves the older entry as it was; so does an error or a
    /// rejection. This holds for all puts.
    ///
    /// # Memory
    ///
    /// At most `workers + 2` batches of `batch_bytes` beyond the table; uncompressed, the columns are
    /// written from where they lie, and it is much less.
    ///
    /// # Errors
    ///
    /// See [`Cache`]. [`ErrorKind::Misuse`](crate::ErrorKind::Misuse) for options out of range, and for
    /// an invalid value of `CACHEKIT_ARROW_COMPRESSION` when that decides;
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) when the options ask for more memory than the
    /// whole budget.
    pub async fn put_table(
        &self,
        key: impl Into<Key>,
        table: impl Into<Table>,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let table = table.into();
        let schema = table.schema().clone();
        let held = retained_bytes(table.batches()) as u64;
        let batches = Box::new(table.into_batches().into_iter().map(Ok));
        self.put(
            key.into(),
            schema,
            Source::Blocking(batches),
            Some(held),
            options,
        )
        .await
    }

    /// Stores the batches of `reader`. The reader may block: inside a tokio runtime it is pulled on the
    /// blocking pool.
    ///
    /// # Memory
    ///
    /// As [`Cache::put_table`], and two batches of the reader.
    ///
    /// # Errors
    ///
    /// As [`Cache::put_table`]; when the reader fails, its error, with
    /// [`ErrorKind::Permanent`](crate::ErrorKind::Permanent) unless it is an [`Error`](crate::Error)
    /// itself.
    pub async fn put_reader(
        &self,
        key: impl Into<Key>,
        reader: impl RecordBatchReader + Send + 'static,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let schema = reader.schema();
        let batches = Box::new(reader.map(|batch| batch.map_err(source_error)));
        self.put(key.into(), schema, Source::Blocking(batches), None, options)
            .await
    }

    /// Stores the batches of an async stream.
    ///
    /// # Memory
    ///
    /// As [`Cache::put_reader`].
    ///
    /// # Errors
    ///
    /// As [`Cache::put_reader`].
    pub async fn put_stream<E>(
        &self,
        key: impl Into<Key>,
        schema: SchemaRef,
        stream: impl Stream<Item = Result<RecordBatch, E>> + Send,
        options: &PutOptions,
    ) -> Result<Outcome>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = Box::pin(Batches(Box::pin(stream)));
        self.put(key.into(), schema, Source::Stream(stream), None, options)
            .await
    }

    /// Stores plain bytes. Of the options, only the time to live matters.
    ///
    /// # Errors
    ///
    /// See [`Cache`].
    pub async fn put_bytes(
        &self,
        key: impl Into<Key>,
        bytes: impl Into<Bytes>,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let (key, bytes) = (key.into(), bytes.into());
        let expiry = options.expiry()?;
        let hash = hash(&bytes).await;
        let mut seal = json!({
            "layout": 1,
            "length": bytes.len(),
            "xxh3": format!("{hash:016x}"),
        });
        if let Some(seal) = seal.as_object_mut()
            && key.as_str().len() <= MAX_RECORDED_KEY
        {
            seal.insert("key".to_owned(), key.as_str().into());
        }
        let head = Header::new(BYTES)
            .with_metadata("format", BYTES)
            .with_extension(EXTENSION, seal)
            .encode()?;
        let options = WriteOptions::new()
            .with_expiry(expiry)
            .with_head_len(head.len())
            .with_size_hint(Some((head.len() + bytes.len()) as u64));
        let outcome = self
            .shared
            .backend
            .put(&key, head, vec![bytes], options)
            .await;
        let outcome = outcome.map_err(with_key(&key))?;
        self.shared.count_put(&outcome);
        Ok(outcome)
    }

    /// Boxed, so that callers' futures stay small and are seen to be `Send`.
    fn put<'a>(
        &'a self,
        key: Key,
        schema: SchemaRef,
        source: Source<'a>,
        source_bytes: Option<u64>,
        options: &'a PutOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            let stored = self
                .shared
                .put(&key, schema, source, source_bytes, options)
                .await;
            let outcome = stored.map_err(with_key(&key))?;
            self.shared.count_put(&outcome);
            Ok(outcome)
        })
    }
}

impl Shared {
    async fn put(
        &self,
        key: &Key,
        schema: SchemaRef,
        source: Source<'_>,
        source_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let expiry = options.expiry()?;
        let capabilities = self.backend.capabilities();
        let codec = options.compression().resolve(capabilities.maps)?;
        // Nothing is compressed: one batch is being written and the next is being hashed.
        let workers = if codec == Codec::None {
            0
        } else {
            options.workers()
        };
        let in_flight = (options.batch_bytes() as u64).saturating_mul(workers as u64 + 2);
        let in_flight = source_bytes.map_or(in_flight, |bytes| bytes.min(in_flight));
        let _reservation = self.budget.reserve(in_flight).await?;

        let encoder = Encoder::new(
            schema,
            EncodeOptions::new()
                .with_batch_bytes(options.batch_bytes())
                .with_codec(codec)
                .with_workers(options.workers())
                .with_outer_offset(capabilities.outer_offset)
                .with_key(key),
        )?;
        let write_options = WriteOptions::new()
            .with_expiry(expiry)
            .with_head_len(encoder.head_len())
            .with_mappable(codec == Codec::None);
        let mut writer = match self.backend.create(key, write_options).await? {
            ControlFlow::Continue(writer) => writer,
            ControlFlow::Break(rejection) => return Ok(Outcome::Rejected(rejection)),
        };

        // While one segment is written the next is encoded, and no more than that one.
        let mut producer = Producer::new(encoder, source);
        let mut segment = producer.next_segment().await?;
        while let Some(parts) = segment {
            let (written, next) = join(writer.write(parts), producer.next_segment()).await;
            if let ControlFlow::Break(rejection) = written? {
                return Ok(Outcome::Rejected(rejection));
            }
            segment = next?;
        }
        writer.commit(producer.finish()?.head).await
    }

    fn count_put(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Stored { bytes } => {
                self.counters.stored.add(1);
                self.counters.stored_bytes.add(*bytes);
            }
            Outcome::Rejected(_) => self.counters.rejected.add(1),
        }
    }
}

/// The xxh3-64 of `bytes`; large ones are hashed away from async threads.
pub(crate) async fn hash(bytes: &Bytes) -> u64 {
    if bytes.len() <= INLINE_HASH_BYTES {
        return XxHash3_64::oneshot(bytes);
    }
    let bytes = bytes.clone();
    offload(move || XxHash3_64::oneshot(&bytes)).await
}

/// A stream whose errors are ours.
struct Batches<S>(Pin<Box<S>>);

impl<S, E> Stream for Batches<S>
where
    S: Stream<Item = Result<RecordBatch, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0
            .as_mut()
            .poll_next(cx)
            .map(|next| next.map(|batch| batch.map_err(source_error)))
    }
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
