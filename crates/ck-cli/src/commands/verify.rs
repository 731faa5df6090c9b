use ck_cache::blocking::Cache;
use ck_cache::{EntryInfo, ErrorKind};

use crate::args::VerifyArgs;
use crate::commands::ls;
use crate::failure::{Failure, Status};
use crate::store::Store;
use crate::{human, progress};

/// `ck verify KEY`, `ck verify --all`
pub(crate) fn run(store: &Store, args: &VerifyArgs) -> Result<(), Failure> {
    let cache = store.open()?;
    match &args.key {
        None => all(&cache),
        Some(key) => {
            if !cache.verify(key.as_str())? {
                return Err(Failure::miss(key));
            }
            eprintln!("intact: {}", human::printable(key));
            Ok(())
        }
    }
}

fn all(cache: &Cache) -> Result<(), Failure> {
    let total = cache.usage().map_or(0, |usage| usage.entries);
    let bar = progress::steps("verifying", total);
    let mut found = Found::default();
    let mut cursor = None;
    loop {
        let page = cache.list(cursor)?;
        for entry in &page.entries {
            found.look_at(cache, entry)?;
            bar.inc(1);
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    bar.finish_and_clear();
    for problem in &found.damaged {
        eprintln!("damaged: {problem}");
    }
    for problem in &found.unknown {
        eprintln!("cannot be checked: {problem}");
    }
    eprintln!(
        "{} intact, {} damaged, {} cannot be checked",
        human::count(found.intact, "entry", "entries"),
        found.damaged.len(),
        found.unknown.len(),
    );
    match found.damaged.len() as u64 {
        0 if found.intact == 0 && !found.unknown.is_empty() => Err(Failure::new(
            Status::Other,
            "none of the entries can be checked: name them with ck verify KEY",
        )),
        0 => Ok(()),
        damaged => Err(Failure::new(
            Status::Corrupt,
            format_args!(
                "{}; remove with ck rm",
                human::count(damaged, "damaged entry", "damaged entries")
            ),
        )),
    }
}

#[derive(Default)]
struct Found {
    intact: u64,
    damaged: Vec<String>,
    unknown: Vec<String>,
}

impl Found {
    fn look_at(&mut self, cache: &Cache, entry: &EntryInfo) -> Result<(), Failure> {
        let name = ls::name(entry);
        let Some(key) = &entry.key else {
            // Without its key an entry cannot be opened, only its head be looked at.
            match ck_frame::probe(&entry.head, entry.bytes) {
                Ok(_) => self
                    .unknown
                    .push(format!("{name}: its key is not recorded")),
                Err(error) => self.damaged.push(format!("{name}: {error}")),
            }
            return Ok(());
        };
        match cache.verify(key) {
            Ok(true) => self.intact += 1,
            // Gone meanwhile.
            Ok(false) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Tampered) => {
                self.damaged.push(format!("{name}: {error}"));
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.unknown.push(format!("{name}: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
