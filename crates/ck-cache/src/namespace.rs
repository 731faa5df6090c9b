//! Keys that can be forgotten all at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ck_core::{Error, ErrorKind, Key, Outcome, Rejection, Result, WriteMode, complete};

use crate::cache::Shared;
use crate::draft::Draft;
use crate::held::{Content, Form};
use crate::{Cache, PutOptions};

/// How old a process's knowledge of a namespace may be.
const RECHECK: Duration = Duration::from_secs(1);

/// A part of the keys of a cache. They are stored under a name that changes when all of them are
/// invalidated.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    known: Mutex<Known>,
}

/// What a process knows of a namespace.
#[derive(Debug, Default)]
struct Known {
    /// Its number, and when that was looked up.
    number: Option<(u64, Instant)>,
    /// A number for gets and loads while the store fails, under which nobody else looks.
    stand_in: Option<(u64, Instant)>,
    /// How often this process has changed the number.
    changes: u64,
}

fn recent(number: Option<(u64, Instant)>) -> Option<u64> {
    let recent = number.filter(|(_, since)| since.elapsed() < RECHECK);
    recent.map(|(number, _)| number)
}

impl Cache {
    /// The same cache with keys of their own, which [`Cache::invalidate`] forgets all at once. The names of
    /// namespaces and of keys do not mix, whatever they contain.
    ///
    /// What changes something fails when the store cannot say which keys these are. A get misses then, and a load
    /// goes to its loader; what it loads is kept for a second at most, and what of it reaches the store all the
    /// same is never found there.
    ///
    /// What acts on the whole store does so here too: [`Cache::list`], [`Cache::usage`], [`Cache::prune`],
    /// [`Cache::stats`]. A listing shows the keys as they are stored, with the namespace and its number.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Self {
        let prefix = match &self.namespace {
            Some(outer) => format!("{}/", outer.name),
            None => String::new(),
        };
        // Its own separators are marked, so that no other path of names gives the same text.
        let name = name.replace('\\', "\\\\").replace('/', "\\/");
        let name = format!("{prefix}{name}");
        Self {
            shared: Arc::clone(&self.shared),
            namespace: Some(Arc::new(Namespace {
                name,
                known: Mutex::default(),
            })),
        }
    }

    /// Forgets all entries of this [namespace](Cache::namespace), however many there are, in constant
    /// time: they are never found again, and leave as space is needed or their time has passed.
    ///
    /// Namespaces within this one stay. Other processes, and other values of this namespace, notice within
    /// a second.
    ///
    /// # Errors
    ///
    /// See [`Cache`]. Nothing is invalidated then, unless only the store's answer was lost
    /// ([`ErrorKind::Timeout`]); the next use of the namespace asks the store. [`ErrorKind::Misuse`] when the
    /// cache is no namespace.
    pub async fn invalidate(&self) -> Result<()> {
        let Some(namespace) = self.namespace.clone() else {
            return Err(Error::new(
                ErrorKind::Misuse,
                "only a namespace can be invalidated; see Cache::namespace",
            ));
        };
        let number = random()?;
        let shared = Arc::clone(&self.shared);
        // To its end: this process must not find the old entries once others do not.
        complete(async move {
            let key = namespace.key();
            let written = shared.write_number(&key, number, WriteMode::Overwrite);
            let written = match written.await {
                // The process has dropped the old number all the same.
                Ok(Outcome::Rejected(_)) if shared.backend.is_none() => Ok(None),
                outcome => outcome.and_then(Outcome::stored).map(|_| Some(number)),
            };
            namespace.change(written.as_ref().ok().copied().flatten());
            written.map(drop)
        })
        .await
    }

    /// The key under which a key of this cache is stored.
    pub(crate) async fn resolve(&self, key: Key) -> Result<Key> {
        let Some(namespace) = &self.namespace else {
            return Ok(key);
        };
        let number = match namespace.recall() {
            Some(number) => number,
            // Boxed, so that the futures of gets stay small.
            None => Box::pin(self.shared.number_of(namespace)).await?,
        };
        Ok(namespace.stored_key(number, &key))
    }

    /// As [`Cache::resolve`], for what only looks for a value or can do without storing one: where a failure
    /// of the store is a miss, a key that has no entry.
    pub(crate) async fn resolve_to_find(&self, key: Key) -> Result<Key> {
        let Some(namespace) = &self.namespace else {
            return Ok(key);
        };
        if let Some(number) = namespace.recall_stand_in() {
            return Ok(namespace.stored_key(number, &key));
        }
        match self.resolve(key.clone()).await {
            Err(error) => {
                self.shared.store_failed(&key, error)?;
                let number = random()?;
                namespace.lock().stand_in = Some((number, Instant::now()));
                Ok(namespace.stored_key(number, &key))
            }
            resolved => resolved,
        }
    }
}

