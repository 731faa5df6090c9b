//! What a small get waits, alone and while something else goes on.

mod memcached;
mod redis;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// One side after the other, alone and beside each of its loads; then again.
fn run(sides: &[Side], mib: usize, rounds: usize) -> Result<()> {
    for pause in [None, Some(Duration::from_micros(500))] {
        let mut rows: Vec<(String, Vec<Series>)> = Vec::new();
        for _ in 0..rounds {
            let mut row = 0;
            let mut note = |name: String, series: Series| {
                if rows.len() == row {
                    rows.push((name, Vec::new()));
                }
                rows[row].1.push(series);
                row += 1;
            };
            for Side { probe, loads } in sides {
                let (kind, probe) = probe;
                let gets = GETS / pause.map_or(1, |_| 10);
                let alone = probe_until(probe, pause, |count| count == gets)?;
                note(format!("{kind}, alone"), alone);
                for (name, work) in loads {
                    let beside = probe_beside(probe, pause, work)?;
                    note(format!("{kind}, beside {name}"), beside);
                }
            }
        }
        print(pause, mib, rounds, &rows);
    }
    Ok(())
}

fn print(pause: Option<Duration>, mib: usize, rounds: usize, rows: &[(String, Vec<Series>)]) {
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
    for (name, series) in rows {
        let of_rounds = |percent| {
            let mut of_rounds = Series::default();
            series
                .iter()
                .for_each(|one| of_rounds.add(one.percentile(percent)));
            of_rounds
        };
        // What else the machine does only adds.
        let (p99, least) = (of_rounds(99).median(), of_rounds(99).percentile(0));
        if name.ends_with("alone") {
            alone = (p99, least);
        }
        println!(
            "| {name} | {} | {:.0?} | {p99:.0?} | {:.1} | {least:.0?} | {:.1} |",
            series.iter().map(Series::len).sum::<usize>(),
            of_rounds(50).median(),
            p99.as_secs_f64() / alone.0.as_secs_f64(),
            least.as_secs_f64() / alone.1.as_secs_f64()
        );
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

/// Loads of a machine that is busy with something else.
fn busy<'a>() -> [(&'static str, Work<'a>); 2] {
    [
        ("one busy processor", Box::new(|| spin(1))),
        ("two busy processors", Box::new(|| spin(2))),
    ]
}
