//! The order of the tiers: the process, then the store. What is found further out is kept further in.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ck_arrow::TableReader;
use ck_core::{Backend, EntryReader, Error, ErrorKind, Key, Outcome, Rejection, Result, complete};
use ck_l1::{Insertion, Refusal, Weight};
use tracing::{Instrument, debug_span};

use crate::StoreFailure;
use crate::cache::{Shared, is_corrupt, with_key};
use crate::contents::{ABSENT, read_bytes, read_own_header, stale_for};
use crate::draft::Draft;
use crate::flight::Turn;
use crate::held::{Content, Form, Held, Kind, Life};
use crate::order::Moment;
use crate::trace::stage;
use crate::value::read_value;

/// What a lookup found.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    /// A value, fresh or stale, or the knowledge that there is none.
    Found(Arc<Held>),
    /// Nothing that can be handed out.
    Missing,
}

impl Lookup {
    pub(crate) fn found(self) -> Option<Arc<Held>> {
        match self {
            Self::Found(held) => Some(held),
            Self::Missing => None,
        }
    }

    pub(crate) fn fresh(&self) -> Option<&Arc<Held>> {
        match self {
            Self::Found(held) if held.is_fresh() => Some(held),
            _ => None,
        }
    }
}

/// What those who wait for a lookup or a load are given.
#[derive(Debug, Clone)]
pub(crate) struct Landed<T> {
    pub(crate) kind: Kind,
    pub(crate) result: Result<T>,
}

impl Shared {
    /// What the tiers know under `key`, stale or not: the process, then the store. Concurrent lookups share
    /// one read of the store.
    pub(crate) async fn lookup(self: &Arc<Self>, key: &Key, form: Form) -> Result<Lookup> {
        match self.l1_get(key, form.kind()) {
            Some(held) => Ok(Lookup::Found(held)),
            None => self.lookup_behind(key, form).await,
        }
    }

    /// As [`Shared::lookup`], but past what the process has if that is stale: others may have stored a fresh
    /// one.
    pub(crate) async fn lookup_fresh(self: &Arc<Self>, key: &Key, form: Form) -> Result<Lookup> {
        match self.l1_fresh(key, form.kind()) {
            Some(held) => Ok(Lookup::Found(held)),
            None => self.lookup_behind(key, form).await,
        }
    }

    /// What the store knows.
    pub(crate) async fn lookup_behind(self: &Arc<Self>, key: &Key, form: Form) -> Result<Lookup> {
        let Some(backend) = self.backend.as_ref().filter(|_| form.is_storable()) else {
            return Ok(Lookup::Missing);
        };
        let kind = form.kind();
        loop {
            match self.lookups.join(key.clone()).await {
                Turn::Shared(landed) if landed.kind == kind => return landed.result,
                Turn::Shared(_) => {}
                Turn::Lead(lead) => {
                    // Boxed, so that those who wait hold nothing of the work.
                    let result = Box::pin(self.read_through(backend, key, form)).await;
                    lead.finish(Landed {
                        kind,
                        result: result.clone(),
                    });
                    return result;
                }
            }
        }
    }

    /// What the process holds under `key`, stale or not.
    pub(crate) fn l1_get(&self, key: &Key, kind: Kind) -> Option<Arc<Held>> {
        self.l1.as_ref()?.get(key).filter(|held| held.suits(kind))
    }

    /// What the process holds under `key`, if it is fresh.
    pub(crate) fn l1_fresh(&self, key: &Key, kind: Kind) -> Option<Arc<Held>> {
        self.l1_get(key, kind).filter(|held| held.is_fresh())
    }

    /// Reads the store, and keeps what it finds in the process.
    pub(crate) async fn read_through(
        self: &Arc<Self>,
        backend: &Arc<dyn Backend>,
        key: &Key,
        form: Form,
    ) -> Result<Lookup> {
        let before = self.order.now(key);
        let read = self.read_store(backend, key, form);
        let lookup = read.instrument(debug_span!("ck.read", %key)).await?;
        if let (Lookup::Found(held), Some(l1)) = (&lookup, &self.l1) {
            let _publication = self.order.lock(key).await;
            self.order.keep(&before, || {
                let _ = l1.insert(key.clone(), Arc::clone(held), self.l1_ttl(held));
            });
        }
        Ok(lookup)
    }

