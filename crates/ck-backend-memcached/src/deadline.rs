use std::time::{Duration, Instant};

/// When an operation has to be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    start: Instant,
    allowed: Duration,
    min_throughput: u64,
}

impl Deadline {
    pub(crate) fn new(timeout: Duration, min_throughput: u64) -> Self {
        Self {
            start: Instant::now(),
            allowed: timeout,
            min_throughput,
        }
    }

    /// Allows the time that so many more bytes take at the slowest rate that is acceptable.
    #[must_use]
    pub(crate) fn plus(mut self, bytes: u64) -> Self {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.min_throughput.max(1));
        let extra = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.allowed = self.allowed.saturating_add(extra);
        self
    }

    /// The time allowed in all.
    pub(crate) fn allowed(&self) -> Duration {
        self.allowed
    }

    /// The time left; `None` when there is none.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = self.allowed.checked_sub(self.start.elapsed())?;
        // A timeout of zero means none at all to a socket.
        (!left.is_zero()).then_some(left)
    }
}
