use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::{Error, ErrorKind, Result};

/// Bytes in flight that all concurrent operations share.
///
/// Operations reserve what they are about to hold and give it back when they drop it. Waiting is fair:
/// first come, first served, so that a large request is not starved by small ones.
///
/// # Examples
///
/// ```
/// use ck_core::MemoryBudget;
///
/// let budget = MemoryBudget::new(100);
/// let batch = pollster::block_on(budget.reserve(60))?;
/// assert!(budget.try_reserve(60)?.is_none());
/// drop(batch);
/// assert!(budget.try_reserve(60)?.is_some());
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Clone)]
pub struct MemoryBudget(Arc<Shared>);

struct Shared {
    limit: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: u64,
    next_ticket: u64,
    /// Requests in order of arrival. A granted one is gone from here; its future finds that out when
    /// it is woken.
    queue: VecDeque<Waiter>,
}

struct Waiter {
    ticket: u64,
    bytes: u64,
    waker: Waker,
}

impl MemoryBudget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Shared {
            limit: bytes,
            state: Mutex::default(),
        }))
    }

    /// The size of the budget in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.lock().used
    }

    /// Waits until `bytes` are free and reserves them. Dropping the future gives up the place in the
    /// queue.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`] at once when `bytes` exceed the whole budget.
    pub fn reserve(
        &self,
        bytes: u64,
    ) -> impl Future<Output = Result<Reservation>> + Send + 'static {
        Reserve {
            shared: Arc::clone(&self.0),
            bytes,
            ticket: None,
        }
    }

    /// As [`MemoryBudget::reserve`], blocking the thread.
    ///
    /// # Errors
    ///
    /// As [`MemoryBudget::reserve`].
    pub fn reserve_blocking(&self, bytes: u64) -> Result<Reservation> {
        crate::block_on(self.reserve(bytes))
    }

    /// Reserves `bytes` if they are free and nobody waits; `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`MemoryBudget::reserve`].
    pub fn try_reserve(&self, bytes: u64) -> Result<Option<Reservation>> {
        self.0.check(bytes)?;
        let mut state = self.0.lock();
        let free = state.queue.is_empty() && state.used + bytes <= self.0.limit;
        Ok(free.then(|| {
            state.used += bytes;
            Reservation {
                shared: Arc::clone(&self.0),
                bytes,
            }
        }))
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("limit", &self.0.limit)
            .field("used", &self.used())
            .finish()
    }
}

impl Shared {
    /// No code panics while it holds the lock, so a poisoned one still guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, bytes: u64) -> Result<()> {
        if bytes <= self.limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            "one request exceeds the whole memory budget; raise the budget or use smaller batches",
        )
        .with("bytes", bytes)
        .with("budget", self.limit))
    }

    /// Grants waiting requests from the front while they fit.
    fn grant(&self, state: &mut State) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(front) = state.queue.front() {
            if state.used + front.bytes > self.limit {
                break;
            }
            state.used += front.bytes;
            woken.extend(state.queue.pop_front().map(|waiter| waiter.waker));
        }
        woken
    }

    fn release(&self, bytes: u64) {
        let woken = {
            let mut state = self.lock();
            state.used -= bytes;
            self.grant(&mut state)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

struct Reserve {
    shared: Arc<Shared>,
    bytes: u64,
    ticket: Option<u64>,
}

impl Future for Reserve {
    type Output = Result<Reservation>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let bytes = self.bytes;
        let shared = Arc::clone(&self.shared);
        shared.check(bytes)?;
        let mut state = shared.lock();
        match self.ticket {
            None if state.queue.is_empty() && state.used + bytes <= shared.limit => {
                state.used += bytes;
            }
            None => {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.queue.push_back(Waiter {
                    ticket,
                    bytes,
                    waker: cx.waker().clone(),
                });
                self.ticket = Some(ticket);
                return Poll::Pending;
            }
            Some(ticket) => {
                if let Some(waiter) = state.queue.iter_mut().find(|w| w.ticket == ticket) {
                    waiter.waker.clone_from(cx.waker());
                    return Poll::Pending;
                }
                // Granted: the bytes are ours, and the reservation takes them over.
                self.ticket = None;
            }
        }
        drop(state);
        Poll::Ready(Ok(Reservation { shared, bytes }))
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let woken = {
            let mut state = self.shared.lock();
            match state
                .queue
                .iter()
                .position(|waiter| waiter.ticket == ticket)
            {
                Some(place) => drop(state.queue.remove(place)),
                // Granted but never polled again.
                None => state.used -= self.bytes,
            }
            self.shared.grant(&mut state)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Bytes taken from a [`MemoryBudget`], given back on drop.
#[must_use = "dropping the reservation gives the bytes back"]
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reservation {
    /// The reserved bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back all but `bytes`; no effect when fewer are held.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        if surplus > 0 {
            self.bytes -= surplus;
            self.shared.release(surplus);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.release(self.bytes);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_request_larger_than_the_budget_fails_at_once() {
        let budget = MemoryBudget::new(10);
        let error = budget.reserve_blocking(11).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!(
            budget.try_reserve(11).unwrap_err().kind(),
            ErrorKind::TooLarge
        );
    }

    #[test]
    fn a_small_request_does_not_overtake_a_waiting_large_one() {
        let budget = MemoryBudget::new(10);
        let held = budget.reserve_blocking(4).unwrap();
        let mut large = Box::pin(budget.reserve(10));
        let mut small = Box::pin(budget.reserve(1));
        assert!(poll_once(&mut large).is_pending());
        assert!(poll_once(&mut small).is_pending());
        assert!(budget.try_reserve(1).unwrap().is_none());
        drop(held);
        let Poll::Ready(granted) = poll_once(&mut large) else {
            panic!("not granted")
        };
        assert!(poll_once(&mut small).is_pending());
        drop(granted);
        assert!(poll_once(&mut small).is_ready());
    }

    #[test]
    fn a_dropped_waiter_gives_up_its_place_and_what_it_was_granted() {
        let budget = MemoryBudget::new(10);
        let held = budget.reserve_blocking(10).unwrap();
        let mut first = Box::pin(budget.reserve(10));
        let mut second = Box::pin(budget.reserve(3));
        assert!(poll_once(&mut first).is_pending());
        assert!(poll_once(&mut second).is_pending());
        drop(held);
        assert_eq!(budget.used(), 10);
        drop(first);
        assert_eq!(budget.used(), 3);
        assert!(poll_once(&mut second).is_ready());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn shrinking_lets_others_in() {
        let budget = MemoryBudget::new(10);
        let mut held = budget.reserve_blocking(10).unwrap();
        held.shrink_to(4);
        assert_eq!(budget.try_reserve(6).unwrap().unwrap().bytes(), 6);
        held.shrink_to(9);
        assert_eq!(held.bytes(), 4);
    }

    #[test]
    fn threads_never_hold_more_than_the_budget_together() {
        let budget = MemoryBudget::new(1000);
        let held = AtomicU64::new(0);
        thread::scope(|scope| {
            for seed in 0..8_u64 {
                let (budget, held) = (&budget, &held);
                scope.spawn(move || {
                    for i in 0..2000 {
                        let bytes = (seed * 7919 + i * 104_729) % 600 + 1;
                        let reservation = budget.reserve_blocking(bytes).unwrap();
                        let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        assert!(now <= 1000);
                        held.fetch_sub(bytes, Ordering::SeqCst);
                        drop(reservation);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
