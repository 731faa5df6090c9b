use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ck_core::{block_on, lend};

use super::support::{guarded, open, options, put_large};

/// How much memory the bytes lie in.
fn capacity(bytes: Bytes) -> u64 {
    let bytes = bytes.try_into_mut().expect("nobody else has them");
    bytes.capacity() as u64
}

#[test]
fn what_a_caller_lends_reaches_the_thread_that_reads() {
    // Whose deadline needs a thread that can be left behind.
    let (guard, watch) = guarded(options().with_deadline(Duration::from_secs(60)));
    block_on(async {
        put_large(&guard).await;
        let entry = open(&guard).await;
        let all = 0..entry.len();
        // More than a read takes of itself, so that it can be told.
        let lent = entry.len() + entry.len() / 16;
        assert!(capacity(entry.read(all.clone()).await.unwrap()) < lent);
        let bytes = lend(lent, entry.read(all.clone())).await.unwrap();
        assert_ne!(watch.thread(), Some(thread::current().id()));
        assert!(capacity(bytes) >= lent);
        let mut ranges = lend(lent, entry.read_ranges(vec![all])).await.unwrap();
        assert!(capacity(ranges.remove(0)) >= lent);
    });
}