    /// What the store has under `key`, without a word to the process's own tier.
    pub(crate) async fn read_store(
        self: &Arc<Self>,
        backend: &Arc<dyn Backend>,
        key: &Key,
        form: Form,
    ) -> Result<Lookup> {
        let entry = match backend.open(key).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(Lookup::Missing),
            Err(error) => return self.store_failed(key, error).map(|()| Lookup::Missing),
        };
        stage("get", key, "opened");
        match self.read_entry(&entry, form).await {
            Ok((content, life)) => {
                stage("get", key, "decoded");
                self.counters.store_reads.add(1);
                let memory = entry.contiguous().map(|bytes| (bytes, entry.is_mapped()));
                let held = self.hold(form, content, life, memory);
                Ok(Lookup::Found(Arc::new(held)))
            }
            Err(error) if is_corrupt(&error) => {
                self.discard(key, &*entry, &error).await;
                Ok(Lookup::Missing)
            }
            // Of another type, or another version of it: it will be replaced.
            Err(error)
                if error.kind() == ErrorKind::Unsupported && matches!(form, Form::Value(_)) =>
            {
                tracing::debug!(%key, %error, "the entry holds another value");
                Ok(Lookup::Missing)
            }
            Err(error) => self.store_failed(key, error).map(|()| Lookup::Missing),
        }
    }

    /// Reads an entry as this kind of value.
    async fn read_entry(
        &self,
        entry: &Arc<dyn EntryReader>,
        form: Form,
    ) -> Result<(Content, Life)> {
        let (content, stale) = match form {
            Form::Table => match TableReader::open(Arc::clone(entry), self.verification).await {
                Ok(reader) => {
                    let stale = reader.stale_for();
                    let table = self.read_table(entry, reader).await?;
                    (Content::Table(table), stale)
                }
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    let header = read_own_header(&**entry).await?;
                    let absent = header.filter(|header| header.serializer() == ABSENT);
                    (Content::Absent, stale_for(&absent.ok_or(error)?))
                }
                Err(error) => return Err(error),
            },
            Form::Bytes | Form::Value(_) => {
                // A store that maps hands out its own memory.
                let held = if entry.is_mapped() { 0 } else { entry.len() };
                let _reservation = self.budget.reserve(held.min(self.budget.limit())).await?;
                match form {
                    Form::Value(form) => read_value(&**entry, form).await?,
                    _ => {
                        let (header, bytes) = read_bytes(&**entry).await?;
                        let content = match header.serializer() {
                            ABSENT => Content::Absent,
                            _ => Content::Bytes(bytes),
                        };
                        (content, stale_for(&header))
                    }
                }
            }
        };
        Ok((content, Life::of_entry(&**entry, stale)))
    }

    /// A value with what it weighs, in memory of its own where that is less.
    pub(crate) fn hold(
        &self,
        form: Form,
        content: Content,
        life: Life,
        entry: Option<(&Bytes, bool)>,
    ) -> Held {
        let Some(l1) = &self.l1 else {
            return Held::new(content, life);
        };
        let (mut schema, mut uncharged) = (None, 0);
        let mut entry = entry;
        let content = match content {
            Content::Bytes(bytes) if is_mostly_envelope(&bytes, entry) => {
                entry = None;
                Content::Bytes(Bytes::copy_from_slice(&bytes))
            }
            Content::Table(table) => {
                let table = match table.compacted() {
                    Some(compacted) => {
                        ck_core::note_freed(table.heap_bytes(None));
                        compacted
                    }
                    None => table,
                };
                let (table, interned) = self.schemas.intern(table, |bytes| {
                    let charge = l1.charge(bytes);
                    uncharged = if charge.is_some() { 0 } else { bytes };
                    charge
                });
                schema = interned;
                Content::Table(table)
            }
            content => content,
        };
        let mut held = Held::new(content, life);
        held.weight = form.weight(&held.content, entry);
        held.weight.heap_bytes += uncharged;
        held.schema = schema;
        held
    }

    /// How long the process may keep a value.
    pub(crate) fn l1_ttl(&self, held: &Held) -> Option<std::time::Duration> {
        let left = held
            .expires
            .map(|expires| expires.saturating_duration_since(Instant::now()));
        match (left, self.l1_max_age) {
            (Some(left), Some(max)) => Some(left.min(max)),
            (left, max) => left.or(max),
        }
    }

    /// Publishes a value in all tiers: the store's entry, then the process's. With `unless_changed_since`
    /// only when nobody in this process changed the key meanwhile.
    ///
    /// Goes on to its end when the caller goes away, so that the tiers agree.
    pub(crate) async fn publish(
        self: &Arc<Self>,
        key: &Key,
        draft: Option<Draft>,
        held: Option<Arc<Held>>,
        unless_changed_since: Option<Moment>,
    ) -> Result<Outcome> {
        let (shared, key) = (Arc::clone(self), key.clone());
        let span = debug_span!("ck.publish", %key);
        let publish = async move {
            let mut publication = shared.order.lock(&key).await;
            match &unless_changed_since {
                Some(moment) if !publication.is_still(moment) => {
                    return Ok(Outcome::Rejected(Rejection::Superseded));
                }
                Some(_) => {}
                // Those who read or load now may see what was before.
                None => shared.forget_flights(&key),
            }
            publication.change();
            let changed = shared.order.now(&key);
            if let Some(l1) = &shared.l1 {
                l1.remove(&key);
            }
            let stored = match (draft, &shared.backend) {
                (Some(draft), Some(backend)) => Some(draft.commit(&**backend, &key).await),
                _ => None,
            };
            // So may those who began during the commit.
            match unless_changed_since {
                Some(_) => shared.lookups.detach(&key),
                None => shared.forget_flights(&key),
            }
            let stored = stored.transpose()?;
            stage("put", &key, "committed");
            let is_current = stored.as_ref().is_none_or(Outcome::is_stored)
                || unless_changed_since.is_some()
                    && stored != Some(Outcome::Rejected(Rejection::Superseded));
            let kept = match (&shared.l1, held) {
                (Some(l1), Some(held)) if is_current => {
                    let ttl = shared.l1_ttl(&held);
                    let kept = shared
                        .order
                        .keep(&changed, || l1.insert(key.clone(), Arc::clone(&held), ttl));
                    kept.map(|kept| (kept, held.weight, l1.stats().budget_bytes))
                }
                _ => None,
            };
            Ok(stored.unwrap_or_else(|| in_process(kept)))
        };
        complete(publish.instrument(span)).await
    }

    /// Whoever comes from now on does not wait for reads and loads that started before.
    pub(crate) fn forget_flights(&self, key: &Key) {
        self.lookups.detach(key);
        self.loads.detach(key);
    }

    /// What a failure of the store means: by policy, an error or a miss.
    pub(crate) fn store_failed(&self, key: &Key, error: Error) -> Result<()> {
        let is_failure = matches!(
            error.kind(),
            ErrorKind::Transient
                | ErrorKind::Permanent
                | ErrorKind::Timeout
                | ErrorKind::Authentication
        );
        if !is_failure {
            return Err(with_key(key)(error));
        }
        self.counters.store_failures.add(1);
        match self.on_store_failure {
            StoreFailure::Error => Err(with_key(key)(error)),
            StoreFailure::Miss => {
                tracing::warn!(%key, store = self.store_url(), %error, "the store failed; a miss");
                Ok(())
            }
        }
    }
}

/// Whether keeping a value in the memory that its entry was read into would keep more than an eighth besides.
fn is_mostly_envelope(value: &Bytes, entry: Option<(&Bytes, bool)>) -> bool {
    entry.is_some_and(|(entry, is_mapped)| {
        !is_mapped && entry.len().saturating_sub(value.len()) > value.len() / 8
    })
}

/// How a put into the process alone ended.
fn in_process(kept: Option<(Insertion, Weight, u64)>) -> Outcome {
    match kept {
        Some((Insertion::Stored, weight, _)) => Outcome::Stored {
            bytes: weight.heap_bytes,
        },
        Some((Insertion::Rejected(reason), weight, limit)) => Outcome::Rejected(match reason {
            Refusal::TooLarge => Rejection::ValueTooLarge {
                bytes: weight.heap_bytes,
                limit,
            },
            Refusal::MappedFull => Rejection::MappedFull {
                bytes: weight.mapped_bytes,
            },
            _ => Rejection::NotAdmitted {
                bytes: weight.heap_bytes,
            },
        }),
        None => Outcome::Rejected(Rejection::NoTier),
    }
}
