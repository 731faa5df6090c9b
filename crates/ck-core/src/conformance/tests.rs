//! The suite itself is tested: a plain map passes it, and each way of breaking the map fails it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::*;
use crate::{
    BoxFuture, Capabilities, Cursor, EntryInfo, Error, Lease, Page, Pruned, Rejection, Usage,
    Version, WriteMode, aligned_bytes,
};

/// What the map does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// Not wrong: a store need not have leases.
    HasNoLeases,
    SwapsParts,
    HeadLast,
    TakesAnyHead,
    ShowsBeforeCommit,
    KeepsDroppedWriters,
    ForgetsExpiry,
    ShowsExpired,
    RevivesTheDead,
    DiscardsNewer,
    ReadsPastTheEnd,
    Misaligns,
    TrimsKeys,
    FollowsReplacement,
    RemoveAlwaysFinds,
    ListsExpired,
    LosesPages,
    MiscountsUsage,
    PrunesTheLiving,
    IgnoresTheValueLimit,
    EvictsTheNewest,
    HasOneVersion,
    TouchChangesTheVersion,
    PutIgnoresModes,
    DecidesModesEarly,
    CreateSeesTheDead,
    UpdateTakesTheDead,
    RemovesOnRejection,
    UpdateTakesAnyEntry,
    UpdateTakesNoEntry,
    UpdateRefusesAll,
    RejectsForAnotherReason,
    DeniesLeases,
    ClaimsLeases,
    LeasesToAll,
    LeasesTheWholeStore,
    KeepsReleasedLeases,
    KeepsDroppedLeases,
    LeasesForEver,
    LeasesForAMoment,
    LeasesForHalfATerm,
    RenewsNothing,
    RenewsNoTerm,
    RenewsLostLeases,
    ReleasesLostLeases,
    CountsLeases,
    LeasesStopWriters,
    RemovesLeases,
    PrunesLeases,
}

const DEFECTS: [Defect; 48] = [
    Defect::SwapsParts,
    Defect::HeadLast,
    Defect::TakesAnyHead,
    Defect::ShowsBeforeCommit,
    Defect::KeepsDroppedWriters,
    Defect::ForgetsExpiry,
    Defect::ShowsExpired,
    Defect::RevivesTheDead,
    Defect::DiscardsNewer,
    Defect::ReadsPastTheEnd,
    Defect::Misaligns,
    Defect::TrimsKeys,
    Defect::FollowsReplacement,
    Defect::RemoveAlwaysFinds,
    Defect::ListsExpired,
    Defect::LosesPages,
    Defect::MiscountsUsage,
    Defect::PrunesTheLiving,
    Defect::IgnoresTheValueLimit,
    Defect::EvictsTheNewest,
    Defect::HasOneVersion,
    Defect::TouchChangesTheVersion,
    Defect::PutIgnoresModes,
    Defect::DecidesModesEarly,
    Defect::CreateSeesTheDead,
    Defect::UpdateTakesTheDead,
    Defect::RemovesOnRejection,
    Defect::UpdateTakesAnyEntry,
    Defect::UpdateTakesNoEntry,
    Defect::UpdateRefusesAll,
    Defect::RejectsForAnotherReason,
    Defect::DeniesLeases,
    Defect::ClaimsLeases,
    Defect::LeasesToAll,
    Defect::LeasesTheWholeStore,
    Defect::KeepsReleasedLeases,
    Defect::KeepsDroppedLeases,
    Defect::LeasesForEver,
    Defect::LeasesForAMoment,
    Defect::LeasesForHalfATerm,
    Defect::RenewsNothing,
    Defect::RenewsNoTerm,
    Defect::RenewsLostLeases,
    Defect::ReleasesLostLeases,
    Defect::CountsLeases,
    Defect::LeasesStopWriters,
    Defect::RemovesLeases,
    Defect::PrunesLeases,
];

const VALUE_LIMIT: u64 = 8 << 20;
const LIMIT: u64 = 64 << 20;

