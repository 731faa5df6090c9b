use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use ck_core::{Error, ErrorKind, Result};

/// How a [`Guard`](crate::Guard) treats its store.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ck_cache::GuardOptions;
///
/// let options = GuardOptions::new()
///     .with_deadline(Duration::from_millis(200))
///     .with_retries(1)
///     .with_breaker(10, Duration::from_secs(30));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardOptions {
    deadline: Option<Duration>,
    bytes_per_second: u64,
    retries: u32,
    first_pause: Duration,
    longest_pause: Duration,
    breaker: Option<BreakerOptions>,
}

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BreakerOptions {
    pub(super) failures: u32,
    pub(super) open_for: Duration,
}

impl GuardOptions {
    /// The defaults: no deadline, two retries, and a breaker.
    #[must_use]
    pub fn new() -> Self {
        Self {
            deadline: None,
            bytes_per_second: 8 << 20,
            retries: 2,
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_secs(1),
            breaker: Some(BreakerOptions {
                failures: 5,
                open_for: Duration::from_secs(5),
            }),
        }
    }

    /// How long an operation may take, its retries included. Operations that move bytes get more time,
    /// see [`with_bytes_per_second`](Self::with_bytes_per_second); listing and pruning, which may
    /// have to look at every entry, are not hurried. Default: no deadline. Not zero.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The slowest transfer that is not a failure, in bytes per second: an operation has the time that
    /// its bytes take at this rate on top of the deadline. A commit counts all bytes of its entry,
    /// because a store may put off to it what was written before. Default: 8 MiB. Not zero.
    #[must_use]
    pub fn with_bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = bytes;
        self
    }

    /// How often an operation that failed with [`ErrorKind::Transient`] or [`ErrorKind::Timeout`] is
    /// tried again. Default: 2.
    #[must_use]
    pub fn with_retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// The pause before the first retry, and the longest one. Each pause is twice the one before; half of
    /// it is left to chance, so that clients that failed together do not come back together.
    /// Default: 20 milliseconds, 1 second. The first may not be longer than the longest.
    #[must_use]
    pub fn with_pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.first_pause = first;
        self.longest_pause = longest;
        self
    }

    /// After how many failures in a row, retries included, the store is not asked any more, and for
    /// how long. Reads and writes are counted apart: a full disk can still be read. Default: 5, 5 seconds.
    /// Neither may be zero.
    #[must_use]
    pub fn with_breaker(mut self, failures: u32, open_for: Duration) -> Self {
        self.breaker = Some(BreakerOptions { failures, open_for });
        self
    }

    /// Asks the store again however often it failed.
    #[must_use]
    pub fn without_breaker(mut self) -> Self {
        self.breaker = None;
        self
    }

    /// Refuses what makes no sense.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
            "the deadline may not be zero"
        } else if self.bytes_per_second == 0 {
            "the slowest transfer may not be zero bytes per second"
        } else if self.first_pause > self.longest_pause {
            "the first pause may not be longer than the longest"
        } else if self.breaker.is_some_and(|breaker| breaker.failures == 0) {
            "the failures in a row that open the breaker may not be zero"
        } else if self
            .breaker
            .is_some_and(|breaker| breaker.open_for.is_zero())
        {
            "the time for which the breaker stays open may not be zero"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Misuse, wrong).with("options", format!("{self:?}")))
    }

    pub(super) fn breaker(&self) -> Option<BreakerOptions> {
        self.breaker
    }

    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// How long an operation that moves `bytes` may take.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        let transfer = Duration::from_secs(bytes / self.bytes_per_second)
            + Duration::from_secs(1).mul_f64(
                // The quotient is below one, so rounding cannot matter.
                (bytes % self.bytes_per_second) as f64 / self.bytes_per_second as f64,
            );
        Some(self.deadline?.saturating_add(transfer))
    }

    /// The pause before retry number `retry`, counted from zero.
    pub(super) fn pause(&self, retry: u32) -> Duration {
        let whole = 1_u32
            .checked_shl(retry)
            .map_or(Duration::MAX, |factor| {
                self.first_pause.saturating_mul(factor)
            })
            .min(self.longest_pause);
        // Every `RandomState` has keys of its own.
        let chance = RandomState::new().hash_one(retry) >> 32;
        whole / 2 + (whole / 2).mul_f64(chance as f64 / f64::from(u32::MAX))
    }
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A point in time; `None` when it is too far away to matter.
pub(super) fn due_in(time: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(time?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_grows_with_the_bytes() {
        let second = Duration::from_secs(1);
        let options = GuardOptions::new().with_bytes_per_second(1000);
        assert_eq!(options.time_for(5), None);
        let options = options.with_deadline(second);
        assert_eq!(options.time_for(0), Some(second));
        assert_eq!(options.time_for(2500), Some(Duration::from_millis(3500)));
        assert!(options.time_for(u64::MAX) > Some(second));
        let options = options
            .with_deadline(Duration::MAX)
            .with_bytes_per_second(1);
        assert_eq!(options.time_for(u64::MAX), Some(Duration::MAX));
        assert_eq!(due_in(options.time_for(u64::MAX)), None);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_never_less_than_half() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(50));
        let options = GuardOptions::new().with_pauses(first, longest);
        for (retry, whole) in [(0, 10), (1, 20), (2, 40), (3, 50), (31, 50), (4000, 50)] {
            let whole = Duration::from_millis(whole);
            for _ in 0..50 {
                let pause = options.pause(retry);
                assert!(pause >= whole / 2 && pause <= whole, "{retry}: {pause:?}");
            }
        }
        let pauses: Vec<_> = (0..50).map(|_| options.pause(0)).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        let none = GuardOptions::new().with_pauses(Duration::ZERO, Duration::ZERO);
        assert_eq!(none.pause(4000), Duration::ZERO);
    }
}
