//! Which entry a file is, and whether a write may take its place.

use std::os::fd::AsFd;

use ck_core::{Version, WriteMode};
use rustix::io::Errno;
use twox_hash::XxHash3_64;

use crate::directory::{self, Directory, Stat};
use crate::error::Fault;
use crate::layout::{HEADER_LEN, Header, Name};
use crate::ledger::Locked;
use crate::store::{read_at, read_header};

/// How many bytes of a file its version looks at: one page, the one with the header.
const BEGINNING: usize = 4096;

/// What an open knows of a file that never changes, not even with its expiry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    inode: u64,
    born: u64,
    size: u64,
}

impl Origin {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.stx_ino,
            born: directory::born(stat),
            size: directory::size(stat),
        }
    }

    /// The version of the entry in this file, whose bytes after the header are `body`, or its first page
    /// of them.
    ///
    /// Inodes are used again, and clocks of files tick every few milliseconds. So that two entries of
    /// one inode and one tick differ too, their length and first page count.
    pub(crate) fn version(self, body: &[u8]) -> Version {
        let mut origin = [0; 24];
        let words = [self.inode, self.born, self.size];
        for (bytes, word) in origin.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let beginning = &body[..body.len().min(BEGINNING - HEADER_LEN)];
        let [origin, beginning] = [&origin, beginning].map(XxHash3_64::oneshot);
        Version(u128::from(origin) << 64 | u128::from(beginning))
    }

    /// As [`Origin::version`], reading what it needs.
    pub(crate) fn version_of(self, file: impl AsFd) -> Version {
        let mut beginning = [0; BEGINNING - HEADER_LEN];
        // A page that cannot be read does not count; the rest still tells files apart.
        let len = read_at(file, &mut beginning, HEADER_LEN as u64).unwrap_or_default();
        self.version(&beginning[..len])
    }
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
    Ok(match read_header(&file)? {
        Header::Known(expiry) if !expiry.is_expired() => Some(Origin::of(&stat).version_of(&file)),
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
    fn files_of_one_inode_and_one_moment_differ_by_their_length_and_first_page() {
        let origin = Origin {
            inode: 7,
            born: 8,
            size: 9_000,
        };
        let mut body = vec![7; BEGINNING];
        let version = origin.version(&body);
        for (place, differs) in [(0, true), (4_081, true), (4_082, false)] {
            body[place] = 8;
            assert_eq!(origin.version(&body) != version, differs, "{place}");
            body[place] = 7;
        }
        for other in [
            Origin { inode: 8, ..origin },
            Origin { born: 7, ..origin },
            Origin {
                size: 9_001,
                ..origin
            },
        ] {
            assert_ne!(other.version(&body), version, "{other:?}");
        }
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
