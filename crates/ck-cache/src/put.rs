use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use ck_codec::CacheKey;
use ck_core::{BoxFuture, Key, Outcome, Rejection, Result, WriteMode};
use futures_core::Stream;
use tracing::{Instrument, Span, debug_span, field};

use crate::cache::{Shared, with_key};
use crate::draft::Draft;
use crate::held::{Content, Form, ValueForm};
use crate::source::{Source, source_error};
use crate::{Cache, PutOptions, Table};

impl Cache {
    /// Stores a table in memory under `key`, in place of any older entry.
    ///
    /// An error or a rejection leaves the older entry in the store as it was; so does dropping the future
    /// before the entry is written. What is being published then is published to its end. A cache without a
    /// store drops the older value when it rejects the newer one. This holds for all puts.
    ///
    /// # Memory
    ///
    /// At most `workers + 2` batches of `batch_bytes` beyond the table; uncompressed, the columns are
    /// written from where they lie, and it is much less. The in-process tier keeps the table's own memory,
    /// or a copy of what the table shows when it retains much more.
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
        let content = Content::Table(table.into());
        self.put_content(key.into(), Form::Table, content, options)
            .await
    }

    /// Stores the batches of `reader`. The reader may block: inside a tokio runtime it is pulled on the
    /// blocking pool.
    ///
    /// # Memory
    ///
    /// As [`Cache::put_table`], and two batches of the reader; the in-process tier does not keep the table.
    /// A reader of a [`CachedTable`](crate::CachedTable) takes what is free of the memory budget and does not
    /// wait for more.
    /// A cache without a store collects it, up to its budget.
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
        self.put_source(key.into(), schema, Source::Blocking(batches), options)
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
        self.put_source(key.into(), schema, Source::Stream(stream), options)
            .await
    }

    /// Stores a typed value: in the store when the key has a codec, else in the process alone.
    ///
    /// # Memory
    ///
    /// Two chunks of 1 MiB beyond the value.
    ///
    /// # Errors
    ///
    /// See [`Cache`], and what the codec reports.
    pub async fn put<K: CacheKey>(
        &self,
        key: &K,
        value: impl Into<Arc<K::Value>>,
        options: &PutOptions,
    ) -> Result<Outcome> {
        let form = Form::Value(ValueForm::of(key));
        let content = Content::Value(value.into());
        self.put_content(Key::new(key.key()), form, content, options)
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
        let content = Content::Bytes(bytes.into());
        self.put_content(key.into(), Form::Bytes, content, options)
            .await
    }

    /// Stores a value that is all in memory, in the store and in the process.
    pub(crate) fn put_content<'a>(
        &'a self,
        key: Key,
        form: Form,
        content: Content,
        options: &'a PutOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        let span = put_span(&key, form.kind().name());
        let put = async move {
            let key = self.resolve(key).await?;
            let shared = &self.shared;
            let stored = async {
                // Without a store, the options are checked here.
                options.write_options(WriteMode::Overwrite)?;
                let draft = match shared.backend.as_ref().filter(|_| form.is_storable()) {
                    None => None,
                    Some(backend) => {
                        let mode = WriteMode::Overwrite;
                        let draft = shared.draft(&**backend, &key, form, &content, options, mode);
                        match draft.instrument(debug_span!("ck.encode")).await? {
                            Draft::Rejected(rejection) => {
                                return shared.rejected(&key, rejection).await;
                            }
                            draft => Some(draft),
                        }
                    }
                };
                let held = shared.hold(form, content, options.life(), None);
                shared
                    .publish(&key, draft, Some(Arc::new(held)), None)
                    .await
            };
            shared.settle_put(stored.await, &key)
        };
        Box::pin(put.instrument(span))
    }

    /// Boxed, so that callers' futures stay small and are seen to be `Send`.
    fn put_source<'a>(
        &'a self,
        key: Key,
        schema: SchemaRef,
        source: Source<'a>,
        options: &'a PutOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        let span = put_span(&key, Form::Table.kind().name());
        let put = async move {
            let Some(backend) = &self.shared.backend else {
                let limit = self
                    .shared
                    .l1
                    .as_ref()
                    .map_or(0, |l1| l1.stats().budget_bytes);
                let collected = source.collect(limit).await?;
                if collected.bytes > limit {
                    let bytes = collected.bytes;
                    let rejection = Rejection::ValueTooLarge { bytes, limit };
                    let key = self.resolve(key).await?;
                    let rejected = self.shared.rejected(&key, rejection).await;
                    return self.shared.settle_put(rejected, &key);
                }
                let content = Content::Table(Table::new(schema, collected.batches)?);
                return self.put_content(key, Form::Table, content, options).await;
            };
            let key = self.resolve(key).await?;
            let stored = async {
                let mode = WriteMode::Overwrite;
                let draft = self
                    .shared
                    .draft_table(&**backend, &key, schema, source, None, options, mode);
                match draft.instrument(debug_span!("ck.encode")).await? {
                    Draft::Rejected(rejection) => self.shared.rejected(&key, rejection).await,
                    draft => self.shared.publish(&key, Some(draft), None, None).await,
                }
            };
            self.shared.settle_put(stored.await, &key)
        };
        Box::pin(put.instrument(span))
    }
}

impl Shared {
    /// A tier would not take a value. What the process has is older, and the store may have removed its own.
    async fn rejected(self: &Arc<Self>, key: &Key, rejection: Rejection) -> Result<Outcome> {
        let _ = self.publish(key, None, None, None).await?;
        Ok(Outcome::Rejected(rejection))
    }

    /// Counts what became of a put.
    fn settle_put(&self, outcome: Result<Outcome>, key: &Key) -> Result<Outcome> {
        let outcome = outcome.map_err(with_key(key))?;
        let span = Span::current();
        match &outcome {
            Outcome::Stored { bytes } => {
                span.record("bytes", bytes);
                self.counters.stored.add(1);
                self.counters.stored_bytes.add(*bytes);
            }
            Outcome::Rejected(rejection) => {
                span.record("rejected", field::display(rejection));
                self.counters.rejected.add(1);
            }
        }
        Ok(outcome)
    }
}

fn put_span(key: &Key, kind: &'static str) -> Span {
    debug_span!("ck.put", %key, kind, bytes = field::Empty, rejected = field::Empty)
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
