use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, Key, block_on};
use testkit::Memcached;

use crate::Result;
use crate::memcached::{bare, chunks, get, pattern, put, read, write};
use crate::series::{Series, time};

/// Gets for each figure without a transfer.
const GETS: usize = 20_000;

/// A kind of transfer that goes on beside the gets.
type Load<'a> = (&'static str, Box<dyn Fn() -> Result<()> + Sync + 'a>);

/// What a small get waits, alone and while something else goes on. The bare client does the same beside a
/// bare transfer: what is left between both is ours, and the rest the machine's and the server's, which share
/// their processors with the load.
pub(crate) fn run(mib: usize, rounds: usize) -> Result<()> {
    let server = Memcached::start_with(&["-m", &(mib * 5 + 256).to_string()]);
    let store = MemcachedBackend::open([server.addr().to_string()])?;
    let (small, large) = (Key::new("small"), Key::new("large"));
    let bytes = pattern(mib << 20);
    put(&store, &small, &bytes.slice(..1 << 10))?;
    put(&store, &large, &bytes)?;
    let (prober, mover) = (bare(&server)?, bare(&server)?);
    let cut = chunks(&mover, large.as_str(), &bytes)?;
    write(&mover, &cut)?;

    let ours = || {
        assert!(block_on(store.open(&small))?.is_some());
        Ok(())
    };
    let theirs = || {
        let value: Option<Vec<u8>> = prober.get(small.as_str())?;
        assert!(value.is_some());
        Ok(())
    };
    let loads: [Load; 5] = [
        ("our put", Box::new(|| put(&store, &large, &bytes))),
        ("our get", Box::new(|| get(&store, &large).map(drop))),
        ("bare put", Box::new(|| write(&mover, &cut))),
        ("bare get", Box::new(|| read(&mover, &cut).map(drop))),
        ("one busy processor", Box::new(|| Ok(spin()))),
    ];

    // Ours beside our transfers, the bare client beside bare ones; one after the other, then again.
    let kinds: [(&str, &dyn Fn() -> Result<()>, &[usize]); 2] = [
        ("our get", &ours, &[0, 1, 4]),
        ("bare get", &theirs, &[2, 3, 4]),
    ];
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
            for (kind, probe, beside) in kinds {
                let alone = probe_until(probe, pause, |count| {
                    count == GETS / pause.map_or(1, |_| 10)
                })?;
                note(format!("{kind}, alone"), alone);
                for &load in beside {
                    let (name, work) = &loads[load];
                    note(
                        format!("{kind}, beside {name}"),
                        probe_beside(probe, pause, work)?,
                    );
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
fn probe_beside(
    probe: &dyn Fn() -> Result<()>,
    pause: Option<Duration>,
    work: &(dyn Fn() -> Result<()> + Sync),
) -> Result<Series> {
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
    probe: &dyn Fn() -> Result<()>,
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

/// Half a second of work that touches no memory.
fn spin() {
    let start = std::time::Instant::now();
    let mut number = 1_u64;
    while start.elapsed() < Duration::from_millis(500) {
        for _ in 0..1_000 {
            number = black_box(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        }
    }
}
