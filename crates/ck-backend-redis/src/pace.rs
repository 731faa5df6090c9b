use std::time::{Duration, Instant};

use crate::error::Fault;

/// How many questions of one transfer may be unanswered.
///
/// The server takes or makes what belongs to them at a time, while it answers nobody else: next door a few
/// small ones keep it busy. Further away more of them are on their way.
pub(crate) struct Pace {
    bytes: u64,
    few: u64,
    /// The shortest that an answer took.
    distance: Duration,
}

impl Pace {
    /// What a distant server is sent or asked for per second, in bytes, if it can.
    const RATE: u64 = 400 << 20;

    /// Whatever the distance.
    const MOST_BYTES: u64 = 4 << 20;

    /// For questions that move so many bytes each, of which a server next door may owe `few` answers.
    pub(crate) fn new(bytes: u64, few: u64) -> Self {
        Self {
            bytes,
            few,
            distance: Duration::ZERO,
        }
    }

    /// How many may be unanswered.
    pub(crate) fn most(&self) -> usize {
        let micros = u64::try_from(self.distance.as_micros()).unwrap_or(u64::MAX);
        let travelling = (Self::RATE / 1_000_000).saturating_mul(micros);
        let most = self.few + travelling.min(Self::MOST_BYTES) / self.bytes;
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Notes how long an answer took.
    pub(crate) fn note(&mut self, took: Duration) {
        if self.distance.is_zero() || took < self.distance {
            self.distance = took;
        }
    }
}

/// The answer, and how long it took.
pub(crate) async fn timed<T>(
    answer: impl Future<Output = Result<T, Fault>>,
) -> Result<(T, Duration), Fault> {
    let asked = Instant::now();
    let answer = answer.await?;
    Ok((answer, asked.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distant_server_may_owe_more_answers() {
        let mut pace = Pace::new(16 << 10, 3);
        assert_eq!(pace.most(), 3);
        pace.note(Duration::from_millis(2));
        let far = pace.most() as u64 * (16 << 10);
        // Two milliseconds of 400 MiB/s.
        assert!((800 << 10..1 << 20).contains(&far), "{far}");
        pace.note(Duration::from_secs(1));
        assert_eq!(pace.most() as u64 * (16 << 10), far);
        pace.note(Duration::from_micros(30));
        assert_eq!(pace.most(), 3);
        let mut pace = Pace::new(16 << 10, 3);
        pace.note(Duration::from_secs(1));
        assert!(pace.most() as u64 * (16 << 10) < 5 << 20);
    }
}
