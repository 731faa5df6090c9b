use std::any::{Any, TypeId};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ck_arrow::{Interned, Table};
use ck_codec::{CacheCodec, CacheKey};
use ck_core::EntryReader;
use ck_l1::{Charge, Weigh, Weight};

/// A value of any type.
pub(crate) type AnyValue = Arc<dyn Any + Send + Sync>;

/// A value as the tiers hand it around. Clones share it.
#[derive(Clone)]
pub(crate) enum Content {
    Table(Table),
    Bytes(Bytes),
    Value(AnyValue),
    /// Known not to exist.
    Absent,
}

/// How a kind of value is kept.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Table,
    Bytes,
    Value(ValueForm),
}

/// How the values of one [`CacheKey`] type are kept.
#[derive(Clone, Copy)]
pub(crate) struct ValueForm {
    type_id: TypeId,
    /// `None`: such values never leave the process.
    pub(crate) codec: Option<CacheCodec>,
    heap_bytes: fn(&(dyn Any + Send + Sync), mapping: Option<&Bytes>) -> u64,
}

impl ValueForm {
    pub(crate) fn of<K: CacheKey>(key: &K) -> Self {
        Self {
            type_id: TypeId::of::<K::Value>(),
            codec: key.codec(),
            heap_bytes: |value, mapping| {
                let value = value.downcast_ref::<K::Value>();
                value.map_or(0, |value| K::heap_bytes(value, mapping))
            },
        }
    }
}

/// Which kind of value; two forms of one kind read each other's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Table,
    Bytes,
    Value(TypeId),
}

impl Kind {
    /// For people who read traces.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Bytes => "bytes",
            Self::Value(_) => "value",
        }
    }
}

impl Form {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Table => Kind::Table,
            Self::Bytes => Kind::Bytes,
            Self::Value(form) => Kind::Value(form.type_id),
        }
    }

    /// Whether values of this form may be sent to a store.
    pub(crate) fn is_storable(self) -> bool {
        !matches!(self, Self::Value(ValueForm { codec: None, .. }))
    }
}

/// How long a value lives from now on: `None` is without end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Life {
    /// Until it is due to be made anew.
    pub(crate) fresh: Option<Duration>,
    /// Until it is gone.
    pub(crate) total: Option<Duration>,
}

impl Life {
    /// What is left to an entry that is stale for `stale_for` before its end.
    pub(crate) fn of_entry(entry: &dyn EntryReader, stale_for: Duration) -> Self {
        let total = entry.expiry().remaining();
        Self {
            fresh: total.map(|left| left.saturating_sub(stale_for)),
            total,
        }
    }
}

/// A value in the process: what the in-process tier keeps, and what those who wait for one load share.
pub(crate) struct Held {
    pub(crate) content: Content,
    pub(crate) weight: Weight,
    /// When it becomes stale; `None` never.
    pub(crate) fresh_until: Option<Instant>,
    /// When it is gone; `None` never.
    pub(crate) expires: Option<Instant>,
    /// The table's schema is charged while somebody uses it.
    pub(crate) schema: Option<Interned<Charge>>,
    /// When it may be made anew, after that has failed.
    refresh_at: Mutex<Option<Instant>>,
}

impl Held {
    pub(crate) fn new(content: Content, life: Life) -> Self {
        // One moment for both: a value without time to be stale has two equal ends.
        let now = Instant::now();
        let until = |left: Option<Duration>| left.and_then(|left| now.checked_add(left));
        Self {
            content,
            weight: Weight::default(),
            fresh_until: until(life.fresh),
            expires: until(life.total),
            schema: None,
            refresh_at: Mutex::default(),
        }
    }

    pub(crate) fn may_be_refreshed(&self) -> bool {
        let at = self
            .refresh_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        at.is_none_or(|at| Instant::now() >= at)
    }

    pub(crate) fn put_off_refresh(&self, time: Duration) {
        let mut at = self
            .refresh_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *at = Some(Instant::now() + time);
    }

    /// Whether it can be handed out as this kind of value.
    pub(crate) fn suits(&self, kind: Kind) -> bool {
        match (&self.content, kind) {
            (Content::Absent, _)
            | (Content::Table(_), Kind::Table)
            | (Content::Bytes(_), Kind::Bytes) => true,
            (Content::Value(value), Kind::Value(type_id)) => (**value).type_id() == type_id,
            _ => false,
        }
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh_until.is_none_or(|until| Instant::now() < until)
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.content, Content::Absent)
    }

    /// Whether it becomes stale within `time`.
    pub(crate) fn is_due_within(&self, time: Duration) -> bool {
        self.fresh_until
            .is_some_and(|until| until.saturating_duration_since(Instant::now()) <= time)
    }

    /// The same value, stale from now on.
    pub(crate) fn expired(&self) -> Self {
        Self {
            content: self.content.clone(),
            weight: self.weight,
            fresh_until: Some(Instant::now()),
            expires: self.expires,
            schema: self.schema.clone(),
            refresh_at: Mutex::default(),
        }
    }

    pub(crate) fn table(&self) -> Option<Table> {
        match &self.content {
            Content::Table(table) => Some(table.clone()),
            _ => None,
        }
    }

    pub(crate) fn bytes(&self) -> Option<Bytes> {
        match &self.content {
            Content::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    pub(crate) fn value<V: Send + Sync + 'static>(&self) -> Option<Arc<V>> {
        match &self.content {
            Content::Value(value) => Arc::clone(value).downcast().ok(),
            _ => None,
        }
    }
}

impl Weigh for Held {
    fn weight(&self) -> Weight {
        self.weight
    }
}

impl Form {
    /// What a value keeps in memory, without its schema; `entry` is the store's memory that it lies in, if
    /// the store handed that out, and whether that is mapped.
    pub(crate) fn weight(self, content: &Content, entry: Option<(&Bytes, bool)>) -> Weight {
        let mapping = entry.and_then(|(entry, is_mapped)| is_mapped.then_some(entry));
        let mapped_bytes = mapping.map_or(0, |mapping| mapping.len() as u64);
        let heap = |heap_bytes| Weight {
            heap_bytes,
            mapped_bytes,
        };
        match (self, content, entry) {
            (_, Content::Table(table), _) => Weight {
                heap_bytes: table.heap_bytes(None),
                mapped_bytes: table.mapped_bytes(),
            },
            (_, Content::Bytes(_), Some(_)) if mapping.is_some() => heap(0),
            (_, Content::Bytes(_), Some((entry, _))) => heap(entry.len() as u64),
            (_, Content::Bytes(bytes), None) => heap(bytes.len() as u64),
            (Self::Value(form), Content::Value(value), _) => {
                heap((form.heap_bytes)(&**value, mapping))
            }
            _ => Weight::default(),
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = match &self.content {
            Content::Table(_) => "table",
            Content::Bytes(_) => "bytes",
            Content::Value(_) => "value",
            Content::Absent => "absent",
        };
        f.debug_struct("Held")
            .field("content", &content)
            .field("weight", &self.weight)
            .finish_non_exhaustive()
    }
}
