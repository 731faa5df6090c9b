//! The same work beside the peers: builds and runs `benches/compare` and a part of `benches/network-stores`, and makes
//! the page of their figures.

mod page;
mod reasons;
mod row;
mod waiting;

use self::reasons::Reasons;
use self::row::Row;
use crate::cmd::Cmd;
use crate::report::Table;
use crate::workspace::{read, root, target_dir, write};
use crate::{Result, debian, python, unknown_argument};

pub(crate) const USAGE: &str = "bench [--quick] [--only PATTERN] [--json] [--saved]
    Measures the same work beside the peers, in turns within one run (benches/compare), at 256 MiB a
    table (--quick: 32 MiB, fewer rounds, no memory). PATTERN is a part of the names of rows. Reports what a
    peer does faster, or in less memory or fewer bytes, without a reason in
    benches/compare/reasons.toml, and reasons that do not hold any more. A run of everything, unless
    a row failed, writes docs/benchmarks.md and its pictures; --saved writes them again from the figures of
    the last one, which are in target/bench.jsonl. --json prints the seconds of all rounds as lines of JSON.
";

/// Where the reasons stand.
const REASONS: &str = "benches/compare/reasons.toml";

#[derive(Debug, Default, PartialEq)]
struct Options {
    quick: bool,
    json: bool,
    saved: bool,
    only: Option<String>,
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let reasons = Reasons::parse(&read(&root().join(REASONS))?)?;
    if !options.saved {
        debian::servers()?;
    }
    let (mut about, mut rows, mut waits) = (None, Vec::new(), Vec::new());
    let mut problems = Vec::new();
    if options.wants_rows() {
        let lines = lines(&options, "bench.jsonl", options.is_whole(), measure)?;
        let (of_run, of_lines, failed) = row::parse(&lines)?;
        (about, rows, problems) = (Some(of_run), of_lines, failed);
        options.print(&lines, &table(&rows));
    }
    if options.wants_waits() {
        let measure = |options: &Options| waiting::measure(options.quick);
        let lines = lines(&options, "bench-waiting.jsonl", !options.quick, measure)?;
        waits = waiting::parse(&lines)?;
        options.print(&lines, &waiting::table(&waits));
    }
    // A page without the rows that failed would look complete.
    if let (true, true, Some(about)) = (options.writes_page(), problems.is_empty(), &about) {
        page::write(about, &rows, &waits, &reasons)?;
    }
    // Whether they hold in the next run nobody knows: reasons are taken out by people.
    let stale = reasons.stale(&rows, options.only.is_none());
    for note in stale {
        eprintln!("note: {note}");
    }
    problems.extend(reasons.missing(&rows));
    problems.extend(waiting::problems(&waits));
    verdict(&problems)
}

/// What is measured, or was and is kept in the file of this name.
fn lines(
    options: &Options,
    name: &str,
    is_kept: bool,
    measure: impl FnOnce(&Options) -> Result<String>,
) -> Result<String> {
    let path = target_dir().join(name);
    if options.saved {
        return read(&path);
    }
    let lines = measure(options)?;
    if is_kept {
        write(&path, &lines)?;
    }
    Ok(lines)
}

/// Fails, once all files are written.
fn verdict(problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(crate::list("", problems))
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--saved" => options.saved = true,
                "--only" => {
                    let pattern = args.next().ok_or("--only needs a pattern")?;
                    options.only = Some(pattern.clone());
                }
                _ => return Err(unknown_argument(arg)),
            }
        }
        if options.saved && !options.is_whole() {
            return Err("--saved: what was saved is a run of everything".to_owned());
        }
        Ok(options)
    }

    /// Whether any rows are to be compared with peers.
    fn wants_rows(&self) -> bool {
        self.only.as_deref() != Some(waiting::NAME)
    }

    /// Whether small gets are to be timed beside transfers.
    fn wants_waits(&self) -> bool {
        self.only
            .as_deref()
            .is_none_or(|only| only == waiting::NAME)
    }

    fn print(&self, lines: &str, table: &Table) {
        if self.json {
            print!("{lines}");
        } else {
            println!("{}", table.text());
        }
    }

    /// Whether this is about everything, at full size.
    fn is_whole(&self) -> bool {
        !self.quick && self.only.is_none()
    }

    /// The page shows full runs alone.
    fn writes_page(&self) -> bool {
        self.is_whole() && !self.json
    }
}

/// The lines that the program prints.
fn measure(options: &Options) -> Result<String> {
    let benches = root().join("benches");
    let requirements = benches.join("compare/requirements.txt");
    let python = python::environment(&requirements, &target_dir().join("bench-python"))?;
    // On the file system of the checkout, which is rarely one in memory.
    let dir = target_dir().join("bench");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut program = Cmd::cargo()
        .dir(&benches)
        .args(["run", "--release", "--package", "compare", "--"])
        .arg("--python")
        .arg(python)
        .arg("--dir")
        .arg(dir);
    if options.quick {
        program = program.arg("--quick");
    }
    if let Some(pattern) = &options.only {
        program = program.args(["--only", pattern]);
    }
    program.stdout()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "row",
        "ours",
        "peer",
        "times as fast",
        "middle half",
        "stored",
        "memory",
        "hits",
    ]);
    for row in rows {
        let (low, high) = row.spread();
        table.row([
            row.name(),
            row::seconds(row.ours()),
            row::seconds(row.theirs()),
            row::ratio(row.times_as_fast()),
            format!("{} to {}", row::ratio(low), row::ratio(high)),
            row::both_bytes(row.stored),
            row::both_bytes(row.memory),
            row::both_shares(row.hit_ratio),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        Options::parse(&args)
    }

    #[test]
    fn only_a_full_run_of_everything_writes_the_page() {
        assert!(parse(&[]).unwrap().writes_page());
        for args in [&["--quick"][..], &["--json"], &["--only", "files"]] {
            assert!(!parse(args).unwrap().writes_page(), "{args:?}");
        }
    }

    #[test]
    fn what_small_gets_wait_is_measured_with_everything_or_alone() {
        let of = |args: &[&str]| {
            let options = parse(args).unwrap();
            (options.wants_rows(), options.wants_waits())
        };
        assert_eq!(of(&[]), (true, true));
        assert_eq!(of(&["--quick"]), (true, true));
        assert_eq!(of(&["--only", "files"]), (true, false));
        assert_eq!(of(&["--only", "waiting"]), (false, true));
    }

    #[test]
    fn an_unknown_argument_is_refused() {
        assert!(parse(&["--fast"]).unwrap_err().contains("--fast"));
        assert!(parse(&["--only"]).unwrap_err().contains("pattern"));
        assert!(parse(&["--saved"]).unwrap().writes_page());
        assert!(parse(&["--saved", "--quick"]).is_err());
    }

    #[test]
    fn problems_fail() {
        assert_eq!(verdict(&[]), Ok(()));
        let error = verdict(&["put has no reason".to_owned()]).unwrap_err();
        assert!(error.contains("put has no reason"), "{error}");
    }

    #[test]
    fn the_committed_reasons_can_be_read() {
        Reasons::parse(&read(&root().join(REASONS)).unwrap()).unwrap();
    }
}
