//! One worker for each key: whoever comes first works, the others wait for what it finds.
//!
//! The file knows nothing of caches, and takes its locks from `crate::sync`, so that the tests can run
//! it under a scheduler that tries many orders of events.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The work under way, by key. `T` is what all who wait are given.
pub(crate) struct Flights<K, T> {
    // Lock order: the map, then a flight.
    flights: Arc<Mutex<Map<K, T>>>,
}

type Map<K, T> = HashMap<K, Arc<Mutex<Flight<T>>>>;

struct Flight<T> {
    /// Somebody works.
    led: bool,
    /// Not in the map any more: those who come now start another one.
    detached: bool,
    result: Option<T>,
    waiters: Vec<(u64, Waker)>,
    next_waiter: u64,
}

impl<T> Flight<T> {
    fn led() -> Self {
        Self {
            led: true,
            detached: false,
            result: None,
            waiters: Vec::new(),
            next_waiter: 0,
        }
    }

    fn wake_all(&mut self) -> Vec<Waker> {
        self.waiters.drain(..).map(|(_, waker)| waker).collect()
    }
}

/// What somebody who asked for a key has to do.
pub(crate) enum Turn<K: Eq + Hash + Clone, T> {
    /// To work, and to say what came out.
    Lead(Lead<K, T>),
    /// Nothing: somebody else has.
    Shared(T),
}

impl<K: Eq + Hash + Clone, T: Clone> Flights<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            flights: Arc::new(Mutex::new(HashMap::new())),
        }
    }

    /// Waits for the work on `key`, or has the caller do it.
    pub(crate) fn join(&self, key: K) -> Join<K, T> {
        Join {
            flights: Arc::clone(&self.flights),
            key,
            waiting: None,
        }
    }

    /// Has the caller do the work on `key` if nobody does.
    pub(crate) fn try_lead(&self, key: K) -> Option<Lead<K, T>> {
        let mut map = lock(&self.flights);
        match map.entry(key.clone()) {
            Entry::Occupied(entry) => {
                let mut flight = lock(entry.get());
                if flight.led {
                    return None;
                }
                flight.led = true;
                drop(flight);
                let flight = Arc::clone(entry.get());
                drop(map);
                Some(Lead::new(&self.flights, key, flight))
            }
            Entry::Vacant(entry) => {
                let flight = Arc::new(Mutex::new(Flight::led()));
                entry.insert(Arc::clone(&flight));
                drop(map);
                Some(Lead::new(&self.flights, key, flight))
            }
        }
    }

    /// The work under way on `key` was overtaken: those who wait for it still get its result, those who
    /// come from now on do not.
    pub(crate) fn detach(&self, key: &K) {
        let mut map = lock(&self.flights);
        if let Some(flight) = map.remove(key) {
            let mut flight = lock(&flight);
            flight.detached = true;
            // Without a worker they have to start anew.
            let woken = if flight.led {
                Vec::new()
            } else {
                flight.wake_all()
            };
            drop(flight);
            drop(map);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}

/// The future of [`Flights::join`]. Dropping it gives up the place.
pub(crate) struct Join<K: Eq + Hash, T> {
    flights: Arc<Mutex<Map<K, T>>>,
    key: K,
    waiting: Option<(u64, Arc<Mutex<Flight<T>>>)>,
}

impl<K: Eq + Hash, T> Unpin for Join<K, T> {}

impl<K: Eq + Hash + Clone, T: Clone> Future for Join<K, T> {
    type Output = Turn<K, T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let flights = Arc::clone(&this.flights);
        let mut map = lock(&flights);
        if let Some((id, flight)) = this.waiting.take() {
            let mut state = lock(&flight);
            state.waiters.retain(|(waiter, _)| *waiter != id);
            if let Some(result) = &state.result {
                return Poll::Ready(Turn::Shared(result.clone()));
            }
            if state.led {
                state.waiters.push((id, cx.waker().clone()));
                drop(state);
                this.waiting = Some((id, flight));
                return Poll::Pending;
            }
            if !state.detached {
                state.led = true;
                drop(state);
                drop(map);
                let lead = Lead::new(&this.flights, this.key.clone(), flight);
                return Poll::Ready(Turn::Lead(lead));
            }
        }
        match map.entry(this.key.clone()) {
            Entry::Occupied(entry) => {
                let flight = Arc::clone(entry.get());
                let mut state = lock(&flight);
                if state.led {
                    let id = state.next_waiter;
                    state.next_waiter += 1;
                    state.waiters.push((id, cx.waker().clone()));
                    drop(state);
                    this.waiting = Some((id, flight));
                    return Poll::Pending;
                }
                state.led = true;
                drop(state);
                drop(map);
                let lead = Lead::new(&this.flights, this.key.clone(), flight);
                Poll::Ready(Turn::Lead(lead))
            }
            Entry::Vacant(entry) => {
                let flight = Arc::new(Mutex::new(Flight::led()));
                entry.insert(Arc::clone(&flight));
                drop(map);
                let lead = Lead::new(&this.flights, this.key.clone(), flight);
                Poll::Ready(Turn::Lead(lead))
            }
        }
    }
}

