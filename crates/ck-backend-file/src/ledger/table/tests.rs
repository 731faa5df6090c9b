use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::words::{Damaged, high, join};
use super::*;

fn fresh() -> (TempDir, Directory, Table) {
    let temp = tempfile::tempdir().unwrap();
    let dir = Directory::open(temp.path()).unwrap();
    let table = Table::open(&dir).unwrap();
    (temp, dir, table)
}

/// Names that share their low bits, so that buckets get long.
fn name(number: u64) -> Name {
    let [high, low] = [number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number];
    Name((u128::from(low) << 64 | u128::from(high)).to_le_bytes())
}

fn record(number: u64, size: u64) -> Record {
    Record {
        name: name(number),
        size,
        inode: number,
        last_used: number,
    }
}

fn put(table: &mut Table, number: u64, size: u64) -> Slot {
    if !table.has_free_slot().unwrap() {
        table.grow().unwrap();
    }
    table.put(record(number, size), Place::Newest).unwrap()
}

/// Names from the least to the most recently used.
fn order(table: &Table) -> Vec<Name> {
    let mut names = Vec::new();
    let mut next = table.oldest().unwrap();
    while let Some(slot) = next {
        names.push(table.record(slot).unwrap().name);
        next = table.newer(slot).unwrap();
    }
    names
}

#[test]
fn entries_are_found_in_the_order_of_their_use() {
    let (_temp, _dir, mut table) = fresh();
    for number in 0..1_000 {
        put(&mut table, number, 10);
    }
    assert!(table.len() > FIRST_LEN, "the file has grown");
    for number in 0..1_000 {
        let slot = table.find(name(number)).unwrap().expect("it was put");
        assert_eq!(table.record(slot).unwrap().inode, number);
    }
    assert_eq!(table.find(name(1_000)).unwrap(), None);
    let slot = table.find(name(0)).unwrap().unwrap();
    table.touch(slot, 5_000).unwrap();
    put(&mut table, 1, 30);
    let order = order(&table);
    assert_eq!(order.len(), 1_000);
    assert_eq!(
        (order[0], order[998], order[999]),
        (name(2), name(0), name(1))
    );
    let totals = table.totals().unwrap();
    assert_eq!((totals.entries, totals.entry_bytes), (1_000, 10_020));
}

#[test]
fn writers_are_counted_apart() {
    let (_temp, _dir, mut table) = fresh();
    put(&mut table, 1, 10);
    let writer = Writer {
        name: name(1),
        token: Token(77),
        reserved: 100,
    };
    let slot = table.put_writer(writer, 5).unwrap();
    assert_eq!(table.writers().unwrap(), [(slot, writer)]);
    table.reserve(slot, 250).unwrap();
    assert_eq!(table.totals().unwrap().reserved_bytes, 250);
    table.relink(10).unwrap();
    assert_eq!(table.totals().unwrap().reserved_bytes, 250);
    table.remove_writer(slot).unwrap();
    assert_eq!(table.writer(slot), None);
    let totals = table.totals().unwrap();
    assert_eq!(
        (totals.entries, totals.entry_bytes, totals.reserved_bytes),
        (1, 10, 0)
    );
}

#[test]
fn a_ledger_opened_again_says_the_same() {
    let (_temp, dir, mut table) = fresh();
    for number in 0..200 {
        put(&mut table, number, number);
    }
    let mut other = Table::open(&dir).unwrap();
    assert_eq!(order(&other), order(&table));
    for number in 200..2_000 {
        put(&mut table, number, number);
    }
    assert!(other.len() < table.len());
    assert!(other.refresh(), "growth by another is followed");
    assert_eq!(order(&other), order(&table));
    Table::create(&dir).unwrap();
    assert!(!other.refresh(), "a ledger without a name is given up");
}

#[test]
fn finding_and_evicting_cost_the_same_however_many_entries_there_are() {
    let (_temp, _dir, mut table) = fresh();
    for number in 0..20_000 {
        put(&mut table, number, 1);
    }
    table.steps.set(0);
    for number in 20_000..21_000 {
        let oldest = table.oldest().unwrap().unwrap();
        table.remove(oldest).unwrap();
        put(&mut table, number, 1);
    }
    let steps = table.steps.get();
    assert!(steps < 8_000, "{steps} steps for 1,000 evictions and puts");
}

#[test]
fn relinking_keeps_entries_sizes_and_order() {
    let (_temp, _dir, mut table) = fresh();
    for number in 0..300 {
        put(&mut table, number, number);
    }
    for number in (0..300).step_by(3) {
        let slot = table.find(name(number)).unwrap().unwrap();
        table.remove(slot).unwrap();
    }
    let slot = table.find(name(1)).unwrap().unwrap();
    table.touch(slot, 1_000).unwrap();
    let before = (order(&table), table.totals().unwrap());
    table.relink(u64::MAX).unwrap();
    assert_eq!((order(&table), table.totals().unwrap()), before);
    assert_eq!(table.interrupted(), None);
}

