//! Making room: which entries go, and what killed writers still hold.

use std::ops::ControlFlow;

use ck_core::Rejection;
use rustix::io::Errno;

use crate::builder::Settings;
use crate::error::Fault;
use crate::layout::{HEADER_LEN, Name};
use crate::ledger::{Locked, Record, unix_nanos};

/// How often, in nanoseconds, killed writers are looked for before entries go: it costs four calls per live
/// writer, and an entry may have cost minutes.
const CHECK_WRITERS: u64 = 10_000_000;
/// After so many entries that cannot be removed, eviction gives up.
const STUCK: usize = 16;

/// What room is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// More bytes than are counted now.
    pub(crate) bytes: u64,
    /// A slot of the ledger.
    pub(crate) slot: bool,
    /// The entry being written: the old one goes last, if at all.
    pub(crate) entry: Option<Name>,
    /// Whether the old entry must stay, because the new one may yet be rejected.
    pub(crate) keep_old: bool,
}

/// Evicts entries until `need` fits, or says why it cannot.
pub(crate) fn make_room(
    locked: &mut Locked<'_>,
    settings: &Settings,
    need: Need,
) -> Result<ControlFlow<Rejection>, Fault> {
    let limit = settings.limit_bytes;
    let mut space = Space::of(locked, limit)?;
    if let Some(rejection) = never_fits(locked, settings, need.bytes)? {
        return Ok(ControlFlow::Break(rejection));
    }
    if space.used() + need.bytes > space.ceiling {
        let now = unix_nanos();
        let checked_at = locked.edit(|table| table.writers_checked_at())?;
        if now.abs_diff(checked_at) > CHECK_WRITERS {
            reclaim(locked)?;
            space = Space::of(locked, limit)?;
        }
    }
    let kept = match need.entry {
        Some(name) if need.keep_old => locked.edit(|table| match table.find(name)? {
            Some(slot) => Ok(table.record(slot)?.size),
            None => Ok(0),
        })?,
        _ => 0,
    };
    let full = Rejection::StoreFull {
        bytes: need.bytes,
        limit,
    };
    if space.reserved + kept + need.bytes > space.ceiling {
        reclaim(locked)?;
        space = Space::of(locked, limit)?;
        if space.reserved + kept + need.bytes > space.ceiling {
            return Ok(ControlFlow::Break(full));
        }
    }
    let mut eviction = Eviction::new(need);
    while space.used() + need.bytes > space.ceiling {
        if !eviction.step(locked)? {
            return Ok(ControlFlow::Break(full));
        }
        space = Space::of(locked, limit)?;
    }
    if need.slot && !locked.edit(|table| table.has_free_slot())? {
        let growth = locked.table()?.growth();
        if space.used() + need.bytes + growth <= space.ceiling {
            locked.grow()?;
        } else if !eviction.step(locked)? {
            return Ok(ControlFlow::Break(full));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Why a file of `len` bytes does not even fit into an empty store.
pub(crate) fn never_fits(
    locked: &Locked<'_>,
    settings: &Settings,
    len: u64,
) -> Result<Option<Rejection>, Fault> {
    let ceiling = settings.limit_bytes.saturating_sub(locked.table()?.len());
    let entry_bytes = |bytes: u64| bytes.saturating_sub(HEADER_LEN as u64);
    Ok((len > ceiling).then(|| Rejection::ValueTooLarge {
        bytes: entry_bytes(len),
        limit: entry_bytes(ceiling).min(settings.value_limit_bytes),
    }))
}

/// Evicts entries until one more of this name would not break the limit of entries.
pub(crate) fn make_entry_room(
    locked: &mut Locked<'_>,
    settings: &Settings,
    name: Name,
) -> Result<ControlFlow<Rejection>, Fault> {
    let limit = settings.limit_entries;
    if locked.edit(|table| Ok(table.find(name)?.is_some()))? {
        return Ok(ControlFlow::Continue(()));
    }
    let need = Need {
        bytes: 0,
        slot: false,
        entry: None,
        keep_old: false,
    };
    let mut eviction = Eviction::new(need);
    while locked.edit(|table| table.totals())?.entries >= limit {
        if !eviction.step(locked)? {
            return Ok(ControlFlow::Break(Rejection::TooManyEntries { limit }));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Evicts up to `steps` entries while others have broken the limits; whether the limits hold now, or
/// nothing more can be done.
pub(crate) fn enforce(
    locked: &mut Locked<'_>,
    settings: &Settings,
    steps: usize,
) -> Result<bool, Fault> {
    let mut eviction = Eviction::new(Need {
        bytes: 0,
        slot: false,
        entry: None,
        keep_old: false,
    });
    for _ in 0..steps {
        let space = Space::of(locked, settings.limit_bytes)?;
        let entries = locked.edit(|table| table.totals())?.entries;
        if space.used() <= space.ceiling && entries <= settings.limit_entries {
            return Ok(true);
        }
        if !eviction.step(locked)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes what killed writers left: those whose temporary file is gone or no longer locked. Returns
/// how many files and bytes that were.
pub(crate) fn reclaim(locked: &mut Locked<'_>) -> Result<(u64, u64), Fault> {
    let writers = locked.edit(|table| {
        table.set_writers_checked_at(unix_nanos())?;
        table.writers()
    })?;
    let (mut files, mut bytes) = (0, 0);
    for (slot, writer) in writers {
        let temp = writer.token.temp_name(writer.name);
        let Some(size) = locked.directory().abandoned(&temp) else {
            continue;
        };
        locked.journal(writer.name, Some(writer.token), |locked| {
            if let Ok(true) = locked.directory().unlink(&temp) {
                files += 1;
                bytes += size;
            }
            locked.give_up(slot, writer.token);
        });
    }
    Ok((files, bytes))
}

#[derive(Debug, Clone, Copy)]
struct Space {
    /// What entries and writers may have together.
    ceiling: u64,
    entries: u64,
    reserved: u64,
}

impl Space {
    fn of(locked: &mut Locked<'_>, limit: u64) -> Result<Self, Fault> {
        let totals = locked.edit(|table| table.totals())?;
        let ceiling = limit.saturating_sub(locked.table()?.len());
        // Both are bounded by what files can have in sum, or they are garbage: clamp them.
        let clamp = |bytes: u64| bytes.min(u64::MAX >> 2);
        Ok(Self {
            ceiling,
            entries: clamp(totals.entry_bytes),
            reserved: clamp(totals.reserved_bytes),
        })
    }

    fn used(self) -> u64 {
        self.entries + self.reserved
    }
}

/// Takes entries away, least recently used first.
struct Eviction {
    need: Need,
    /// Entries that could not be removed.
    stuck: Vec<Name>,
    why: Option<Errno>,
}

impl Eviction {
    fn new(need: Need) -> Self {
        Self {
            need,
            stuck: Vec::new(),
            why: None,
        }
    }

    /// Evicts one entry; `false` when there is none to evict.
    fn step(&mut self, locked: &mut Locked<'_>) -> Result<bool, Fault> {
        while let Some(victim) = self.choose(locked)? {
            match evict(locked, victim.name, victim.size)? {
                None => {
                    tracing::trace!(entry = %victim.name, bytes = victim.size, "evicted");
                    return Ok(true);
                }
                Some(errno) => {
                    self.stuck.push(victim.name);
                    self.why = Some(errno);
                    if self.stuck.len() > STUCK {
                        break;
                    }
                }
            }
        }
        match self.why {
            Some(errno) => Err(Fault::io(
                "evict an entry",
                locked.directory().path(),
                errno,
            )),
            None => Ok(false),
        }
    }

    fn choose(&self, locked: &mut Locked<'_>) -> Result<Option<Record>, Fault> {
        locked.edit(|table| {
            let mut old = None;
            let mut next = table.oldest()?;
            for _ in 0..=STUCK + 1 {
                let Some(slot) = next else { break };
                let record = table.record(slot)?;
                if Some(record.name) == self.need.entry {
                    old = Some(record);
                } else if !self.stuck.contains(&record.name) {
                    return Ok(Some(record));
                }
                next = table.newer(slot)?;
            }
            Ok(old.filter(|old| !self.need.keep_old && !self.stuck.contains(&old.name)))
        })
    }
}

/// Removes an entry's file, of about `size` bytes, and its account; `Some` when the file cannot be
/// removed.
pub(crate) fn evict(
    locked: &mut Locked<'_>,
    name: Name,
    size: u64,
) -> Result<Option<Errno>, Fault> {
    locked.bury(name, size);
    locked.journal(name, None, |locked| {
        let file_name = name.to_string();
        if let Err(errno) = locked.directory().unlink(&file_name) {
            // Not a file any more, so nothing that counts.
            if !matches!(locked.directory().stat(&file_name), Ok(None)) {
                return Ok(Some(errno));
            }
        }
        forget(locked, name).map(|()| None)
    })
}

/// Removes an entry's account.
pub(crate) fn forget(locked: &mut Locked<'_>, name: Name) -> Result<(), Fault> {
    locked.edit(|table| match table.find(name)? {
        Some(slot) => table.remove(slot),
        None => Ok(()),
    })
}
