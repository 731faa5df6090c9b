use tempfile::TempDir;

use super::*;
use crate::layout::header;
use ck_core::{Expiry, Key};

const SOON: Duration = Duration::from_secs(5);

fn fresh() -> (TempDir, Arc<Directory>) {
    let temp = tempfile::tempdir().unwrap();
    let dir = Arc::new(Directory::open(temp.path()).unwrap());
    (temp, dir)
}

fn entry_file(temp: &TempDir, name: &str, len: usize) {
    let mut bytes = header(Expiry::NEVER, false).to_vec();
    bytes.resize(len, 7);
    std::fs::write(temp.path().join(name), bytes).unwrap();
}

fn enter(locked: &mut Locked<'_>, name: Name) {
    locked
        .adopt(name, Place::Newest)
        .unwrap()
        .expect("there is a file");
}

/// Totals as another process finds them after this one was killed.
fn totals_after_crash(dir: &Arc<Directory>) -> (u64, u64, u64) {
    let ledger = Ledger::new(Arc::clone(dir));
    let mut locked = ledger.lock(SOON).unwrap();
    let totals = locked.edit(|table| table.totals()).unwrap();
    (totals.entries, totals.entry_bytes, totals.reserved_bytes)
}

#[test]
fn a_process_killed_while_publishing_leaves_what_the_directory_says() {
    let name = Name::of(&Key::new("a"));
    let other = Name::of(&Key::new("b"));
    // How far it came: temporary file written; renamed; accounts half changed.
    for stage in 0..3 {
        let (temp, dir) = fresh();
        let ledger = Ledger::new(Arc::clone(&dir));
        let mut locked = ledger.lock(SOON).unwrap();
        for (name, len) in [(name, 100), (other, 1_000)] {
            entry_file(&temp, &name.to_string(), len);
            enter(&mut locked, name);
        }
        let token = Token::fresh();
        let table = locked.table().unwrap();
        table.intend(name, Some(token));
        entry_file(&temp, &token.temp_name(name), 300);
        if stage >= 1 {
            dir.rename(&token.temp_name(name), &name.to_string())
                .unwrap();
        }
        if stage >= 2 {
            let slot = table.find(name).unwrap().unwrap();
            table.remove(slot).unwrap();
        }
        // Killed: nothing is settled, but the lock is released.
        drop(locked);
        let expected = if stage == 0 { 1_100 } else { 1_300 };
        assert_eq!(totals_after_crash(&dir), (2, expected, 0), "stage {stage}");
        assert_eq!(dir.stat(&token.temp_name(name)).unwrap().map(|_| ()), None);
    }
}

#[test]
fn a_process_killed_while_evicting_leaves_what_the_directory_says() {
    let name = Name::of(&Key::new("a"));
    for unlinked in [false, true] {
        let (temp, dir) = fresh();
        let ledger = Ledger::new(Arc::clone(&dir));
        let mut locked = ledger.lock(SOON).unwrap();
        entry_file(&temp, &name.to_string(), 100);
        enter(&mut locked, name);
        locked.table().unwrap().intend(name, None);
        if unlinked {
            dir.unlink(&name.to_string()).unwrap();
        }
        drop(locked);
        let expected = if unlinked { (0, 0, 0) } else { (1, 100, 0) };
        assert_eq!(totals_after_crash(&dir), expected);
    }
}

#[test]
fn a_process_killed_while_announcing_a_writer_leaves_nothing() {
    let name = Name::of(&Key::new("a"));
    for announced in [false, true] {
        let (temp, dir) = fresh();
        let ledger = Ledger::new(Arc::clone(&dir));
        let locked = ledger.lock(SOON).unwrap();
        let table = locked.table().unwrap();
        let token = Token::fresh();
        table.intend(name, Some(token));
        entry_file(&temp, &token.temp_name(name), 50);
        if announced {
            table
                .put_writer(
                    Writer {
                        name,
                        token,
                        reserved: 500,
                    },
                    1,
                )
                .unwrap();
        }
        drop(locked);
        assert_eq!(totals_after_crash(&dir), (0, 0, 0));
        assert_eq!(
            std::fs::read_dir(temp.path()).unwrap().count(),
            1,
            "the ledger alone"
        );
    }
}

#[test]
fn a_use_that_cannot_be_recorded_at_once_is_recorded_by_the_next() {
    let (temp, dir) = fresh();
    let [first, second] = ["a", "b"].map(|key| Name::of(&Key::new(key)));
    let ledger = Ledger::new(Arc::clone(&dir));
    let mut locked = ledger.lock(SOON).unwrap();
    for name in [first, second] {
        entry_file(&temp, &name.to_string(), 20);
        enter(&mut locked, name);
    }
    drop(locked);
    let other = Ledger::new(Arc::clone(&dir));
    let oldest = |locked: &mut Locked<'_>| {
        locked
            .edit(|table| table.record(table.oldest()?.unwrap()))
            .unwrap()
            .name
    };
    // A lock of another open description, as another process has it.
    let held = std::fs::File::open(temp.path()).unwrap();
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
    ledger.record_use(first);
    assert!(matches!(
        ledger.lock(Duration::from_millis(5)),
        Err(Fault::LockTimeout { .. })
    ));
    drop(held);
    assert_eq!(
        oldest(&mut other.lock(SOON).unwrap()),
        first,
        "not recorded yet"
    );
    drop(other);
    ledger.flush();
    assert_eq!(oldest(&mut ledger.lock(SOON).unwrap()), second);
}

#[test]
fn threads_wait_for_the_lock_and_give_up_in_time() {
    let (_temp, dir) = fresh();
    let ledger = Ledger::new(dir);
    let locked = ledger.lock(SOON).unwrap();
    assert!(ledger.try_lock().is_none());
    std::thread::scope(|scope| {
        let late = scope.spawn(|| ledger.lock(Duration::from_millis(5)).map(|_| ()));
        assert!(matches!(
            late.join().unwrap(),
            Err(Fault::LockTimeout { .. })
        ));
        let patient = scope.spawn(|| ledger.lock(SOON).map(|_| ()));
        drop(locked);
        patient.join().unwrap().unwrap();
    });
    assert!(ledger.try_lock().is_some());
}

#[test]
fn after_another_start_of_the_machine_the_links_are_made_anew_and_the_directory_is_compared() {
    let (temp, dir) = fresh();
    let name = Name::of(&Key::new("a"));
    let ledger = Ledger::new(Arc::clone(&dir));
    let mut locked = ledger.lock(SOON).unwrap();
    entry_file(&temp, &name.to_string(), 100);
    enter(&mut locked, name);
    let reconciled = Reconciled {
        at: unix_nanos(),
        ..Reconciled::default()
    };
    locked
        .edit(|table| table.set_reconciled(reconciled))
        .unwrap();
    assert!(!locked.should_reconcile());
    drop(locked);
    drop(ledger);
    // Word 13 is half of the boot id; word 4 the bytes of all entries.
    let file = std::fs::File::options()
        .write(true)
        .open(temp.path().join(FILE_NAME))
        .unwrap();
    for word in [13, 4] {
        rustix::io::pwrite(&file, &77_u64.to_le_bytes(), word * 8).unwrap();
    }
    let ledger = Ledger::new(Arc::clone(&dir));
    assert!(ledger.lock(SOON).unwrap().should_reconcile());
    assert_eq!(totals_after_crash(&dir), (1, 100, 0));
}
