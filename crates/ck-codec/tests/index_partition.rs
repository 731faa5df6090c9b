//! The example's value, shaped like a partition of a vector index, under the conditions of a cache.
#![cfg(feature = "messagepack")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

#[path = "../examples/index_partition/partition.rs"]
mod partition;

use std::io::Write;

use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{CacheCodecImpl, CacheKey};
use ck_core::{ErrorKind, Result};
use common::{loaded, placed, stored};
use partition::{Partition, PartitionKey};

#[test]
fn a_partition_comes_back_without_a_copy() {
    let partition = Partition::sample(3, 1001).unwrap();
    let bytes = stored(partition.clone());
    let found: Partition = loaded(&bytes).unwrap();
    assert_eq!(found, partition);
    assert_eq!(found.addresses().len(), 5);
    let memory = bytes.as_ptr_range();
    assert!(
        found
            .addresses()
            .iter()
            .all(|address| memory.contains(address))
    );
    let moved: Partition = loaded(&placed(&bytes, 4)).unwrap();
    assert_eq!(moved, partition);
}

#[test]
fn a_partition_is_charged_for_its_buffers() {
    let partition = Partition::sample(3, 10_000).unwrap();
    let rows = 10_000 * (8 + 16);
    let codebook = 16 * 256 * 4 * 4;
    let charged = PartitionKey::heap_bytes(&partition, None);
    assert!(
        (rows + codebook..2 * (rows + codebook)).contains(&charged),
        "{charged}"
    );
    let key = PartitionKey {
        index: "embeddings".to_owned(),
        partition: 3,
    };
    assert_eq!(key.key(), "index/embeddings/partition/3");
    assert_eq!(key.codec().unwrap().type_name(), Partition::TYPE);
}

/// What a later version of the type might write under the same name and version, by mistake.
#[derive(Clone)]
struct WithoutStorage(Partition);

impl CacheCodecImpl for WithoutStorage {
    const TYPE: &'static str = Partition::TYPE;
    const VERSION: u32 = Partition::VERSION;

    fn serialize(&self, writer: &mut dyn Write) -> Result<()> {
        let mut partition = self.0.clone();
        partition.storage.pop();
        partition.serialize(writer)
    }

    fn deserialize(data: &Bytes) -> Result<Self> {
        Partition::deserialize(data).map(Self)
    }
}

#[test]
fn a_partition_with_other_parts_than_its_header_says_is_damaged() {
    let partition = Partition::sample(3, 100).unwrap();
    let bytes = stored(WithoutStorage(partition));
    let error = loaded::<Partition>(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let error = loaded::<Table>(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
