use std::io::{self, Write};
use std::time::Instant;

use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use arrow_array::{Array, RecordBatch};
use ck_cache::blocking::CachedTable;
use serde_json::json;

use super::machine::Peak;
use crate::args::DemoStepArgs;
use crate::failure::Failure;
use crate::store::Store;

/// The column that is summed.
const SUMMED: &str = "l_extendedprice";
/// The columns of the projection.
const PROJECTED: [&str; 3] = ["l_orderkey", "l_extendedprice", "l_shipdate"];
/// The rows of the row range, from the middle of the table.
const RANGE_ROWS: u64 = 100_000;

/// A reading step of the demo.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    /// Whether it reports the sum of [`SUMMED`].
    pub(super) sums: bool,
    /// Whether it sees every row.
    pub(super) all_rows: bool,
}

const fn step(name: &'static str, key: &'static str, title: &'static str) -> Step {
    Step {
        name,
        key,
        title,
        sums: false,
        all_rows: true,
    }
}

/// In the order of the table.
pub(super) const STEPS: [Step; 10] = [
    step("open", "plain", "open, uncompressed"),
    Step {
        sums: true,
        ..step("sum", "plain", "sum one column")
    },
    step("project", "plain", "read 3 of 16 columns"),
    Step {
        all_rows: false,
        ..step("rows", "plain", "read 100,000 rows")
    },
    step("scan", "plain", "read everything, verified"),
    step("verify", "plain", "verify the entry"),
    Step {
        sums: true,
        ..step("sum", "zstd", "sum one column, zstd")
    },
    step("project", "zstd", "read 3 of 16 columns, zstd"),
    Step {
        all_rows: false,
        ..step("rows", "zstd", "read 100,000 rows, zstd")
    },
    step("verify", "zstd", "verify the entry, zstd"),
];

/// `ck demo-step STEP KEY`: does one thing and reports it as JSON.
pub(crate) fn run(store: &Store, args: &DemoStepArgs) -> Result<(), Failure> {
    let cache = store.open()?;
    let peak = Peak::start();
    let started = Instant::now();
    let Some(table) = cache.open_table(args.key.as_str())? else {
        return Err(Failure::miss(&args.key));
    };
    let mut sum = None;
    let mut rows = table.num_rows();
    let bytes = match args.step.as_str() {
        "open" => None,
        "sum" => {
            let mut total = 0;
            let mut bytes = 0;
            for batch in table.select(&[SUMMED])?.batches() {
                let batch = batch?;
                bytes += bytes_of(&batch);
                total += sum_of(&[batch])?;
            }
            sum = Some(total.to_string());
            Some(bytes)
        }
        "project" => Some(read(&table.select(&PROJECTED)?, &mut rows)?),
        "rows" => {
            let start = rows.saturating_sub(RANGE_ROWS) / 2;
            let end = start.saturating_add(RANGE_ROWS).min(rows);
            Some(read(&table.rows(start..end)?, &mut rows)?)
        }
        "scan" => Some(read(&table, &mut rows)?),
        "verify" => {
            table.verify()?;
            Some(table.async_table().stored_bytes())
        }
        other => {
            return Err(Failure::usage(format_args!(
                "the demo has no step {other:?}"
            )));
        }
    };
    let time = started.elapsed();
    let (peak_bytes, mapped_bytes) = peak.stop();
    let found = json!({
        "nanoseconds": u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        "bytes": bytes,
        "peak_bytes": peak_bytes,
        "mapped_bytes": mapped_bytes,
        "rows": rows,
        "sum": sum,
    });
    writeln!(io::stdout(), "{found}")?;
    Ok(())
}

/// Reads batch by batch; gives the bytes, and sets the rows to what was really there.
fn read(table: &CachedTable, rows: &mut u64) -> Result<u64, Failure> {
    let mut bytes = 0;
    *rows = 0;
    for batch in table.batches() {
        let batch = batch?;
        bytes += bytes_of(&batch);
        *rows += batch.num_rows() as u64;
    }
    Ok(bytes)
}

fn bytes_of(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter();
    columns
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64)
        .sum()
}

/// The sum of the extended prices, in hundredths.
pub(super) fn sum_of(batches: &[RecordBatch]) -> Result<i128, Failure> {
    let mut sum = 0;
    for batch in batches {
        let column = batch
            .column_by_name(SUMMED)
            .map(|column| column.as_primitive_opt::<Decimal128Type>());
        let Some(Some(prices)) = column else {
            return Err(Failure::other(format_args!("no decimal column {SUMMED}")));
        };
        sum += prices.values().iter().sum::<i128>();
    }
    Ok(sum)
}