#[derive(Debug, Clone)]
struct MapStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    defect: Defect,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    /// Who has the lease, and until when.
    leases: BTreeMap<String, (u64, Instant)>,
    clock: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    bytes: Bytes,
    expiry: Expiry,
    generation: u64,
    used: u64,
}

impl MapStore {
    fn new(defect: Defect) -> Self {
        Self(Arc::new(Shared {
            defect,
            state: Mutex::default(),
        }))
    }

    fn has(&self, defect: Defect) -> bool {
        self.0.defect == defect
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, key: &Key) -> String {
        let text = key.as_str();
        if self.has(Defect::TrimsKeys) {
            text.trim().to_owned()
        } else {
            text.to_owned()
        }
    }

    fn live(&self, key: &Key) -> Option<Entry> {
        let mut state = self.state();
        state.clock += 1;
        let now = state.clock;
        let entry = state.entries.get_mut(&self.name(key))?;
        entry.used = now;
        (!entry.expiry.is_expired() || self.has(Defect::ShowsExpired)).then(|| entry.clone())
    }

    fn version(&self, entry: &Entry) -> Version {
        if self.has(Defect::HasOneVersion) {
            return Version(7);
        }
        let moved = self.has(Defect::TouchChangesTheVersion);
        let expiry = if moved { entry.expiry } else { Expiry::NEVER };
        Version(u128::from(entry.generation) << 64 | u128::from(expiry.unix_seconds()))
    }

    /// Why a write of this mode must not take the place of what lies under `name`.
    fn refuses(&self, name: &str, mode: WriteMode) -> Option<Rejection> {
        let mut state = self.state();
        let sees_the_dead = self.has(match mode {
            WriteMode::Update(_) => Defect::UpdateTakesTheDead,
            _ => Defect::CreateSeesTheDead,
        });
        let live = state.entries.get(name);
        let live = live.filter(|entry| !entry.expiry.is_expired() || sees_the_dead);
        let admitted = match (mode, live) {
            (WriteMode::Overwrite, _) | (WriteMode::Create, None) => true,
            (WriteMode::Create, Some(_)) => false,
            (WriteMode::Update(_), None) => self.has(Defect::UpdateTakesNoEntry),
            (WriteMode::Update(version), Some(entry)) => {
                (version == self.version(entry) || self.has(Defect::UpdateTakesAnyEntry))
                    && !self.has(Defect::UpdateRefusesAll)
            }
        };
        let stopped = self.has(Defect::LeasesStopWriters) && state.leases.contains_key(name);
        if admitted && !stopped {
            return None;
        }
        if self.has(Defect::RemovesOnRejection) {
            state.entries.remove(name);
        }
        Some(if self.has(Defect::RejectsForAnotherReason) {
            Rejection::TooManyEntries { limit: 1 }
        } else {
            Rejection::Superseded
        })
    }

    fn insert(&self, name: String, bytes: Bytes, expiry: Expiry) {
        let expiry = if self.has(Defect::ForgetsExpiry) {
            Expiry::NEVER
        } else {
            expiry
        };
        let mut state = self.state();
        state.clock += 1;
        let now = state.clock;
        state.entries.insert(
            name,
            Entry {
                bytes,
                expiry,
                generation: now,
                used: now,
            },
        );
        let newest = self.has(Defect::EvictsTheNewest);
        while total(&state) > LIMIT {
            let victims = state.entries.iter().filter(|(_, entry)| entry.used != now);
            let order = |(_, entry): &(&String, &Entry)| entry.used;
            let victim = if newest {
                victims.max_by_key(order)
            } else {
                victims.min_by_key(order)
            };
            let victim = victim.map(|(name, _)| name.clone()).unwrap();
            state.entries.remove(&victim);
        }
    }
}

