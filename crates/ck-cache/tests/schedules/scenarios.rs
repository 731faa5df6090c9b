use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

use super::witness::Tally;
use super::world::{Manner, World, one_in};

/// How many orders of events each scenario sees: half of them at random, and half with few switches at
/// points that matter.
const SCHEDULES: usize = 20_000;

/// What one of those who take part does.
type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the parts, as tasks and as threads, to their ends.
fn run(world: &World, parts: Vec<Part>) {
    let (mut tasks, mut threads) = (Vec::new(), Vec::new());
    for part in parts {
        if one_in(2) {
            threads.push(thread::spawn(move || block_on(part)));
        } else {
            tasks.push(spawn(part));
        }
    }
    for task in tasks {
        block_on(task).unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    world.assert_empty();
}

/// Tries many schedules of `scenario`, and sums up what happened in them.
fn check(scenario: fn() -> Tally) -> Tally {
    let total = Arc::new(Mutex::new(Tally::default()));
    let run = {
        let total = Arc::clone(&total);
        move || {
            let tally = scenario();
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.loads += tally.loads;
            total.given_up += tally.given_up;
            total.shared += tally.shared;
            total.handed_over += tally.handed_over;
            total.cancelled += tally.cancelled;
        }
    };
    let random = RandomScheduler::new_from_seed(0, SCHEDULES / 2);
    Runner::new(random, Config::default()).run(run.clone());
    let few_switches = PctScheduler::new_from_seed(0, 3, SCHEDULES / 2);
    Runner::new(few_switches, Config::default()).run(run);
    *total.lock().unwrap()
}

#[test]
fn all_who_wait_share_the_first_load_that_does_not_give_up() {
    const CROWD: usize = 5;
    let total = check(|| {
        let world = Arc::new(World::new());
        let given_up = thread_rng().gen_range(0..3);
        let arrived = Arc::new(AtomicUsize::new(0));
        let parts = (0..CROWD).map(|_| -> Part {
            let (world, arrived) = (Arc::clone(&world), Arc::clone(&arrived));
            Box::pin(async move {
                let world = &world;
                let asking = async {
                    let Some((lead, number, _)) = world.join(0, None).await else {
                        return;
                    };
                    // Nobody is late.
                    while arrived.load(Relaxed) < CROWD {
                        yield_now().await;
                    }
                    if world.witness.tally().given_up < given_up {
                        world.give_up(lead, number);
                    } else {
                        world.publish(lead, number);
                    }
                };
                arriving(asking, &arrived).await;
            })
        });
        run(&world, parts.collect());
        let tally = world.witness.tally();
        assert_eq!((tally.loads, tally.given_up), (1, given_up));
        assert_eq!(tally.shared, CROWD - 1 - given_up);
        tally
    });
    assert!(total.handed_over > 0, "{total:?}");
}

/// Counts `future` in `arrived` once it was polled.
async fn arriving(future: impl Future<Output = ()>, arrived: &AtomicUsize) {
    let mut future = std::pin::pin!(future);
    let mut is_new = true;
    std::future::poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if std::mem::take(&mut is_new) {
            arrived.fetch_add(1, Relaxed);
        }
        polled
    })
    .await;
}

#[test]
fn nobody_is_forgotten_when_workers_give_up() {
    let total = check(|| {
        let world = Arc::new(World::new());
        let parts = (0..6).map(|i| -> Part {
            let world = Arc::clone(&world);
            Box::pin(async move {
                world.ask(i % 2, Manner::PATIENT).await;
                world.ask(0, Manner::PATIENT).await;
            })
        });
        run(&world, parts.collect());
        world.witness.tally()
    });
    assert!(total.shared > 0 && total.handed_over > 0, "{total:?}");
}

#[test]
fn nobody_is_forgotten_when_others_are_cancelled() {
    let total = check(|| {
        let world = Arc::new(World::new());
        let parts = (0..7).map(|i| -> Part {
            let world = Arc::clone(&world);
            Box::pin(async move {
                let manner = if i < 3 {
                    Manner::PATIENT
                } else {
                    Manner::impatient()
                };
                world.ask(i % 2, manner).await;
            })
        });
        run(&world, parts.collect());
        world.witness.tally()
    });
    assert!(total.shared > 0 && total.handed_over > 0, "{total:?}");
    assert!(total.cancelled > 0, "{total:?}");
}

#[test]
fn whoever_comes_after_a_change_is_not_given_what_was_loaded_before() {
    let total = check(|| {
        let world = Arc::new(World::new());
        let parts = (0..7).map(|i| -> Part {
            let world = Arc::clone(&world);
            Box::pin(async move {
                let key = thread_rng().gen_range(0..2);
                match i {
                    0 | 1 => {
                        world.detach(key);
                        world.ask(key, Manner::PATIENT).await;
                    }
                    2 => world.try_lead(key, Manner::PATIENT).await,
                    3 => world.try_lead(key, Manner::impatient()).await,
                    4 | 5 => world.ask(key, Manner::impatient()).await,
                    _ => world.ask(key, Manner::PATIENT).await,
                }
            })
        });
        run(&world, parts.collect());
        world.witness.tally()
    });
    assert!(total.shared > 0 && total.handed_over > 0, "{total:?}");
    assert!(total.cancelled > 0, "{total:?}");
}
