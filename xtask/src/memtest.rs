//! How much memory each stage needs beyond its source, held against `xtask/ceilings.toml`.
//!
//! The stages are the cases of the package `memcases`, each run in a process of its own.

mod ceilings;
mod page;
mod pictures;
mod programs;
mod record;
mod verdict;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::ceilings::Ceilings;
use self::programs::{Case, Part, Programs};
use self::record::{Record, Run};
use crate::report::{self, Table};
use crate::workspace::{read, root, target_dir};
use crate::{Result, debian, unknown_argument};

pub(crate) const USAGE: &str =
    "memtest [--quick | --full] [--huge] [--peers] [--dev] [--case PATTERN] [--json] [--report] [--saved]
    Measures the memory of each stage in a process of its own, and fails when a peak passes its
    ceiling in xtask/ceilings.toml or grows with the size. Without options: a diagonal through
    the matrix of stores, operations, codecs and sources, and all other stages, at 64 MiB, 256 MiB
    and 1 GiB. --quick: without 1 GiB; --full: the whole matrix, how long opening takes, and the same work
    by other systems (alone: --peers); --huge: also 4 GiB. --case: only what PATTERN fits, or names it is part of,
    out of the whole matrix. --dev: the programs as tests are built; nothing is saved. --json prints the figures, with memory over time, as lines of JSON.
    --report writes docs/memory.md and its pictures; --saved takes the figures of the last run, which
    are in target/memtest.jsonl (a run with --case adds to them), instead of measuring. What a run had measured that
    did not come to its end is in target/memtest.part.jsonl.
";

const MIB: u64 = 1 << 20;

#[derive(Debug, PartialEq)]
struct Options {
    sizes: Vec<u64>,
    part: Part,
    peers: bool,
    dev: bool,
    pattern: Option<String>,
    json: bool,
    report: bool,
    saved: bool,
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let mut ceilings = Ceilings::parse(&read(&root().join("xtask/ceilings.toml"))?)?;
    if !options.judges_times() {
        ceilings = ceilings.without_times();
    }
    debian::servers()?;
    let programs = Programs::build(options.dev, options.peers && !options.saved)?;
    let cases = programs.cases()?;
    let start = Instant::now();
    let path = target_dir().join("memtest.jsonl");
    let mut problems = Vec::new();
    // What is judged, and what is reported on.
    let (measured, record) = if options.saved {
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        (names, Record::load(&path)?)
    } else {
        let earlier = match options.pattern {
            Some(_) => Record::load(&path)?,
            None => Record::default(),
        };
        let chosen: Vec<&Case> = cases.iter().filter(|case| options.choose(case)).collect();
        if chosen.is_empty() {
            return Err(format!("memtest: no case matches {:?}", options.pattern));
        }
        let under_way = path.with_extension("part.jsonl");
        let saved = (!options.dev).then_some(under_way.as_path());
        let measured = (earlier, saved);
        let record = measure(
            &programs,
            &cases,
            &chosen,
            &options,
            measured,
            &mut problems,
        )?;
        if saved.is_some() {
            record.save(&path)?;
            remove_file(&under_way)?;
        }
        (
            chosen.iter().map(|case| case.name.as_str()).collect(),
            record,
        )
    };

    let with_ceilings = cases.iter().filter(|case| case.part != Part::Peers);
    problems.extend(ceilings.unmatched(with_ceilings.map(|case| case.name.as_str())));
    let judged = record.cases().filter(|(name, _)| measured.contains(name));
    for (name, runs) in judged.clone() {
        if let Some(ceiling) = ceilings.of(name) {
            problems.extend(verdict::judge(name, ceiling, runs));
        }
    }
    if !options.json {
        let table = table(judged, &ceilings);
        println!("\n{}", table.text());
        report::summary("Peak memory above the source", &table);
        println!("measured in {:.0} s", start.elapsed().as_secs_f64());
    }
    if options.report {
        page::write(&record, &ceilings)?;
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(crate::list("", &problems))
    }
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            sizes: vec![64 * MIB, 256 * MIB],
            part: Part::Default,
            peers: false,
            dev: false,
            pattern: None,
            json: false,
            report: false,
            saved: false,
        };
        let mut huge = false;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.part = Part::Quick,
                "--full" => (options.part, options.peers) = (Part::Full, true),
                "--huge" => huge = true,
                "--peers" => options.peers = true,
                "--dev" => options.dev = true,
                "--json" => options.json = true,
                "--report" => options.report = true,
                "--saved" => options.saved = true,
                "--case" => {
                    options.pattern = Some(args.next().ok_or("--case needs a pattern")?.clone())
                }
                _ => return Err(unknown_argument(arg)),
            }
        }
        if options.dev && (options.report || options.saved) {
            return Err("--dev: reports are about release builds".to_owned());
        }
        if options.part != Part::Quick {
            options.sizes.push(1024 * MIB);
        }
        if huge {
            options.sizes.push(4096 * MIB);
        }
        Ok(options)
    }

    /// Only the run that takes an hour has a machine for itself; and what is built for tests is slower.
    fn judges_times(&self) -> bool {
        self.part == Part::Full && !self.dev
    }

    fn choose(&self, case: &Case) -> bool {
        if case.part == Part::Peers && !self.peers {
            return false;
        }
        match &self.pattern {
            Some(pattern) => ceilings::fits(&format!("*{pattern}*"), &case.name),
            None => case.part == Part::Peers || case.part <= self.part,
        }
    }
}

