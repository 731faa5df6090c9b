use std::num::NonZero;
use std::thread;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::ArrowError;
use ck_cache::Table;
use indicatif::ProgressBar;
use tpchgen::generators::LineItemGenerator;
use tpchgen_arrow::LineItemArrow;

use crate::failure::Failure;
use crate::progress;

/// Rows of lineitem at scale factor 1.
const ROWS_PER_SCALE: f64 = 6_001_215.0;
/// About 7 MB each.
const BATCH_ROWS: usize = 32 * 1024;

/// TPC-H lineitem of about `bytes` in memory.
pub(super) fn lineitem(bytes: u64) -> Result<Table, Failure> {
    let scale = scale_for(bytes)?;
    let parts = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(16);
    let total = scale * ROWS_PER_SCALE;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of rows, for a progress bar"
    )]
    let bar = progress::steps("making the table", total as u64);
    let batches = thread::scope(|scope| {
        let threads: Vec<_> = (1..=parts)
            .map(|part| {
                let bar = &bar;
                scope.spawn(move || part_of(scale, part, parts, bar))
            })
            .collect();
        let mut batches = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(part) => batches.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, ArrowError>(batches)
    })?;
    bar.finish_and_clear();
    Ok(Table::new(LineItemArrow::schema_ref(), batches)?)
}

/// The scale factor at which the table has `bytes`, by the width of its first rows.
fn scale_for(bytes: u64) -> Result<f64, Failure> {
    let mut rows =
        LineItemArrow::new(LineItemGenerator::new(1.0, 1, 1)).with_batch_size(BATCH_ROWS);
    let Some(sample) = rows.next().transpose()? else {
        return Err(Failure::other("the generator made no rows"));
    };
    let row_bytes = ck_arrow::retained_bytes([&sample]) as f64 / sample.num_rows() as f64;
    Ok(bytes as f64 / row_bytes / ROWS_PER_SCALE)
}

fn part_of(
    scale: f64,
    part: usize,
    parts: usize,
    bar: &ProgressBar,
) -> Result<Vec<RecordBatch>, ArrowError> {
    let number = |n: usize| i32::try_from(n).unwrap_or(1);
    let generator = LineItemGenerator::new(scale, number(part), number(parts));
    let rows = LineItemArrow::new(generator).with_batch_size(BATCH_ROWS);
    debug_assert_eq!(rows.schema(), LineItemArrow::schema_ref());
    rows.inspect(|batch| {
        if let Ok(batch) = batch {
            bar.inc(batch.num_rows() as u64);
        }
    })
    .collect()
}