fn total(state: &State) -> u64 {
    state
        .entries
        .values()
        .map(|entry| entry.bytes.len() as u64)
        .sum()
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Backend for MapStore {
    fn url(&self) -> String {
        "map:".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        let leases = !self.has(Defect::HasNoLeases) && !self.has(Defect::DeniesLeases);
        Capabilities::new().with_leases(leases)
    }

    fn open<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Arc<dyn EntryReader>>>> {
        let reader = self.live(key).map(|entry| {
            Arc::new(MapEntry {
                store: self.clone(),
                name: self.name(key),
                entry,
            }) as _
        });
        ready(Ok(reader))
    }

    fn create<'a>(
        &'a self,
        key: &'a Key,
        options: WriteOptions,
    ) -> BoxFuture<'a, Result<ControlFlow<Rejection, Box<dyn EntryWriter>>>> {
        let hint = options.size_hint.unwrap_or_default();
        if hint > VALUE_LIMIT && !self.has(Defect::IgnoresTheValueLimit) {
            let rejection = Rejection::ValueTooLarge {
                bytes: hint,
                limit: VALUE_LIMIT,
            };
            return ready(Ok(ControlFlow::Break(rejection)));
        }
        if self.has(Defect::DecidesModesEarly)
            && let Some(rejection) = self.refuses(&self.name(key), options.mode)
        {
            return ready(Ok(ControlFlow::Break(rejection)));
        }
        let writer = MapWriter {
            store: self.clone(),
            name: self.name(key),
            options,
            body: Vec::new(),
        };
        ready(Ok(ControlFlow::Continue(Box::new(writer))))
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        head: Bytes,
        body: Vec<Bytes>,
        mut options: WriteOptions,
    ) -> BoxFuture<'a, Result<Outcome>> {
        if self.has(Defect::PutIgnoresModes) {
            options.mode = WriteMode::Overwrite;
        }
        Box::pin(async move {
            let mut writer = match self.create(key, options).await? {
                ControlFlow::Continue(writer) => writer,
                ControlFlow::Break(rejection) => return Ok(Outcome::Rejected(rejection)),
            };
            match writer.write(body).await? {
                ControlFlow::Continue(()) => writer.commit(head).await,
                ControlFlow::Break(rejection) => Ok(Outcome::Rejected(rejection)),
            }
        })
    }

    fn stat<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<EntryInfo>>> {
        let info = self.live(key).map(|entry| {
            EntryInfo::new(self.name(key), entry.bytes.len() as u64).with_expiry(entry.expiry)
        });
        ready(Ok(info))
    }

    fn touch<'a>(&'a self, key: &'a Key, expiry: Expiry) -> BoxFuture<'a, Result<bool>> {
        let revives = self.has(Defect::RevivesTheDead);
        let touched = match self.state().entries.get_mut(&self.name(key)) {
            Some(entry) if !entry.expiry.is_expired() || revives => {
                entry.expiry = expiry;
                true
            }
            _ => false,
        };
        ready(Ok(touched))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<bool>> {
        let mut state = self.state();
        if self.has(Defect::RemovesLeases) {
            state.leases.remove(&self.name(key));
        }
        let removed = state.entries.remove(&self.name(key));
        let alive = removed.is_some_and(|entry| !entry.expiry.is_expired());
        ready(Ok(alive || self.has(Defect::RemoveAlwaysFinds)))
    }

    fn list(&self, cursor: Option<Cursor>, head_bytes: usize) -> BoxFuture<'_, Result<Page>> {
        let start = cursor.map_or_else(String::new, |cursor| {
            String::from_utf8(cursor.0.to_vec()).unwrap()
        });
        let state = self.state();
        let mut page = Page::default();
        for (name, entry) in state.entries.range(start..) {
            if page.entries.len() == 100 {
                page.next = Some(Cursor(Bytes::from(name.clone())));
                break;
            }
            if !entry.expiry.is_expired() || self.has(Defect::ListsExpired) {
                let head = entry.bytes.slice(..head_bytes.min(entry.bytes.len()));
                let info = EntryInfo::new(name.as_str(), entry.bytes.len() as u64);
                page.entries
                    .push(info.with_expiry(entry.expiry).with_head(head));
            }
        }
        if self.has(Defect::LosesPages) {
            page.next = None;
        }
        ready(Ok(page))
    }

    fn lease<'a>(
        &'a self,
        key: &'a Key,
        term: Duration,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Lease>>>> {
        if self.has(Defect::HasNoLeases) || self.has(Defect::ClaimsLeases) {
            return ready(Err(Error::new(ErrorKind::Unsupported, "no leases")));
        }
        let whole_store = self.has(Defect::LeasesTheWholeStore);
        let name = if whole_store {
            String::new()
        } else {
            self.name(key)
        };
        let mut state = self.state();
        let lasts = |end: Instant| Instant::now() < end || self.has(Defect::LeasesForEver);
        let held = state.leases.get(&name).is_some_and(|&(_, end)| lasts(end));
        if held && !self.has(Defect::LeasesToAll) {
            return ready(Ok(None));
        }
        state.clock += 1;
        let holder = state.clock;
        let end = Instant::now()
            + match self.0.defect {
                Defect::LeasesForAMoment => Duration::ZERO,
                Defect::LeasesForHalfATerm => term / 2,
                _ => term,
            };
        state.leases.insert(name.clone(), (holder, end));
        let store = self.clone();
        ready(Ok(Some(Box::new(MapLease {
            store,
            name,
            holder,
            term,
        }))))
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage>> {
        let state = self.state();
        let mut usage = Usage::new();
        usage.entries = state.entries.len() as u64;
        let miscount = if self.has(Defect::MiscountsUsage) {
            state.clock
        } else {
            0
        };
        usage.bytes = total(&state) + miscount;
        if self.has(Defect::CountsLeases) {
            usage.entries += state.leases.len() as u64;
        }
        ready(Ok(usage))
    }

    fn prune(&self) -> BoxFuture<'_, Result<Pruned>> {
        let mut state = self.state();
        if self.has(Defect::PrunesTheLiving) {
            state.entries.clear();
        }
        if self.has(Defect::PrunesLeases) {
            state.leases.clear();
        }
        let before = (state.entries.len(), total(&state));
        state.entries.retain(|_, entry| !entry.expiry.is_expired());
        let mut pruned = Pruned::new();
        pruned.entries = (before.0 - state.entries.len()) as u64;
        pruned.bytes = before.1 - total(&state);
        ready(Ok(pruned))
    }
}

