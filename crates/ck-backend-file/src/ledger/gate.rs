use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A mutex that can be waited for with a deadline: whoever has taken the value out holds it.
#[derive(Debug)]
pub(super) struct Gate<T> {
    state: Mutex<State<T>>,
    returned: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    waiting: usize,
}

impl<T> Gate<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            state: Mutex::new(State {
                value: Some(value),
                waiting: 0,
            }),
            returned: Condvar::new(),
        }
    }

    /// Takes the value, waiting until `deadline` for others to put it back.
    pub(super) fn take(&self, deadline: Instant) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(value) = state.value.take() {
                return Some(value);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state.waiting += 1;
            let waited = self
                .returned
                .wait_timeout(state, left.max(Duration::from_millis(1)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
    }

    /// Takes the value if nobody has it.
    pub(super) fn try_take(&self) -> Option<T> {
        self.state().value.take()
    }

    pub(super) fn put_back(&self, value: T) {
        let mut state = self.state();
        state.value = Some(value);
        // Waking takes a system call even where nobody waits.
        if state.waiting > 0 {
            self.returned.notify_one();
        }
    }

    /// Held for a few instructions only, so nobody waits here.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
