use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in use against a limit that is never passed, not even for a moment.
#[derive(Debug)]
pub(crate) struct Account {
    limit: u64,
    used: AtomicU64,
}

impl Account {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Takes the bytes if they are free.
    pub(crate) fn reserve(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|&used| used <= self.limit)
            })
            .is_ok()
    }

    /// Gives back bytes that were reserved.
    pub(crate) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// How many bytes must be given back before these can be reserved.
    pub(crate) fn lacking(&self, bytes: u64) -> u64 {
        self.used().saturating_add(bytes).saturating_sub(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::Account;

    #[test]
    fn the_limit_is_reached_and_never_passed() {
        let account = Account::new(10);
        assert!(account.reserve(4));
        assert!(!account.reserve(7));
        assert_eq!(account.lacking(7), 1);
        assert!(account.reserve(6));
        assert_eq!((account.used(), account.lacking(0)), (10, 0));
        assert!(!account.reserve(u64::MAX));
        account.release(4);
        assert_eq!(account.used(), 6);
    }
}
