use std::sync::{Mutex, MutexGuard, PoisonError};

/// A moment of a run; later ones are larger.
type Moment = u64;

/// Judges what happens in one run. Its locks are the real ones, which the scheduler does not see.
///
/// What it is told lies around the calls and not within them, so where calls overlap it gives them the
/// benefit of the doubt.
#[derive(Default)]
pub(crate) struct Witness(Mutex<State>);

#[derive(Default)]
struct State {
    clock: Moment,
    leads: Vec<Lead>,
    detached: Vec<Detached>,
    tally: Tally,
}

/// How often what happened in a run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) loads: usize,
    pub(crate) given_up: usize,
    pub(crate) shared: usize,
    /// Those who waited first and had to work then.
    pub(crate) handed_over: usize,
    pub(crate) cancelled: usize,
}

struct Lead {
    key: usize,
    /// The begin and the end of the call that gave the lead.
    asked: Moment,
    led: Moment,
    /// The begin of the call that gives the lead back.
    ended: Option<Moment>,
    has_result: bool,
    /// The end of the call that published the result.
    published: Option<Moment>,
}

struct Detached {
    key: usize,
    begun: Moment,
    ended: Option<Moment>,
}

impl Witness {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Moment {
        self.state().tick()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.state().tally
    }

    /// Somebody has to work on `key`, by a call that began at `asked`.
    pub(crate) fn led(&self, key: usize, asked: Moment, has_waited: bool) -> usize {
        let mut state = self.state();
        let led = state.tick();
        state.tally.handed_over += usize::from(has_waited);
        let at_work = state
            .leads
            .iter()
            .find(|lead| lead.key == key && lead.ended.is_none());
        if let Some(other) = at_work {
            let may_both = state.is_overtaken_since(key, asked.min(other.asked));
            assert!(may_both, "two work on key {key} at one time");
        }
        state.leads.push(Lead {
            key,
            asked,
            led,
            ended: None,
            has_result: false,
            published: None,
        });
        state.leads.len() - 1
    }

    /// The lead is about to be dropped.
    pub(crate) fn gives_up(&self, lead: usize) {
        let mut state = self.state();
        let now = state.tick();
        state.leads[lead].ended = Some(now);
        state.tally.given_up += 1;
    }

    /// The lead's result is about to be published.
    pub(crate) fn publishes(&self, lead: usize) {
        let mut state = self.state();
        let now = state.tick();
        state.leads[lead].ended = Some(now);
        state.leads[lead].has_result = true;
        state.tally.loads += 1;
    }

    pub(crate) fn published(&self, lead: usize) {
        let mut state = self.state();
        let now = state.tick();
        state.leads[lead].published = Some(now);
    }

    /// Somebody who asked for `key` first at `joined` was given the result of `lead`.
    pub(crate) fn shared(&self, key: usize, joined: Moment, lead: usize) {
        let mut state = self.state();
        state.tally.shared += 1;
        let lead = &state.leads[lead];
        assert_eq!(lead.key, key, "a result of another key");
        assert!(lead.has_result, "a result that nobody published");
        assert!(
            lead.published.is_none_or(|published| joined < published),
            "a result that was there before it was asked for"
        );
        let was_overtaken = state.detached.iter().any(|detached| {
            detached.key == key
                && lead.led < detached.begun
                && detached.ended.is_some_and(|ended| ended < joined)
        });
        assert!(!was_overtaken, "a result that was overtaken before");
    }

    pub(crate) fn cancelled(&self) {
        self.state().tally.cancelled += 1;
    }

    /// The work on `key` is about to be detached.
    pub(crate) fn detaches(&self, key: usize) -> usize {
        let mut state = self.state();
        let begun = state.tick();
        state.detached.push(Detached {
            key,
            begun,
            ended: None,
        });
        state.detached.len() - 1
    }

    pub(crate) fn detached(&self, index: usize) {
        let mut state = self.state();
        let now = state.tick();
        state.detached[index].ended = Some(now);
    }
}

impl State {
    fn tick(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }

    fn is_overtaken_since(&self, key: usize, moment: Moment) -> bool {
        self.detached.iter().any(|detached| {
            detached.key == key && detached.ended.is_none_or(|ended| ended > moment)
        })
    }
}
