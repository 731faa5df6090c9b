use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_array::{RecordBatch, RecordBatchIterator};
use arrow_schema::ArrowError;
use ck_cache::{Compression, Error, ErrorKind, Outcome, PutOptions, Rejection};
use ck_core::block_on;
use futures_core::Stream;

use super::support::{Fixture, batch, numbers, plain};

/// Gives batches, then does as told.
struct Batches {
    left: i64,
    then: Then,
}

enum Then {
    End,
    Fail,
    Hang,
}

impl Stream for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left > 0 {
            self.left -= 1;
            return Poll::Ready(Some(Ok(batch(0, 10_000))));
        }
        match self.then {
            Then::End => Poll::Ready(None),
            Then::Fail => Poll::Ready(Some(Err(ArrowError::ComputeError("no more".into())))),
            Then::Hang => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

async fn put_old(fixture: &Fixture) {
    assert!(
        fixture
            .cache
            .put_table("t", batch(42, 3), &plain())
            .await
            .unwrap()
            .is_stored()
    );
}

async fn assert_old_is_there(fixture: &Fixture) {
    let found = fixture.cache.get_table("t").await.unwrap().unwrap();
    assert_eq!(numbers(found.batches()), [42, 43, 44]);
    assert_eq!(fixture.temporary_files(), Vec::<std::path::PathBuf>::new());
    assert_eq!(fixture.cache.memory_budget().used(), 0);
}

#[tokio::test]
async fn an_async_stream_is_stored() {
    let fixture = Fixture::new();
    for compression in [Compression::None, Compression::Zstd(1)] {
        let source = Batches {
            left: 50,
            then: Then::End,
        };
        let options = plain().with_compression(compression);
        let outcome = fixture
            .cache
            .put_stream("t", batch(0, 1).schema(), source, &options)
            .await;
        assert!(outcome.unwrap().is_stored());
        let found = fixture.cache.get_table("t").await.unwrap().unwrap();
        assert_eq!(found.num_rows(), 500_000);
    }
}

#[tokio::test]
async fn a_source_that_fails_midway_leaves_the_old_entry() {
    let fixture = Fixture::new();
    put_old(&fixture).await;
    let source = Batches {
        left: 20,
        then: Then::Fail,
    };
    let error = fixture
        .cache
        .put_stream("t", batch(0, 1).schema(), source, &plain())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(
        error.to_string().contains("no more") && error.to_string().contains("key: t"),
        "{error}"
    );
    assert_old_is_there(&fixture).await;

    let ours = || {
        Err(ArrowError::ExternalError(Box::new(Error::new(
            ErrorKind::Timeout,
            "slow",
        ))))
    };
    let batches = (0..20)
        .map(|n| Ok(batch(n, 10_000)))
        .chain(std::iter::once_with(ours));
    let reader = RecordBatchIterator::new(batches, batch(0, 1).schema());
    let error = fixture
        .cache
        .put_reader("t", reader, &plain())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("slow"), "{error}");
    assert_old_is_there(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_put_leaves_the_old_entry_and_no_file() {
    let fixture = Fixture::new();
    put_old(&fixture).await;
    for compression in [Compression::None, Compression::Lz4] {
        let source = Batches {
            left: 30,
            then: Then::Hang,
        };
        let options = plain().with_compression(compression);
        let mut put = Box::pin(fixture.cache.put_stream(
            "t",
            batch(0, 1).schema(),
            source,
            &options,
        ));
        // Until it has begun to write.
        while fixture.temporary_files().is_empty() {
            tokio::select! {
                biased;
                done = &mut put => panic!("{done:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(put);
        // A step that was running on the blocking pool may hold the file a little longer.
        while !fixture.temporary_files().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_old_is_there(&fixture).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_puts_to_one_key_leave_one_of_the_values_whole() {
    let fixture = Fixture::new();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8_i64 {
        let cache = fixture.cache.clone();
        tasks.spawn(async move {
            for _ in 0..5 {
                let stored = cache
                    .put_table("t", batch(writer * 1_000_000, 20_000), &plain())
                    .await;
                assert!(stored.unwrap().is_stored());
                let found = cache.get_table("t").await.unwrap().unwrap();
                let numbers = numbers(found.batches());
                assert_eq!(
                    numbers,
                    (numbers[0]..numbers[0] + 20_000).collect::<Vec<_>>()
                );
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(fixture.entry_files().len(), 1);
    assert!(fixture.temporary_files().is_empty());
    let stats = fixture.cache.stats();
    assert_eq!((stats.stored, stats.hits, stats.corrupt), (40, 40, 0));
}

#[test]
fn a_value_beyond_the_store_limit_is_rejected_and_the_old_one_stays() {
    let fixture = Fixture::with_options("limit_bytes=4MiB&value_limit_bytes=100KiB");
    block_on(put_old(&fixture));
    let cache = fixture.cache.blocking();
    let outcome = cache.put_table("t", batch(0, 1_000_000), &plain()).unwrap();
    let Outcome::Rejected(Rejection::ValueTooLarge { limit, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(limit, 100 << 10);
    let outcome = cache.put_bytes("t", vec![0; 200 << 10], &plain()).unwrap();
    assert!(!outcome.is_stored());
    assert_eq!(cache.stats().rejected, 2);
    assert_eq!(cache.stats().stored, 1);
    block_on(assert_old_is_there(&fixture));
}

#[test]
fn options_out_of_range_are_misuse() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    for options in [
        PutOptions::new().with_batch_bytes(0),
        PutOptions::new().with_compression(Compression::Zstd(99)),
        PutOptions::new().with_ttl(std::time::Duration::ZERO),
    ] {
        let error = cache.put_table("t", batch(0, 1), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    }
    assert!(cache.list(None).unwrap().entries.is_empty());
}

#[test]
fn a_reader_that_panics_passes_its_panic_on_and_stores_nothing() {
    let fixture = Fixture::new();
    let cache = fixture.cache.blocking();
    let batches = (0..3).map(|n| {
        if n < 2 {
            Ok(batch(n, 10_000))
        } else {
            panic!("in the source")
        }
    });
    let reader = RecordBatchIterator::new(batches, batch(0, 1).schema());
    let put = std::panic::AssertUnwindSafe(|| cache.put_reader("t", reader, &plain()));
    let panic = std::panic::catch_unwind(put).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"in the source"));
    assert!(fixture.temporary_files().is_empty());
    assert!(cache.get_table("t").unwrap().is_none());
    assert_eq!(Arc::strong_count(cache.backend().unwrap()), 1);
}