/// What the keys of numbers begin with.
const NUMBERS: &str = "ck:namespace:";

/// Whether the number of a namespace is stored under `key`.
#[cfg(feature = "encryption")]
pub(crate) fn is_number(key: &Key) -> bool {
    key.as_str().starts_with(NUMBERS)
}

impl Namespace {
    /// Where the namespace's number is stored.
    fn key(&self) -> Key {
        Key::new(format!("{NUMBERS}{}", self.name))
    }

    fn stored_key(&self, number: u64, key: &Key) -> Key {
        Key::new(format!("{}@{number:016x}/{key}", self.name))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recall(&self) -> Option<u64> {
        recent(self.lock().number)
    }

    /// The number to use while the store fails.
    fn recall_stand_in(&self) -> Option<u64> {
        recent(self.lock().stand_in)
    }

    fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Notes what was looked up, unless this process has changed it since.
    fn remember(&self, number: u64, changes: u64) {
        let mut known = self.lock();
        if known.changes == changes {
            known.number = Some((number, Instant::now()));
            known.stand_in = None;
        }
    }

    /// Notes a change by this process; `None` when nobody knows what came of it.
    fn change(&self, number: Option<u64>) {
        let mut known = self.lock();
        known.changes += 1;
        known.number = number.map(|number| (number, Instant::now()));
        known.stand_in = None;
    }
}

impl Shared {
    /// The number of a namespace as it is stored, or a new one, under which nothing was ever stored.
    async fn number_of(self: &Arc<Self>, namespace: &Namespace) -> Result<u64> {
        let key = namespace.key();
        loop {
            let changes = namespace.changes();
            let stored = match &self.backend {
                Some(backend) => self.read_store(backend, &key, Form::Bytes).await?.found(),
                None => self.lookup(&key, Form::Bytes).await?.found(),
            };
            let text = stored.and_then(|held| held.bytes());
            let number = text
                .as_deref()
                .and_then(|text| std::str::from_utf8(text).ok())
                .and_then(|text| u64::from_str_radix(text, 16).ok());
            if let Some(number) = number {
                namespace.remember(number, changes);
                return Ok(number);
            }
            let number = random()?;
            // What is no number is replaced.
            let mode = match text {
                Some(_) => WriteMode::Overwrite,
                None => WriteMode::Create,
            };
            match self.write_number(&key, number, mode).await? {
                // Somebody else was quicker.
                Outcome::Rejected(Rejection::Superseded) => {}
                outcome => {
                    // A number that is not kept leads to entries that nobody finds again. In the process
                    // alone they are gone with it.
                    if self.backend.is_some() {
                        outcome.stored()?;
                    }
                    namespace.remember(number, changes);
                    return Ok(number);
                }
            }
        }
    }

    async fn write_number(
        self: &Arc<Self>,
        key: &Key,
        number: u64,
        mode: WriteMode,
    ) -> Result<Outcome> {
        let content = Content::Bytes(format!("{number:016x}").into());
        let options = PutOptions::new();
        let draft = match &self.backend {
            None => None,
            Some(backend) => {
                let draft = self.draft(&**backend, key, Form::Bytes, &content, &options, mode);
                match draft.await? {
                    Draft::Rejected(rejection) => return Ok(Outcome::Rejected(rejection)),
                    draft => Some(draft),
                }
            }
        };
        // With a store, its entry alone counts.
        let held = match &self.backend {
            None => Some(self.hold(Form::Bytes, content, options.life(), None)),
            Some(_) => None,
        };
        self.publish(key, draft, held.map(Arc::new), None).await
    }
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| {
        Error::new(ErrorKind::Transient, "the system gives no random numbers").with_source(error)
    })
}
