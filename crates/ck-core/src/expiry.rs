use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Error, ErrorKind, Result};

/// The longest time to live that the existing Python and Rust clients accept: ten years of 365 days.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The moment an entry stops existing, in whole Unix seconds, or never.
///
/// An entry is expired when `now >= expiry`, the rule of the existing writers.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ck_core::Expiry;
///
/// let expiry = Expiry::after(Duration::from_secs(3600))?;
/// assert!(!expiry.is_expired());
/// assert!(!Expiry::NEVER.is_expired());
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Expiry(u64);

impl Expiry {
    /// The entry lives until it is removed or evicted.
    pub const NEVER: Self = Self(0);

    /// Expires `ttl` from now. A fraction of a second counts as a whole one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] for a zero `ttl` (it would store nothing: use [`Expiry::NEVER`] for an
    /// entry without end) and for one beyond ten years, which existing clients refuse.
    pub fn after(ttl: Duration) -> Result<Self> {
        if ttl.is_zero() {
            return Err(Error::new(
                ErrorKind::Misuse,
                "a time to live of zero stores nothing; ask for no expiry instead",
            ));
        }
        if ttl > MAX_TTL {
            return Err(Error::new(
                ErrorKind::Misuse,
                "the time to live is beyond ten years; ask for no expiry instead",
            )
            .with("ttl_seconds", ttl.as_secs()));
        }
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        Ok(Self(unix_now().as_secs().saturating_add(seconds)))
    }

    /// The stored form: Unix seconds, 0 for never.
    #[must_use]
    pub const fn from_unix_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// The stored form: Unix seconds, 0 for never.
    #[must_use]
    pub const fn unix_seconds(self) -> u64 {
        self.0
    }

    /// Whether the entry never expires.
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.0 == 0
    }

    /// Whether the moment has come.
    #[must_use]
    pub fn is_expired(self) -> bool {
        self.0 != 0 && unix_now().as_secs() >= self.0
    }

    /// The time left, zero once expired; `None` for never.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        (self.0 != 0).then(|| Duration::from_secs(self.0.saturating_sub(unix_now().as_secs())))
    }
}

/// The time since 1970, by the system's clock. A clock that stands before that counts as 1970, so that
/// nothing reads as expired.
#[must_use]
pub fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_a_second_lives_for_a_whole_one() {
        let expiry = Expiry::after(Duration::from_millis(1)).unwrap();
        assert!(expiry.unix_seconds() > unix_now().as_secs());
    }

    #[test]
    fn zero_and_absurd_lifetimes_are_misuse() {
        for ttl in [Duration::ZERO, MAX_TTL + Duration::from_secs(1)] {
            assert_eq!(Expiry::after(ttl).unwrap_err().kind(), ErrorKind::Misuse);
        }
        assert!(Expiry::after(MAX_TTL).is_ok());
    }

    #[test]
    fn an_entry_is_expired_at_its_very_second() {
        assert!(Expiry::from_unix_seconds(unix_now().as_secs()).is_expired());
        assert!(!Expiry::from_unix_seconds(unix_now().as_secs() + 5).is_expired());
        assert_eq!(Expiry::NEVER.remaining(), None);
    }
}
