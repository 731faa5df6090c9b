//! Encrypted tables in local files, beside what they consist of: our own plain put or get, and AES-256-GCM alone.

use std::sync::Arc;

use arrow_array::RecordBatch;
use ck_backend_file::{Durability, ReadMode};
use ck_cache::blocking::Cache;
use ck_cache::{Encrypted, EncryptionOptions, Keyring, MasterKey, Table};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{FAST, READ, local, terms};
use crate::Result;
use crate::ipc::Codec;
use crate::row::{Group, Open, Row, Sample};
use crate::scene::Scene;
use crate::tables::Kind;

/// Bytes of a chunk, on both sides.
const CHUNK: usize = 64 << 10;

const TAGGED: &str = "xxh3 and the tags of AES-256-GCM, with AES instructions";

pub(super) fn rows() -> Vec<Row> {
    let kinds = [
        (Kind::Numeric, Codec::None, "none, numeric"),
        (Kind::Lineitem, Codec::Zstd(3), "zstd 3, lineitem"),
    ];
    let row = |work: String, peer: &str, terms, ours, theirs| {
        Row::new(Group::Files, work, peer, terms, ours, theirs)
    };
    let rows = kinds.map(|(kind, codec, name)| {
        [
            row(
                format!("encrypted put {name}"),
                "our plain put + ring AES-256-GCM",
                terms(FAST, TAGGED),
                put(kind, codec, Durability::Fast),
                parts_of_put(kind, codec),
            ),
            row(
                format!("encrypted get {name}"),
                "our plain get + ring AES-256-GCM",
                terms(READ, TAGGED),
                get(kind, codec),
                parts_of_get(kind, codec),
            ),
        ]
    });
    rows.into_iter().flatten().collect()
}

/// A cache over a directory whose files are read.
fn plain_cache(scene: &Scene) -> Result<Cache> {
    let store = scene.backend("peer", Durability::Fast, ReadMode::Pread)?;
    Ok(ck_cache::Cache::new(Arc::new(store)).blocking())
}

/// Its like, encrypted.
fn encrypted_cache(scene: &Scene, durability: Durability) -> Result<Cache> {
    let store = scene.backend("ours", durability, ReadMode::Pread)?;
    let keys = Keyring::new(&MasterKey::from_hex(&"5e".repeat(32))?, &[], "bench")?;
    let store = Encrypted::new(Arc::new(store), keys, EncryptionOptions::new())?;
    Ok(ck_cache::Cache::new(Arc::new(store)).blocking())
}

fn put_table(cache: &Cache, table: &[RecordBatch], codec: Codec) -> Result<u64> {
    let table = Table::new(table[0].schema(), table.to_vec())?;
    let put = cache.put_table("table", table, &local::options(codec))?;
    Ok(put.stored()?)
}

pub(super) fn put(kind: Kind, codec: Codec, durability: Durability) -> Open {
    Box::new(move |scene| {
        let cache = encrypted_cache(scene, durability)?;
        let table = scene.table(kind)?;
        Ok(Box::new(move || {
            cache.remove("table")?;
            let mut stored = 0;
            let sample = Sample::timed(|| {
                stored = put_table(&cache, &table, codec)?;
                Ok(())
            })?;
            Ok(sample.stored(stored))
        }))
    })
}

/// The plain put, and the cipher over as many bytes.
fn parts_of_put(kind: Kind, codec: Codec) -> Open {
    Box::new(move |scene| {
        let cache = plain_cache(scene)?;
        let table = scene.table(kind)?;
        let mut bare = Bare::new()?;
        bare.seal(put_table(&cache, &table, codec)?)?;
        Ok(Box::new(move || {
            cache.remove("table")?;
            let mut stored = 0;
            let sample = Sample::timed(|| {
                stored = put_table(&cache, &table, codec)?;
                bare.seal(stored)
            })?;
            Ok(sample.stored(stored))
        }))
    })
}

pub(super) fn get(kind: Kind, codec: Codec) -> Open {
    Box::new(move |scene| {
        let cache = encrypted_cache(scene, Durability::Fast)?;
        put_table(&cache, &scene.table(kind)?, codec)?;
        Ok(Box::new(move || {
            Sample::timed(|| Ok(cache.get_table("table")?.ok_or("a miss")?))
        }))
    })
}

/// The plain get, and the cipher over as many bytes.
fn parts_of_get(kind: Kind, codec: Codec) -> Open {
    Box::new(move |scene| {
        let cache = plain_cache(scene)?;
        let stored = put_table(&cache, &scene.table(kind)?, codec)?;
        let mut bare = Bare::new()?;
        bare.seal(stored)?;
        Ok(Box::new(move || {
            let sample = Sample::timed(|| {
                let table = cache.get_table("table")?.ok_or("a miss")?;
                bare.open()?;
                Ok(table)
            })?;
            // What was opened is sealed again for the next round.
            bare.seal(stored)?;
            Ok(sample)
        }))
    })
}

/// Whether the processor has what `ring` then uses: AES and multiplication without carry.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The cipher alone, chunk by chunk, over bytes that are in memory.
struct Bare {
    key: LessSafeKey,
    bytes: Vec<u8>,
    tags: Vec<[u8; 16]>,
}

impl Bare {
    fn new() -> Result<Self> {
        if !has_aes() {
            return Err("this processor has no AES instructions: ours would be compared with something else".into());
        }
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "no key")?;
        Ok(Self {
            key: LessSafeKey::new(key),
            bytes: Vec::new(),
            tags: Vec::new(),
        })
    }

    fn nonce(index: usize) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(index as u64).to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, len: u64) -> Result<()> {
        let len = usize::try_from(len)?;
        if self.bytes.len() != len {
            self.bytes = vec![1; len];
        }
        self.tags.clear();
        for (index, chunk) in self.bytes.chunks_mut(CHUNK).enumerate() {
            let tag = self
                .key
                .seal_in_place_separate_tag(Self::nonce(index), Aad::empty(), chunk)
                .map_err(|_| "not sealed")?;
            self.tags.push(tag.as_ref().try_into()?);
        }
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        for (index, chunk) in self.bytes.chunks_mut(CHUNK).enumerate() {
            let tag = self.tags[index].into();
            self.key
                .open_in_place_separate_tag(Self::nonce(index), Aad::empty(), tag, chunk, 0..)
                .map_err(|_| "not opened")?;
        }
        Ok(())
    }
}
