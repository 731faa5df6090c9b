//! `ck demo`: what the cache does to time and memory, on a generated table.

mod generate;
mod machine;
mod step;

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ck_cache::blocking::Cache;
use ck_cache::{Compression, PutOptions, Table};
use serde_json::Value;

use self::machine::Peak;
pub(crate) use self::step::run as run_step;
use crate::args::DemoArgs;
use crate::commands::ls::print_table;
use crate::failure::{Failure, Status};
use crate::store::{Store, cache_home, file_url};
use crate::{human, progress};

/// The generator's pool of text.
const TEXT_POOL_BYTES: u64 = 300 << 20;
/// What is left of a machine's memory and disk to everything else.
const SPARE_BYTES: u64 = 256 << 20;

/// A line of the table at the end.
struct Line {
    step: &'static str,
    time: Duration,
    /// Bytes of table data that went through, where a rate says something.
    bytes: Option<u64>,
    /// The largest resident memory above where the step began.
    peak: Option<u64>,
    /// Of that, pages of mapped files.
    mapped: Option<u64>,
}

/// `ck demo`
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let size = args.size;
    if size < 1 << 20 {
        return Err(Failure::usage("the table of the demo needs at least 1MiB"));
    }
    machine::give_freed_memory_back();
    let base = match &args.dir {
        Some(dir) => dir.clone(),
        None => cache_home()?,
    };
    let dir = private_dir(&base)?;
    check_room(size, dir.path())?;
    let url = format!(
        "{}?limit_bytes={}",
        file_url(dir.path()),
        size.saturating_mul(4).max(1 << 30)
    );
    let cache = Store::new(Some(url.clone()), false).open()?;

    say(&format!(
        "making TPC-H lineitem, {} in memory: the table to cache",
        human::bytes(size)
    ));
    let started = Instant::now();
    let peak = Peak::start();
    let table = generate::lineitem(size)?;
    let bytes = ck_arrow::retained_bytes(table.batches()) as u64;
    let sum = step::sum_of(table.batches())?;
    let rows = table.num_rows();
    let mut lines = vec![line(
        "make the source table",
        started.elapsed(),
        Some(bytes),
        &peak,
    )];
    say(&format!("{rows} rows, {}", human::bytes(bytes)));

    let plain = PutOptions::new().with_compression(Compression::None);
    lines.push(put(
        &cache,
        "plain",
        "put, uncompressed",
        &table,
        &plain,
        bytes,
    )?);
    let packed = PutOptions::new().with_compression(Compression::ZSTD);
    lines.push(put(&cache, "zstd", "put, zstd", &table, &packed, bytes)?);
    drop(table);

    say("reading it back, each step in a fresh process");
    let bar = progress::steps("reading", step::STEPS.len() as u64);
    for step in &step::STEPS {
        let found = run_fresh(&url, step.name, step.key)?;
        let wrong = (step.sums && found.sum.as_deref() != Some(&sum.to_string()))
            || found
                .rows
                .is_some_and(|found| found != rows && step.all_rows);
        if wrong {
            return Err(Failure::new(
                Status::Corrupt,
                format_args!("step {:?} read something else than was stored", step.title),
            ));
        }
        lines.push(Line {
            step: step.title,
            ..found.line
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    print(&lines, &cache, bytes)
}

/// A directory of our own, removed when the value is dropped.
fn private_dir(base: &Path) -> Result<tempfile::TempDir, Failure> {
    let cannot = |error: io::Error| {
        Failure::new(
            Status::Store,
            format_args!(
                "cannot make a directory in {}: {error}; choose another with --dir",
                base.display()
            ),
        )
    };
    std::fs::create_dir_all(base).map_err(cannot)?;
    tempfile::Builder::new()
        .prefix("ck-demo-")
        .tempdir_in(base)
        .map_err(cannot)
}

/// The table lies in memory once, and in the store twice.
fn check_room(size: u64, dir: &Path) -> Result<(), Failure> {
    let memory = size
        .saturating_add(size / 4)
        .saturating_add(TEXT_POOL_BYTES + SPARE_BYTES);
    if let Some(available) = machine::available_memory().filter(|available| *available < memory) {
        return Err(Failure::other(format_args!(
            "the demo holds its table in memory and needs {}, but {} are available; choose a smaller --size",
            human::bytes(memory),
            human::bytes(available),
        )));
    }
    let disk = size.saturating_mul(2).saturating_add(SPARE_BYTES);
    if let Some(available) = machine::available_disk(dir).filter(|available| *available < disk) {
        return Err(Failure::other(format_args!(
            "the demo stores its table twice and needs {} of disk, but {} has {}; \
             choose a smaller --size or another --dir",
            human::bytes(disk),
            dir.display(),
            human::bytes(available),
        )));
    }
    Ok(())
}

fn put(
    cache: &Cache,
    key: &str,
    title: &'static str,
    table: &Table,
    options: &PutOptions,
    bytes: u64,
) -> Result<Line, Failure> {
    let bar = progress::rows(title);
    let peak = Peak::start();
    let started = Instant::now();
    let stored = cache.put_table(key, table, options)?.stored();
    let line = line(title, started.elapsed(), Some(bytes), &peak);
    bar.finish_and_clear();
    let stored = stored.map_err(|error| Failure::new(Status::Store, error))?;
    say(&format!(
        "{title}: {} in {}",
        human::bytes(stored),
        human::seconds(line.time)
    ));
    Ok(line)
}

fn line(step: &'static str, time: Duration, bytes: Option<u64>, peak: &Peak) -> Line {
    let (peak, mapped) = peak.stop();
    Line {
        step,
        time,
        bytes,
        peak,
        mapped,
    }
}

/// What a step in another process says of itself.
struct Found {
    line: Line,
    rows: Option<u64>,
    sum: Option<String>,
}

fn run_fresh(url: &str, step: &str, key: &str) -> Result<Found, Failure> {
    let failed = |what: &dyn std::fmt::Display| {
        Failure::other(format_args!("step {step:?} of the demo failed: {what}"))
    };
    let exe = std::env::current_exe().map_err(|error| failed(&error))?;
    let output = Command::new(exe)
        .args(["--store", url, "demo-step", step, key])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&output.status));
    }
    let found: Value = serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))?;
    let number = |name: &str| found.get(name).and_then(Value::as_u64);
    Ok(Found {
        line: Line {
            step: "",
            time: Duration::from_nanos(number("nanoseconds").unwrap_or(0)),
            bytes: number("bytes"),
            peak: number("peak_bytes"),
            mapped: number("mapped_bytes"),
        },
        rows: number("rows"),
        sum: found.get("sum").and_then(Value::as_str).map(str::to_owned),
    })
}

fn print(lines: &[Line], cache: &Cache, table_bytes: u64) -> Result<(), Failure> {
    let memory = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), human::bytes);
    let rows: Vec<[String; 5]> = lines
        .iter()
        .map(|line| {
            let rate = line
                .bytes
                .map(|bytes| bytes as f64 / line.time.as_secs_f64() / 1e9);
            [
                line.step.to_owned(),
                human::seconds(line.time),
                rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2}")),
                memory(line.peak),
                memory(line.mapped),
            ]
        })
        .collect();
    let mut out = io::stdout().lock();
    print_table(
        &mut out,
        ["step", "time", "GB/s", "peak memory", "of it mapped"],
        &rows,
    )?;
    writeln!(out)?;
    let usage = cache.usage()?;
    writeln!(
        out,
        "table {} in memory; stored twice, {} in all",
        human::bytes(table_bytes),
        human::bytes(usage.bytes)
    )?;
    writeln!(
        out,
        "peak memory: resident above where the step began, so above the source table for puts; \
         mapped pages, of the store and of the program itself, are the kernel's to take back\n\
         GB/s: bytes of table data; all files are in the page cache"
    )?;
    Ok(())
}

/// A line of progress.
fn say(text: &str) {
    eprintln!("{text}");
}
