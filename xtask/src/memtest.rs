//! How much memory each stage needs beyond its source, held against `xtask/ceilings.toml`.
//!
//! The stages are the cases of the package `memcases`, each run in a process of its own.

mod ceilings;
mod verdict;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::ceilings::Ceilings;
use self::verdict::Run;
use crate::cmd::Cmd;
use crate::report::{self, Table};
use crate::workspace::{read, root, target_dir};
use crate::{Result, debian, unknown_argument};

pub(crate) const USAGE: &str = "memtest [--quick | --huge] [--case PATTERN] [--json]
    Measures the memory of each stage in a process of its own, at 64 MiB, 256 MiB and 1 GiB
    (--quick: without 1 GiB; --huge: also 4 GiB), and fails when a peak passes its ceiling in
    xtask/ceilings.toml or grows with the size. PATTERN is a part of the names of cases.
    --json prints the figures as lines of JSON instead of a table.
";

const MIB: u64 = 1 << 20;

#[derive(Debug, PartialEq)]
struct Options {
    sizes: Vec<u64>,
    pattern: String,
    json: bool,
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let ceilings = Ceilings::parse(&read(&root().join("xtask/ceilings.toml"))?)?;
    debian::servers()?;
    let programs = Programs::build()?;
    let cases = programs.cases()?;
    let chosen: Vec<&Case> = cases
        .iter()
        .filter(|case| case.name.contains(&options.pattern))
        .collect();
    if chosen.is_empty() {
        return Err(format!("memtest: no case matches {:?}", options.pattern));
    }
    let mut problems = ceilings.unmatched(cases.iter().map(|case| case.name.as_str()));

    let base = target_dir().join("memtest");
    let mut runs: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    for &bytes in &options.sizes {
        remove(&base)?;
        let mut done = Vec::new();
        for (i, case) in chosen.iter().enumerate() {
            if let Some(before) = case
                .after
                .as_deref()
                .filter(|before| !done.contains(before))
            {
                programs.measure(before, bytes, &dir(&base, before)?)?;
                done.push(before);
            }
            let home = dir(&base, case.home())?;
            let run = programs.measure(&case.name, bytes, &home)?;
            // All cases together would take thirty times the largest size.
            if chosen[i + 1..]
                .iter()
                .all(|later| later.home() != case.home())
            {
                remove(&home)?;
            }
            done.push(&case.name);
            run.print(&case.name, options.json);
            runs.entry(&case.name).or_default().push(run);
        }
    }
    remove(&base)?;

    for (name, runs) in &runs {
        if let Some(ceiling) = ceilings.of(name) {
            problems.extend(verdict::judge(name, ceiling, runs));
        }
    }
    if !options.json {
        println!("\n{}", table(&runs, &ceilings).text());
        report::summary("Peak memory above the source", &table(&runs, &ceilings));
    }
    problems.iter().for_each(|problem| println!("{problem}"));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("memtest: {} problems", problems.len()))
    }
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            sizes: vec![64 * MIB, 256 * MIB, 1024 * MIB],
            pattern: String::new(),
            json: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.sizes = vec![64 * MIB, 256 * MIB],
                "--huge" => options.sizes.push(4096 * MIB),
                "--json" => options.json = true,
                "--case" => args
                    .next()
                    .ok_or("--case needs a pattern")?
                    .clone_into(&mut options.pattern),
                _ => return Err(unknown_argument(arg)),
            }
        }
        Ok(options)
    }
}

impl Case {
    /// The case whose directory it uses.
    fn home(&self) -> &str {
        self.after.as_deref().unwrap_or(&self.name)
    }
}

/// What `memcases list` says of a case.
struct Case {
    name: String,
    /// The case that leaves the directory this one starts from.
    after: Option<String>,
}

/// The built case programs, and the command that some of them run.
struct Programs {
    memcases: PathBuf,
    ck: PathBuf,
}

impl Programs {
    fn build() -> Result<Self> {
        Cmd::cargo()
            .args([
                "build",
                "--release",
                "--package",
                "memcases",
                "--package",
                "ck-cli",
            ])
            .run()?;
        let release = target_dir().join("release");
        Ok(Self {
            memcases: release.join("memcases"),
            ck: release.join("ck"),
        })
    }

    fn cases(&self) -> Result<Vec<Case>> {
        let list = Cmd::new(&self.memcases).arg("list").output()?;
        let case = |line: &str| -> Option<Case> {
            let json: Value = serde_json::from_str(line).ok()?;
            Some(Case {
                name: json["case"].as_str()?.to_owned(),
                after: json["after"].as_str().map(str::to_owned),
            })
        };
        let cases: Option<Vec<_>> = list.lines().map(case).collect();
        cases.ok_or_else(|| "memcases list: not the expected shape".to_owned())
    }

    fn measure(&self, name: &str, bytes: u64, dir: &Path) -> Result<Run> {
        let output = Cmd::new(&self.memcases)
            .arg(name)
            .arg(bytes.to_string())
            .arg(dir)
            .env("CK", &self.ck)
            .output()?;
        let json = output
            .lines()
            .last()
            .and_then(|line| serde_json::from_str::<Value>(line).ok());
        let metrics = json.as_ref().and_then(|json| json["metrics"].as_object());
        let metrics =
            metrics.ok_or_else(|| format!("memcases {name}: no metrics in {output:?}"))?;
        let number = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64()?));
        Ok(Run {
            bytes,
            metrics: metrics.iter().filter_map(number).collect(),
        })
    }
}

impl Run {
    fn print(&self, name: &str, json: bool) {
        if json {
            println!(
                "{}",
                json!({ "case": name, "bytes": self.bytes, "metrics": self.metrics })
            );
            return;
        }
        println!("{name} at {}", report::bytes(self.bytes));
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

fn table(runs: &BTreeMap<&str, Vec<Run>>, ceilings: &Ceilings) -> Table {
    let mut table = Table::new(&["case", "metric", "ceiling", "at each size"]);
    for (name, runs) in runs {
        let Some(ceiling) = ceilings.of(name) else {
            continue;
        };
        for (metric, limit) in &ceiling.limits {
            let peaks = runs.iter().map(|run| {
                run.metrics
                    .get(metric)
                    .map_or("-".to_owned(), |&value| ceilings::show(metric, value))
            });
            let peaks: Vec<_> = peaks.collect();
            table.row([
                (*name).to_owned(),
                metric.clone(),
                ceilings::show(metric, *limit),
                peaks.join("  "),
            ]);
        }
    }
    table
}

fn dir(base: &Path, case: &str) -> Result<PathBuf> {
    let dir = base.join(case);
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn sizes_follow_the_options() {
        assert_eq!(parse(&[]).unwrap().sizes, [64 * MIB, 256 * MIB, 1024 * MIB]);
        assert_eq!(parse(&["--quick"]).unwrap().sizes, [64 * MIB, 256 * MIB]);
        assert_eq!(
            parse(&["--huge"]).unwrap().sizes.last(),
            Some(&(4096 * MIB))
        );
        assert_eq!(parse(&["--case", "zstd"]).unwrap().pattern, "zstd");
        assert!(parse(&["--case"]).is_err() && parse(&["--slow"]).is_err());
    }

    #[test]
    fn the_committed_ceilings_can_be_read() {
        let ceilings =
            Ceilings::parse(&read(&root().join("xtask/ceilings.toml")).unwrap()).unwrap();
        assert!(ceilings.of("selftest-buffering").unwrap().must_fail);
    }
}
