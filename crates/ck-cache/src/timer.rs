use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// How long the thread waits for something to do before it ends.
const IDLE: Duration = Duration::from_secs(5);

/// Completes at a point in time, on any executor: one thread of the process wakes all who wait.
///
/// The thread is woken only for a point in time before all others, and never when a wait is given up, so a
/// deadline that is met costs two short critical sections.
#[derive(Debug)]
pub(crate) struct Sleep {
    due: Instant,
    id: Option<u64>,
}

impl Sleep {
    pub(crate) fn until(due: Instant) -> Self {
        Self { due, id: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.due {
            return Poll::Ready(());
        }
        let mut alarms = ALARMS.lock();
        let id = *self.id.get_or_insert_with(|| {
            alarms.last_id += 1;
            alarms.last_id
        });
        alarms.sleepers.insert((self.due, id), cx.waker().clone());
        if alarms.run().is_err() {
            // Nobody will wake us: come back at once.
            cx.waker().wake_by_ref();
        } else if alarms.rings.is_none_or(|rings| self.due < rings) {
            alarms.rings = Some(self.due);
            ALARMS.changed.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = ALARMS.lock().sleepers.remove(&(self.due, id));
            // Dropping a waker may run anything.
            drop(waker);
        }
    }
}

static ALARMS: Clock = Clock {
    alarms: Mutex::new(Alarms {
        sleepers: BTreeMap::new(),
        last_id: 0,
        rings: None,
        running: false,
    }),
    changed: Condvar::new(),
};

struct Clock {
    alarms: Mutex<Alarms>,
    changed: Condvar,
}

struct Alarms {
    sleepers: BTreeMap<(Instant, u64), Waker>,
    last_id: u64,
    /// When the thread wakes up by itself.
    rings: Option<Instant>,
    running: bool,
}

impl Clock {
    fn lock(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarms {
    /// Starts the thread unless it runs.
    fn run(&mut self) -> io::Result<()> {
        if !self.running {
            thread::Builder::new()
                .name("ck-deadlines".to_owned())
                .spawn(ring)?;
            self.running = true;
        }
        Ok(())
    }
}

/// The thread.
fn ring() {
    let mut alarms = ALARMS.lock();
    loop {
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some(first) = alarms.sleepers.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        if !due.is_empty() {
            drop(alarms);
            for waker in due {
                waker.wake();
            }
            alarms = ALARMS.lock();
            continue;
        }
        let rings = match alarms.sleepers.first_key_value() {
            Some(((due, _), _)) => *due,
            None => now + IDLE,
        };
        alarms.rings = Some(rings);
        let waited = ALARMS
            .changed
            .wait_timeout(alarms, rings.saturating_duration_since(now));
        let timeout;
        (alarms, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        alarms.rings = None;
        if timeout.timed_out() && alarms.sleepers.is_empty() {
            alarms.running = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_wake_up_in_order_and_not_too_early() {
        let start = Instant::now();
        let (sender, woken) = std::sync::mpsc::channel();
        // The later one is there first, so the thread has to be woken for the earlier one.
        for millis in [60, 20] {
            let sender = sender.clone();
            let due = start + Duration::from_millis(millis);
            thread::spawn(move || {
                ck_core::block_on(Sleep::until(due));
                assert!(Instant::now() >= due);
                sender.send(millis).unwrap();
            });
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(woken.recv(), Ok(20));
        assert_eq!(woken.recv(), Ok(60));
    }

    #[test]
    fn a_wait_that_is_given_up_is_forgotten() {
        let mut sleep = Sleep::until(Instant::now() + Duration::from_secs(1000));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut sleep).poll(&mut cx).is_pending());
        let key = (sleep.due, sleep.id.unwrap());
        assert!(ALARMS.lock().sleepers.contains_key(&key));
        drop(sleep);
        assert!(!ALARMS.lock().sleepers.contains_key(&key));
    }
}
