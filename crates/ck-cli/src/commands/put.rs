use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use ck_cache::{Outcome, PutOptions};
use indicatif::ProgressBar;

use crate::args::PutArgs;
use crate::failure::{Failure, Status};
use crate::input::Batches;
use crate::store::Store;
use crate::{human, input, progress};

/// `ck put KEY FILE`
pub(crate) fn run(store: &Store, args: &PutArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let cache = store.open()?;
    let mut options = PutOptions::new().with_compression(args.compression);
    if let Some(ttl) = args.ttl {
        options = options.with_ttl(ttl);
    }
    let bar = progress::rows("storing");
    let rows = Arc::new(AtomicU64::new(0));
    let reader = Counted {
        batches: input::open(&args.file)?,
        rows: Arc::clone(&rows),
        bar: bar.clone(),
    };
    let outcome = cache.put_reader(args.key.as_str(), reader, &options);
    bar.finish_and_clear();
    match outcome? {
        Outcome::Stored { bytes } => {
            if !args.quiet {
                eprintln!(
                    "stored {}: {}, {} in {}",
                    human::printable(&args.key),
                    human::count(rows.load(Ordering::Relaxed), "row", "rows"),
                    human::bytes(bytes),
                    human::seconds(started.elapsed()),
                );
            }
            Ok(())
        }
        Outcome::Rejected(rejection) => Err(Failure::new(Status::Store, rejection)),
    }
}

/// Batches on their way, counted.
struct Counted {
    batches: Batches,
    rows: Arc<AtomicU64>,
    bar: ProgressBar,
}

impl Iterator for Counted {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        if let Ok(batch) = &batch {
            let rows = batch.num_rows() as u64;
            self.rows.fetch_add(rows, Ordering::Relaxed);
            self.bar.inc(rows);
        }
        Some(batch)
    }
}

impl RecordBatchReader for Counted {
    fn schema(&self) -> SchemaRef {
        self.batches.schema()
    }
}