/// Runs the chosen cases at every size, those that share a directory and a server one after the other, and adds each
/// run to the record, and to a file for the case that this one ends before. A case that fails is a problem, and does not
/// keep the others from being measured.
fn measure(
    programs: &Programs,
    all: &[Case],
    chosen: &[&Case],
    options: &Options,
    (mut record, saved): (Record, Option<&Path>),
    problems: &mut Vec<String>,
) -> Result<Record> {
    if let Some(path) = saved {
        remove_file(path)?;
    }
    let base = target_dir().join("memtest");
    remove(&base)?;
    for (i, &size) in options.sizes.iter().enumerate() {
        for home in all.iter().filter(|case| case.after.is_none()) {
            let cases = chosen.iter().filter(|case| case.home() == home.name);
            let cases: Vec<_> = cases.filter(|case| case.is_measured_at(i == 0)).collect();
            let Some(first) = cases.first() else { continue };
            let bytes = home.bytes.unwrap_or(size);
            let dir = make(&base, &home.name)?;
            let server = home.server.as_ref().map(|kind| programs.serve(kind, bytes));
            let server = server.transpose()?;
            let measure = |case: &Case| programs.measure(&case.name, bytes, &dir, server.as_ref());
            if first.name != home.name {
                problems.extend(measure(home).err());
            }
            for case in &cases {
                let start = Instant::now();
                match measure(case) {
                    Ok(run) => {
                        run.print(&case.name, start.elapsed().as_secs_f64(), options.json);
                        if let Some(path) = saved {
                            Record::append(path, &case.name, &run)?;
                        }
                        record.add(&case.name, run);
                    }
                    Err(problem) => problems.push(problem),
                }
            }
            remove(&dir)?;
        }
    }
    remove(&base)?;
    Ok(record)
}

impl Run {
    fn print(&self, name: &str, seconds: f64, json: bool) {
        if json {
            println!("{}", self.json(name));
            return;
        }
        println!("{name} at {} ({seconds:.1} s)", report::bytes(self.bytes));
        for (metric, value) in &self.metrics {
            let unit = ceilings::unit(metric);
            report::metric(
                &format!("memory.{name}.{}mib.{metric}", self.bytes / MIB),
                value,
                unit,
            );
        }
    }
}

fn table<'a>(cases: impl Iterator<Item = (&'a str, &'a [Run])>, ceilings: &Ceilings) -> Table {
    let mut table = Table::new(&["case", "metric", "ceiling", "at each size"]);
    for (name, runs) in cases {
        let Some(ceiling) = ceilings.of(name) else {
            continue;
        };
        for (metric, limit) in ceiling.limits.iter().chain(&ceiling.floors) {
            let peaks = runs.iter().map(|run| {
                run.metrics
                    .get(metric)
                    .map_or("-".to_owned(), |&value| ceilings::show(metric, value))
            });
            let peaks: Vec<_> = peaks.collect();
            table.row([
                name.to_owned(),
                metric.clone(),
                ceilings::show(metric, *limit),
                peaks.join("  "),
            ]);
        }
    }
    table
}

fn make(base: &Path, case: &str) -> Result<PathBuf> {
    let dir = base.join(case);
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}

fn remove(dir: &Path) -> Result<()> {
    gone(dir, fs::remove_dir_all(dir))
}

fn remove_file(path: &Path) -> Result<()> {
    gone(path, fs::remove_file(path))
}

