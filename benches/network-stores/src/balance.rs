//! How evenly entries fill the servers of a fleet, and what is lost with one server or moved by another.
//!
//! Names, slots and the choice of servers are those of the stores; nothing is started or sent.

use std::collections::HashMap;

use ck_core::Key;
use redis::cluster_routing::Slot;

use crate::{names, redis_names, ring};

const MIB: u64 = 1 << 20;
const NODES: [usize; 4] = [10, 20, 40, 100];
const SEED: u64 = 20_261_121;
/// Sizes in bytes: log-normal around 200 MB, from 1 MB to 50 GB.
const MEDIAN: f64 = 200e6;
const SIGMA: f64 = 1.6;
const SMALLEST: f64 = 1e6;
const LARGEST: f64 = 50e9;

struct Entry {
    key: Key,
    generation: u128,
    bytes: u64,
}

/// How an entry is split.
#[derive(Clone, Copy)]
struct Split {
    name: &'static str,
    /// Larger entries are in chunks.
    single: u64,
    chunk: u64,
}

const SPLITS: [Split; 5] = [
    split("1 MiB", MIB),
    split("16 MiB", 16 * MIB),
    split("64 MiB", 64 * MIB),
    split("256 MiB", 256 * MIB),
    split("whole entries", u64::MAX),
];
const REDIS_DEFAULT: Split = Split {
    name: "64 MiB beyond 256",
    single: 256 * MIB,
    chunk: 64 * MIB,
};

const fn split(name: &'static str, bytes: u64) -> Split {
    Split {
        name,
        single: bytes,
        chunk: bytes,
    }
}

pub(crate) fn run(tb: u64) {
    let entries = entries(tb * 1_000_000_000_000);
    let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let largest = entries.iter().map(|entry| entry.bytes).max().unwrap_or(0);
    println!(
        "{} entries, {:.2} TB, mean {:.0} MB, largest {:.1} GB",
        entries.len(),
        bytes as f64 / 1e12,
        bytes as f64 / entries.len() as f64 / 1e6,
        largest as f64 / 1e9
    );

    println!("\nmemcached\n");
    head("lost with one server | lost by one more |", "---|---|");
    for split in SPLITS {
        for nodes in NODES {
            let fleet = Fleet::new(nodes);
            row(
                split.name,
                &nodes.to_string(),
                &simulate(&entries, split, &fleet),
                true,
            );
        }
    }
    println!("\nmemcached in groups of which each entry uses one\n");
    head("lost with one server | lost by one more |", "---|---|");
    for (groups, nodes) in [(2, 5), (8, 5), (1, 100), (5, 20), (10, 10), (20, 5)] {
        let layout = Groups::new(groups, nodes);
        for split in [SPLITS[0], SPLITS[2]] {
            let what = format!("{groups} x {nodes}");
            row(split.name, &what, &simulate(&entries, split, &layout), true);
        }
    }
    println!("\nRedis cluster\n");
    head("lost with one node |", "---|");
    for split in SPLITS.into_iter().chain([REDIS_DEFAULT]) {
        for nodes in NODES {
            row(
                split.name,
                &nodes.to_string(),
                &simulate(&entries, split, &Cluster::new(nodes)),
                false,
            );
        }
    }
}

fn head(more: &str, rule: &str) {
    println!("| chunks | servers | max / mean | min / mean | {more}");
    println!("|---|---|---|---|{rule}");
}

fn row(split: &str, nodes: &str, outcome: &Outcome, grows: bool) {
    let sum: u64 = outcome.fill.iter().sum();
    let mean = sum as f64 / outcome.fill.len() as f64;
    let ratio = |bytes: Option<&u64>| bytes.copied().unwrap_or(0) as f64 / mean;
    let share = |lost: Lost| {
        format!(
            "{:.1} % of entries, {:.1} % of bytes",
            lost.entries * 100.0 / outcome.entries as f64,
            lost.bytes * 100.0 / sum as f64
        )
    };
    let grown = if grows {
        format!(" {} |", share(outcome.grown))
    } else {
        String::new()
    };
    println!(
        "| {split} | {nodes} | {:.2} | {:.2} | {} |{grown}",
        ratio(outcome.fill.iter().max()),
        ratio(outcome.fill.iter().min()),
        share(outcome.lost)
    );
}

/// Where the parts of entries go.
trait Layout: Sync {
    fn nodes(&self) -> usize;

    /// The node of a part, and whether one node more would take it away.
    fn place(&self, entry: &Entry, part: Option<usize>) -> (usize, bool);
}

/// memcached servers.
struct Fleet {
    /// One more than there are.
    names: Vec<String>,
}

impl Fleet {
    fn new(nodes: usize) -> Self {
        Self::named("cache", nodes)
    }

    fn named(name: &str, nodes: usize) -> Self {
        Self {
            names: (0..=nodes)
                .map(|node| format!("{name}-{node}.example.net:11211"))
                .collect(),
        }
    }

    fn choose(&self, nodes: usize, name: &str) -> usize {
        ring::choose(self.names[..nodes].iter().map(String::as_str), name)
    }
}

impl Layout for Fleet {
    fn nodes(&self) -> usize {
        self.names.len() - 1
    }

