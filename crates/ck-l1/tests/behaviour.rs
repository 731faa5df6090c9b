//! What a caller relies on, one thing a test.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use ck_core::Key;
use ck_l1::{Insertion, L1, Policy, Weigh, Weight};
use common::{Blob, MAPPED_FULL, NOT_ADMITTED, TOO_LARGE, key, overhead};

const STORED: Insertion = Insertion::Stored;

fn lru(budget_bytes: u64) -> L1<Blob> {
    L1::builder(budget_bytes).policy(Policy::Lru).build()
}

#[test]
fn a_hit_is_the_very_value_that_was_inserted() {
    let l1 = L1::builder(1 << 20).build();
    let value = Blob::new(1, 100);
    assert_eq!(l1.insert(key(1), Arc::clone(&value), None), STORED);
    let hit = l1.get(&key(1)).unwrap();
    assert!(Arc::ptr_eq(&hit, &value));
    assert!(l1.get(&key(2)).is_none());
    assert!(l1.clone().get(&key(1)).is_some());
    assert_eq!((l1.stats().hits, l1.stats().misses), (2, 1));
}

#[test]
fn an_entry_that_equals_the_budget_is_stored_in_the_room_of_all_others() {
    for policy in [Policy::Lru, Policy::TinyLfu] {
        let l1 = L1::builder(10 * overhead()).policy(policy).build();
        // Less than half full: TinyLFU lets everyone in.
        for n in 0..4 {
            assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
        }
        assert_eq!(
            l1.insert(key(9), Blob::new(9, 9 * overhead()), None),
            STORED
        );
        let stats = l1.stats();
        assert_eq!(
            (stats.bytes, stats.entries, stats.evicted.size),
            (stats.budget_bytes, 1, 4)
        );
        assert_eq!(l1.get(&key(9)).unwrap().id, 9);
        // And again over itself, where there is no room beside it.
        assert_eq!(
            l1.insert(key(9), Blob::new(10, 9 * overhead()), None),
            STORED
        );
        assert_eq!(l1.get(&key(9)).unwrap().id, 10);
    }
}

#[test]
fn an_entry_larger_than_the_budget_is_refused_and_drops_only_the_older_one_of_its_key() {
    for policy in [Policy::Lru, Policy::TinyLfu] {
        let l1 = L1::builder(4 * overhead()).policy(policy).build();
        for n in 0..4 {
            assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
        }
        assert_eq!(
            l1.insert(key(9), Blob::new(9, 3 * overhead() + 1), None),
            TOO_LARGE
        );
        assert_eq!(l1.stats().entries, 4);
        assert_eq!(l1.insert(key(1), Blob::new(9, u64::MAX), None), TOO_LARGE);
        assert_eq!(
            (0..4)
                .map(|n| l1.get(&key(n)).is_some())
                .collect::<Vec<_>>(),
            [true, false, true, true]
        );
        let stats = l1.stats();
        assert_eq!(
            (
                stats.rejected.too_large,
                stats.evicted.replaced,
                stats.evicted.size
            ),
            (2, 1, 0)
        );
    }
}

#[test]
fn a_tier_without_a_budget_holds_nothing() {
    for policy in [Policy::Lru, Policy::TinyLfu] {
        let l1 = L1::builder(0).policy(policy).build();
        assert_eq!(l1.insert(key(0), Blob::new(0, 0), None), TOO_LARGE);
        assert!(l1.get(&key(0)).is_none() && !l1.remove(&key(0)));
        assert!(l1.charge(1).is_none());
        assert_eq!(l1.charge(0).unwrap().bytes(), 0);
        l1.clear();
        l1.settle();
        assert_eq!(l1.stats().bytes, 0);
    }
}

#[test]
fn entries_above_4_gib_are_weighed_in_full() {
    const GIB: u64 = 1 << 30;
    for budget in [20 * GIB, 20 * GIB + 12_345] {
        let l1 = lru(budget);
        for n in 0..4 {
            assert_eq!(
                l1.insert(key(n), Blob::new(n as u64, 5 * GIB - overhead()), None),
                STORED
            );
        }
        assert_eq!((l1.stats().bytes, l1.stats().entries), (20 * GIB, 4));
        l1.settle();
        assert!(l1.get(&key(0)).is_some());
        assert_eq!(l1.insert(key(4), Blob::new(4, 6 * GIB), None), STORED);
        let left: Vec<_> = (0..5).filter(|&n| l1.get(&key(n)).is_some()).collect();
        assert_eq!(left, [0, 3, 4]);
        assert_eq!(
            l1.insert(key(5), Blob::new(5, budget - overhead()), None),
            STORED
        );
        assert_eq!((l1.stats().bytes, l1.stats().entries), (budget, 1));
        assert_eq!(
            l1.insert(key(6), Blob::new(6, budget - overhead() + 1), None),
            TOO_LARGE
        );
    }
}