impl<K: Eq + Hash, T> Drop for Join<K, T> {
    fn drop(&mut self) {
        let Some((id, flight)) = self.waiting.take() else {
            return;
        };
        let mut map = lock(&self.flights);
        let woken = {
            let mut state = lock(&flight);
            state.waiters.retain(|(waiter, _)| *waiter != id);
            // It may have been this one that was woken to go on.
            abandoned(&mut map, &self.key, &flight, &mut state)
        };
        drop(map);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// The duty to work on a key. Dropping it hands the duty to somebody who waits.
pub(crate) struct Lead<K: Eq + Hash, T> {
    flights: Arc<Mutex<Map<K, T>>>,
    key: K,
    flight: Arc<Mutex<Flight<T>>>,
    finished: bool,
}

impl<K: Eq + Hash, T> Lead<K, T> {
    fn new(flights: &Arc<Mutex<Map<K, T>>>, key: K, flight: Arc<Mutex<Flight<T>>>) -> Self {
        Self {
            flights: Arc::clone(flights),
            key,
            flight,
            finished: false,
        }
    }

    /// Gives the result to all who wait.
    pub(crate) fn finish(mut self, result: T) {
        self.finished = true;
        let mut map = lock(&self.flights);
        forget(&mut map, &self.key, &self.flight);
        let woken = {
            let mut state = lock(&self.flight);
            state.led = false;
            state.result = Some(result);
            state.wake_all()
        };
        drop(map);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl<K: Eq + Hash, T> Drop for Lead<K, T> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut map = lock(&self.flights);
        let woken = {
            let mut state = lock(&self.flight);
            state.led = false;
            abandoned(&mut map, &self.key, &self.flight, &mut state)
        };
        drop(map);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Finds somebody to go on with a flight that may have lost its worker.
fn abandoned<K: Eq + Hash, T>(
    map: &mut Map<K, T>,
    key: &K,
    flight: &Arc<Mutex<Flight<T>>>,
    state: &mut Flight<T>,
) -> Vec<Waker> {
    if state.led || state.result.is_some() {
        return Vec::new();
    }
    if state.detached {
        return state.wake_all();
    }
    match state.waiters.first() {
        // It stays in the list until it was polled, so that it is passed over to another if it goes.
        Some((_, waker)) => vec![waker.clone()],
        None => {
            forget(map, key, flight);
            Vec::new()
        }
    }
}

fn forget<K: Eq + Hash, T>(map: &mut Map<K, T>, key: &K, flight: &Arc<Mutex<Flight<T>>>) {
    if map.get(key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
        map.remove(key);
    }
}

/// No code panics while it holds a lock, so a poisoned one still guards a sound state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
