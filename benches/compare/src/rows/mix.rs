//! Small objects under a Zipf mix of keys, in a process that may keep half of them.
//!
//! All objects are in the store; a round gets a fixed sequence of keys. Ours is the cache with its tier in
//! the process; the peers are moka alone in front of the same store, filled by hand, under the same policy,
//! and foyer's hybrid cache over a device in a directory. Our entries are read into memory, not mapped, so
//! that both sides hold bytes of their own under the same budget; what moka is told an object weighs is what
//! keeping it takes, as ours charges it, and it evicts behind each insert.

use std::time::Instant;

use bytes::Bytes;
use ck_backend_file::{Durability, ReadMode};
use ck_cache::{Cache, CacheBuilder, PutOptions};
use ck_core::Key;
use ck_l1::Policy;
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, Source,
};
use moka::policy::EvictionPolicy;
use tokio::runtime::Runtime;

use super::small::SIZES;
use super::{FAST, READ, terms};
use crate::Result;
use crate::row::{Group, Memory, Open, Row, Sample};
use crate::scene::Scene;

const HASHED: &str = "xxh3 / xxh64 of what comes from the store";
const SAME: &str = "xxh3 of what comes from the store";

pub(super) fn rows(scene: &Scene) -> Vec<Row> {
    let mut rows = Vec::new();
    for (size, name) in SIZES {
        let mix = Mix::new(size, scene);
        let gets = mix.gets as u64;
        let row = |policy: Policy, peer: &str, terms, theirs| {
            let work = match policy {
                Policy::TinyLfu => format!("Zipf mix of {name}"),
                Policy::Lru => format!("Zipf mix of {name}, LRU"),
            };
            Row::new(
                Group::Process,
                work,
                peer,
                terms,
                ours(mix.clone(), policy),
                theirs,
            )
            .of_operations(gets)
            .with_memory(Memory::All)
        };
        for policy in [Policy::TinyLfu, Policy::Lru] {
            rows.push(row(
                policy,
                "moka in front of the same store",
                terms(READ, SAME),
                moka(mix.clone(), policy),
            ));
        }
        // Its default.
        let foyer = foyer(mix.clone());
        rows.push(row(Policy::Lru, "foyer hybrid", terms(READ, HASHED), foyer));
        let puts = mix.objects.min(512) as u64;
        let put = Row::new(
            Group::Process,
            format!("put {name}, kept and stored"),
            "foyer hybrid, flushed",
            terms(FAST, "xxh3 / xxh64 of the value"),
            put(size, puts),
            foyer_put(size, puts),
        );
        rows.push(put.of_operations(puts));
    }
    rows
}

/// Which objects there are, and in which order they are asked for.
#[derive(Clone)]
struct Mix {
    size: usize,
    objects: usize,
    budget: u64,
    /// Of one round.
    gets: usize,
    sequence: Vec<u32>,
    /// How far the rounds are in the sequence.
    next: usize,
}

impl Mix {
    fn new(size: usize, scene: &Scene) -> Self {
        let budget = scene.l1_bytes();
        let objects = (2 * budget as usize) / size;
        let gets = (if scene.quick { 8 << 20 } else { 64 << 20 } / size).clamp(200, 20_000);
        // The rank of an object is drawn by the inverse of the sum of 1 / rank.
        let sums: Vec<f64> = (1..=objects)
            .scan(0.0, |sum, rank| {
                *sum += 1.0 / rank as f64;
                Some(*sum)
            })
            .collect();
        let mut state = 1_u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let point = (state >> 11) as f64 / (1_u64 << 53) as f64 * sums[objects - 1];
            let rank = sums.partition_point(|sum| *sum < point).min(objects - 1);
            // Neighbours in rank are no neighbours in the store.
            (rank * 7919 % objects) as u32
        };
        let sequence = (0..objects * 4 + gets * 30).map(|_| draw()).collect();
        Self {
            size,
            objects,
            budget,
            gets,
            sequence,
            next: 0,
        }
    }

    /// What the next round asks for: after the first ones, which fill the process, always something new.
    fn round(&mut self) -> Vec<u32> {
        let gets = if self.next == 0 {
            self.objects * 4
        } else {
            self.gets
        };
        let keys = self
            .sequence
            .iter()
            .cycle()
            .skip(self.next)
            .take(gets)
            .copied()
            .collect();
        self.next = (self.next + gets) % self.sequence.len();
        keys
    }

    fn value(&self, number: usize) -> Vec<u8> {
        let mut value = vec![7; self.size];
        value[..8].copy_from_slice(&(number as u64).to_le_bytes());
        value
    }

    /// The store with all objects in it, and how many bytes an entry has.
    fn fill(&self, scene: &Scene, name: &str) -> Result<(CacheBuilder, u64)> {
        let builder = scene.store(name, Durability::Fast, ReadMode::Pread)?;
        let far = builder.build().blocking();
        let mut entry_bytes = 0;
        for number in 0..self.objects {
            entry_bytes = far
                .put_bytes(key(number as u32), self.value(number), &PutOptions::new())?
                .stored()?;
        }
        let builder = scene.store(name, Durability::Fast, ReadMode::Pread)?;
        Ok((builder, entry_bytes))
    }
}

fn key(number: u32) -> String {
    format!("object/{number:08}")
}

