use bytes::Bytes;

use super::{
    append, begin, bytes_of, expired, holds, in_seconds, is_missing, open, pattern, store, stored,
};
use crate::{Backend, ErrorKind, Key, WriteOptions};

pub(super) async fn run(backend: &dyn Backend) {
    the_head_comes_at_commit(backend).await;
    put_is_create_write_and_commit(backend).await;
    parts_keep_their_order(backend).await;
    a_wrong_size_hint_does_no_harm(backend).await;
    nothing_is_seen_before_commit(backend).await;
    a_dropped_writer_leaves_the_store_as_it_was(backend).await;
    a_head_of_another_length_is_misuse(backend).await;
    the_last_of_two_writers_wins(backend).await;
    the_expiry_is_stored(backend).await;
}

async fn the_head_comes_at_commit(backend: &dyn Backend) {
    for (head_len, body_len) in [(0, 0), (0, 9), (7, 0), (7, 9), (4096, 70_000), (100_000, 3)] {
        let key = Key::new(format!("writing/head/{head_len}/{body_len}"));
        let (head, body) = (pattern(1, head_len), pattern(2, body_len));
        let options = WriteOptions::new().with_head_len(head_len);
        let mut writer = begin(backend, &key, options).await;
        append(&mut *writer, vec![body.clone()]).await;
        stored(writer.commit(head.clone()).await, head_len + body_len);
        holds(backend, &key, &Bytes::from([head, body].concat())).await;
    }
}

async fn put_is_create_write_and_commit(backend: &dyn Backend) {
    for size in [10, 200_000, 3 << 20] {
        let key = Key::new(format!("writing/put/{size}"));
        let whole = pattern(5, size);
        let options = WriteOptions::new()
            .with_head_len(4)
            .with_size_hint(Some(size as u64))
            .with_mappable(true);
        let body = vec![whole.slice(4..7), Bytes::new(), whole.slice(7..)];
        stored(
            backend.put(&key, whole.slice(..4), body, options).await,
            size,
        );
        holds(backend, &key, &whole).await;
    }
}

async fn parts_keep_their_order(backend: &dyn Backend) {
    let key = Key::new("writing/parts");
    let whole = pattern(6, 300_000);
    let mut writer = begin(backend, &key, WriteOptions::new()).await;
    append(&mut *writer, vec![]).await;
    let mut at = 0;
    // More parts in one call than systems take at once, some of them empty.
    for count in [1, 3, 2_500, 40] {
        let mut parts = Vec::new();
        for i in 0..count {
            let len = (i * 7) % 31;
            parts.push(whole.slice(at..at + len));
            at += len;
        }
        append(&mut *writer, parts).await;
    }
    append(&mut *writer, vec![whole.slice(at..)]).await;
    stored(writer.commit(Bytes::new()).await, whole.len());
    holds(backend, &key, &whole).await;
}

async fn a_wrong_size_hint_does_no_harm(backend: &dyn Backend) {
    for hint in [0, 10, 100_000, 4 << 20] {
        let key = Key::new(format!("writing/hint/{hint}"));
        let whole = pattern(8, 100_000);
        let options = WriteOptions::new()
            .with_head_len(10)
            .with_size_hint(Some(hint));
        let mut writer = begin(backend, &key, options).await;
        append(&mut *writer, vec![whole.slice(10..500)]).await;
        append(&mut *writer, vec![whole.slice(500..)]).await;
        stored(writer.commit(whole.slice(..10)).await, whole.len());
        holds(backend, &key, &whole).await;
    }
}

async fn nothing_is_seen_before_commit(backend: &dyn Backend) {
    let key = Key::new("writing/unseen");
    let new = pattern(1, 100_000);
    let mut writer = begin(backend, &key, WriteOptions::new()).await;
    append(&mut *writer, vec![new.clone()]).await;
    assert!(
        is_missing(backend, &key).await,
        "an entry is seen before its commit"
    );
    stored(writer.commit(Bytes::new()).await, new.len());
    holds(backend, &key, &new).await;
}

async fn a_dropped_writer_leaves_the_store_as_it_was(backend: &dyn Backend) {
    let key = Key::new("writing/dropped");
    for old in [None, Some(pattern(1, 50))] {
        if let Some(old) = &old {
            store(backend, &key, old).await;
        }
        for written in [0, 10, 200_000] {
            let options = WriteOptions::new().with_head_len(3);
            let mut writer = begin(backend, &key, options).await;
            append(&mut *writer, vec![pattern(2, written)]).await;
            drop(writer);
            match &old {
                Some(old) => holds(backend, &key, old).await,
                None => assert!(is_missing(backend, &key).await),
            }
        }
    }
}

async fn a_head_of_another_length_is_misuse(backend: &dyn Backend) {
    let key = Key::new("writing/wrong-head");
    let old = pattern(1, 50);
    store(backend, &key, &old).await;
    let options = WriteOptions::new().with_head_len(8);
    for got in [0, 7, 9] {
        let mut writer = begin(backend, &key, options).await;
        append(&mut *writer, vec![pattern(2, 20)]).await;
        let error = writer
            .commit(pattern(3, got))
            .await
            .expect_err("the head is not as promised");
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error:?}");
        let put = backend
            .put(&key, pattern(3, got), vec![pattern(2, 20)], options)
            .await;
        let error = put.expect_err("the head is not as promised");
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error:?}");
        holds(backend, &key, &old).await;
    }
}

async fn the_last_of_two_writers_wins(backend: &dyn Backend) {
    let key = Key::new("writing/two");
    let (first, second) = (pattern(1, 90_000), pattern(2, 80_000));
    let options = WriteOptions::new().with_head_len(2);
    let mut one = begin(backend, &key, options).await;
    let mut two = begin(backend, &key, options).await;
    append(&mut *one, vec![first.slice(2..100)]).await;
    append(&mut *two, vec![second.slice(2..60_000)]).await;
    append(&mut *one, vec![first.slice(100..)]).await;
    append(&mut *two, vec![second.slice(60_000..)]).await;
    stored(one.commit(first.slice(..2)).await, first.len());
    let reader = open(backend, &key).await;
    stored(two.commit(second.slice(..2)).await, second.len());
    holds(backend, &key, &second).await;
    assert_eq!(reader.len(), first.len() as u64);
    if let Ok(bytes) = reader.read(0..reader.len()).await {
        assert!(bytes == first, "two writers were mixed");
    }
}

async fn the_expiry_is_stored(backend: &dyn Backend) {
    for size in [10, 200_000] {
        let key = Key::new(format!("writing/expiry/{size}"));
        let bytes = pattern(1, size);
        let expiry = in_seconds(1_000);
        let options = WriteOptions::new().with_expiry(expiry);
        stored(
            backend
                .put(&key, Bytes::new(), vec![bytes.clone()], options)
                .await,
            size,
        );
        let entry = open(backend, &key).await;
        assert_eq!(entry.expiry(), expiry);
        assert!(bytes_of(&*entry).await == bytes);

        // One that has expired already takes the place of the old one and is not seen.
        let options = WriteOptions::new().with_expiry(expired());
        let outcome = backend
            .put(&key, Bytes::new(), vec![bytes.clone()], options)
            .await;
        stored(outcome, size);
        assert!(is_missing(backend, &key).await, "an expired entry is seen");
        assert!(backend.stat(&key).await.unwrap().is_none());
    }
}
