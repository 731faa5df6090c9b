//! Guards the rule that a tier is a map with a budget: random operations on both, compared after each.
//!
//! With LRU the model says which entries survive, to the byte. With TinyLFU it does not, but all else.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use ck_l1::{Charge, Insertion, L1, Policy};
use common::{Blob, TOO_LARGE, key, overhead, signed};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Get(usize),
    Insert(usize, u64),
    Remove(usize),
    Clear,
    Charge(u64),
    DropCharge(usize),
    Settle,
}

const KEYS: usize = 12;

/// The budget of all cases, in bytes beyond the overhead of five entries.
const ROOM: u64 = 10_000;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![
        4 => 0..ROOM / 4,
        2 => 0..ROOM,
        // Around the budget: an entry fits beside nothing, exactly, or not at all.
        1 => ROOM + 4 * overhead() - 2..ROOM + 4 * overhead() + 3,
    ];
    let step = prop_oneof![
        8 => (0..KEYS).prop_map(Step::Get),
        8 => (0..KEYS, size.clone()).prop_map(|(key, size)| Step::Insert(key, size)),
        2 => (0..KEYS).prop_map(Step::Remove),
        1 => Just(Step::Clear),
        2 => prop_oneof![0..ROOM / 3, size].prop_map(Step::Charge),
        2 => (0..4usize).prop_map(Step::DropCharge),
        2 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..120)
}

/// Entries as LRU leaves them, used least lately first.
#[derive(Default)]
struct Lru {
    entries: Vec<(usize, u64, u64)>,
    shared: u64,
    budget: u64,
}

impl Lru {
    fn used(&self) -> u64 {
        self.shared + self.entries.iter().map(|entry| entry.2).sum::<u64>()
    }

    fn take(&mut self, key: usize) -> Option<(usize, u64, u64)> {
        let at = self.entries.iter().position(|entry| entry.0 == key)?;
        Some(self.entries.remove(at))
    }

    fn get(&mut self, key: usize) -> Option<u64> {
        let entry = self.take(key)?;
        self.entries.push(entry);
        Some(entry.1)
    }

    fn make_room(&mut self, bytes: u64) -> bool {
        if bytes > self.budget - self.shared {
            return false;
        }
        while self.used() + bytes > self.budget {
            self.entries.remove(0);
        }
        true
    }

    fn insert(&mut self, key: usize, id: u64, charge: u64) -> bool {
        let beside = self.used() + charge <= self.budget;
        self.take(key);
        // Beside the older entry, if that is possible; else in its room, and in that of others.
        let fits = beside || self.make_room(charge);
        if fits {
            self.entries.push((key, id, charge));
        }
        fits
    }
}

/// A tier under test, with what was last inserted and how many bytes of values are alive.
struct Run {
    l1: L1<Blob>,
    alive: Arc<AtomicI64>,
    latest: HashMap<usize, (u64, u64)>,
    charges: Vec<Charge>,
    overhead: u64,
    next_id: u64,
}

impl Run {
    fn new(policy: Policy) -> Self {
        let overhead = overhead();
        Self {
            l1: L1::builder(ROOM + 5 * overhead).policy(policy).build(),
            alive: Arc::default(),
            latest: HashMap::new(),
            charges: Vec::new(),
            overhead,
            next_id: 0,
        }
    }

    fn insert(&mut self, at: usize, size: u64) -> (Insertion, u64, u64) {
        self.next_id += 1;
        let charge = size + self.overhead;
        self.alive.fetch_add(signed(charge), SeqCst);
        let value = Blob::counted(self.next_id, size, &self.alive, charge);
        let insertion = self.l1.insert(key(at), value, None);
        match insertion {
            Insertion::Stored => self.latest.insert(at, (self.next_id, charge)),
            Insertion::Rejected(_) => self.latest.remove(&at),
        };
        (insertion, self.next_id, charge)
    }

    fn get(&self, at: usize) -> Option<u64> {
        self.l1.get(&key(at)).map(|value| value.id)
    }

