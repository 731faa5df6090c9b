use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ck_core::{Error, ErrorKind, Result};

use super::options::BreakerOptions;
use crate::stats::Counter;

/// Whether a store is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BreakerState {
    /// It is.
    #[default]
    Closed,
    /// It failed too often: operations fail at once until some time has passed.
    Open,
    /// The time has passed: one operation at a time tries whether the store is back.
    HalfOpen,
}

/// Counts failures in a row, and says when a store is not to be asked.
#[derive(Debug)]
pub(super) struct Breaker {
    options: Option<BreakerOptions>,
    /// What it stands for: the store, and the kind of operations.
    store: String,
    operations: &'static str,
    /// How often it opened after it was closed.
    openings: Counter,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Which phase this is: what was begun in an earlier one says nothing about this one.
    epoch: u64,
}

#[derive(Debug)]
enum Phase {
    Closed { failures: u32 },
    Open(Outage),
    HalfOpen(Outage),
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    /// When the store is asked (once more), whatever becomes of a trial: it may never end.
    until: Instant,
    /// The last failure.
    cause: Error,
}

/// Whether an operation says something about the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Works,
    Fails,
    /// The operation was given up, or refused before the store was asked.
    Nothing,
}

fn verdict<T>(result: &Result<T>) -> Verdict {
    let Err(error) = result else {
        return Verdict::Works;
    };
    match error.kind() {
        ErrorKind::Transient
        | ErrorKind::Timeout
        | ErrorKind::Permanent
        | ErrorKind::Authentication => Verdict::Fails,
        // The store answered; what it holds is another matter.
        ErrorKind::Corrupt | ErrorKind::Tampered => Verdict::Works,
        _ => Verdict::Nothing,
    }
}

impl Breaker {
    pub(super) fn new(
        options: Option<BreakerOptions>,
        store: &str,
        operations: &'static str,
    ) -> Self {
        Self {
            options,
            store: store.to_owned(),
            operations,
            openings: Counter::new("ck_cache_breaker_openings_total"),
            state: Mutex::new(State {
                phase: Phase::Closed { failures: 0 },
                epoch: 0,
            }),
        }
    }

    /// Leave to ask the store, or why not.
    pub(super) fn permit(&self) -> Result<Permit<'_>> {
        let Some(options) = self.options else {
            return Ok(Permit::of(self, 0));
        };
        let mut state = self.lock();
        if let Phase::Open(outage) | Phase::HalfOpen(outage) = &state.phase {
            let now = Instant::now();
            if now < outage.until {
                return Err(self.refusal(&state.phase, outage, now));
            }
            let outage = Outage {
                until: later(now, options.open_for),
                cause: outage.cause.clone(),
                ..*outage
            };
            state.enter(Phase::HalfOpen(outage));
        }
        Ok(Permit::of(self, state.epoch))
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.lock().phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open(_) => BreakerState::Open,
            Phase::HalfOpen(_) => BreakerState::HalfOpen,
        }
    }

    /// How often it opened after it was closed.
    pub(super) fn openings(&self) -> u64 {
        self.openings.get()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, phase: &Phase, outage: &Outage, now: Instant) -> Error {
        let message = if matches!(phase, Phase::HalfOpen(_)) {
            "the store kept failing, and is not asked until it has answered one operation under way"
        } else {
            "the store kept failing, and is not asked for a while"
        };
        let (since, left) = (now - outage.since, outage.until - now);
        Error::new(ErrorKind::Transient, message)
            .with("store", &self.store)
            .with("operations", self.operations)
            .with("since", format_args!("{since:.1?} ago"))
            .with("until", format_args!("{left:.1?} from now"))
            .with_source(outage.cause.clone())
    }

    fn record(&self, epoch: u64, verdict: Verdict, cause: Option<&Error>) {
        let Some(options) = self.options else { return };
        let mut state = self.lock();
        if state.epoch != epoch {
            return;
        }
        let now = Instant::now();
        match (&mut state.phase, verdict, cause) {
            (Phase::Closed { failures }, Verdict::Works, _) => *failures = 0,
            (Phase::Closed { failures }, Verdict::Fails, Some(cause)) => {
                *failures += 1;
                if *failures < options.failures {
                    return;
                }
                self.openings.add(1);
                state.enter(Phase::Open(Outage {
                    since: now,
                    until: later(now, options.open_for),
                    cause: cause.clone(),
                }));
                drop(state);
                let (store, operations) = (&self.store, self.operations);
                let (failures, open_for) = (options.failures, options.open_for);
                tracing::warn!(%store, operations, failures, ?open_for, error = %cause, "the store keeps failing and is not asked for a while");
            }
            (Phase::HalfOpen(outage), Verdict::Works, _) => {
                let outage = now - outage.since;
                state.enter(Phase::Closed { failures: 0 });
                drop(state);
                let (store, operations) = (&self.store, self.operations);
                tracing::info!(%store, operations, ?outage, "the store works again");
            }
            (Phase::HalfOpen(outage), verdict, cause) => {
                let cause = cause.filter(|_| verdict == Verdict::Fails);
                let outage = Outage {
                    since: outage.since,
                    // Who knows nothing leaves the trial to the next one.
                    until: cause.map_or(now, |_| later(now, options.open_for)),
                    cause: cause.unwrap_or(&outage.cause).clone(),
                };
                state.enter(Phase::Open(outage));
            }
            (Phase::Closed { .. } | Phase::Open(_), ..) => {}
        }
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch += 1;
    }
}

