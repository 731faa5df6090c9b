//! Which entry a file is, and whether a write may take its place.

use ck_core::{Version, WriteMode};
use rustix::io::Errno;
use twox_hash::XxHash3_64;

use crate::directory::{self, Directory, Stat};
use crate::error::Fault;
use crate::layout::{HEADER_LEN, Header, Name};
use crate::ledger::Locked;
use crate::store::read_at;

/// How many bytes of a file its version looks at: one page, which every open reads anyway.
pub(crate) const BEGINNING: usize = 4096;

/// The version of the entry in a file that starts with `bytes`.
///
/// The inode and its time of birth never change while the expiry does. Inodes are used again, though,
/// and clocks of files tick every few milliseconds; so that two entries of one inode and one tick
/// differ too, the length and the first page are part of it, without the expiry.
pub(crate) fn of(stat: &Stat, bytes: &[u8]) -> Version {
    let mut file = [0; 24];
    for (word, value) in
        file.chunks_exact_mut(8)
            .zip([stat.stx_ino, directory::born(stat), directory::size(stat)])
    {
        word.copy_from_slice(&value.to_le_bytes());
    }
    let beginning = bytes.get(HEADER_LEN..bytes.len().min(BEGINNING));
    let [file, beginning] = [&file, beginning.unwrap_or_default()].map(XxHash3_64::oneshot);
    Version(u128::from(file) << 64 | u128::from(beginning))
}

/// Whether `mode` lets a write take the place of what lies under `name`. It stays true for as long as
/// the lock is held, as far as writers of this crate go.
pub(crate) fn admits(locked: &Locked<'_>, name: Name, mode: WriteMode) -> Result<bool, Fault> {
    let current = || {
        let dir = locked.directory();
        current(dir, name)
            .map_err(|errno| Fault::io("look at the present entry", dir.join(name), errno))
    };
    Ok(match mode {
        WriteMode::Overwrite => true,
        WriteMode::Create => current()?.is_none(),
        WriteMode::Update(version) => current()? == Some(version),
    })
}

/// The version of the live entry under `name`.
fn current(dir: &Directory, name: Name) -> Result<Option<Version>, Errno> {
    let Some((file, stat)) = dir.open_to_look(&name.to_string())? else {
        return Ok(None);
    };
    let mut bytes = [0; BEGINNING];
    let len = read_at(&file, &mut bytes, 0)?;
    let bytes = &bytes[..len];
    Ok(match Header::parse(bytes) {
        Header::Known(expiry) if !expiry.is_expired() => Some(of(&stat, bytes)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ck_core::{EntryReader, Expiry, Key, WriteOptions};

    use super::*;
    use crate::read::Entry;
    use crate::store::Store;
    use crate::{FileBackend, ReadMode, write};

    fn put(store: &Arc<Store>, key: &Key, bytes: &[u8]) -> Version {
        let body = [bytes.to_vec().into()];
        let put = write::put(store, key, &Default::default(), &body, WriteOptions::new());
        assert!(put.unwrap().is_stored());
        let entry = Entry::open(store, Name::of(key)).unwrap();
        entry.expect("it was just stored").version()
    }

    #[test]
    fn every_way_of_opening_an_entry_finds_the_same_version() {
        let temp = tempfile::tempdir().unwrap();
        let open = |mode| {
            let builder = FileBackend::builder(temp.path()).read_mode(mode);
            builder.build().unwrap().into_store()
        };
        let [mapped, pread] = [ReadMode::Mapped, ReadMode::Pread].map(open);
        for len in [0, 10, BEGINNING - HEADER_LEN, BEGINNING, 100_000, 1 << 20] {
            let key = Key::new(format!("{len}"));
            let name = Name::of(&key);
            let version = put(&mapped, &key, &vec![7; len]);
            let expiry = Expiry::from_unix_seconds(u64::MAX >> 1);
            assert!(mapped.touch(name, expiry).unwrap());
            for store in [&mapped, &pread] {
                let entry = Entry::open(store, name).unwrap().unwrap();
                assert_eq!(entry.version(), version, "{len}");
                if let Some(entry) = Entry::open_at_once(store, name) {
                    assert_eq!(entry.unwrap().version(), version, "{len} at once");
                }
                let locked = store.lock().unwrap();
                assert!(admits(&locked, name, WriteMode::Update(version)).unwrap());
                assert!(!admits(&locked, name, WriteMode::Create).unwrap());
            }
        }
    }

    #[test]
    fn files_of_one_inode_and_one_moment_differ_by_their_first_page_without_the_expiry() {
        let [file, other] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let [stat, another] = [file, other].map(|file| directory::status(file).unwrap());
        let mut bytes = vec![7; BEGINNING + 1];
        let version = of(&stat, &bytes);
        for (place, differs) in [
            (HEADER_LEN - 1, false),
            (HEADER_LEN, true),
            (BEGINNING - 1, true),
            (BEGINNING, false),
        ] {
            bytes[place] = 8;
            assert_eq!(of(&stat, &bytes) != version, differs, "{place}");
            bytes[place] = 7;
        }
        assert_ne!(of(&another, &bytes), version);
    }

    #[test]
    fn an_inode_that_is_used_again_at_once_has_another_version() {
        let temp = tempfile::tempdir().unwrap();
        let store = FileBackend::open(temp.path()).unwrap().into_store();
        let key = Key::new("key");
        let mut seen = std::collections::HashMap::new();
        let mut again = 0;
        for round in 0..300_u32 {
            let version = put(&store, &key, &round.to_le_bytes());
            let stat = store.dir.stat(&Name::of(&key).to_string()).unwrap();
            let inode = stat.expect("it was just stored").stx_ino;
            again += u32::from(seen.values().any(|&other| other == inode));
            assert_eq!(seen.insert(version, inode), None, "round {round}");
        }
        if again == 0 {
            eprintln!("not tried: this file system does not use inodes again at once");
        }
    }
}
