use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use ck_cache::{Compression, Key, Outcome, PutOptions};
use ck_core::{Expiry, WriteOptions, block_on};
use indicatif::ProgressBar;

use crate::args::{PutArgs, PutInput};
use crate::failure::{Failure, Status};
use crate::input::Batches;
use crate::store::Store;
use crate::{document, human, input, progress};

/// `ck put KEY FILE`, `ck put KEY --json FILE`
pub(crate) fn run(store: &Store, args: &PutArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let (outcome, what) = match &args.input {
        PutInput::Table { file, compression } => {
            let (outcome, rows) = put_table(store, args, file, *compression)?;
            (outcome, human::count(rows, "row", "rows"))
        }
        PutInput::Json { file } => (put_json(store, args, file)?, "JSON".to_owned()),
    };
    match outcome {
        Outcome::Stored { bytes } => {
            if !args.quiet {
                eprintln!(
                    "stored {}: {what}, {} in {}",
                    human::printable(&args.key),
                    human::bytes(bytes),
                    human::seconds(started.elapsed()),
                );
            }
            Ok(())
        }
        Outcome::Rejected(rejection) => Err(Failure::new(Status::Store, rejection)),
    }
}

/// Also tells the number of rows.
fn put_table(
    store: &Store,
    args: &PutArgs,
    file: &Path,
    compression: Compression,
) -> Result<(Outcome, u64), Failure> {
    let cache = store.open()?;
    let mut options = PutOptions::new().with_compression(compression);
    if let Some(ttl) = args.ttl {
        options = options.with_ttl(ttl);
    }
    let bar = progress::rows("storing");
    let rows = Arc::new(AtomicU64::new(0));
    let reader = Counted {
        batches: input::open(file)?,
        rows: Arc::clone(&rows),
        bar: bar.clone(),
    };
    let outcome = cache.put_reader(args.key.as_str(), reader, &options);
    bar.finish_and_clear();
    Ok((outcome?, rows.load(Ordering::Relaxed)))
}

fn put_json(store: &Store, args: &PutArgs, file: &Path) -> Result<Outcome, Failure> {
    let cache = store.open()?;
    let key = Key::from(args.key.as_str());
    let (head, payload) = document::entry(&key, file)?;
    let mut options = WriteOptions::new()
        .with_head_len(head.len())
        .with_size_hint(Some((head.len() + payload.len()) as u64));
    if let Some(ttl) = args.ttl {
        options = options.with_expiry(Expiry::after(ttl)?);
    }
    let stored = cache.backend()?.put(&key, head, vec![payload], options);
    Ok(block_on(stored).map_err(|error| error.with("key", &key))?)
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