fn later(now: Instant, time: Duration) -> Instant {
    // Further than a century is for ever.
    now.checked_add(time)
        .unwrap_or_else(|| now + Duration::from_secs(100 * 366 * 86_400))
}

/// Leave to ask the store once. Dropped without [`Permit::record`], nothing was learnt.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    epoch: u64,
    recorded: bool,
}

impl<'a> Permit<'a> {
    fn of(breaker: &'a Breaker, epoch: u64) -> Self {
        Self {
            breaker,
            epoch,
            recorded: false,
        }
    }

    pub(super) fn record<T>(mut self, result: &Result<T>) {
        self.recorded = true;
        self.breaker
            .record(self.epoch, verdict(result), result.as_ref().err());
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            self.breaker.record(self.epoch, Verdict::Nothing, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    fn breaker(open_for: Duration) -> Breaker {
        let options = BreakerOptions {
            failures: 3,
            open_for,
        };
        Breaker::new(Some(options), "test:", "reads")
    }

    fn failure(kind: ErrorKind) -> Result<()> {
        Err(Error::new(kind, "down"))
    }

    fn fail(breaker: &Breaker, times: usize) {
        for _ in 0..times {
            let permit = breaker.permit().unwrap();
            permit.record(&failure(ErrorKind::Transient));
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_says_so() {
        let breaker = breaker(Duration::from_secs(1000));
        fail(&breaker, 2);
        breaker.permit().unwrap().record(&Ok(()));
        fail(&breaker, 2);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 1);
        assert_eq!(
            (breaker.state(), breaker.openings()),
            (BreakerState::Open, 1)
        );
        let error = breaker.permit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient);
        let names: Vec<_> = error.context().map(|(name, _)| name).collect();
        assert_eq!(names, ["store", "operations", "since", "until"]);
        assert!(error.to_string().contains("down"), "{error}");
        assert!(error.to_string().contains("test:"), "{error}");
    }

    #[test]
    fn only_failures_of_the_store_count() {
        use ErrorKind::{
            Authentication, Corrupt, Misuse, Permanent, Timeout, TooLarge, Transient, Unsupported,
        };
        for kind in [Transient, Timeout, Permanent, Authentication] {
            let breaker = breaker(Duration::from_secs(1000));
            for _ in 0..3 {
                breaker.permit().unwrap().record(&failure(kind));
            }
            assert_eq!(breaker.state(), BreakerState::Open, "{kind}");
        }
        for kind in [Corrupt, TooLarge, Unsupported, Misuse] {
            let breaker = breaker(Duration::from_secs(1000));
            fail(&breaker, 2);
            for _ in 0..5 {
                breaker.permit().unwrap().record(&failure(kind));
            }
            fail(&breaker, 1);
            let resets = kind == Corrupt;
            assert_eq!(
                breaker.state() == BreakerState::Closed,
                resets,
                "{kind} neither counts nor is forgiven"
            );
        }
    }

    #[test]
    fn one_trial_at_a_time_decides() {
        let breaker = breaker(SHORT);
        let stale = breaker.permit().unwrap();
        fail(&breaker, 3);
        std::thread::sleep(SHORT * 2);
        let trial = breaker.permit().unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        // What began before it opened says nothing now.
        stale.record(&Ok(()));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        trial.record(&failure(ErrorKind::Timeout));
        assert_eq!(breaker.state(), BreakerState::Open);
        std::thread::sleep(SHORT * 2);
        breaker.permit().unwrap().record(&Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.openings(), 1);
        // The count starts anew.
        fail(&breaker, 2);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_trial_that_is_given_up_leaves_the_next_one_free() {
        let breaker = breaker(Duration::from_millis(200));
        fail(&breaker, 3);
        std::thread::sleep(Duration::from_millis(210));
        let trial = breaker.permit().unwrap();
        assert!(breaker.permit().is_err());
        drop(trial);
        breaker.permit().unwrap().record(&Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let breaker = breaker(SHORT);
        fail(&breaker, 3);
        std::thread::sleep(SHORT * 2);
        let lost = breaker.permit().unwrap();
        std::thread::sleep(SHORT * 2);
        breaker.permit().unwrap().record(&Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
        lost.record(&failure(ErrorKind::Timeout));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