#[derive(Debug)]
struct MapEntry {
    store: MapStore,
    name: String,
    entry: Entry,
}

impl EntryReader for MapEntry {
    fn len(&self) -> u64 {
        self.entry.bytes.len() as u64
    }

    fn expiry(&self) -> Expiry {
        self.entry.expiry
    }

    fn version(&self) -> Version {
        self.store.version(&self.entry)
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let mut bytes = self.entry.bytes.clone();
        if self.store.has(Defect::FollowsReplacement)
            && let Some(entry) = self.store.state().entries.get(&self.name)
        {
            bytes = entry.bytes.clone();
        }
        let len = bytes.len() as u64;
        let end = if self.store.has(Defect::ReadsPastTheEnd) {
            range.end.min(len)
        } else {
            range.end
        };
        if range.start > end || end > len {
            return ready(Err(Error::new(ErrorKind::Corrupt, "the entry ends before")));
        }
        let part =
            bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(end).unwrap());
        let shift = usize::from(self.store.has(Defect::Misaligns));
        let copy = aligned_bytes(part.len() + shift, |memory| {
            memory[shift..].copy_from_slice(&part);
            Ok(())
        });
        ready(copy.map(|copy| copy.slice(shift..)))
    }

    fn discard(&self) -> BoxFuture<'_, Result<bool>> {
        let mut state = self.store.state();
        let newer = self.store.has(Defect::DiscardsNewer);
        let same = |entry: &Entry| entry.generation == self.entry.generation || newer;
        let discarded = state.entries.get(&self.name).is_some_and(same);
        if discarded {
            state.entries.remove(&self.name);
        }
        ready(Ok(discarded))
    }
}

struct MapLease {
    store: MapStore,
    name: String,
    holder: u64,
    term: Duration,
}

impl MapLease {
    fn give_up(&self) {
        let mut state = self.store.state();
        let any = self.store.has(Defect::ReleasesLostLeases);
        let lease = state.leases.get(&self.name);
        if lease.is_some_and(|&(holder, _)| holder == self.holder || any) {
            state.leases.remove(&self.name);
        }
    }
}

