use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::RecordBatchIterator;
use bytes::Bytes;
use ck_cache::{Cache, CacheCodec, CacheKey, Error, LoadOptions, Outcome, PutOptions, Rejection};
use ck_codec::MessagePack;

use super::support::{Private, Text, both_tiers, over, table};

fn text(text: &str) -> MessagePack<String> {
    MessagePack(text.to_owned())
}

#[tokio::test]
async fn a_typed_value_comes_back_from_each_tier() {
    let (dir, cache) = both_tiers();
    let value = Arc::new(text("hello"));
    let outcome = cache
        .put(&Text("k"), Arc::clone(&value), &PutOptions::new())
        .await;
    assert!(outcome.unwrap().is_stored());
    let found = cache.get(&Text("k")).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&found, &value), "a hit copies nothing");
    let elsewhere = over(&dir, 0);
    assert_eq!(elsewhere.get(&Text("k")).await.unwrap().unwrap().0, "hello");
    assert!(elsewhere.verify("k").await.unwrap());
}

#[tokio::test]
async fn a_value_larger_than_a_chunk_is_streamed_and_every_flipped_bit_of_it_is_noticed() {
    let (dir, cache) = both_tiers();
    let long = "0123456789".repeat(300_000);
    let _ = cache
        .put(&Text("k"), text(&long), &PutOptions::new())
        .await
        .unwrap();
    assert_eq!(
        over(&dir, 0).get(&Text("k")).await.unwrap().unwrap().0,
        long
    );
    let entry = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().path());
    let is_entry = |path: &std::path::PathBuf| path.metadata().unwrap().len() > 1_000_000;
    let path = entry.into_iter().find(is_entry).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 5;
    bytes[last] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let other = over(&dir, 0);
    assert!(other.get(&Text("k")).await.unwrap().is_none());
    assert_eq!(other.stats().corrupt, 1);
}

#[tokio::test]
async fn a_value_without_a_codec_stays_in_the_process() {
    let (dir, cache) = both_tiers();
    let outcome = cache
        .put(&Private("k"), "secret".to_owned(), &PutOptions::new())
        .await;
    assert!(outcome.unwrap().is_stored());
    assert_eq!(*cache.get(&Private("k")).await.unwrap().unwrap(), "secret");
    assert_eq!(cache.usage().await.unwrap().entries, 0);
    let without_l1 = over(&dir, 0);
    assert!(without_l1.get(&Private("k")).await.unwrap().is_none());
    let outcome = without_l1
        .put(&Private("k"), "secret".to_owned(), &PutOptions::new())
        .await;
    assert_eq!(outcome.unwrap(), Outcome::Rejected(Rejection::NoTier));
}

/// The same type, a version later.
struct Later;

impl CacheKey for Later {
    type Value = MessagePack<String, 2>;

    fn key(&self) -> Cow<'_, str> {
        "k".into()
    }

    fn codec(&self) -> Option<CacheCodec> {
        Some(CacheCodec::of::<Self::Value>())
    }

    fn heap_bytes(value: &Self::Value, _mapping: Option<&Bytes>) -> u64 {
        value.0.capacity() as u64
    }
}

#[tokio::test]
async fn a_value_of_another_type_or_version_is_a_miss_and_is_replaced_by_a_load() {
    let dir = tempfile::tempdir().unwrap();
    for cache in [over(&dir, 1 << 20), over(&dir, 0)] {
        let _ = cache
            .put_table("k", table(0, 1), &PutOptions::new())
            .await
            .unwrap();
        assert!(cache.get(&Text("k")).await.unwrap().is_none());
        let _ = cache
            .put(&Text("k"), text("one"), &PutOptions::new())
            .await
            .unwrap();
        assert!(cache.get(&Later).await.unwrap().is_none());
        let load = || async { Ok::<_, Error>(Some(MessagePack::<String, 2>("two".to_owned()))) };
        let options = LoadOptions::new();
        let loaded = cache.get_or_load(&Later, &options, load).await.unwrap();
        assert_eq!(loaded.unwrap().0, "two");
        let found = over(&dir, 0).get(&Later).await.unwrap();
        assert_eq!(found.unwrap().0, "two");
    }
}

#[tokio::test]
async fn a_value_too_large_for_the_process_is_told_so() {
    let cache = Cache::in_process(1000);
    let outcome = cache
        .put(&Private("k"), "x".repeat(2000), &PutOptions::new())
        .await;
    assert!(matches!(
        outcome.unwrap(),
        Outcome::Rejected(Rejection::ValueTooLarge { limit: 1000, .. })
    ));
}

#[tokio::test]
async fn a_new_time_to_live_for_an_entry_of_the_store_leaves_what_only_the_process_has() {
    let (_dir, cache) = both_tiers();
    let put = cache
        .put(&Private("k"), "mine".to_owned(), &PutOptions::new())
        .await;
    assert!(put.unwrap().is_stored());
    let ttl = std::time::Duration::from_secs(60);
    assert!(
        !cache.touch("k", Some(ttl)).await.unwrap(),
        "none in the store"
    );
    assert_eq!(*cache.get(&Private("k")).await.unwrap().unwrap(), "mine");
}

#[tokio::test]
async fn a_source_too_large_for_the_process_is_not_read_to_its_end() {
    let cache = Cache::in_process(1 << 20);
    let options = PutOptions::new();
    let old = cache.put_table("k", table(0, 10), &options).await;
    old.unwrap().stored().unwrap();
    let given = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&given);
    let batches = (0..1000).map(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(table(0, 10_000).batches()[0].clone())
    });
    let schema = table(0, 1).schema().clone();
    let reader = RecordBatchIterator::new(batches, schema);
    let outcome = cache.put_reader("k", reader, &options).await.unwrap();
    let Outcome::Rejected(Rejection::ValueTooLarge { bytes, limit }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(limit, 1 << 20);
    assert!((limit..limit + 100_000).contains(&bytes), "{bytes}");
    assert_eq!(given.load(Ordering::SeqCst), 14);
    assert_eq!(cache.get_table("k").await.unwrap(), None);
}
