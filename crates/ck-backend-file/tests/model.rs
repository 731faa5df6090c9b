//! Guards the whole store against a plain map with an exact order of use: whatever is put, read,
//! touched, removed and reopened, both hold the same entries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests report by panicking"
)]

mod common;

use bytes::Bytes;
use ck_backend_file::{Durability, FileBackend, ReadMode};
use ck_core::{Backend, Expiry, Key, Outcome};
use common::{HEADER, files, stream, try_put, usage, value};
use pollster::block_on;
use proptest::prelude::*;

const LIMIT: u64 = 120_000;
const VALUE_LIMIT: u64 = 50_000;
/// No more keys than the first ledger has slots, so that its size stays what it is.
const KEYS: u64 = 30;

#[derive(Debug, Clone)]
enum Step {
    Put(u64, u64),
    Stream(u64, u64),
    Get(u64),
    Touch(u64, bool),
    Remove(u64),
    Stat(u64),
    Reopen,
    Prune,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let len = prop_oneof![8..3_000_u64, 8..50_010_u64];
    prop_oneof![
        6 => (key.clone(), len.clone()).prop_map(|(key, len)| Step::Put(key, len)),
        2 => (key.clone(), len).prop_map(|(key, len)| Step::Stream(key, len)),
        6 => key.clone().prop_map(Step::Get),
        1 => (key.clone(), any::<bool>()).prop_map(|(key, dies)| Step::Touch(key, dies)),
        1 => key.clone().prop_map(Step::Remove),
        1 => key.prop_map(Step::Stat),
        1 => Just(Step::Reopen),
        1 => Just(Step::Prune),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    key: u64,
    bytes: Bytes,
    dead: bool,
}

/// Entries from the least to the most recently used.
struct Model {
    entries: Vec<Entry>,
    room: u64,
    limit_entries: usize,
}

impl Model {
    fn place(&self, key: u64) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key == key)
    }

    fn used(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| (entry.bytes.len() + HEADER) as u64)
            .sum()
    }

    /// The old entry counts until the new one has taken its place, and is evicted last.
    fn put(&mut self, key: u64, bytes: &Bytes) {
        let more = (bytes.len() + HEADER) as u64;
        while self.used() + more > self.room {
            let victim = self
                .entries
                .iter()
                .position(|entry| entry.key != key)
                .unwrap_or(0);
            self.entries.remove(victim);
        }
        if let Some(old) = self.place(key) {
            self.entries.remove(old);
        } else {
            while self.entries.len() >= self.limit_entries {
                self.entries.remove(0);
            }
        }
        self.entries.push(Entry {
            key,
            bytes: bytes.clone(),
            dead: false,
        });
    }

    /// The place of a living entry; a dead one goes when it is met.
    fn living(&mut self, key: u64) -> Option<usize> {
        let place = self.place(key)?;
        if self.entries[place].dead {
            self.entries.remove(place);
            return None;
        }
        Some(place)
    }

    fn get(&mut self, key: u64) -> Option<Bytes> {
        let place = self.living(key)?;
        let entry = self.entries.remove(place);
        self.entries.push(entry);
        self.entries.last().map(|entry| entry.bytes.clone())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_does_what_a_map_with_an_order_of_use_does(
        steps in prop::collection::vec(step(), 1..120),
        limit_entries in 3_usize..25,
        pread in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let mode = if pread { ReadMode::Pread } else { ReadMode::Mapped };
            FileBackend::builder(dir.path())
                .limit_bytes(LIMIT)
                .value_limit_bytes(VALUE_LIMIT)
                .limit_entries(limit_entries as u64)
                .read_mode(mode)
                .durability(Durability::Fast)
                .build()
                .unwrap()
        };
        let mut store = open();
        // So that no reconcile runs beside the test.
        block_on(store.prune()).unwrap();
        let ledger = std::fs::metadata(dir.path().join(".ck-ledger")).unwrap().len();
        let mut model = Model { entries: Vec::new(), room: LIMIT - ledger, limit_entries };
        for (seed, step) in steps.into_iter().enumerate() {
            let name = |key: u64| format!("key{key}");
            match step {
                Step::Put(key, len) | Step::Stream(key, len) => {
                    let bytes = value(seed as u64, usize::try_from(len).unwrap());
                    let streams = matches!(step, Step::Stream(..));
                    let outcome = if streams {
                        // A writer that does not know its size reserves some 4 KiB ahead, and never
                        // evicts the old entry: keep away from both.
                        let _ = block_on(store.remove(&Key::new(name(key)))).unwrap();
                        model.entries.retain(|entry| entry.key != key);
                        let fits = model.used() + len + 4_200 <= model.room;
                        if !fits {
                            continue;
                        }
                        stream(&store, &name(key), &bytes).unwrap()
                    } else {
                        try_put(&store, &name(key), bytes.clone()).unwrap()
                    };
                    if len > VALUE_LIMIT {
                        prop_assert!(matches!(outcome, Outcome::Rejected(_)));
                    } else {
                        let expected = Outcome::Stored { bytes: len + HEADER as u64 };
                        prop_assert_eq!(outcome, expected);
                        model.put(key, &bytes);
                    }
                }
                Step::Get(key) => {
                    prop_assert_eq!(common::get(&store, &name(key)), model.get(key));
                }
                Step::Touch(key, dies) => {
                    let expiry = Expiry::from_unix_seconds(if dies { 1 } else { 0 });
                    let touched = block_on(store.touch(&Key::new(name(key)), expiry)).unwrap();
                    let place = model.place(key).filter(|&place| !model.entries[place].dead);
                    prop_assert_eq!(touched, place.is_some());
                    if let Some(place) = place {
                        model.entries[place].dead = dies;
                    }
                }
                Step::Remove(key) => {
                    let removed = block_on(store.remove(&Key::new(name(key)))).unwrap();
                    prop_assert_eq!(removed, model.living(key).is_some());
                    model.entries.retain(|entry| entry.key != key);
                }
                Step::Stat(key) => {
                    let info = block_on(store.stat(&Key::new(name(key)))).unwrap();
                    let entry = model.entries.iter().find(|entry| entry.key == key && !entry.dead);
                    let expected = entry.map(|entry| entry.bytes.len() as u64);
                    prop_assert_eq!(info.map(|info| info.bytes), expected);
                }
                Step::Reopen => store = open(),
                Step::Prune => {
                    let pruned = block_on(store.prune()).unwrap();
                    let before = model.entries.len();
                    model.entries.retain(|entry| !entry.dead);
                    prop_assert_eq!(pruned.entries, (before - model.entries.len()) as u64);
                    prop_assert_eq!(pruned.orphans, 0);
                }
            }
            let counted = usage(&store);
            prop_assert_eq!(counted.entries, model.entries.len() as u64);
            prop_assert_eq!(counted.bytes, model.used());
            prop_assert_eq!(counted.reserved_bytes, 0);
            let found = files(dir.path());
            prop_assert_eq!(found.entries, model.entries.len() as u64);
            prop_assert_eq!(found.entry_bytes, model.used());
            prop_assert!(found.bytes <= LIMIT);
        }
    }
}
