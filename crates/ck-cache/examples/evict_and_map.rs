//! Caches a typed value with large parts, has it evicted from memory to disk, and takes it back without
//! copying the parts: they are used where the file is mapped.
//!
//! Run with `cargo run -p ck-cache --example evict_and_map`.
#![allow(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "an example prints, and its numbers are small"
)]

#[path = "../../ck-codec/examples/index_partition/partition.rs"]
mod partition;

use std::error::Error;
use std::sync::Arc;

use ck_cache::{Cache, L1Stats, Policy, PutOptions, Stats, open_store};
use partition::{Partition, PartitionKey};

/// Memory for one partition of 24 MB, not for two.
const L1_BYTES: u64 = 32 << 20;
const ROWS: usize = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = open_store(&format!("file:{}", dir.path().display()))?;
    let cache = Cache::builder(store)
        .l1_bytes(L1_BYTES)
        // The last one stays, whichever is asked for more often.
        .l1_policy(Policy::Lru)
        .build()
        .blocking();
    let l1 = |stats: Stats| -> L1Stats { stats.l1.unwrap_or_default() };
    let key = |partition| PartitionKey {
        index: "embeddings".to_owned(),
        partition,
    };

    // Into memory and into the store.
    let first = Arc::new(Partition::sample(1, ROWS)?);
    let stored = cache
        .put(&key(1), Arc::clone(&first), &PutOptions::new())?
        .stored()?;
    let held = l1(cache.stats());
    println!("put:     {stored} bytes on disk, {} in memory", held.bytes);

    // The second one takes its place in memory.
    let second = Partition::sample(2, ROWS)?;
    let outcome = cache.put(&key(2), second, &PutOptions::new())?;
    assert!(outcome.is_stored());
    let evicted = l1(cache.stats()).evicted.size;
    println!("evicted: {evicted} entry, {:?}", key(1));
    assert_eq!(evicted, 1);

    // Back from disk.
    let before = l1(cache.stats());
    let found = cache.get(&key(1))?.ok_or("a miss")?;
    let after = l1(cache.stats());
    assert_eq!(found, first);
    assert!(!Arc::ptr_eq(&found, &first));
    let heap = after.bytes - before.bytes;
    let mapped = after.mapped_bytes - before.mapped_bytes;
    println!("get:     {heap} bytes of memory, {mapped} bytes mapped");
    assert!(heap < 8192 && mapped + 64 > stored);

    // The codebook and the columns lie in the file.
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let dir = dir.path().to_string_lossy();
    for address in found.addresses() {
        let region = maps.lines().find(|line| contains(line, address));
        let region = region.filter(|region| region.contains(&*dir));
        println!("         {address:?} in {}", region.ok_or("a copy")?);
    }
    Ok(())
}

/// Whether a line of `/proc/self/maps` is about the region of this address.
fn contains(line: &str, address: *const u8) -> bool {
    let bounds = line
        .split(' ')
        .next()
        .and_then(|range| range.split_once('-'));
    let bounds = bounds.map(|(start, end)| [start, end].map(|at| usize::from_str_radix(at, 16)));
    matches!(bounds, Some([Ok(start), Ok(end)]) if (start..end).contains(&(address as usize)))
}
