use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ahash::RandomState;
use ck_core::Key;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::books::{Books, Cause};
use crate::l1::{Policy, Refusal};
use crate::name::{ByKey, Name};
use crate::scale::Scale;
use crate::slot::Slot;
use crate::weigh::{Cost, Weigh};

/// The map, which knows the order of use and decides who leaves, under the account, which decides
/// what may enter.
///
/// moka evicts behind inserts, may hold more than its capacity for a while, counts in 32 bits and
/// frees late. So nothing is put in before the account has it reserved, the map only holds
/// [`Slot`]s, and its reports of removals empty them at once.
///
/// Inserts, removals and charges run one after another (`turn`); gets never wait for them.
pub(crate) struct Tier<V> {
    map: Cache<Name, Arc<Slot<V>>, RandomState>,
    books: Arc<Books>,
    policy: Policy,
    scale: Scale,
    turn: Mutex<Ballast<V>>,
}

/// An entry without a value, whose weight keeps the map's total in line with the account: it stands
/// for what entries share. Made heavier for a moment, it pushes out the entries used least lately.
struct Ballast<V>(Arc<Slot<V>>);

impl<V> Ballast<V> {
    fn units(&self) -> u32 {
        if self.0.is_gone() { 0 } else { self.0.units }
    }
}

/// How often the map's entry is written over before a new one takes its place.
///
/// moka numbers the writes of an entry with 16 bits; when they wrap, it takes the entry for one with
/// a write pending and neither evicts nor expires it.
const MAX_REWRITES: u16 = 1 << 14;

/// Rounds of eviction that may free nothing before an insert gives up: readers that touch an entry
/// while it is being evicted save it for that round.
const PATIENCE: u32 = 64;

/// How often a get looks again when what it finds is being replaced under its hands.
const SECOND_LOOKS: u32 = 8;

