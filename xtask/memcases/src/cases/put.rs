//! Tables into the file store.

use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchIterator};
use arrow_schema::{ArrowError, Schema};
use ck_cache::{Compression, PutOptions, Table};

use super::read::warm;
use super::{Setting, TABLE, ZSTD};
use crate::Result;
use crate::probe::{Metrics, Probe};
use crate::tables::{self, Make};

/// A table in memory; what counts is what comes on top of it.
pub(super) fn table(setting: &Setting, compression: Compression, make: Make) -> Result<Metrics> {
    let batches = make(setting.bytes)?;
    let schema = batches
        .first()
        .map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let table = Table::new(schema, batches)?;
    let options = PutOptions::new()
        .with_compression(compression)
        .with_workers(2);
    let cache = warm(setting)?;
    let probe = Probe::start()?;
    let outcome = cache.put_table(TABLE, &table, &options)?;
    let metrics = probe.stop()?;
    outcome.stored()?;
    Ok(metrics)
}

/// A source that makes one batch of 1 MiB at a time: the table is never in memory.
pub(super) fn reader(setting: &Setting) -> Result<Metrics> {
    const PIECE: u64 = 1 << 20;
    let schema = tables::numeric(PIECE)?.remove(0).schema();
    let make = |_| match tables::numeric(PIECE) {
        Ok(mut batches) => Ok(batches.remove(0)),
        Err(error) => Err(ArrowError::ComputeError(error.to_string())),
    };
    let batches = RecordBatchIterator::new((0..setting.bytes / PIECE).map(make), schema);
    let options = PutOptions::new().with_compression(ZSTD).with_workers(2);
    let probe = Probe::start()?;
    let outcome = setting.store()?.put_reader(TABLE, batches, &options)?;
    let metrics = probe.stop()?;
    outcome.stored()?;
    Ok(metrics)
}
