use bytes::Bytes;

use super::{append, begin, bytes_of, holds, is_missing, open, pattern, store};
use crate::{Backend, EntryReader, ErrorKind, Key, WriteOptions};

/// Around the sizes at which stores change their ways.
const SIZES: [usize; 15] = [
    0,
    1,
    13,
    14,
    63,
    64,
    65,
    4_095,
    65_521,
    65_536,
    65_537,
    131_058,
    131_059,
    300_001,
    5 << 20,
];

pub(super) async fn run(backend: &dyn Backend) {
    a_missing_key_is_no_entry(backend).await;
    what_was_put_comes_back(backend).await;
    ranges_are_exact_and_aligned(backend).await;
    ranges_beyond_the_end_are_corrupt(backend).await;
    an_open_entry_outlives_its_replacement(backend).await;
    discard_takes_this_entry_and_no_newer_one(backend).await;
    any_text_is_a_key(backend).await;
}

async fn a_missing_key_is_no_entry(backend: &dyn Backend) {
    let key = Key::new("reading/missing");
    assert!(is_missing(backend, &key).await);
    assert!(backend.stat(&key).await.unwrap().is_none());
}

async fn what_was_put_comes_back(backend: &dyn Backend) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let key = Key::new(format!("reading/size/{size}"));
        let bytes = pattern(seed as u64, size);
        store(backend, &key, &bytes).await;
        holds(backend, &key, &bytes).await;
        let entry = open(backend, &key).await;
        assert_eq!(entry.is_empty(), size == 0);
        assert!(entry.expiry().is_never());
        if let Some(whole) = entry.contiguous() {
            assert!(
                *whole == bytes,
                "the contiguous bytes are not those of the entry"
            );
        }
    }
}

async fn ranges_are_exact_and_aligned(backend: &dyn Backend) {
    let offset = backend.capabilities().outer_offset;
    for size in [100, 65_600, 300_001] {
        let key = Key::new(format!("reading/ranges/{size}"));
        let bytes = pattern(7, size);
        store(backend, &key, &bytes).await;
        let entry = open(backend, &key).await;
        let end = size as u64;
        let ranges = vec![
            0..end,
            0..0,
            end..end,
            0..1,
            end - 1..end,
            5..70,
            50..64,
            end / 3..end / 2,
        ];
        for range in &ranges {
            let part = entry.read(range.clone()).await.unwrap();
            check_part(&*entry, &bytes, &part, range.start, range.end, offset);
        }
        let parts = entry.read_ranges(ranges.clone()).await.unwrap();
        assert_eq!(parts.len(), ranges.len(), "one answer per range");
        for (range, part) in ranges.iter().zip(&parts) {
            check_part(&*entry, &bytes, part, range.start, range.end, offset);
        }
    }
}

fn check_part(
    entry: &dyn EntryReader,
    bytes: &Bytes,
    part: &Bytes,
    start: u64,
    end: u64,
    outer_offset: u64,
) {
    let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
    assert!(part == &bytes[range], "other bytes at {start}..{end}");
    if !part.is_empty() {
        let wanted = if entry.contiguous().is_some() {
            (start + outer_offset) % 64
        } else {
            0
        };
        let found = part.as_ptr() as u64 % 64;
        assert_eq!(found, wanted, "alignment in memory of {start}..{end}");
    }
}

async fn ranges_beyond_the_end_are_corrupt(backend: &dyn Backend) {
    for size in [0, 10, 70_000_u64] {
        let key = Key::new(format!("reading/beyond/{size}"));
        store(backend, &key, &pattern(3, usize::try_from(size).unwrap())).await;
        let entry = open(backend, &key).await;
        let reversed = std::ops::Range { start: 2, end: 1 };
        for range in [
            0..size + 1,
            size..size + 1,
            size + 1..size + 2,
            0..u64::MAX,
            reversed,
        ] {
            let error = entry
                .read(range.clone())
                .await
                .expect_err("there are no such bytes");
            assert_eq!(
                error.kind(),
                ErrorKind::Corrupt,
                "{range:?} of {size} bytes: {error:?}"
            );
        }
        assert_eq!(
            bytes_of(&*entry).await.len() as u64,
            size,
            "the entry can still be read"
        );
    }
}

async fn an_open_entry_outlives_its_replacement(backend: &dyn Backend) {
    for size in [1_000, 200_000] {
        let key = Key::new(format!("reading/replaced/{size}"));
        let (old, new) = (pattern(1, size), pattern(2, size + 9));
        store(backend, &key, &old).await;
        let replaced = open(backend, &key).await;
        store(backend, &key, &new).await;
        still_old(&*replaced, &old).await;
        holds(backend, &key, &new).await;

        let removed = open(backend, &key).await;
        assert!(backend.remove(&key).await.unwrap());
        still_old(&*removed, &new).await;
        assert!(is_missing(backend, &key).await);
    }
}

/// The old bytes, or an honest error where the store cannot keep them: never others.
async fn still_old(entry: &dyn EntryReader, old: &Bytes) {
    assert_eq!(entry.len(), old.len() as u64);
    match entry.read(0..entry.len()).await {
        Ok(bytes) => assert!(bytes == old, "an open entry turned into another"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}"),
    }
}

async fn discard_takes_this_entry_and_no_newer_one(backend: &dyn Backend) {
    for size in [1_000, 200_000] {
        let key = Key::new(format!("reading/discard/{size}"));
        store(backend, &key, &pattern(1, size)).await;
        let old = open(backend, &key).await;
        let new = pattern(2, size);
        store(backend, &key, &new).await;
        assert!(
            !old.discard().await.unwrap(),
            "a replaced entry is gone already"
        );
        holds(backend, &key, &new).await;

        let current = open(backend, &key).await;
        assert!(
            current.discard().await.unwrap(),
            "the current entry can be discarded"
        );
        assert!(is_missing(backend, &key).await);
        assert!(
            !current.discard().await.unwrap(),
            "it cannot be discarded twice"
        );
    }
}

async fn any_text_is_a_key(backend: &dyn Backend) {
    let long = "x".repeat(100_000);
    let texts = [
        "", " ", ".", "..", "/", "a/../b", "\0", "\n", "a\\b", "%2e", "*", "ключ", "鍵", "🗝",
        "e\u{301}", "\u{e9}", "A", "a", &long,
    ];
    for (seed, text) in texts.into_iter().enumerate() {
        let mut writer = begin(backend, &Key::new(text), WriteOptions::new()).await;
        append(&mut *writer, vec![pattern(seed as u64, 20)]).await;
        assert!(writer.commit(Bytes::new()).await.unwrap().is_stored());
    }
    for (seed, text) in texts.into_iter().enumerate() {
        holds(backend, &Key::new(text), &pattern(seed as u64, 20)).await;
    }
    for text in texts {
        assert!(backend.remove(&Key::new(text)).await.unwrap(), "{text:?}");
    }
}
