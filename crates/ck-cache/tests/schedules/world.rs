use std::future::{Future, poll_fn};
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use shuttle::future::yield_now;
use shuttle::rand::{Rng, thread_rng};

use super::witness::Witness;
use crate::flight::{Flights, Lead, Turn};

/// A key that knows whether copies of it are alive.
#[derive(Clone)]
pub(crate) struct Name(usize, #[expect(dead_code, reason = "counts")] Arc<()>);

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}

/// What a lead published.
#[derive(Clone)]
pub(crate) struct Loaded {
    lead: usize,
    _alive: Arc<()>,
}

/// The flights under test, and who watches them.
pub(crate) struct World {
    flights: Flights<Name, Loaded>,
    pub(crate) witness: Witness,
    alive: Arc<()>,
}

/// How somebody who asks behaves.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// After how many polls of anything it is cancelled, if at all.
    pub(crate) patience: Option<u32>,
    /// One in so many that have to work gives up; 0 for none.
    pub(crate) gives_up: u32,
}

impl Manner {
    /// Stays to the end, and now and then gives up its work.
    pub(crate) const PATIENT: Self = Self {
        patience: None,
        gives_up: 3,
    };

    /// Is cancelled at some point.
    pub(crate) fn impatient() -> Self {
        Self {
            patience: Some(thread_rng().gen_range(0..6)),
            ..Self::PATIENT
        }
    }
}

/// Whether one of `n` cases has come.
pub(crate) fn one_in(n: u32) -> bool {
    n > 0 && thread_rng().gen_range(0..n) == 0
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            flights: Flights::new(),
            witness: Witness::default(),
            alive: Arc::new(()),
        }
    }

    fn name(&self, key: usize) -> Name {
        Name(key, Arc::clone(&self.alive))
    }

    /// Waits for the work on `key` or does it.
    pub(crate) async fn ask(&self, key: usize, manner: Manner) {
        if let Some((lead, number, patience)) = self.join(key, manner.patience).await {
            self.work(lead, number, Manner { patience, ..manner }).await;
        }
    }

    /// The lead, its number and what patience is left, for those who have to work.
    pub(crate) async fn join(
        &self,
        key: usize,
        mut patience: Option<u32>,
    ) -> Option<(Lead<Name, Loaded>, usize, Option<u32>)> {
        let mut join = self.flights.join(self.name(key));
        let joined = self.witness.now();
        let (mut asked, mut polls) = (joined, 0);
        let mut first = Poll::Pending;
        if one_in(3) {
            // As one that is handed from task to task: only the last waker counts.
            first = Pin::new(&mut join).poll(&mut Context::from_waker(Waker::noop()));
            polls += 1;
        }
        let turn = match first {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => {
                poll_fn(|cx| {
                    if let Some(left) = &mut patience {
                        if *left == 0 {
                            return Poll::Ready(None);
                        }
                        *left -= 1;
                        cx.waker().wake_by_ref();
                    }
                    asked = self.witness.now();
                    polls += 1;
                    Pin::new(&mut join).poll(cx).map(Some)
                })
                .await
            }
        };
        match turn {
            None => self.witness.cancelled(),
            Some(Turn::Shared(loaded)) => self.witness.shared(key, joined, loaded.lead),
            Some(Turn::Lead(lead)) => {
                let number = self.witness.led(key, asked, polls > 1);
                return Some((lead, number, patience));
            }
        }
        None
    }

    /// Works as one that refreshes: only if nobody does.
    pub(crate) async fn try_lead(&self, key: usize, manner: Manner) {
        let asked = self.witness.now();
        if let Some(lead) = self.flights.try_lead(self.name(key)) {
            let number = self.witness.led(key, asked, false);
            self.work(lead, number, manner).await;
        }
    }

    /// Works for a while, and publishes a result or does not.
    async fn work(&self, lead: Lead<Name, Loaded>, number: usize, mut manner: Manner) {
        for _ in 0..thread_rng().gen_range(0..4) {
            if let Some(left) = &mut manner.patience {
                if *left == 0 {
                    self.witness.cancelled();
                    return self.give_up(lead, number);
                }
                *left -= 1;
            }
            yield_now().await;
        }
        if one_in(manner.gives_up) {
            self.give_up(lead, number);
        } else {
            self.publish(lead, number);
        }
    }

    pub(crate) fn give_up(&self, lead: Lead<Name, Loaded>, number: usize) {
        self.witness.gives_up(number);
        drop(lead);
    }

    pub(crate) fn publish(&self, lead: Lead<Name, Loaded>, number: usize) {
        self.witness.publishes(number);
        lead.finish(Loaded {
            lead: number,
            _alive: Arc::clone(&self.alive),
        });
        self.witness.published(number);
    }

    pub(crate) fn detach(&self, key: usize) {
        let detached = self.witness.detaches(key);
        self.flights.detach(&self.name(key));
        self.witness.detached(detached);
    }

    /// Everybody is gone: so is what they asked for.
    pub(crate) fn assert_empty(&self) {
        let left = Arc::strong_count(&self.alive) - 1;
        assert_eq!(left, 0, "keys or results are still held");
    }
}
