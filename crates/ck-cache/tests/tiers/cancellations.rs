use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use ck_cache::{Cache, Error, LoadOptions, Table};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};

use super::support::{both_tiers, over, table};

/// Far longer than anything here takes: whoever waits so long was forgotten.
const FOR_EVER: Duration = Duration::from_secs(60);

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    /// A number below `end`; SplitMix64.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// The loads of one key.
#[derive(Default)]
struct Source {
    running: AtomicUsize,
    /// Loaders that were dropped at work.
    interrupted: AtomicUsize,
    /// What the loaders made that came to their end.
    made: Mutex<Vec<i64>>,
}

/// A loader at work.
struct Running<'a> {
    source: &'a Source,
    is_done: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.source.running.fetch_sub(1, SeqCst);
        if !self.is_done {
            self.source.interrupted.fetch_add(1, SeqCst);
        }
    }
}

impl Source {
    async fn load(&self, number: i64, pause: Pause) -> Result<Option<Table>, Error> {
        assert_eq!(self.running.fetch_add(1, SeqCst), 0, "two loads at once");
        let mut running = Running {
            source: self,
            is_done: false,
        };
        pause.take().await;
        self.made.lock().unwrap().push(number);
        running.is_done = true;
        Ok(Some(table(number, 3)))
    }
}

#[derive(Clone, Copy)]
enum Pause {
    Polls(u64),
    Time(Duration),
}

impl Pause {
    fn any(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::Time(Duration::from_millis(random.below(3))),
            _ => Self::Polls(random.below(6)),
        }
    }

    async fn take(self) {
        match self {
            Self::Polls(polls) => {
                for _ in 0..polls {
                    yield_now().await;
                }
            }
            Self::Time(time) => sleep(time).await,
        }
    }
}

/// How a call ends.
enum Patience {
    Endless,
    Time(Duration),
    /// It is polled that often, whether it was woken or not, and then dropped.
    Polls(u64),
    /// Its task is aborted after this pause.
    UntilAbort(Pause),
}

impl Patience {
    fn any(random: &mut Random) -> Self {
        match random.below(6) {
            0 | 1 => Self::Endless,
            2 => Self::Time(Duration::from_millis(random.below(4))),
            3 => Self::UntilAbort(Pause::any(random)),
            _ => Self::Polls(random.below(40)),
        }
    }
}

/// `future` as long as patience lasts.
async fn impatient<T>(future: impl Future<Output = T>, patience: &Patience) -> Option<T> {
    match *patience {
        Patience::Endless | Patience::UntilAbort(_) => {
            Some(timeout(FOR_EVER, future).await.expect("is not forgotten"))
        }
        Patience::Time(time) => timeout(time, future).await.ok(),
        Patience::Polls(mut left) => {
            let mut future = pin!(future);
            poll_fn(|cx| {
                if left == 0 {
                    return Poll::Ready(None);
                }
                left -= 1;
                let polled = future.as_mut().poll(cx).map(Some);
                cx.waker().wake_by_ref();
                polled
            })
            .await
        }
    }
}

/// A call under way. Its task gives a table unless it is cancelled.
struct Call {
    task: JoinHandle<Option<Table>>,
    /// Its own loader came to its end.
    has_loaded: Arc<AtomicBool>,
}

fn call(
    cache: &Cache,
    key: &str,
    source: &Arc<Source>,
    number: i64,
    pause: Pause,
    patience: Patience,
) -> Call {
    let has_loaded = Arc::new(AtomicBool::new(false));
    let loader = {
        let (source, has_loaded) = (Arc::clone(source), Arc::clone(&has_loaded));
        move || async move {
            let made = source.load(number, pause).await;
            has_loaded.store(true, SeqCst);
            made
        }
    };
    let (cache, key) = (cache.clone(), key.to_owned());
    let until_abort = match patience {
        Patience::UntilAbort(pause) => Some(pause),
        _ => None,
    };
    let task = tokio::spawn(async move {
        let options = LoadOptions::new().with_load_bytes(1000);
        let load = cache.get_or_load_table(key, &options, loader);
        let loaded = impatient(load, &patience).await?;
        Some(loaded.unwrap().unwrap())
    });
    if let Some(pause) = until_abort {
        let abort = task.abort_handle();
        tokio::spawn(async move {
            pause.take().await;
            abort.abort();
        });
    }
    Call { task, has_loaded }
}

/// Several calls for a cold key, some of which are cancelled. How many loaders were interrupted.
async fn round(caches: &[Cache], key: &str, random: &mut Random) -> usize {
    let source = Arc::new(Source::default());
    let mut calls = Vec::new();
    for number in 0..8 {
        let cache = &caches[usize::try_from(random.below(caches.len() as u64)).unwrap()];
        let patience = match number {
            7 => Patience::Endless,
            _ => Patience::any(random),
        };
        let pause = Pause::any(random);
        calls.push(call(cache, key, &source, number, pause, patience));
        if random.below(3) == 0 {
            Pause::any(random).take().await;
        }
    }
    // Loads that came to an end in calls that did, and in calls that were cancelled just then.
    let (mut kept, mut lost) = (0, 0);
    let mut given = Vec::new();
    for call in calls {
        let found = match call.task.await {
            Ok(found) => found,
            Err(error) if error.is_cancelled() => None,
            Err(error) => panic!("{key}: {error}"),
        };
        let has_loaded = usize::from(call.has_loaded.load(SeqCst));
        *(if found.is_some() {
            &mut kept
        } else {
            &mut lost
        }) += has_loaded;
        given.extend(found);
    }
    let made = source.made.lock().unwrap().clone();
    assert_eq!(made.len(), kept + lost);
    assert!(kept <= 1, "{key}: {kept} loads");
    if lost == 0 {
        assert_eq!(kept, 1, "{key}");
        assert!(given.iter().all(|found| *found == table(made[0], 3)));
    }
    let is_made = |found: &Table| made.iter().any(|&number| *found == table(number, 3));
    assert!(given.iter().all(is_made), "{key}");
    // Nothing is removed: one of the values stays, the same in all tiers.
    let first = caches[0].get_table(key).await.unwrap().unwrap();
    assert!(is_made(&first), "{key}");
    for cache in caches {
        assert_eq!(cache.get_table(key).await.unwrap().as_ref(), Some(&first));
        assert_eq!(cache.memory_budget().used(), 0);
    }
    source.interrupted.load(SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_callers_that_go_away_there_is_one_load_at_a_time_and_nobody_else_is_left_without() {
    let (dir, cache) = both_tiers();
    let settings = [
        vec![Cache::in_process(64 << 20)],
        vec![cache.clone(), over(&dir, 0)],
        vec![cache],
    ];
    let mut random = Random(0);
    let mut interrupted = 0;
    for number in 0..600 {
        let caches = &settings[number % settings.len()];
        interrupted += round(caches, &format!("k{number}"), &mut random).await;
    }
    assert!(interrupted > 0);
}