#[test]
fn lru_evicts_what_was_used_least_lately() {
    let l1 = lru(3 * overhead());
    for n in 0..3 {
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
    }
    l1.settle();
    assert!(l1.get(&key(0)).is_some());
    assert_eq!(l1.insert(key(3), Blob::new(0, 0), None), STORED);
    let left: Vec<_> = (0..4).filter(|&n| l1.get(&key(n)).is_some()).collect();
    assert_eq!(left, [0, 2, 3]);
}

#[test]
fn tiny_lfu_refuses_a_newcomer_until_it_is_asked_for_more_than_its_victims() {
    let l1 = L1::builder(3 * overhead()).policy(Policy::TinyLfu).build();
    for n in 0..3 {
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
    }
    l1.settle();
    for _ in 0..2 {
        assert!((0..3).all(|n| l1.get(&key(n)).is_some()));
    }
    let newcomer = Blob::new(3, 0);
    assert_eq!(l1.insert(key(3), Arc::clone(&newcomer), None), NOT_ADMITTED);
    assert_eq!(Arc::strong_count(&newcomer), 1);
    for _ in 0..4 {
        assert!(l1.get(&key(3)).is_none());
    }
    assert_eq!(l1.insert(key(3), newcomer, None), STORED);
    let stats = l1.stats();
    assert_eq!(
        (
            stats.rejected.not_admitted,
            stats.evicted.size,
            stats.entries
        ),
        (1, 1, 3)
    );
}

#[test]
fn what_entries_share_does_not_make_tiny_lfu_refuse_more() {
    let l1 = L1::builder(100 * overhead())
        .policy(Policy::TinyLfu)
        .build();
    let shared = l1.charge(50 * overhead()).unwrap();
    for n in 0..50 {
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
    }
    l1.settle();
    for n in 50..60 {
        for _ in 0..3 {
            assert!(l1.get(&key(n)).is_none());
        }
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
        assert_eq!(l1.stats().entries, 50, "one leaves for one that comes");
    }
    drop(shared);
    for n in 60..110 {
        assert_eq!(
            l1.insert(key(n), Blob::new(0, 0), None),
            STORED,
            "there is room again"
        );
    }
    assert_eq!(l1.stats().entries, 100);
}

#[test]
fn what_entries_share_does_not_make_tiny_lfu_refuse_less() {
    let l1 = L1::builder(100 * overhead())
        .policy(Policy::TinyLfu)
        .build();
    for n in 0..60 {
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
    }
    l1.settle();
    assert!((0..60).all(|n| l1.get(&key(n)).is_some()));
    let _shared = l1.charge(40 * overhead()).unwrap();
    for n in 60..70 {
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), NOT_ADMITTED);
    }
    assert_eq!(l1.stats().entries, 60);
}

/// moka subtracts the new weight of an entry that is removed before it has added it.
#[test]
fn an_entry_that_is_replaced_and_removed_leaves_the_policy_as_strict_as_before() {
    let l1 = L1::builder(10 * overhead()).policy(Policy::TinyLfu).build();
    for n in 0..6 {
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
    }
    l1.settle();
    let larger = Blob::new(0, 3 * overhead());
    assert_eq!(l1.insert(key(5), larger, None), STORED);
    assert!(l1.remove(&key(5)));
    for n in 5..10 {
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
    }
    l1.settle();
    assert!((0..10).all(|n| l1.get(&key(n)).is_some()));
    assert_eq!(l1.insert(key(10), Blob::new(0, 0), None), NOT_ADMITTED);
}

#[test]
fn a_refused_newcomer_leaves_no_stale_value() {
    let l1 = L1::builder(4 * overhead()).policy(Policy::TinyLfu).build();
    for n in 0..4 {
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
    }
    l1.settle();
    for _ in 0..3 {
        assert!((1..4).all(|n| l1.get(&key(n)).is_some()));
    }
    // Larger than before, and not worth one of the others.
    assert_eq!(l1.insert(key(0), Blob::new(1, 1), None), NOT_ADMITTED);
    assert!(l1.get(&key(0)).is_none());
    assert_eq!(l1.stats().entries, 3);
}

