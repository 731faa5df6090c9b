use std::time::Duration;

use crate::PutOptions;
use crate::held::Held;

/// Long enough for a busy machine to renew in time, short enough for a hung holder.
const DEFAULT_LEASE_TERM: Duration = Duration::from_secs(30);

/// How to load and keep what no tier has.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ck_cache::{LoadOptions, PutOptions};
///
/// let minute = Duration::from_secs(60);
/// let put = PutOptions::new().with_ttl(10 * minute).with_stale_for(60 * minute);
/// let options = LoadOptions::new()
///     .with_put(put)
///     .with_refresh_ahead(minute)
///     .with_absent_ttl(minute);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    put: PutOptions,
    refresh_ahead: Option<Duration>,
    absent_ttl: Option<Duration>,
    load_bytes: u64,
    lease_term: Option<Duration>,
}

impl LoadOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            put: PutOptions::new(),
            refresh_ahead: None,
            absent_ttl: None,
            load_bytes: 0,
            lease_term: Some(DEFAULT_LEASE_TERM),
        }
    }

    /// How loaded values are stored. With [`PutOptions::with_stale_for`], a value whose time to live has
    /// passed is handed out at once, stale, while a fresh one is loaded in the background.
    #[must_use]
    pub fn with_put(mut self, put: PutOptions) -> Self {
        self.put = put;
        self
    }

    /// How long before the end of its time to live a value that is asked for is made anew in the
    /// background. Default: it is not.
    #[must_use]
    pub fn with_refresh_ahead(mut self, time: Duration) -> Self {
        self.refresh_ahead = Some(time);
        self
    }

    /// How long to remember that the loader said there is no value. Default: it is asked again each time.
    #[must_use]
    pub fn with_absent_ttl(mut self, ttl: Duration) -> Self {
        self.absent_ttl = Some(ttl);
        self
    }

    /// How much of the memory budget a load holds while the loader runs, in bytes. A loader that uses the
    /// same cache waits for what other loads hold: keep the sum of both well below the budget. Default: 0,
    /// since nobody but the caller knows.
    #[must_use]
    pub fn with_load_bytes(mut self, bytes: u64) -> Self {
        self.load_bytes = bytes;
        self
    }

    /// How long other processes leave a load to one that does not answer any more; one that works renews
    /// its lease. Default: 30 s.
    #[must_use]
    pub fn with_lease_term(mut self, term: Duration) -> Self {
        self.lease_term = Some(term);
        self
    }

    /// Loads without asking whether another process does.
    #[must_use]
    pub fn without_lease(mut self) -> Self {
        self.lease_term = None;
        self
    }

    pub(crate) fn put(&self) -> &PutOptions {
        &self.put
    }

    /// Whether a value is to be made anew although it is fresh.
    pub(crate) fn is_due(&self, held: &Held) -> bool {
        self.refresh_ahead
            .is_some_and(|ahead| held.is_due_within(ahead))
    }

    pub(crate) fn absent_ttl(&self) -> Option<Duration> {
        self.absent_ttl
    }

    pub(crate) fn load_bytes(&self) -> u64 {
        self.load_bytes
    }

    pub(crate) fn lease_term(&self) -> Option<Duration> {
        self.lease_term
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self::new()
    }
}
