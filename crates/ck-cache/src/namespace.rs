//! Keys that can be forgotten all at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ck_core::{Error, ErrorKind, Key, Outcome, Result, WriteMode};

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
    known: Mutex<Option<(u64, Instant)>>,
}

impl Cache {
    /// The same cache with keys of their own, which [`Cache::invalidate`] forgets all at once. The names of
    /// namespaces and of keys do not mix, whatever they contain.
    ///
    /// What acts on the whole store does so here too: [`Cache::list`], [`Cache::usage`], [`Cache::prune`],
    /// [`Cache::stats`]. A listing shows the keys as they are stored, with the namespace and its number.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Self {
        let prefix = match &self.namespace {
            Some(outer) => format!("{}/", outer.name),
            None => String::new(),
        };
        // Its own separators are doubled, so that no other pair of names gives the same text.
        let name = format!("{prefix}{}", name.replace('/', "//"));
        Self {
            shared: Arc::clone(&self.shared),
            namespace: Some(Arc::new(Namespace {
                name,
                known: Mutex::new(None),
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
    /// See [`Cache`]; nothing is invalidated for others then. [`ErrorKind::Misuse`] when the cache is no
    /// namespace.
    pub async fn invalidate(&self) -> Result<()> {
        let Some(namespace) = &self.namespace else {
            return Err(Error::new(
                ErrorKind::Misuse,
                "only a namespace can be invalidated; see Cache::namespace",
            ));
        };
        let number = random()?;
        // This process first: it must not find the old entries, whatever comes.
        namespace.remember(number);
        let key = namespace.key();
        let written = self.shared.write_number(&key, number, WriteMode::Overwrite);
        written.await?.stored().map(drop)
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
        Ok(Key::new(format!("{}@{number:016x}/{key}", namespace.name)))
    }
}

impl Namespace {
    /// Where the namespace's number is stored.
    fn key(&self) -> Key {
        Key::new(format!("ck:namespace:{}", self.name))
    }

    fn recall(&self) -> Option<u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .filter(|(_, since)| since.elapsed() < RECHECK)
            .map(|(number, _)| number)
    }

    fn remember(&self, number: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((number, Instant::now()));
    }
}

impl Shared {
    /// The number of a namespace as it is stored, or a new one, under which nothing was ever stored.
    async fn number_of(self: &Arc<Self>, namespace: &Namespace) -> Result<u64> {
        let key = namespace.key();
        loop {
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
                namespace.remember(number);
                return Ok(number);
            }
            let number = random()?;
            match self.write_number(&key, number, WriteMode::Create).await? {
                // Somebody else was quicker.
                Outcome::Rejected(ck_core::Rejection::Superseded) if text.is_none() => {}
                _ => {
                    namespace.remember(number);
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