    fn shared(&self) -> u64 {
        self.charges.iter().map(Charge::bytes).sum()
    }

    /// What holds at every moment, whatever the policy.
    fn check(&self) -> Result<(), TestCaseError> {
        let stats = self.l1.stats();
        prop_assert!(stats.bytes <= stats.budget_bytes, "{stats:?}");
        // Nobody else holds a value: what the account says is what is alive.
        let alive = self.alive.load(SeqCst);
        prop_assert_eq!(alive + signed(self.shared()), signed(stats.bytes));
        prop_assert!((alive == 0) == (stats.entries == 0), "{:?}", stats);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_lru_exactly_the_entries_used_last_survive(steps in steps()) {
        let mut run = Run::new(Policy::Lru);
        let mut model = Lru { budget: run.l1.stats().budget_bytes, ..Lru::default() };
        for step in steps {
            match step {
                Step::Get(at) => prop_assert_eq!(run.get(at), model.get(at)),
                Step::Insert(at, size) => {
                    let (insertion, id, charge) = run.insert(at, size);
                    let expected = if model.insert(at, id, charge) { Insertion::Stored } else { TOO_LARGE };
                    prop_assert_eq!(insertion, expected);
                }
                Step::Remove(at) => prop_assert_eq!(run.l1.remove(&key(at)), model.take(at).is_some()),
                Step::Clear => {
                    run.l1.clear();
                    model.entries.clear();
                }
                Step::Charge(bytes) => {
                    let charge = run.l1.charge(bytes);
                    prop_assert_eq!(charge.is_some(), model.make_room(bytes));
                    model.shared += charge.as_ref().map_or(0, Charge::bytes);
                    run.charges.extend(charge);
                }
                Step::DropCharge(at) if at < run.charges.len() => {
                    model.shared -= run.charges.swap_remove(at).bytes();
                }
                Step::DropCharge(_) | Step::Settle => {}
            }
            run.l1.settle();
            run.check()?;
            let stats = run.l1.stats();
            prop_assert_eq!((stats.bytes, stats.entries), (model.used(), model.entries.len() as u64));
        }
        for at in 0..KEYS {
            prop_assert_eq!(run.get(at), model.get(at));
        }
    }

    #[test]
    fn with_tiny_lfu_a_hit_is_the_last_insert_and_the_budget_holds(steps in steps()) {
        let mut run = Run::new(Policy::TinyLfu);
        for step in steps {
            match step {
                Step::Get(at) => {
                    if let Some(id) = run.get(at) {
                        prop_assert_eq!(Some(id), run.latest.get(&at).map(|&(id, _)| id));
                    }
                }
                Step::Insert(at, size) => {
                    let room = run.l1.stats().budget_bytes - run.shared();
                    let (insertion, id, charge) = run.insert(at, size);
                    prop_assert_eq!(insertion == TOO_LARGE, charge > room);
                    run.check()?;
                    let expected = (insertion == Insertion::Stored).then_some(id);
                    prop_assert_eq!(run.get(at), expected);
                }
                Step::Remove(at) => {
                    run.l1.remove(&key(at));
                    run.latest.remove(&at);
                    prop_assert_eq!(run.get(at), None);
                }
                Step::Clear => {
                    run.l1.clear();
                    run.latest.clear();
                    prop_assert_eq!(run.l1.stats().entries, 0);
                }
                Step::Charge(bytes) => {
                    let room = run.l1.stats().budget_bytes - run.shared();
                    let charge = run.l1.charge(bytes);
                    prop_assert_eq!(charge.is_some(), bytes <= room);
                    run.charges.extend(charge);
                }
                Step::DropCharge(at) if at < run.charges.len() => {
                    drop(run.charges.swap_remove(at));
                }
                Step::DropCharge(_) => {}
                Step::Settle => run.l1.settle(),
            }
            run.check()?;
        }
        let held: u64 = (0..KEYS).filter(|&at| run.get(at).is_some()).map(|at| run.latest[&at].1).sum();
        prop_assert_eq!(held + run.shared(), run.l1.stats().bytes);
    }
}