fn ours(mix: Mix, policy: Policy) -> Open {
    Box::new(move |scene| {
        let (builder, _) = mix.fill(scene, "ours")?;
        let cache = builder.l1_bytes(mix.budget).l1_policy(policy).build();
        let runtime = scene.runtime()?;
        let mut mix = mix.clone();
        let hits = move |cache: &Cache| cache.stats().l1.map_or(0, |l1| l1.hits);
        Ok(Box::new(move || {
            let keys = mix.round();
            let before = hits(&cache);
            let sample = Sample::timed(|| {
                runtime.block_on(async {
                    for &number in &keys {
                        let found = cache.get_bytes(key(number)).await?.ok_or("a miss")?;
                        assert_eq!(found.len(), mix.size);
                    }
                    Ok(())
                })
            })?;
            Ok(with_hits(sample, hits(&cache) - before, &mix))
        }))
    })
}

/// What moka and the counts of key and value allocate for an entry.
const MOKA_ENTRY: u64 = 300;

fn moka(mix: Mix, policy: Policy) -> Open {
    Box::new(move |scene| {
        let (builder, entry_bytes) = mix.fill(scene, "peer")?;
        let far = builder.build();
        let runtime = scene.runtime()?;
        let near: moka::sync::Cache<Key, Bytes> = moka::sync::Cache::builder()
            .max_capacity(mix.budget)
            .eviction_policy(match policy {
                Policy::TinyLfu => EvictionPolicy::tiny_lfu(),
                Policy::Lru => EvictionPolicy::lru(),
            })
            // The bytes lie in the memory that the whole entry was read into.
            .weigher(move |key: &Key, _| {
                (key.as_str().len() as u64 + entry_bytes + MOKA_ENTRY) as u32
            })
            .build();
        let mut mix = mix.clone();
        Ok(Box::new(move || {
            let keys = mix.round();
            let mut hits = 0;
            let sample = Sample::timed(|| {
                runtime.block_on(async {
                    for &number in &keys {
                        let key = Key::new(key(number));
                        let found = match near.get(&key) {
                            Some(found) => {
                                hits += 1;
                                found
                            }
                            None => {
                                let found = far.get_bytes(key.clone()).await?.ok_or("a miss")?;
                                near.insert(key, found.clone());
                                // It would evict only after 64 inserts: these may have many times its capacity.
                                near.run_pending_tasks();
                                found
                            }
                        };
                        assert_eq!(found.len(), mix.size);
                    }
                    Ok(())
                })
            })?;
            Ok(with_hits(sample, hits, &mix))
        }))
    })
}

fn with_hits(sample: Sample, hits: u64, mix: &Mix) -> Sample {
    Sample {
        hit_ratio: Some(hits as f64 / mix.gets as f64),
        ..sample
    }
}

type Foyer = HybridCache<String, Vec<u8>>;

/// A hybrid cache whose device holds twice what is put.
fn hybrid(
    scene: &Scene,
    runtime: &Runtime,
    budget: u64,
    objects: usize,
    size: usize,
) -> Result<Foyer> {
    let dir = scene.side("foyer")?;
    let built = runtime.block_on(async {
        let capacity = (objects * (size + 8192) * 2).max(256 << 20);
        let device = FsDeviceBuilder::new(dir).with_capacity(capacity).build()?;
        HybridCacheBuilder::new()
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .memory(budget as usize)
            .with_weighter(|key: &String, value: &Vec<u8>| key.len() + value.len())
            .storage()
            .with_engine_config(BlockEngineConfig::new(device))
            .build()
            .await
    });
    Ok(built?)
}

fn foyer(mix: Mix) -> Open {
    Box::new(move |scene| {
        let runtime = scene.runtime()?;
        let cache = hybrid(scene, &runtime, mix.budget, mix.objects, mix.size)?;
        runtime.block_on(async {
            for number in 0..mix.objects {
                cache.insert(key(number as u32), mix.value(number));
                // Its queue drops what comes too fast.
                if number % ((4 << 20) / mix.size) == 0 {
                    cache.storage().wait().await;
                }
            }
            cache.storage().wait().await;
        });
        let mut mix = mix.clone();
        Ok(Box::new(move || {
            let keys = mix.round();
            let mut hits = 0;
            let sample = Sample::timed(|| {
                runtime.block_on(async {
                    for &number in &keys {
                        let found = cache.get(&key(number)).await?.ok_or("a miss")?;
                        assert_eq!(found.value().len(), mix.size);
                        hits += u64::from(found.source() != Source::Disk);
                    }
                    Ok(())
                })
            })?;
            Ok(with_hits(sample, hits, &mix))
        }))
    })
}

fn put(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let l1 = count * size as u64 * 2 + (1 << 20);
        let cache = scene
            .store("ours", Durability::Fast, ReadMode::Pread)?
            .l1_bytes(l1)
            .build();
        let runtime = scene.runtime()?;
        let value = vec![7; size];
        Ok(Box::new(move || {
            Sample::timed(|| {
                runtime.block_on(async {
                    for number in 0..count {
                        let copy = value.clone();
                        cache
                            .put_bytes(key(number as u32), copy, &PutOptions::new())
                            .await?
                            .stored()?;
                    }
                    Ok(())
                })
            })
        }))
    })
}

fn foyer_put(size: usize, count: u64) -> Open {
    Box::new(move |scene| {
        let runtime = scene.runtime()?;
        let cache = hybrid(
            scene,
            &runtime,
            count * size as u64 * 2 + (1 << 20),
            count as usize * 16,
            size,
        )?;
        let value = vec![7; size];
        Ok(Box::new(move || {
            let start = Instant::now();
            runtime.block_on(async {
                for number in 0..count {
                    cache.insert(key(number as u32), value.clone());
                    if number % ((4 << 20) / size as u64) == 0 {
                        cache.storage().wait().await;
                    }
                }
                cache.storage().wait().await;
            });
            Ok(Sample::of(start.elapsed()))
        }))
    })
}