#[test]
fn an_expired_entry_is_not_returned_and_its_memory_comes_back() {
    let l1 = lru(1 << 20);
    let short = Blob::new(1, 1000);
    let freed = Arc::downgrade(&short);
    assert_eq!(
        l1.insert(key(1), short, Some(Duration::from_millis(20))),
        STORED
    );
    assert_eq!(
        l1.insert(key(2), Blob::new(2, 0), Some(Duration::MAX)),
        STORED
    );
    assert_eq!(
        l1.insert(key(3), Blob::new(3, 0), Some(Duration::ZERO)),
        STORED
    );
    assert!(l1.get(&key(3)).is_none());
    // Over an entry with a time to live, the new one's counts.
    assert_eq!(
        l1.insert(key(4), Blob::new(4, 0), Some(Duration::from_millis(20))),
        STORED
    );
    assert_eq!(l1.insert(key(4), Blob::new(5, 0), None), STORED);
    assert_eq!(l1.insert(key(5), Blob::new(6, 0), None), STORED);
    assert_eq!(
        l1.insert(key(5), Blob::new(7, 0), Some(Duration::from_millis(20))),
        STORED
    );
    thread::sleep(Duration::from_millis(25));
    assert!(l1.get(&key(1)).is_none() && l1.get(&key(5)).is_none());
    assert!(!l1.remove(&key(5)), "an expired entry is none");
    assert_eq!(l1.get(&key(4)).unwrap().id, 5);
    // moka's timer has ticks of 1.07 seconds.
    let mut patience = 300;
    while freed.strong_count() > 0 && patience > 0 {
        thread::sleep(Duration::from_millis(10));
        l1.settle();
        patience -= 1;
    }
    let stats = l1.stats();
    assert_eq!(
        (freed.strong_count(), stats.entries, stats.evicted.expired),
        (0, 2, 3)
    );
    assert_eq!(l1.get(&key(2)).unwrap().id, 2);
}

#[test]
fn what_has_expired_can_be_cleared_and_evicted_before_its_timer_fires() {
    let l1 = lru(4 * overhead());
    let insert = |n| {
        let value = Blob::new(0, overhead() / 2);
        let weak = Arc::downgrade(&value);
        assert_eq!(
            l1.insert(key(n), value, Some(Duration::from_millis(1))),
            STORED
        );
        weak
    };
    let [first, second] = [insert(1), insert(2)];
    thread::sleep(Duration::from_millis(2));
    let third = insert(3);
    assert_eq!([&first, &second, &third].map(Weak::strong_count), [0, 1, 1]);
    thread::sleep(Duration::from_millis(2));
    l1.clear();
    assert_eq!([&first, &second, &third].map(Weak::strong_count), [0, 0, 0]);
    assert_eq!((l1.stats().entries, l1.stats().bytes), (0, 0));
}

#[test]
fn an_insert_over_an_expired_entry_is_a_new_one() {
    let l1 = lru(1 << 20);
    assert_eq!(
        l1.insert(key(1), Blob::new(1, 0), Some(Duration::from_millis(1))),
        STORED
    );
    thread::sleep(Duration::from_millis(2));
    assert_eq!(l1.insert(key(1), Blob::new(2, 0), None), STORED);
    assert_eq!(l1.get(&key(1)).unwrap().id, 2);
    let stats = l1.stats();
    assert_eq!(
        (stats.entries, stats.evicted.expired, stats.evicted.replaced),
        (1, 1, 0)
    );
}