    fn place(&self, entry: &Entry, part: Option<usize>) -> (usize, bool) {
        let name = match part {
            None => names::entry("", &entry.key),
            Some(index) => names::chunk("", entry.generation, index),
        };
        let nodes = self.nodes();
        let grown = self.choose(nodes + 1, &name);
        if grown < nodes {
            (grown, false)
        } else {
            (self.choose(nodes, &name), true)
        }
    }
}

/// Several stores of a few servers each; a key belongs to one of them.
struct Groups {
    names: Vec<String>,
    fleets: Vec<Fleet>,
}

impl Groups {
    fn new(groups: usize, nodes: usize) -> Self {
        let names: Vec<String> = (0..groups).map(|group| format!("group-{group}")).collect();
        let fleets = names.iter().map(|name| Fleet::named(name, nodes)).collect();
        Self { names, fleets }
    }
}

impl Layout for Groups {
    fn nodes(&self) -> usize {
        self.fleets.iter().map(Layout::nodes).sum()
    }

    /// One node more is one more for the first group.
    fn place(&self, entry: &Entry, part: Option<usize>) -> (usize, bool) {
        let group = ring::choose(self.names.iter().map(String::as_str), entry.key.as_str());
        let (node, moves) = self.fleets[group].place(entry, part);
        (group * self.fleets[0].nodes() + node, moves && group == 0)
    }
}

/// Primaries of a Redis cluster, with slots in equal ranges.
struct Cluster {
    nodes: usize,
    of_slot: HashMap<Slot, usize>,
}

impl Cluster {
    fn new(nodes: usize) -> Self {
        let slots = (0..16_384).filter_map(|number| {
            let node = usize::from(number) * nodes / 16_384;
            Slot::new(number).map(|slot| (slot, node))
        });
        Self {
            nodes,
            of_slot: slots.collect(),
        }
    }
}

impl Layout for Cluster {
    fn nodes(&self) -> usize {
        self.nodes
    }

    /// Slots move with what they hold.
    fn place(&self, entry: &Entry, part: Option<usize>) -> (usize, bool) {
        let name = redis_names::of_entry("", &entry.key);
        let name = match part {
            None => name,
            Some(index) => redis_names::of_part("", &name, entry.generation, index),
        };
        (self.of_slot[&Slot::for_key(&name)], false)
    }
}

#[derive(Clone, Copy, Default)]
struct Lost {
    entries: f64,
    bytes: f64,
}

struct Outcome {
    fill: Vec<u64>,
    entries: usize,
    /// With one node, on average over the nodes.
    lost: Lost,
    /// With one node more.
    grown: Lost,
}

fn simulate(entries: &[Entry], split: Split, layout: &impl Layout) -> Outcome {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = std::thread::scope(|scope| {
        // Turn about, because a few entries have most of the chunks.
        let work = |first: usize| {
            let mine = entries.iter().skip(first).step_by(threads);
            place(mine, split, layout)
        };
        let threads: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || work(first)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    let mut whole = Outcome {
        fill: vec![0; layout.nodes()],
        entries: entries.len(),
        lost: Lost::default(),
        grown: Lost::default(),
    };
    for part in parts {
        whole
            .fill
            .iter_mut()
            .zip(part.fill)
            .for_each(|(sum, bytes)| *sum += bytes);
        for (sum, lost) in [(&mut whole.lost, part.lost), (&mut whole.grown, part.grown)] {
            sum.entries += lost.entries;
            sum.bytes += lost.bytes;
        }
    }
    whole
}

fn place<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    split: Split,
    layout: &impl Layout,
) -> Outcome {
    let nodes = layout.nodes();
    let mut outcome = Outcome {
        fill: vec![0; nodes],
        entries: 0,
        lost: Lost::default(),
        grown: Lost::default(),
    };
    for entry in entries {
        // The manifest, or all of it, lies where the key says.
        let (home, mut moves) = layout.place(entry, None);
        let mut uses = 1_u128 << home;
        if entry.bytes <= split.single {
            outcome.fill[home] += entry.bytes;
        } else {
            let mut left = entry.bytes;
            for index in 0.. {
                let bytes = left.min(split.chunk);
                let (node, moved) = layout.place(entry, Some(index));
                outcome.fill[node] += bytes;
                uses |= 1 << node;
                moves |= moved;
                left -= bytes;
                if left == 0 {
                    break;
                }
            }
        }
        let share = f64::from(uses.count_ones()) / nodes as f64;
        outcome.entries += 1;
        outcome.lost.entries += share;
        outcome.lost.bytes += share * entry.bytes as f64;
        if moves {
            outcome.grown.entries += 1.0;
            outcome.grown.bytes += entry.bytes as f64;
        }
    }
    outcome
}

/// A mix of entries of so many bytes together, the same each time.
fn entries(total: u64) -> Vec<Entry> {
    let mut state = SEED;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let (mut entries, mut sum) = (Vec::new(), 0);
    while sum < total {
        // Box and Muller's normal numbers from two even ones.
        let mut even = || ((random() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        let normal = (-2.0 * even().ln()).sqrt() * (std::f64::consts::TAU * even()).cos();
        let bytes = MEDIAN * (SIGMA * normal).exp();
        if !(SMALLEST..=LARGEST).contains(&bytes) {
            continue;
        }
        let entry = Entry {
            key: Key::new(format!("features/{:016x}", random())),
            generation: u128::from(random()) << 64 | u128::from(random()),
            bytes: bytes as u64,
        };
        sum += entry.bytes;
        entries.push(entry);
    }
    entries
}
