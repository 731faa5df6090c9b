use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use ck_core::Key;

use crate::books::Books;
use crate::stats::L1Stats;
use crate::tier::Tier;
use crate::weigh::Weigh;

/// Values in memory, shared, and never more of them than a budget of bytes. Cloning shares the tier.
///
/// Gets never wait for inserts; inserts, removals and charges run one after another.
pub struct L1<V>(Arc<Tier<V>>);

impl<V: Weigh + Send + Sync + 'static> L1<V> {
    /// A tier that holds up to this many bytes. With 0 it holds nothing.
    pub fn builder(budget_bytes: u64) -> L1Builder<V> {
        L1Builder {
            budget_bytes,
            mapped_limit_bytes: u64::MAX,
            policy: Policy::default(),
            values: PhantomData,
        }
    }

    /// The value of a key, unless it has expired. Copies nothing.
    ///
    /// The value stays usable when it is evicted meanwhile; the budget then no longer counts it.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<V>> {
        self.0.get(key)
    }

    /// Makes this the value of the key, for `ttl` if there is one.
    ///
    /// Others are evicted to make room. An older value of the key is gone afterwards, also when the
    /// new one is refused. Where old and new fit side by side, readers find one or the other at any
    /// moment; else they may find none in between.
    ///
    /// # Memory
    ///
    /// Charged are the bytes of [`Weigh`], `size_of::<V>()`, the key and a fixed overhead. They are
    /// reserved before the tier takes the value, and given back after it has dropped it.
    pub fn insert(&self, key: Key, value: Arc<V>, ttl: Option<Duration>) -> Insertion {
        match self.0.insert(key, value, ttl) {
            Ok(()) => Insertion::Stored,
            Err(refusal) => Insertion::Rejected(refusal),
        }
    }

    /// Charges memory that entries share to the budget, until the returned guard is dropped.
    ///
    /// Entries are evicted to make room. `None` if the bytes do not fit beside what else is charged
    /// this way.
    #[must_use]
    pub fn charge(&self, bytes: u64) -> Option<Charge> {
        // Made only once the bytes are charged: dropped, it gives them back.
        self.0.charge(bytes).then(|| Charge {
            books: Arc::clone(self.0.books()),
            bytes,
        })
    }

    /// Removes the value of a key. False if there is none.
    pub fn remove(&self, key: &Key) -> bool {
        self.0.remove(key)
    }

    /// Removes all values. Their memory is free when this returns; so it takes time by their number.
    pub fn clear(&self) {
        self.0.clear();
    }

    /// What the tier holds, and what has happened to it.
    #[must_use]
    pub fn stats(&self) -> L1Stats {
        self.0.books().stats()
    }

    /// Does now what is otherwise done a little later, along with gets and inserts: frees what has
    /// expired and notes the order of use. For idle moments, and for tests.
    pub fn settle(&self) {
        self.0.settle();
    }
}

impl<V> Clone for L1<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Weigh + Send + Sync + 'static> fmt::Debug for L1<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L1")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Settings of an [`L1`].
#[derive(Debug, Clone)]
#[must_use]
pub struct L1Builder<V> {
    budget_bytes: u64,
    mapped_limit_bytes: u64,
    policy: Policy,
    values: PhantomData<fn() -> V>,
}

impl<V: Weigh + Send + Sync + 'static> L1Builder<V> {
    /// Who leaves when room is needed. Default: [`Policy::Lru`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// How many bytes entries may hold mapped from files. Default: without limit.
    ///
    /// At the limit, entries that map more are refused until mapped entries leave: none is evicted
    /// for another's mapping.
    pub fn mapped_limit_bytes(mut self, bytes: u64) -> Self {
        self.mapped_limit_bytes = bytes;
        self
    }

    /// The tier.
    #[must_use]
    pub fn build(self) -> L1<V> {
        let books = Books::new(self.budget_bytes, self.mapped_limit_bytes);
        L1(Arc::new(Tier::new(Arc::new(books), self.policy)))
    }
}

/// Who leaves when room is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// The entries used least lately. A newcomer is always let in.
    #[default]
    Lru,
    /// The same, but a newcomer is let in only if it has been asked for more often than those that
    /// would have to leave for it, all together. Scans do not wash out what is in use.
    ///
    /// Until the tier is half full, nobody counts, and it is [`Policy::Lru`].
    TinyLfu,
}

/// How an insert ended. A value, not an error: nothing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a rejected value is not held"]
pub enum Insertion {
    /// The tier holds the value.
    Stored,
    /// The tier does not hold the value, and no older one of its key.
    Rejected(Refusal),
}

/// Why a value was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is larger than the budget (less what entries share), or maps more than the limit. Nothing
    /// else was touched.
    TooLarge,
    /// What others map leaves too little of the limit. Nothing else was touched.
    MappedFull,
    /// The policy prefers those that would have to leave.
    NotAdmitted,
}

/// Bytes of a budget that entries share, given back on drop.
#[must_use = "dropping it gives the bytes back"]
pub struct Charge {
    books: Arc<Books>,
    bytes: u64,
}

impl Charge {
    /// The bytes charged.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.books.unshare(self.bytes);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
