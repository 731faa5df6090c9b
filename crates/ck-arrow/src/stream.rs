use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow_array::RecordBatch;
use ck_core::{BoxFuture, Result};
use futures_core::Stream;

use crate::reader::TableReader;

/// The record batches of a table as a stream; each is read when it is polled for.
pub struct TableStream {
    table: TableReader,
    next: usize,
    reading: Option<BoxFuture<'static, Result<RecordBatch>>>,
}

impl TableStream {
    pub(crate) fn new(table: TableReader) -> Self {
        Self {
            table,
            next: 0,
            reading: None,
        }
    }
}

impl Stream for TableStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.next == this.table.num_batches() {
            this.table.pool = None;
            return Poll::Ready(None);
        }
        let reading = this.reading.get_or_insert_with(|| {
            let (table, place) = (this.table.clone(), this.next);
            Box::pin(async move { table.batch(place).await })
        });
        let Poll::Ready(batch) = reading.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        this.reading = None;
        this.next = if batch.is_ok() {
            this.next + 1
        } else {
            this.table.num_batches()
        };
        Poll::Ready(Some(batch))
    }
}

impl fmt::Debug for TableStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableStream")
            .field("table", &self.table)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