impl<V: Weigh + Send + Sync + 'static> Tier<V> {
    pub(crate) fn new(books: Arc<Books>, policy: Policy) -> Self {
        let scale = Scale::new(books.heap.limit());
        let reports = Arc::clone(&books);
        let map = Cache::builder()
            .max_capacity(scale.capacity().into())
            .weigher(|_, slot: &Arc<Slot<V>>| slot.units)
            .eviction_policy(match policy {
                Policy::Lru => EvictionPolicy::lru(),
                Policy::TinyLfu => EvictionPolicy::tiny_lfu(),
            })
            .expire_after(TimeToLive)
            .eviction_listener(move |_, slot: Arc<Slot<V>>, cause| {
                let cause = match cause {
                    RemovalCause::Expired => Cause::Expired,
                    RemovalCause::Replaced => Cause::Replaced,
                    RemovalCause::Explicit | RemovalCause::Size => reports.blamed(),
                };
                reports.vacate(&slot, cause);
            })
            .build_with_hasher(RandomState::new());
        let ballast = Ballast(Arc::new(Slot::empty(0, Cost::default(), None)));
        Self {
            map,
            books,
            policy,
            scale,
            turn: Mutex::new(ballast),
        }
    }

    pub(crate) fn books(&self) -> &Arc<Books> {
        &self.books
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<V>> {
        let value = self.find(key);
        self.books.count_get(value.is_some());
        value
    }

    fn find(&self, key: &Key) -> Option<Arc<V>> {
        // A slot that was found and then emptied was replaced, most often: the new one is there already.
        for _ in 0..SECOND_LOOKS {
            let slot = self.map.get(&ByKey(key))?;
            let value = slot.value();
            if value.is_some() || !slot.is_gone() {
                return value;
            }
        }
        None
    }

    pub(crate) fn insert(
        &self,
        key: Key,
        value: Arc<V>,
        ttl: Option<Duration>,
    ) -> Result<(), Refusal> {
        let cost = Cost::of(&key, &*value, ttl);
        let mut ballast = self.turn();
        self.lighten(&mut ballast);
        let result = self.place(&mut ballast, key, value, cost, ttl);
        self.books.count_insert(result);
        result
    }

    /// Takes bytes that entries share from the budget.
    pub(crate) fn charge(&self, bytes: u64) -> bool {
        let cost = Cost::heap(bytes);
        let mut ballast = self.turn();
        self.lighten(&mut ballast);
        if !self.books.can_hold(cost) {
            return false;
        }
        if !self.books.reserve(cost) {
            self.map.run_pending_tasks();
            if !self.reserve(&mut ballast, cost) {
                return false;
            }
        }
        self.books.share(bytes);
        true
    }

    pub(crate) fn remove(&self, key: &Key) -> bool {
        let _turn = self.turn();
        self.discard(key, Cause::Removed)
    }

    pub(crate) fn clear(&self) {
        let mut ballast = self.turn();
        self.books.blaming(Cause::Removed, || {
            for (name, _) in &self.map {
                self.map.invalidate(&*name);
            }
            self.map.run_pending_tasks();
            // What has expired is not among them.
            self.evict_until(&mut ballast, || self.books.entries() == 0, || u64::MAX);
        });
    }

    pub(crate) fn settle(&self) {
        self.map.run_pending_tasks();
    }

    fn turn(&self) -> MutexGuard<'_, Ballast<V>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(
        &self,
        ballast: &mut Ballast<V>,
        key: Key,
        value: Arc<V>,
        cost: Cost,
        ttl: Option<Duration>,
    ) -> Result<(), Refusal> {
        let mut slot = Slot::empty(self.scale.units(cost.heap), cost, ttl);
        if !self.books.can_hold(cost) {
            self.discard(&key, Cause::Replaced);
            return Err(Refusal::TooLarge);
        }

        // Over the older entry, where both fit: readers find one or the other.
        if let Some(older) = self.peek(&key)
            && older.rewrites < MAX_REWRITES
            && self.books.reserve(cost)
        {
            slot.rewrites = older.rewrites + 1;
            let slot = self.put(key, slot, value);
            // Removing an entry whose new weight is still pending would upset moka's total.
            self.map.run_pending_tasks();
            return if slot.is_gone() {
                Err(Refusal::NotAdmitted)
            } else {
                Ok(())
            };
        }

        self.discard(&key, Cause::Replaced);
        if self.books.reserve(cost) {
            self.put(key, slot, value);
            return Ok(());
        }

        self.map.run_pending_tasks();
        if !self.books.can_map(cost) {
            return Err(Refusal::MappedFull);
        }
        if self.has_policy() {
            self.contest(ballast, key, slot, value)
        } else if self.reserve(ballast, cost) {
            self.put(key, slot, value);
            Ok(())
        } else {
            Err(Refusal::NotAdmitted)
        }
    }

    /// Fills the slot, whose cost is reserved, and puts it into the map.
    fn put(&self, key: Key, slot: Slot<V>, value: Arc<V>) -> Arc<Slot<V>> {
        let slot = Arc::new(slot);
        self.books.fill(&slot, value);
        self.map.insert(Name::new(key), Arc::clone(&slot));
        slot
    }

    /// Whether the map's policy knows whom to let in. TinyLFU counts uses only since the map was half
    /// full for the first time; without them it would refuse all.
    fn has_policy(&self) -> bool {
        self.policy == Policy::Lru
            || self.map.weighted_size() >= u64::from(self.scale.capacity()) / 2
    }

    /// Lets the map's policy decide between the newcomer and those that would have to leave for it: the
    /// map gets an empty slot of the newcomer's weight.
    fn contest(
        &self,
        ballast: &mut Ballast<V>,
        key: Key,
        slot: Slot<V>,
        value: Arc<V>,
    ) -> Result<(), Refusal> {
        let shared = self.shared_units();
        if ballast.units() != shared {
            self.set_ballast(ballast, shared);
        } else if shared > 0 {
            // The ballast is no victim as long as there are others: it was used last.
            self.map.get(&Name::BALLAST);
        }

        let slot = Arc::new(slot);
        self.map.insert(Name::new(key.clone()), Arc::clone(&slot));
        self.map.run_pending_tasks();
        if slot.is_gone() {
            return Err(Refusal::NotAdmitted);
        }
        if !self.reserve(ballast, slot.cost) {
            self.discard(&key, Cause::Size);
            return Err(Refusal::NotAdmitted);
        }
        if self.books.fill(&slot, value) {
            Ok(())
        } else {
            Err(Refusal::NotAdmitted)
        }
    }

    /// Reserves what an entry costs, evicting in the order of use until it is free.
    ///
    /// Nobody else takes what is freed: this is the turn of one.
    fn reserve(&self, ballast: &mut Ballast<V>, cost: Cost) -> bool {
        self.books.can_hold(cost)
            && self.evict_until(
                ballast,
                || self.books.reserve(cost),
                || self.books.heap.lacking(cost.heap),
            )
    }

    /// Evicts as many bytes as are lacking until it is done. False if nothing more can be evicted.
    fn evict_until(
        &self,
        ballast: &mut Ballast<V>,
        done: impl Fn() -> bool,
        lacking: impl Fn() -> u64,
    ) -> bool {
        if done() {
            return true;
        }
        let mut idle = 0;
        let succeeded = loop {
            let before = self.books.heap.used();
            self.evict(ballast, lacking());
            if done() {
                break true;
            }
            idle = if self.books.heap.used() < before {
                0
            } else {
                idle + 1
            };
            if idle == PATIENCE {
                break false;
            }
        };
        self.set_ballast(ballast, self.shared_units());
        succeeded
    }

    /// Has the map evict entries of at least this many bytes, those used least lately first.
    fn evict(&self, ballast: &mut Ballast<V>, bytes: u64) {
        let held = self
            .map
            .weighted_size()
            .saturating_sub(ballast.units().into());
        let kept = held.saturating_sub(self.scale.units(bytes).into());
        let pushing = u64::from(self.scale.capacity()).saturating_sub(kept);
        self.set_ballast(ballast, u32::try_from(pushing).unwrap_or(u32::MAX));
    }

    /// Makes the ballast lighter when less is shared than before.
    fn lighten(&self, ballast: &mut Ballast<V>) {
        let shared = self.shared_units();
        if ballast.units() > shared {
            self.set_ballast(ballast, shared);
        }
    }

    fn set_ballast(&self, ballast: &mut Ballast<V>, units: u32) {
        // A weight of 0 always fits, and writing over an entry is never contested.
        self.map.invalidate(&Name::BALLAST);
        for units in [0, units] {
            ballast.0 = Arc::new(Slot::empty(units, Cost::default(), None));
            self.map.insert(Name::BALLAST, Arc::clone(&ballast.0));
            self.map.run_pending_tasks();
        }
    }

    fn shared_units(&self) -> u32 {
        self.scale.units(self.books.shared())
    }

    /// The slot of a live entry.
    fn peek(&self, key: &Key) -> Option<Arc<Slot<V>>> {
        // `get` would count as a use; this way it does only where the insert is one.
        if self.map.contains_key(&ByKey(key)) {
            self.map.get(&ByKey(key))
        } else {
            None
        }
    }

    /// Removes the entry of a key. False if there is none, or only an expired one.
    fn discard(&self, key: &Key, cause: Cause) -> bool {
        let live = self.map.contains_key(&ByKey(key));
        let cause = if live { cause } else { Cause::Expired };
        self.books
            .blaming(cause, || self.map.invalidate(&ByKey(key)));
        live
    }
}

/// Each entry has its own time to live.
struct TimeToLive;

impl<V> moka::Expiry<Name, Arc<Slot<V>>> for TimeToLive {
    fn expire_after_create(&self, _: &Name, slot: &Arc<Slot<V>>, _: Instant) -> Option<Duration> {
        slot.ttl()
    }

    fn expire_after_update(
        &self,
        _: &Name,
        slot: &Arc<Slot<V>>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        slot.ttl()
    }
}
