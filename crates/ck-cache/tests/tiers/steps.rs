//! What happens in a run of the model.

use std::time::Duration;

use ck_cache::{Policy, StoreFailure};
use proptest::prelude::*;

use super::oracle::{Gives, Kind, Load, Made, Ttl};

const STEPS: usize = 120;

/// Keys, of which the last ones are those of values that stay in the process.
pub(crate) const KEYS: usize = 8;
const SHARED_KEYS: usize = 6;

/// The cache itself, and a namespace in it.
pub(crate) const SPACES: usize = 2;

pub(crate) const LONG: Duration = Duration::from_secs(600);
pub(crate) const SHORT: Duration = Duration::from_millis(3);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Put(Place, Kind, usize, Ttl, bool),
    Get(Place, Kind),
    /// As another process that keeps nothing itself.
    GetElsewhere(usize, Kind),
    /// A load; the number of its value is not known yet.
    Load(Place, Load),
    Remove(Place),
    Expire(Place),
    Invalidate,
    Wait,
    Race(Race),
}

/// A reader and a change of the same key at the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Race {
    pub(crate) place: Place,
    /// Else a plain get of that kind.
    pub(crate) loads: bool,
    pub(crate) load: Load,
    /// The size of what is put, else the entry is removed.
    pub(crate) puts: Option<usize>,
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) space: usize,
    pub(crate) key: usize,
}

impl Place {
    pub(crate) fn name(self) -> String {
        format!("k{}", self.key)
    }

    pub(crate) fn is_private(self) -> bool {
        self.key >= SHARED_KEYS
    }

    /// The kind that is put here when `kind` was drawn: keys tell apart what stays in the process.
    pub(crate) fn kind(self, kind: Kind) -> Kind {
        if self.is_private() {
            Kind::Private
        } else {
            kind
        }
    }
}

fn place() -> impl Strategy<Value = Place> {
    (prop_oneof![3 => Just(0), 1 => Just(1)], 0..KEYS).prop_map(|(space, key)| Place { space, key })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Table, Kind::Bytes, Kind::Text, Kind::Numbers])
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![4 => kind(), 1 => Just(Kind::Private)]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![0..200_usize, 0..5_000_usize, 0..60_000_usize]
}

fn life() -> impl Strategy<Value = (Ttl, bool)> {
    prop_oneof![
        4 => Just((Ttl::Endless, false)),
        2 => Just((Ttl::Long, false)),
        3 => Just((Ttl::Long, true)),
        1 => Just((Ttl::Short, false)),
        1 => Just((Ttl::Short, true)),
    ]
}

fn load() -> impl Strategy<Value = Load> {
    let kind = prop::sample::select(vec![Kind::Table, Kind::Text, Kind::Numbers]);
    let gives = prop_oneof![3 => Just(0), 1 => Just(1), 1 => Just(2)];
    let drawn = (kind, gives, size(), any::<bool>(), 0..4, life());
    drawn.prop_map(|(kind, gives, size, remembers_absence, ahead, life)| Load {
        kind,
        gives: match gives {
            0 => Gives::Value(Made {
                kind,
                number: 0,
                size,
            }),
            1 => Gives::Nothing,
            _ => Gives::Error,
        },
        is_ahead: ahead == 0,
        remembers_absence,
        ttl: life.0,
        may_be_stale: life.1,
    })
}

fn race() -> impl Strategy<Value = Race> {
    let puts = prop::option::weighted(0.7, size());
    let drawn = (place(), any::<bool>(), load(), puts, kind(), any::<u64>());
    drawn.prop_map(|(place, loads, load, puts, kind, seed)| Race {
        place,
        loads,
        load,
        puts,
        kind,
        seed,
    })
}

/// Steps, and after how many operations the store begins to fail in each.
pub(crate) fn steps() -> impl Strategy<Value = Vec<(Step, Option<usize>)>> {
    let step = prop_oneof![
        10 => (place(), kind(), size(), life())
            .prop_map(|(place, kind, size, life)| Step::Put(place, kind, size, life.0, life.1)),
        10 => (place(), any_kind()).prop_map(|(place, kind)| Step::Get(place, kind)),
        4 => (0..SHARED_KEYS, kind()).prop_map(|(key, kind)| Step::GetElsewhere(key, kind)),
        10 => (place(), load()).prop_map(|(place, load)| Step::Load(place, load)),
        2 => place().prop_map(Step::Remove),
        3 => place().prop_map(Step::Expire),
        1 => Just(Step::Invalidate),
        1 => Just(Step::Wait),
        5 => race().prop_map(Step::Race),
    ];
    let failing = prop_oneof![6 => Just(None), 1 => (0..6_usize).prop_map(Some)];
    prop::collection::vec((step, failing), 1..=STEPS)
}

#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) l1_bytes: u64,
    pub(crate) policy: Policy,
    pub(crate) max_age: Option<Duration>,
    pub(crate) on_failure: StoreFailure,
}

pub(crate) fn setting() -> impl Strategy<Value = Setting> {
    let l1_bytes = prop::sample::select(vec![0, 2_000, 20_000, 1 << 20]);
    let policy = prop::sample::select(vec![Policy::Lru, Policy::TinyLfu]);
    let max_age = prop_oneof![3 => Just(None), 1 => Just(Some(SHORT))];
    let on_failure = prop::sample::select(vec![StoreFailure::Error, StoreFailure::Miss]);
    let drawn = (l1_bytes, policy, max_age, on_failure);
    drawn.prop_map(|(l1_bytes, policy, max_age, on_failure)| Setting {
        l1_bytes,
        policy,
        max_age,
        on_failure,
    })
}
