//! Stores a composite value as bytes and takes it back without copying its parts.
#![allow(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "an example prints, and its numbers are small"
)]

mod partition;

use std::any::Any;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use ck_codec::CacheKey;
use partition::{Partition, PartitionKey};

fn main() -> Result<(), Box<dyn Error>> {
    let partition = Partition::sample(7, 100_000)?;
    let key = PartitionKey {
        index: partition.header.index.clone(),
        partition: partition.header.partition,
    };
    let codec = key.codec().ok_or("partitions can be stored")?;
    let value: Arc<dyn Any + Send + Sync> = Arc::new(partition.clone());

    // What a cache does when the value leaves memory ...
    let mut stored = Vec::new();
    codec.serialize(&value, &mut stored)?;
    // ... and when it comes back: a mapped file starts at a page.
    let stored: Bytes = ck_core::aligned_bytes(stored.len(), |memory| {
        memory.copy_from_slice(&stored);
        Ok::<_, ck_core::Error>(())
    })?;
    let value = codec.deserialize(&stored)?;

    let found: &Partition = value.downcast_ref().ok_or("another type")?;
    assert_eq!(*found, partition);
    let memory = stored.as_ptr_range();
    let addresses = found.addresses();
    assert!(addresses.iter().all(|address| memory.contains(address)));
    println!(
        "{}: {} bytes stored, {} buffers used where they lie, {} bytes on the heap before",
        key.key(),
        stored.len(),
        addresses.len(),
        PartitionKey::heap_bytes(&partition, None),
    );
    Ok(())
}
