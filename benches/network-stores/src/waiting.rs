//! What a small get waits, alone and while something else goes on.

mod memcached;
mod redis;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Result;
use crate::series::{Series, time};

pub(crate) use memcached::run as memcached;
pub(crate) use redis::run as redis;

/// Gets for each figure without a transfer; with pauses between them a tenth.
const GETS: usize = 20_000;

type Work<'a> = Box<dyn Fn() -> Result<()> + Sync + 'a>;

/// A client whose small gets are timed, alone and beside each load.
///
/// The bare client does the same beside bare transfers: what is left between both is ours, and the rest is the
/// machine's and the server's, which share their processors with the load.
struct Side<'a> {
    probe: (&'static str, Work<'a>),
    loads: Vec<(&'static str, Work<'a>)>,
}

/// What is measured, and how it is told.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// The length of transfers.
    pub(crate) mib: usize,
    pub(crate) rounds: usize,
    /// Lines of JSON for `cargo xtask bench`, of gets one after the other beside transfers alone.
    pub(crate) json: bool,
}

/// What a get waits while something else goes on.
struct Row {
    get: &'static str,
    beside: Option<&'static str>,
    rounds: Vec<Series>,
}

/// One side after the other, alone and beside each of its loads; then again.
fn run(store: &str, sides: &[Side], plan: Plan) -> Result<()> {
    if plan.json {
        print_json(store, plan, &rows(sides, None, plan.rounds)?);
        return Ok(());
    }
    for pause in [None, Some(Duration::from_micros(500))] {
        print(pause, plan, &rows(sides, pause, plan.rounds)?);
    }
    Ok(())
}

fn rows(sides: &[Side], pause: Option<Duration>, rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for Side { probe, loads } in sides {
        let besides = loads.iter().map(|(name, _)| Some(*name));
        rows.extend([None].into_iter().chain(besides).map(|beside| Row {
            get: probe.0,
            beside,
            rounds: Vec::new(),
        }));
    }
    for _ in 0..rounds {
        let mut rows = rows.iter_mut();
        let mut note = |series| {
            if let Some(row) = rows.next() {
                row.rounds.push(series);
            }
        };
        for Side { probe, loads } in sides {
            let probe = &probe.1;
            let gets = GETS / pause.map_or(1, |_| 10);
            note(probe_until(probe, pause, |count| count == gets)?);
            for (_, work) in loads {
                note(probe_beside(probe, pause, work)?);
            }
        }
    }
    Ok(rows)
}

impl Row {
    /// The time that so many percent of the gets take at most, of each round.
    fn of_rounds(&self, percent: usize) -> Series {
        let mut of_rounds = Series::default();
        let each = self.rounds.iter().map(|one| one.percentile(percent));
        each.for_each(|time| of_rounds.add(time));
        of_rounds
    }

    fn gets(&self) -> usize {
        self.rounds.iter().map(Series::len).sum()
    }
}

fn print(pause: Option<Duration>, plan: Plan, rows: &[Row]) {
    let Plan { mib, rounds, .. } = plan;
    let how = match pause {
        None => "one after the other".to_owned(),
        Some(pause) => format!("with {pause:?} between them"),
    };
    println!(
        "\nGets of 1 KiB {how}, transfers of {mib} MiB; median and quietest of {rounds} rounds\n"
    );
    println!("| work | gets | p50 | p99 | / alone | p99, quietest round | / alone |");
    println!("|---|---|---|---|---|---|---|");
    let mut alone = (Duration::ZERO, Duration::ZERO);
    for row in rows {
        // What else the machine does only adds.
        let (p99, least) = (row.of_rounds(99).median(), row.of_rounds(99).percentile(0));
        let name = match row.beside {
            Some(load) => format!("{}, beside {load}", row.get),
            None => {
                alone = (p99, least);
                format!("{}, alone", row.get)
            }
        };
        println!(
            "| {name} | {} | {:.0?} | {p99:.0?} | {:.1} | {least:.0?} | {:.1} |",
            row.gets(),
            row.of_rounds(50).median(),
            p99.as_secs_f64() / alone.0.as_secs_f64(),
            least.as_secs_f64() / alone.1.as_secs_f64()
        );
    }
}

/// A line for each load: seconds, the medians of all rounds.
fn print_json(store: &str, plan: Plan, rows: &[Row]) {
    let p99 = |row: &Row| row.of_rounds(99).median().as_secs_f64();
    let mut alone = 0.0;
    for row in rows {
        let Some(beside) = row.beside else {
            alone = p99(row);
            continue;
        };
        let line = json!({
            "store": store,
            "mib": plan.mib,
            "rounds": plan.rounds,
            "get": row.get,
            "beside": beside,
            "gets": row.gets(),
            "alone": alone,
            "p99": p99(row),
        });
        println!("{line}");
    }
}

/// Probes while `work` is done once.
fn probe_beside(probe: &Work, pause: Option<Duration>, work: &Work) -> Result<Series> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        let worker = scope.spawn(move || {
            let worked = work().map_err(|error| error.to_string());
            done.store(true, Ordering::Relaxed);
            worked
        });
        let series = probe_until(probe, pause, |_| done.load(Ordering::Relaxed));
        worker.join().map_err(|_| "the transfer panicked")??;
        series
    })
}

fn probe_until(
    probe: &Work,
    pause: Option<Duration>,
    is_over: impl Fn(usize) -> bool,
) -> Result<Series> {
    let mut series = Series::default();
    while !is_over(series.len()) || series.len() == 0 {
        series.add(time(probe)?);
        if let Some(pause) = pause {
            std::thread::sleep(pause);
        }
    }
    Ok(series)
}

/// Half a second of work that touches no memory, on so many processors.
fn spin(threads: usize) -> Result<()> {
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let start = Instant::now();
                let mut number = 1_u64;
                while start.elapsed() < Duration::from_millis(500) {
                    for _ in 0..1_000 {
                        number = black_box(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
                    }
                }
            });
        }
    });
    Ok(())
}

/// Loads of a machine that is busy with something else; none where transfers alone are asked for.
fn busy<'a>(plan: Plan) -> Vec<(&'static str, Work<'a>)> {
    if plan.json {
        return Vec::new();
    }
    vec![
        ("one busy processor", Box::new(|| spin(1))),
        ("two busy processors", Box::new(|| spin(2))),
    ]
}
