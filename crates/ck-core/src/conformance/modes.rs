use std::ops::ControlFlow;

use bytes::Bytes;

use super::{append, begin, expired, holds, in_seconds, is_missing, open, pattern, store, stored};
use crate::{Backend, Key, Outcome, Rejection, Version, WriteMode, WriteOptions};

/// On both sides of the sizes at which stores change their ways.
const SIZES: [usize; 2] = [100, 200_000];

pub(super) async fn run(backend: &dyn Backend) {
    entries_of_one_key_have_different_versions(backend).await;
    a_new_expiry_keeps_the_version(backend).await;
    create_replaces_no_live_entry(backend).await;
    update_replaces_that_very_entry(backend).await;
    what_happens_before_commit_counts(backend).await;
}

async fn entries_of_one_key_have_different_versions(backend: &dyn Backend) {
    for size in SIZES {
        let key = Key::new(format!("modes/versions/{size}"));
        let mut seen = Vec::new();
        for seed in 0..12 {
            store(backend, &key, &pattern(seed, size)).await;
            let version = version(backend, &key).await;
            assert_eq!(
                version,
                self::version(backend, &key).await,
                "one entry, opened twice"
            );
            assert!(!seen.contains(&version), "two entries have one version");
            seen.push(version);
            if seed % 3 == 0 {
                assert!(backend.remove(&key).await.unwrap());
            }
        }
    }
}

async fn a_new_expiry_keeps_the_version(backend: &dyn Backend) {
    for size in SIZES {
        let key = Key::new(format!("modes/touch/{size}"));
        store(backend, &key, &pattern(1, size)).await;
        let reader = open(backend, &key).await;
        assert!(backend.touch(&key, in_seconds(1_000)).await.unwrap());
        assert_eq!(version(backend, &key).await, reader.version());
    }
}

async fn create_replaces_no_live_entry(backend: &dyn Backend) {
    for (size, way) in ways() {
        let key = Key::new(format!("modes/create/{size}/{way:?}"));
        let [old, new] = [1, 2].map(|seed| pattern(seed, size));
        let create = |bytes| write(backend, &key, bytes, WriteMode::Create, way);

        stored(Ok(create(&old).await), size);
        holds(backend, &key, &old).await;
        let version = version(backend, &key).await;
        for _ in 0..2 {
            superseded(&create(&new).await);
            holds(backend, &key, &old).await;
            assert_eq!(self::version(backend, &key).await, version);
        }
        // An expired entry is none.
        assert!(backend.touch(&key, expired()).await.unwrap());
        stored(Ok(create(&new).await), size);
        holds(backend, &key, &new).await;

        assert!(backend.remove(&key).await.unwrap());
        stored(Ok(create(&old).await), size);
        holds(backend, &key, &old).await;
    }
}

async fn update_replaces_that_very_entry(backend: &dyn Backend) {
    for (size, way) in ways() {
        let key = Key::new(format!("modes/update/{size}/{way:?}"));
        let [first, second, third] = [1, 2, 3].map(|seed| pattern(seed, size));
        let update = async |version, bytes| {
            write(backend, &key, bytes, WriteMode::Update(version), way).await
        };

        store(backend, &key, &first).await;
        let old = version(backend, &key).await;
        assert!(backend.touch(&key, in_seconds(1_000)).await.unwrap());
        stored(Ok(update(old, &second).await), size);
        holds(backend, &key, &second).await;

        superseded(&update(old, &third).await);
        holds(backend, &key, &second).await;
        let current = version(backend, &key).await;
        stored(Ok(update(current, &third).await), size);
        holds(backend, &key, &third).await;

        let gone = version(backend, &key).await;
        assert!(backend.touch(&key, expired()).await.unwrap());
        superseded(&update(gone, &first).await);
        assert!(is_missing(backend, &key).await);

        store(backend, &key, &first).await;
        let gone = version(backend, &key).await;
        assert!(backend.remove(&key).await.unwrap());
        superseded(&update(gone, &first).await);
        assert!(is_missing(backend, &key).await);
    }
}

async fn what_happens_before_commit_counts(backend: &dyn Backend) {
    for size in SIZES {
        let key = Key::new(format!("modes/commit/{size}"));
        let [old, others, new] = [1, 2, 3].map(|seed| pattern(seed, size));
        let start = async |mode| {
            let options = WriteOptions::new().with_mode(mode);
            let mut writer = begin(backend, &key, options).await;
            append(&mut *writer, vec![new.clone()]).await;
            writer
        };

        // Somebody else was faster.
        let writer = start(WriteMode::Create).await;
        store(backend, &key, &others).await;
        superseded(&writer.commit(Bytes::new()).await.unwrap());
        holds(backend, &key, &others).await;

        let present = version(backend, &key).await;
        let writer = start(WriteMode::Update(present)).await;
        store(backend, &key, &old).await;
        superseded(&writer.commit(Bytes::new()).await.unwrap());
        holds(backend, &key, &old).await;

        let present = version(backend, &key).await;
        let writer = start(WriteMode::Update(present)).await;
        assert!(backend.remove(&key).await.unwrap());
        superseded(&writer.commit(Bytes::new()).await.unwrap());
        assert!(is_missing(backend, &key).await);

        // What somebody else stored is gone again.
        let writer = start(WriteMode::Create).await;
        store(backend, &key, &others).await;
        assert!(backend.remove(&key).await.unwrap());
        stored(writer.commit(Bytes::new()).await, size);
        holds(backend, &key, &new).await;
    }
}

/// How an entry is written.
#[derive(Debug, Clone, Copy)]
enum Way {
    AtOnce,
    InParts,
}

fn ways() -> impl Iterator<Item = (usize, Way)> {
    let ways = [Way::AtOnce, Way::InParts];
    SIZES
        .into_iter()
        .flat_map(move |size| ways.map(|way| (size, way)))
}

async fn write(
    backend: &dyn Backend,
    key: &Key,
    bytes: &Bytes,
    mode: WriteMode,
    way: Way,
) -> Outcome {
    let body = vec![bytes.clone()];
    let options = WriteOptions::new()
        .with_mode(mode)
        .with_size_hint(Some(bytes.len() as u64));
    if let Way::AtOnce = way {
        let put = backend.put(key, Bytes::new(), body, options).await;
        return put.unwrap();
    }
    // A store may say at once what it would say at commit.
    let mut writer = match backend.create(key, options).await.unwrap() {
        ControlFlow::Continue(writer) => writer,
        ControlFlow::Break(rejection) => return Outcome::Rejected(rejection),
    };
    match writer.write(body).await.unwrap() {
        ControlFlow::Continue(()) => writer.commit(Bytes::new()).await.unwrap(),
        ControlFlow::Break(rejection) => Outcome::Rejected(rejection),
    }
}

async fn version(backend: &dyn Backend, key: &Key) -> Version {
    open(backend, key).await.version()
}

#[track_caller]
fn superseded(outcome: &Outcome) {
    assert_eq!(*outcome, Outcome::Rejected(Rejection::Superseded));
}
