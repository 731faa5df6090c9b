//! How time grows with the work: `cargo run --release -p own --bin scaling -- [--quick] [--json] [--only NAME] [--dir DIR]`.
//!
//! Four suites: `concurrency`, `entries`, `columns` and `values`. Each prints points of curves: the work, and the
//! median of the times that it took. A curve that grows faster than its work is a failure: the rule is the
//! package `growth`. Nothing else should run meanwhile.
//!
//! The directory with up to a million entries is in memory (5 GB), unless DIR is given: how long a disk takes to
//! remove files that it has written depends on the disk and on what others do with it.

mod columns;
mod concurrency;
mod entries;
mod suite;
mod values;

use std::process::ExitCode;

use own::Result;

use crate::suite::Suite;

type Run = fn(&mut Suite) -> Result<()>;

const SUITES: [(&str, Run); 4] = [
    ("concurrency", concurrency::run),
    ("entries", entries::run),
    ("columns", columns::run),
    ("values", values::run),
];

fn main() -> ExitCode {
    let problems = match run() {
        Ok(problems) => problems,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs the suites and says which curves grow faster than their work.
fn run() -> Result<Vec<String>> {
    let (mut quick, mut json, mut only, mut dir) = (false, false, None, "/dev/shm".to_owned());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--json" => json = true,
            "--only" => only = Some(arguments.next().ok_or("--only needs a name")?),
            "--dir" => dir = arguments.next().ok_or("--dir needs a directory")?,
            _ => return Err(format!("unknown argument {argument:?}").into()),
        }
    }
    let chosen = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if !SUITES.iter().any(|(name, _)| chosen(name)) {
        return Err("there are concurrency, entries, columns and values".into());
    }
    let mut suite = Suite::new(quick, json, dir.into());
    for (_, run) in SUITES.iter().filter(|(name, _)| chosen(name)) {
        run(&mut suite)?;
    }
    Ok(suite.problems())
}
