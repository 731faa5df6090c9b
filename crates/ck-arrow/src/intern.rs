use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow_schema::{Schema, SchemaRef};

use crate::Table;

/// Schemas that tables share.
///
/// Equal schemas, metadata included, become one, which lives as long as somebody uses it. Each comes with
/// a guard of the caller, dropped with it: what the schema is charged with.
pub struct Interner<G> {
    known: Mutex<HashMap<SchemaRef, Weak<Shared<G>>>>,
}

/// The use of a shared schema; the last one takes the schema's guard with it.
pub struct Interned<G>(Arc<Shared<G>>);

struct Shared<G> {
    schema: SchemaRef,
    _guard: G,
}

impl<G: Send + Sync + 'static> Interner<G> {
    /// No schemas yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            known: Mutex::new(HashMap::new()),
        }
    }

    /// The table with the shared schema. `charge` is asked for a guard, with the schema's bytes, when the
    /// schema is new; without one the table comes back as it was.
    pub fn intern(
        &self,
        table: Table,
        charge: impl FnOnce(u64) -> Option<G>,
    ) -> (Table, Option<Interned<G>>) {
        let found = self.find(table.schema());
        let interned = match found {
            Some(interned) => interned,
            None => {
                // Making room may take a while, and may drop other schemas: not under the lock.
                let Some(guard) = charge(schema_bytes(table.schema())) else {
                    return (table, None);
                };
                self.keep(table.schema(), guard)
            }
        };
        (table.with_equal_schema(&interned.0.schema), Some(interned))
    }

    fn find(&self, schema: &SchemaRef) -> Option<Interned<G>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(schema)?.upgrade().map(Interned)
    }

    fn keep(&self, schema: &SchemaRef, guard: G) -> Interned<G> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.get(schema).and_then(Weak::upgrade) {
            // Somebody was quicker; their guard counts, and ours goes.
            return Interned(shared);
        }
        if known.len() == known.capacity() {
            known.retain(|_, shared| shared.strong_count() > 0);
        }
        let shared = Arc::new(Shared {
            schema: Arc::clone(schema),
            _guard: guard,
        });
        known.insert(Arc::clone(schema), Arc::downgrade(&shared));
        Interned(shared)
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

/// Bytes of the heap that a schema takes, as Arrow counts them.
fn schema_bytes(schema: &Schema) -> u64 {
    let metadata: usize = schema
        .metadata()
        .iter()
        .map(|(name, value)| name.capacity() + value.capacity())
        .sum();
    (schema.fields().size() + metadata) as u64
}
