use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow_schema::SchemaRef;

use crate::Table;
use crate::footprint::schema_bytes;

/// Besides the schema: its place among the known ones, and what those who use it share.
const OVERHEAD: usize = 128;

/// Schemas that tables share.
///
/// Equal schemas, metadata included, become one, which lives as long as somebody uses it. Each comes with
/// a guard of the caller, dropped with it: what the schema is charged with.
pub struct Interner<G> {
    known: Mutex<Known<G>>,
    hasher: RandomState,
}

/// The use of a shared schema; the last one takes the schema's guard with it.
pub struct Interned<G>(Arc<Shared<G>>);

/// By hash. Of two schemas with one hash, the later one is known.
struct Known<G> {
    schemas: HashMap<u64, Weak<Shared<G>>>,
    /// From this many on, those that nobody uses are looked for.
    prune_at: usize,
}

struct Shared<G> {
    schema: SchemaRef,
    _guard: G,
}

impl<G: Send + Sync + 'static> Interner<G> {
    /// No schemas yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            known: Mutex::new(Known {
                schemas: HashMap::new(),
                prune_at: 64,
            }),
            hasher: RandomState::new(),
        }
    }

    /// The table with the shared schema. `charge` is asked for a guard, with the schema's bytes, when the
    /// schema is new; without one the table comes back as it was.
    pub fn intern(
        &self,
        table: Table,
        charge: impl FnOnce(u64) -> Option<G>,
    ) -> (Table, Option<Interned<G>>) {
        let hash = self.hasher.hash_one(table.schema());
        let interned = match self.find(hash, table.schema()) {
            Some(interned) => interned,
            None => {
                // Making room may take a while, and may drop other schemas: not under the lock.
                let bytes = schema_bytes(table.schema()) + OVERHEAD;
                let Some(guard) = charge(bytes as u64) else {
                    return (table, None);
                };
                self.keep(hash, table.schema(), guard)
            }
        };
        (table.with_equal_schema(&interned.0.schema), Some(interned))
    }

    fn find(&self, hash: u64, schema: &SchemaRef) -> Option<Interned<G>> {
        // Compared, and dropped if it is another one, after the lock.
        let shared = self.known().find(hash)?;
        (shared.schema == *schema).then_some(Interned(shared))
    }

    fn known(&self) -> MutexGuard<'_, Known<G>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, hash: u64, schema: &SchemaRef, guard: G) -> Interned<G> {
        let shared = Arc::new(Shared {
            schema: Arc::clone(schema),
            _guard: guard,
        });
        // Guards go after the lock, which they may need: that of `found`, and ours if somebody was quicker.
        let found;
        let mut known = self.known();
        found = known.find(hash);
        if let Some(quicker) = &found
            && quicker.schema == *schema
        {
            return Interned(Arc::clone(quicker));
        }
        if known.schemas.len() >= known.prune_at {
            known.schemas.retain(|_, shared| shared.strong_count() > 0);
            known.prune_at = 64.max(known.schemas.len() * 2);
        }
        known.schemas.insert(hash, Arc::downgrade(&shared));
        Interned(shared)
    }
}

impl<G> Known<G> {
    fn find(&self, hash: u64) -> Option<Arc<Shared<G>>> {
        self.schemas.get(&hash)?.upgrade()
    }
}

impl<G: Send + Sync + 'static> Default for Interner<G> {
    fn default() -> Self {
        Self::new()
    }
}

impl<G> Clone for Interned<G> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<G> fmt::Debug for Interner<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interner")
    }
}

impl<G> fmt::Debug for Interned<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interned").field(&self.0.schema).finish()
    }
}
