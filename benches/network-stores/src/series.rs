use std::time::{Duration, Instant};

/// Times of one kind of work.
#[derive(Debug, Default, Clone)]
pub(crate) struct Series(Vec<Duration>);

impl Series {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The time that so many percent of the work takes at most.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut times = self.0.clone();
        times.sort();
        times[(times.len() * percent / 100).min(times.len() - 1)]
    }
}

pub(crate) fn time<T>(work: impl FnOnce() -> crate::Result<T>) -> crate::Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}