/// Whether it was removed, or was not there.
fn gone(path: &Path, removed: std::io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::ceilings::{Ceiling, Check};
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>())
    }

    fn case(name: &str, part: Part) -> Case {
        Case {
            name: name.to_owned(),
            after: None,
            server: None,
            part,
            bytes: None,
        }
    }

    #[test]
    fn sizes_follow_the_options() {
        let sizes = |args: &[&str]| parse(args).unwrap().sizes;
        assert_eq!(sizes(&[]), [64 * MIB, 256 * MIB, 1024 * MIB]);
        assert_eq!(sizes(&["--quick"]), [64 * MIB, 256 * MIB]);
        assert_eq!(sizes(&["--full"]), sizes(&[]));
        assert_eq!(
            sizes(&["--huge", "--quick"]),
            [64 * MIB, 256 * MIB, 4096 * MIB]
        );
        assert!(parse(&["--case"]).is_err() && parse(&["--slow"]).is_err());
        assert!(parse(&["--dev"]).is_ok() && parse(&["--dev", "--report"]).is_err());
    }

    #[test]
    fn a_case_with_a_size_of_its_own_is_measured_once() {
        let sizes = |case: Case| -> Vec<u64> {
            let sizes = [64, 256, 1024].into_iter().enumerate();
            let sizes = sizes.filter(|&(i, _)| case.is_measured_at(i == 0));
            sizes.map(|(_, mib)| mib).collect()
        };
        let any = || case("file-churn-zstd-nested", Part::Full);
        assert_eq!(sizes(any()), [64, 256, 1024]);
        let bytes = Some(300_000_000);
        assert_eq!(sizes(Case { bytes, ..any() }), [64]);
    }

    #[test]
    fn times_are_judged_by_full_runs_of_what_users_run() {
        let judges = |args: &[&str]| parse(args).unwrap().judges_times();
        assert!(judges(&["--full"]) && judges(&["--full", "--case", "open"]));
        assert!(!judges(&[]) && !judges(&["--quick"]) && !judges(&["--full", "--dev"]));
    }

    #[test]
    fn parts_and_patterns_choose_cases() {
        let choice = |args: &[&str]| -> Vec<&str> {
            let options = parse(args).unwrap();
            [
                ("file-put-zstd-nested", Part::Quick),
                ("l1-churn-redis", Part::Default),
                ("redis-put-zstd-nested", Part::Full),
                ("peer-put-feather-zstd", Part::Peers),
            ]
            .into_iter()
            .filter(|&(name, part)| options.choose(&case(name, part)))
            .map(|(name, _)| name)
            .collect()
        };
        assert_eq!(choice(&["--quick"]), ["file-put-zstd-nested"]);
        assert_eq!(choice(&[]).len(), 2);
        assert_eq!(choice(&["--full"]).len(), 4);
        assert_eq!(choice(&["--quick", "--peers"]).len(), 2);
        assert_eq!(choice(&["--case", "put-zstd"]).len(), 2);
        assert_eq!(choice(&["--case", "put*zstd", "--peers"]).len(), 3);
    }

    fn committed() -> Ceilings {
        Ceilings::parse(&read(&root().join("xtask/ceilings.toml")).unwrap()).unwrap()
    }

    #[test]
    fn the_committed_ceilings_can_be_read() {
        let ceilings = committed();
        let must_fail = |case: &str| ceilings.of(case).unwrap().must_fail.clone();
        assert_eq!(must_fail("selftest-buffering"), [Check::Max, Check::Slope]);
        for check in [Check::Max, Check::Min, Check::Slope] {
            assert!(
                ceilings.all().iter().any(|one| one.must_fail == [check]),
                "{check:?}"
            );
        }
    }

    #[test]
    fn for_each_check_of_each_metric_there_is_a_case_that_must_fail_it() {
        let ceilings = committed();
        let (broken, real): (Vec<_>, Vec<_>) = ceilings
            .all()
            .iter()
            .partition(|ceiling| !ceiling.must_fail.is_empty());
        for (ceiling, check, metric) in real.into_iter().flat_map(bounds) {
            let mut failing = broken
                .iter()
                .filter(|broken| broken.must_fail.contains(&check));
            assert!(
                failing.any(|broken| broken.bounds(check).contains_key(metric)),
                "{}: nothing proves that {check:?} of {metric} can fail",
                ceiling.cases
            );
        }
    }

    fn bounds(ceiling: &Ceiling) -> impl Iterator<Item = (&Ceiling, Check, &String)> {
        let all = [Check::Max, Check::Min, Check::Slope];
        all.into_iter().flat_map(move |check| {
            let metrics = ceiling.bounds(check).keys();
            metrics.map(move |metric| (ceiling, check, metric))
        })
    }
}
