//! Guards against composite values that are copied on their way from disk back into the process, or charged
//! as if they were.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

#[path = "../../ck-codec/examples/index_partition/partition.rs"]
mod partition;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ck_cache::blocking::Cache;
use ck_cache::{L1Stats, Policy, PutOptions, open_store};
use partition::{Partition, PartitionKey};
use tempfile::TempDir;
use testkit::heap::{CountingAllocator, alone, live, peak_of};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator::new();

/// 64 MiB of codes and row ids.
const ROWS: usize = (64 << 20) / 24;

/// What reading a partition may take: handles, schemas, metadata.
const SMALL: usize = 64 << 10;

fn key(partition: u32) -> PartitionKey {
    PartitionKey {
        index: "embeddings".to_owned(),
        partition,
    }
}

fn open(dir: &TempDir, l1_bytes: u64) -> Cache {
    let store = open_store(&format!("file:{}", dir.path().display())).unwrap();
    let cache = ck_cache::Cache::builder(store).l1_bytes(l1_bytes);
    cache.l1_policy(Policy::Lru).build().blocking()
}

fn l1(cache: &Cache) -> L1Stats {
    cache.stats().l1.unwrap()
}

/// Resident memory of the process that is no mapped file.
fn anonymous_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib: usize = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

/// The memory where entries in `dir` are mapped.
fn mapped_regions(dir: &Path) -> Vec<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let entries = maps
        .lines()
        .filter(|line| line.contains(&*dir.to_string_lossy()) && !line.ends_with("/.ck-ledger"));
    let bounds = entries.map(|line| line.split(' ').next().unwrap().split_once('-').unwrap());
    let address = |text| usize::from_str_radix(text, 16).unwrap();
    bounds
        .map(|(start, end)| address(start)..address(end))
        .collect()
}

fn lies_in(partition: &Partition, regions: &[Range<usize>]) -> bool {
    let addresses = partition.addresses();
    assert_eq!(addresses.len(), 5, "codebook, row ids and codes twice");
    addresses.iter().all(|address| {
        regions
            .iter()
            .any(|region| region.contains(&(*address as usize)))
    })
}

#[test]
fn an_evicted_partition_comes_back_from_disk_without_a_copy() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let cache = open(&dir, 80 << 20);
    let first = Arc::new(Partition::sample(1, ROWS).unwrap());
    let size = 24 * ROWS as u64;
    let outcome = cache.put(&key(1), Arc::clone(&first), &PutOptions::new());
    let stored = outcome.unwrap().stored().unwrap();
    let found = cache.get(&key(1)).unwrap().unwrap();
    assert!(Arc::ptr_eq(&found, &first), "held in memory");
    assert!(l1(&cache).bytes >= size && l1(&cache).mapped_bytes == 0);
    assert!(!lies_in(&found, &mapped_regions(dir.path())));
    drop(found);

    let second = Partition::sample(2, ROWS).unwrap();
    let outcome = cache.put(&key(2), second, &PutOptions::new());
    assert!(outcome.unwrap().is_stored());
    let before = l1(&cache);
    assert_eq!((before.entries, before.evicted.size), (1, 1));
    assert_eq!(Arc::strong_count(&first), 1, "nobody holds the evicted one");

    let resident = anonymous_memory();
    let (peak, found) = peak_of(|| cache.get(&key(1)).unwrap().unwrap());
    assert!(peak < SMALL, "{peak} bytes");
    let grown = anonymous_memory().saturating_sub(resident);
    assert!(grown < 2 << 20, "{grown} bytes");
    assert!(lies_in(&found, &mapped_regions(dir.path())));
    assert_eq!(found, first);
    let after = l1(&cache);
    assert_eq!(after.entries, 2, "both have room now");
    let heap = after.bytes - before.bytes;
    assert!(heap < 4096, "{heap} bytes charged");
    assert!(
        (stored - 64..=stored).contains(&after.mapped_bytes),
        "{after:?}"
    );

    // From now on it is held: the same one, and its mapping for as long as somebody has it.
    assert!(Arc::ptr_eq(&cache.get(&key(1)).unwrap().unwrap(), &found));
    assert!(cache.remove("index/embeddings/partition/1").unwrap());
    assert_eq!(l1(&cache).mapped_bytes, 0);
    assert_eq!(found, first);
    drop(found);
    assert!(mapped_regions(dir.path()).is_empty());
}

#[test]
fn partitions_beyond_the_budget_are_all_held_when_they_are_mapped() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let writer = open(&dir, 0);
    for partition in 0..4 {
        let value = Partition::sample(partition, ROWS).unwrap();
        let outcome = writer.put(&key(partition), value, &PutOptions::new());
        assert!(outcome.unwrap().is_stored());
    }
    let cache = open(&dir, 1 << 20);
    let before = live();
    let found: Vec<_> = (0..4)
        .map(|partition| cache.get(&key(partition)).unwrap().unwrap())
        .collect();
    let held = live() - before;
    assert!(held < 4 * SMALL, "{held} bytes");
    let stats = l1(&cache);
    assert_eq!((stats.entries, stats.evicted.size), (4, 0));
    assert!(stats.bytes < 16 << 10, "{stats:?}");
    assert!(stats.mapped_bytes > 4 * 24 * ROWS as u64);
    let regions = mapped_regions(dir.path());
    assert!(found.iter().all(|partition| lies_in(partition, &regions)));
}

#[test]
fn a_store_that_does_not_map_reads_a_partition_once() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let value = Partition::sample(1, ROWS).unwrap();
    let outcome = open(&dir, 0).put(&key(1), value, &PutOptions::new());
    let stored = outcome.unwrap().stored().unwrap();
    let store = open_store(&format!("file:{}?read=pread", dir.path().display())).unwrap();
    let cache = ck_cache::Cache::builder(store).l1_bytes(80 << 20).build();
    let cache = cache.blocking();
    let (peak, found) = peak_of(|| cache.get(&key(1)).unwrap().unwrap());
    assert!(peak < stored as usize + SMALL, "{peak} bytes");
    let stats = l1(&cache);
    assert_eq!((stats.entries, stats.mapped_bytes), (1, 0));
    assert!(stats.bytes.abs_diff(stored) < stored / 20, "{stats:?}");
    assert_eq!(found.header.partition, 1);
}