#[test]
fn mapped_bytes_have_a_limit_of_their_own() {
    let l1 = L1::builder(1 << 20)
        .policy(Policy::Lru)
        .mapped_limit_bytes(100)
        .build();
    assert_eq!(l1.insert(key(1), Blob::mapped(0, 60), None), STORED);
    assert_eq!(l1.insert(key(2), Blob::mapped(0, 41), None), MAPPED_FULL);
    assert_eq!(l1.insert(key(2), Blob::mapped(0, 101), None), TOO_LARGE);
    assert_eq!(l1.insert(key(2), Blob::mapped(0, 40), None), STORED);
    assert_eq!(l1.insert(key(3), Blob::mapped(50, 0), None), STORED);
    assert_eq!(
        (l1.stats().mapped_bytes, l1.stats().bytes),
        (100, 3 * overhead() + 50)
    );
    // The older entry of the key makes room, and is gone where that is not enough.
    assert_eq!(l1.insert(key(1), Blob::mapped(0, 50), None), STORED);
    assert_eq!(l1.stats().mapped_bytes, 90);
    assert_eq!(l1.insert(key(1), Blob::mapped(0, 61), None), MAPPED_FULL);
    assert!(l1.get(&key(1)).is_none());
    assert_eq!(l1.stats().mapped_bytes, 40);
    assert!(l1.remove(&key(2)));
    assert_eq!(
        (l1.stats().mapped_bytes, l1.stats().rejected.mapped_full),
        (0, 2)
    );
}

#[test]
fn each_way_out_is_counted_under_its_cause() {
    let l1 = lru(4 * overhead());
    for n in 0..4 {
        assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
    }
    assert_eq!(l1.insert(key(4), Blob::new(0, 0), None), STORED);
    assert_eq!(l1.insert(key(4), Blob::new(0, 0), None), STORED);
    assert!(l1.remove(&key(4)) && !l1.remove(&key(4)));
    assert_eq!(l1.insert(key(1), Blob::new(0, 0), None), STORED);
    l1.clear();
    let evicted = l1.stats().evicted;
    assert_eq!(
        (
            evicted.size,
            evicted.replaced,
            evicted.removed,
            evicted.expired
        ),
        (1, 2, 4, 0)
    );
    assert_eq!(
        (l1.stats().inserted, l1.stats().entries, l1.stats().bytes),
        (7, 0, 0)
    );
}

#[test]
fn a_charge_makes_room_and_gives_it_back_on_drop() {
    for policy in [Policy::Lru, Policy::TinyLfu] {
        let l1 = L1::builder(4 * overhead()).policy(policy).build();
        for n in 0..4 {
            assert_eq!(l1.insert(key(n), Blob::new(0, 0), None), STORED);
        }
        let charge = l1.charge(overhead() + 1).unwrap();
        assert_eq!(
            (l1.stats().entries, l1.stats().bytes),
            (2, 3 * overhead() + 1)
        );
        assert!(l1.charge(3 * overhead()).is_none());
        assert_eq!(l1.stats().entries, 2, "what cannot fit evicts nobody");
        assert_eq!(
            l1.insert(key(5), Blob::new(0, 2 * overhead()), None),
            TOO_LARGE
        );
        drop(charge);
        assert_eq!(l1.stats().bytes, 2 * overhead());
        let all = l1.charge(4 * overhead()).unwrap();
        assert_eq!(l1.stats().entries, 0);
        drop(l1);
        assert_eq!(all.bytes(), 4 * overhead());
    }
}

#[test]
fn a_value_is_freed_at_once_when_it_leaves() {
    fn weak(l1: &L1<Blob>, n: usize) -> Weak<Blob> {
        let value = Blob::new(0, 0);
        let weak = Arc::downgrade(&value);
        assert_eq!(l1.insert(key(n), value, None), STORED);
        assert!(
            l1.get(&key(n)).is_some(),
            "also with reads that are still queued"
        );
        weak
    }
    let l1 = lru(2 * overhead());
    let [first, second] = [weak(&l1, 1), weak(&l1, 2)];
    let third = weak(&l1, 3);
    assert_eq!(
        [&first, &second, &third].map(Weak::strong_count),
        [0, 1, 1],
        "evicted"
    );
    let fourth = weak(&l1, 3);
    assert_eq!(
        [&third, &fourth].map(Weak::strong_count),
        [0, 1],
        "replaced"
    );
    assert!(l1.remove(&key(3)));
    assert_eq!(fourth.strong_count(), 0, "removed");
    let fifth = weak(&l1, 5);
    l1.clear();
    assert_eq!(fifth.strong_count(), 0, "cleared");
    let sixth = weak(&l1, 6);
    drop(l1);
    assert_eq!(sixth.strong_count(), 0, "the tier itself dropped");
}

