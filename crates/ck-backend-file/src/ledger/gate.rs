use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A mutex that can be waited for with a deadline: whoever has taken the value out holds it.
#[derive(Debug)]
pub(super) struct Gate<T> {
    value: Mutex<Option<T>>,
    returned: Condvar,
}

impl<T> Gate<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(Some(value)),
            returned: Condvar::new(),
        }
    }

    /// Takes the value, waiting until `deadline` for others to put it back.
    pub(super) fn take(&self, deadline: Instant) -> Option<T> {
        let mut value = self.value();
        loop {
            if let Some(value) = value.take() {
                return Some(value);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self
                .returned
                .wait_timeout(value, left.max(Duration::from_millis(1)));
            value = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes the value if nobody has it.
    pub(super) fn try_take(&self) -> Option<T> {
        self.value().take()
    }

    pub(super) fn put_back(&self, value: T) {
        *self.value() = Some(value);
        self.returned.notify_one();
    }

    /// Held for a few instructions only, so nobody waits here.
    fn value(&self) -> MutexGuard<'_, Option<T>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