impl Lease for MapLease {
    fn renew(&mut self) -> BoxFuture<'_, Result<bool>> {
        let mut state = self.store.state();
        let renewed = match state.leases.get_mut(&self.name) {
            Some((holder, end)) if *holder == self.holder => {
                if !self.store.has(Defect::RenewsNoTerm) {
                    *end = Instant::now() + self.term;
                }
                !self.store.has(Defect::RenewsNothing)
            }
            _ => self.store.has(Defect::RenewsLostLeases),
        };
        ready(Ok(renewed))
    }

    fn release(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        if self.store.has(Defect::KeepsReleasedLeases) {
            std::mem::forget(self);
        } else {
            self.give_up();
        }
        ready(Ok(()))
    }
}

impl Drop for MapLease {
    fn drop(&mut self) {
        if !self.store.has(Defect::KeepsDroppedLeases) {
            self.give_up();
        }
    }
}

struct MapWriter {
    store: MapStore,
    name: String,
    options: WriteOptions,
    body: Vec<u8>,
}

impl MapWriter {
    fn whole(&self, head: &[u8]) -> Bytes {
        if self.store.has(Defect::HeadLast) {
            return Bytes::from([&self.body, head].concat());
        }
        Bytes::from([head, &self.body].concat())
    }
}

impl EntryWriter for MapWriter {
    fn write(&mut self, mut parts: Vec<Bytes>) -> BoxFuture<'_, Result<ControlFlow<Rejection>>> {
        if self.store.has(Defect::SwapsParts) {
            parts.reverse();
        }
        parts
            .iter()
            .for_each(|part| self.body.extend_from_slice(part));
        let bytes = (self.options.head_len + self.body.len()) as u64;
        if bytes > VALUE_LIMIT && !self.store.has(Defect::IgnoresTheValueLimit) {
            let rejection = Rejection::ValueTooLarge {
                bytes,
                limit: VALUE_LIMIT,
            };
            return ready(Ok(ControlFlow::Break(rejection)));
        }
        if self.store.has(Defect::ShowsBeforeCommit) {
            self.store
                .insert(self.name.clone(), self.whole(&[]), Expiry::NEVER);
        }
        ready(Ok(ControlFlow::Continue(())))
    }

    fn commit(self: Box<Self>, head: Bytes) -> BoxFuture<'static, Result<Outcome>> {
        if head.len() != self.options.head_len && !self.store.has(Defect::TakesAnyHead) {
            return ready(Err(Error::new(
                ErrorKind::Misuse,
                "the head has another length",
            )));
        }
        let early = self.store.has(Defect::DecidesModesEarly);
        if !early && let Some(rejection) = self.store.refuses(&self.name, self.options.mode) {
            return ready(Ok(Outcome::Rejected(rejection)));
        }
        let whole = self.whole(&head);
        let bytes = whole.len() as u64;
        self.store
            .insert(self.name.clone(), whole, self.options.expiry);
        ready(Ok(Outcome::Stored { bytes }))
    }
}

impl Drop for MapWriter {
    fn drop(&mut self) {
        if self.store.has(Defect::KeepsDroppedWriters) {
            self.store
                .insert(self.name.clone(), self.whole(&[]), Expiry::NEVER);
        }
    }
}

fn run_all(defect: Defect) {
    pollster::block_on(run(Arc::new(MapStore::new(defect))));
    let limits = Limits {
        value_bytes: usize::try_from(VALUE_LIMIT).unwrap(),
        store_bytes: LIMIT,
        removes_stale: false,
    };
    pollster::block_on(run_limits(Arc::new(MapStore::new(defect)), limits));
}

#[test]
fn a_plain_map_passes() {
    run_all(Defect::None);
    run_all(Defect::HasNoLeases);
}

#[test]
fn every_defect_is_found() {
    for defect in DEFECTS {
        // A machine that halts for a moment hides that a term is too short.
        let mut runs = (0..10).map(|_| catch_unwind(AssertUnwindSafe(|| run_all(defect))));
        assert!(runs.any(|run| run.is_err()), "{defect:?} is not found");
    }
}
