use std::collections::BTreeMap;

use bytes::Bytes;

use super::{expired, holds, in_seconds, is_missing, open, pattern, store, stored, supported};
use crate::{Backend, Expiry, Key, WriteOptions};

pub(super) async fn run(backend: &dyn Backend) {
    stat_tells_size_and_expiry(backend).await;
    touch_changes_the_expiry_alone(backend).await;
    remove_tells_whether_there_was_an_entry(backend).await;
    a_listing_shows_each_live_entry(backend).await;
    usage_follows_what_is_stored(backend).await;
    prune_removes_what_is_expired(backend).await;
}

async fn stat_tells_size_and_expiry(backend: &dyn Backend) {
    let key = Key::new("catalogue/stat");
    let expiry = in_seconds(500);
    for size in [0, 100, 70_000] {
        let options = WriteOptions::new().with_expiry(expiry);
        let outcome = backend
            .put(&key, Bytes::new(), vec![pattern(1, size)], options)
            .await;
        stored(outcome, size);
        let info = backend
            .stat(&key)
            .await
            .unwrap()
            .expect("there is an entry");
        assert_eq!(info.bytes, size as u64);
        assert_eq!(info.expiry, expiry);
        assert!(info.key.is_none_or(|known| known == key));
        assert!(!info.id.is_empty());
    }
}

async fn touch_changes_the_expiry_alone(backend: &dyn Backend) {
    for size in [10, 200_000] {
        let key = Key::new(format!("catalogue/touch/{size}"));
        assert!(
            !backend.touch(&key, in_seconds(9)).await.unwrap(),
            "there is no entry yet"
        );
        let bytes = pattern(1, size);
        store(backend, &key, &bytes).await;
        let reader = open(backend, &key).await;
        for expiry in [in_seconds(100), in_seconds(5_000), Expiry::NEVER] {
            assert!(backend.touch(&key, expiry).await.unwrap());
            let entry = open(backend, &key).await;
            assert_eq!(entry.expiry(), expiry);
            holds(backend, &key, &bytes).await;
        }
        assert!(reader.expiry().is_never(), "a reader tells what it found");

        assert!(backend.touch(&key, expired()).await.unwrap());
        assert!(
            !backend.touch(&key, Expiry::NEVER).await.unwrap(),
            "the dead stay dead"
        );
        assert!(is_missing(backend, &key).await);
        assert!(
            !backend.touch(&key, Expiry::NEVER).await.unwrap(),
            "the dead stay dead"
        );
        assert!(is_missing(backend, &key).await);
    }
}

async fn remove_tells_whether_there_was_an_entry(backend: &dyn Backend) {
    let key = Key::new("catalogue/remove");
    assert!(!backend.remove(&key).await.unwrap());
    store(backend, &key, &pattern(1, 30)).await;
    assert!(backend.remove(&key).await.unwrap());
    assert!(is_missing(backend, &key).await);
    assert!(!backend.remove(&key).await.unwrap());

    let options = WriteOptions::new().with_expiry(expired());
    stored(
        backend
            .put(&key, Bytes::new(), vec![pattern(1, 30)], options)
            .await,
        30,
    );
    assert!(
        !backend.remove(&key).await.unwrap(),
        "an expired entry is none"
    );
}

async fn a_listing_shows_each_live_entry(backend: &dyn Backend) {
    const MARK: &[u8] = b"listed:";
    let mut wanted = BTreeMap::new();
    for i in 0..700_usize {
        let key = Key::new(format!("catalogue/list/{i}"));
        let name = format!("listed:{i:04}");
        let bytes = Bytes::from([name.as_bytes(), &pattern(1, i)].concat());
        let expiry = if i % 3 == 0 {
            in_seconds(1_000 + i as u64)
        } else {
            Expiry::NEVER
        };
        let options = WriteOptions::new().with_expiry(expiry);
        let outcome = backend
            .put(&key, Bytes::new(), vec![bytes.clone()], options)
            .await;
        stored(outcome, bytes.len());
        wanted.insert(name, (bytes.len() as u64, expiry));
    }
    let dead = Key::new("catalogue/list/dead");
    let options = WriteOptions::new().with_expiry(expired());
    let body = vec![Bytes::from_static(b"listed:dead")];
    stored(backend.put(&dead, Bytes::new(), body, options).await, 11);

    for head_bytes in [11, 0] {
        let mut found = BTreeMap::new();
        let mut listed = 0;
        let mut cursor = None;
        loop {
            let Some(page) = supported(backend.list(cursor, head_bytes).await) else {
                return;
            };
            for info in page.entries {
                assert!(info.head.len() <= head_bytes);
                assert!(info.head.len() as u64 <= info.bytes);
                listed += 1;
                if info.head.starts_with(MARK) {
                    let name = String::from_utf8(info.head.to_vec()).unwrap();
                    found.insert(name, (info.bytes, info.expiry));
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert!(listed >= wanted.len());
        if head_bytes > 0 {
            assert_eq!(found, wanted);
        }
    }
}

async fn usage_follows_what_is_stored(backend: &dyn Backend) {
    let key = Key::new("catalogue/usage");
    let Some(before) = supported(backend.usage().await) else {
        return;
    };
    assert_eq!(before.reserved_bytes, 0, "nobody is writing");
    store(backend, &key, &pattern(1, 5_000)).await;
    let with = backend.usage().await.unwrap();
    assert_eq!(with.entries, before.entries + 1);
    assert!(with.bytes >= before.bytes + 5_000);
    store(backend, &key, &pattern(1, 50_000)).await;
    let larger = backend.usage().await.unwrap();
    assert_eq!(larger.entries, with.entries);
    assert_eq!(larger.bytes, with.bytes + 45_000);
    assert!(backend.remove(&key).await.unwrap());
    let after = backend.usage().await.unwrap();
    assert_eq!((after.entries, after.bytes), (before.entries, before.bytes));
}

async fn prune_removes_what_is_expired(backend: &dyn Backend) {
    let live = Key::new("catalogue/prune/live");
    let dead = Key::new("catalogue/prune/dead");
    store(backend, &live, &pattern(1, 100)).await;
    supported(backend.prune().await);
    let options = WriteOptions::new().with_expiry(expired());
    stored(
        backend
            .put(&dead, Bytes::new(), vec![pattern(1, 100)], options)
            .await,
        100,
    );
    if let Some(pruned) = supported(backend.prune().await) {
        // A store that forgets expired entries by itself has none left to remove.
        assert!(pruned.entries <= 1);
        assert_eq!(pruned.orphans, 0);
        let again = backend.prune().await.unwrap();
        assert_eq!((again.entries, again.orphans, again.bytes), (0, 0, 0));
    }
    assert!(is_missing(backend, &dead).await);
    holds(backend, &live, &pattern(1, 100)).await;
}