#[test]
fn a_change_cut_short_shows() {
    let (_temp, _dir, table) = fresh();
    table.intend(name(4), Some(Token(9)));
    assert_eq!(table.interrupted(), Some(Some((name(4), Token(9)))));
    table.settle();
    assert_eq!(table.interrupted(), None);
    let failed: Checked<()> = table.edit(|| Err(Damaged));
    assert_eq!(failed, Err(Damaged));
    assert_eq!(table.interrupted(), Some(None));
}

#[test]
fn unseen_entries_are_those_of_older_epochs() {
    let (_temp, _dir, mut table) = fresh();
    for number in 0..10 {
        put(&mut table, number, 1);
    }
    let epoch = table.next_epoch().unwrap();
    let slot = table.find(name(3)).unwrap().unwrap();
    table.mark(slot).unwrap();
    put(&mut table, 10, 1);
    let (mut names, next) = table.unseen(epoch, 0, 6).unwrap();
    assert_eq!(next, Some(6));
    let (rest, next) = table.unseen(epoch, 6, 6).unwrap();
    assert_eq!(next, None);
    names.extend(rest);
    let expected: Vec<Name> = (0..10).filter(|&number| number != 3).map(name).collect();
    assert_eq!(names, expected);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u64, u64),
    Touch(u64),
    Remove(u64),
    Evict,
    Relink,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..150_u64, 0..1_000_u64).prop_map(|(number, size)| Step::Put(number, size)),
        3 => (0..150_u64).prop_map(Step::Touch),
        1 => (0..150_u64).prop_map(Step::Remove),
        1 => Just(Step::Evict),
        1 => Just(Step::Relink),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_does_what_a_map_and_a_list_do(steps in prop::collection::vec(step(), 1..400)) {
        let (_temp, _dir, mut table) = fresh();
        let mut sizes = BTreeMap::new();
        let mut uses: Vec<u64> = Vec::new();
        for (now, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(number, size) => {
                    put(&mut table, number, size);
                    sizes.insert(number, size);
                    uses.retain(|&used| used != number);
                    uses.push(number);
                }
                Step::Touch(number) => {
                    let slot = table.find(name(number)).unwrap();
                    prop_assert_eq!(slot.is_some(), sizes.contains_key(&number));
                    if let Some(slot) = slot {
                        table.touch(slot, now as u64).unwrap();
                        uses.retain(|&used| used != number);
                        uses.push(number);
                    }
                }
                Step::Remove(number) => {
                    if let Some(slot) = table.find(name(number)).unwrap() {
                        table.remove(slot).unwrap();
                    }
                    sizes.remove(&number);
                    uses.retain(|&used| used != number);
                }
                Step::Evict => {
                    if let Some(slot) = table.oldest().unwrap() {
                        table.remove(slot).unwrap();
                        sizes.remove(&uses.remove(0));
                    }
                }
                Step::Relink => table.relink(u64::MAX).unwrap(),
            }
            let totals = table.totals().unwrap();
            prop_assert_eq!(totals.entries, sizes.len() as u64);
            prop_assert_eq!(totals.entry_bytes, sizes.values().sum::<u64>());
        }
        let expected: Vec<Name> = uses.into_iter().map(name).collect();
        prop_assert_eq!(order(&table), expected);
    }

    /// Whatever lies in the file, every answer is a value or `Damaged`, and relinking makes it sound.
    #[test]
    fn garbage_is_never_more_than_damage(
        words in prop::collection::vec((0..1_000_usize, any::<u64>()), 1..200),
        small in any::<bool>(),
    ) {
        let (_temp, _dir, mut table) = fresh();
        for number in 0..50 {
            put(&mut table, number, 10);
        }
        for (word, value) in words {
            // Small numbers make links that lead somewhere, to the wrong place.
            let value = if small { join(low(value) % 70, high(value) % 70) } else { value };
            table.words.store(word + 2, value);
        }
        for number in 0..50 {
            let _ = table.find(name(number)).and_then(|slot| match slot {
                Some(slot) => table.touch(slot, 1).and_then(|()| table.remove(slot)),
                None if table.has_free_slot()? => {
                    table.put(record(number, 1), Place::Newest).map(|_| ())
                }
                None => Ok(()),
            });
            let _ = table.writers();
            let _ = table.oldest().and_then(|slot| match slot {
                Some(slot) => table.newer(slot).map(|_| ()),
                None => Ok(()),
            });
        }
        if table.relink(1_000_000).is_ok() {
            let totals = table.totals().unwrap();
            let order = order(&table);
            prop_assert_eq!(order.len() as u64, totals.entries);
            for name in order {
                prop_assert!(table.find(name).unwrap().is_some());
            }
            table.writers().unwrap();
        }
    }
}