/// A value that looks at what is charged while it is being dropped.
#[test]
fn a_charge_is_given_back_only_when_the_value_has_been_dropped() {
    static TIER: OnceLock<L1<Witness>> = OnceLock::new();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    struct Witness;
    impl Weigh for Witness {
        fn weight(&self) -> Weight {
            Weight::heap(1000)
        }
    }
    impl Drop for Witness {
        fn drop(&mut self) {
            SEEN.store(TIER.get().map_or(0, |tier| tier.stats().bytes), SeqCst);
        }
    }
    let l1 = TIER.get_or_init(|| L1::builder(1 << 20).build());
    assert_eq!(l1.insert(key(1), Arc::new(Witness), None), STORED);
    let charged = l1.stats().bytes;
    assert!(charged > 1000 && l1.remove(&key(1)));
    assert_eq!((SEEN.load(SeqCst), l1.stats().bytes), (charged, 0));
}

#[test]
fn a_value_in_use_survives_its_eviction() {
    let l1 = lru(overhead());
    assert_eq!(l1.insert(key(1), Blob::new(1, 0), None), STORED);
    let held = l1.get(&key(1)).unwrap();
    assert_eq!(l1.insert(key(2), Blob::new(2, 0), None), STORED);
    assert!(l1.get(&key(1)).is_none());
    assert_eq!((held.id, Arc::strong_count(&held)), (1, 1));
}

#[test]
fn readers_never_miss_a_key_that_is_replaced_where_both_values_fit() {
    let l1 = L1::builder(1 << 20).build();
    assert_eq!(l1.insert(key(0), Blob::new(0, 0), None), STORED);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut latest = 0;
            while !done.load(SeqCst) {
                let id = l1
                    .get(&key(0))
                    .expect("an entry that is only ever replaced")
                    .id;
                assert!(id >= latest);
                latest = id;
            }
        });
        for id in 1..10_000 {
            assert_eq!(l1.insert(key(0), Blob::new(id, id % 7), None), STORED);
        }
        done.store(true, SeqCst);
    });
}

/// moka numbers the writes of an entry with 16 bits.
#[test]
fn an_entry_that_was_replaced_100_000_times_is_still_evicted_first() {
    let l1 = lru(2 * overhead());
    for id in 0..100_000 {
        assert_eq!(l1.insert(key(0), Blob::new(id, 0), None), STORED);
    }
    assert_eq!(l1.insert(key(1), Blob::new(0, 0), None), STORED);
    assert_eq!(l1.insert(key(2), Blob::new(0, 0), None), STORED);
    assert!(l1.get(&key(0)).is_none() && l1.get(&key(1)).is_some());
    assert_eq!(l1.stats().evicted.replaced, 99_999);
}

#[test]
fn a_value_that_panics_when_dropped_costs_no_memory() {
    struct Grenade;
    impl Weigh for Grenade {
        fn weight(&self) -> Weight {
            Weight::default()
        }
    }
    impl Drop for Grenade {
        fn drop(&mut self) {
            // Without a message on stderr.
            std::panic::resume_unwind(Box::new("dropped"));
        }
    }
    let l1 = L1::builder(1 << 20).build();
    for _ in 0..3 {
        assert_eq!(
            l1.insert(Key::new("grenade"), Arc::new(Grenade), None),
            STORED
        );
        l1.clear();
        assert_eq!((l1.stats().entries, l1.stats().bytes), (0, 0));
    }
}

/// An entry whose value keeps a charge alive, as a table keeps its interned schema.
#[test]
fn a_charge_may_be_dropped_by_the_value_that_is_evicted() {
    struct Sharing(
        #[allow(dead_code, reason = "held for its drop")] Option<ck_l1::Charge>,
        Arc<AtomicU64>,
    );
    impl Weigh for Sharing {
        fn weight(&self) -> Weight {
            Weight::heap(1000)
        }
    }
    impl Drop for Sharing {
        fn drop(&mut self) {
            self.1.fetch_add(1, SeqCst);
        }
    }
    let dropped: Arc<AtomicU64> = Arc::default();
    let l1 = L1::builder(20_000).policy(Policy::Lru).build();
    for n in 0..100 {
        let shared = l1.charge(500).unwrap();
        assert_eq!(
            l1.insert(
                key(n),
                Arc::new(Sharing(Some(shared), Arc::clone(&dropped))),
                None
            ),
            STORED
        );
        assert!(l1.stats().bytes <= 20_000);
    }
    assert!(dropped.load(SeqCst) >= 89, "{:?}", l1.stats());
    assert!(l1.stats().entries >= 8, "{:?}", l1.stats());
    l1.clear();
    assert_eq!((dropped.load(SeqCst), l1.stats().bytes), (100, 0));
}
