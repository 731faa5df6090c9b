//! What small gets wait while a large entry of the same cache is on its way: measured by `benches/network-stores`.

use serde_json::Value;

use super::row;
use crate::Result;
use crate::cmd::Cmd;
use crate::report::Table;
use crate::workspace::root;

/// The name of these figures, where rows have patterns.
pub(super) const NAME: &str = "waiting";

/// How many times as long as alone all but one of a hundred small gets of ours may take at most.
const MOST: f64 = 3.0;

/// A small get beside a transfer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wait {
    store: String,
    mib: u64,
    rounds: u64,
    get: String,
    beside: String,
    /// Seconds that all but one of a hundred gets take at most, without the transfer.
    alone: f64,
    /// The same beside it.
    p99: f64,
}

/// The lines that the program prints.
pub(super) fn measure(quick: bool) -> Result<String> {
    let benches = root().join("benches");
    let mib = if quick { "256" } else { "1024" };
    let mut lines = String::new();
    for work in ["waiting-redis", "waiting-memcached"] {
        let program = ["run", "--release", "--package", "network-stores", "--"];
        let options = [work, "--json", "--rounds", "3", "--mib", mib];
        lines += &Cmd::cargo()
            .dir(&benches)
            .args(program)
            .args(options)
            .stdout()?;
    }
    Ok(lines)
}

pub(super) fn parse(lines: &str) -> Result<Vec<Wait>> {
    let wait = |line: &str| {
        let json = serde_json::from_str(line).ok()?;
        Wait::parse(&json)
    };
    let waits = lines.lines().map(|line| {
        wait(line).ok_or_else(|| format!("network-stores: {line} is not of the expected shape"))
    });
    waits.collect()
}

impl Wait {
    fn parse(json: &Value) -> Option<Self> {
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        Some(Self {
            store: text("store")?,
            mib: json["mib"].as_u64()?,
            rounds: json["rounds"].as_u64()?,
            get: text("get")?,
            beside: text("beside")?,
            alone: json["alone"].as_f64().filter(|&alone| alone > 0.0)?,
            p99: json["p99"].as_f64()?,
        })
    }

    /// How many times as long as alone.
    fn ratio(&self) -> f64 {
        self.p99 / self.alone
    }

    fn is_ours(&self) -> bool {
        self.get.starts_with("our ")
    }
}

/// What is beyond the bound; the bare clients have none.
pub(super) fn problems(waits: &[Wait]) -> Vec<String> {
    let beyond = waits
        .iter()
        .filter(|wait| wait.is_ours() && wait.ratio() > MOST);
    let problem = |wait: &Wait| {
        let Wait {
            store, get, beside, ..
        } = wait;
        let ratio = row::ratio(wait.ratio());
        format!(
            "{store}: {get} beside {beside}: the p99 is {ratio} times that alone; {MOST} is the most"
        )
    };
    beyond.map(problem).collect()
}

pub(super) fn table(waits: &[Wait]) -> Table {
    let mut table = Table::new(&[
        "store",
        "get",
        "beside",
        "p99 alone",
        "p99",
        "times",
        "bound",
    ]);
    for wait in waits {
        let bound = if wait.is_ours() {
            format!("{MOST}")
        } else {
            String::new()
        };
        table.row([
            wait.store.clone(),
            wait.get.clone(),
            wait.beside.clone(),
            row::seconds(wait.alone),
            row::seconds(wait.p99),
            row::ratio(wait.ratio()),
            bound,
        ]);
    }
    table
}

/// The part of the page.
pub(super) fn section(waits: &[Wait]) -> String {
    let (mib, rounds) = waits.first().map_or((0, 0), |wait| (wait.mib, wait.rounds));
    let text = TEXT
        .replace("{mib}", &mib.to_string())
        .replace("{rounds}", &rounds.to_string())
        .replace("{most}", &MOST.to_string());
    format!("{text}\n{}", table(waits).markdown())
}

const TEXT: &str = "\
## What small gets wait beside a large transfer

Gets of 1 KiB, one after the other, alone and while another thread moves {mib} MiB through the same store: the time that
all but one of a hundred take at most, the median of {rounds} rounds. Ours may take {most} times as long as alone at most.
The bare clients do the same by themselves, with a connection for the gets and one for the transfer; servers, clients
and transfers share the processors.
";

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn wait(get: &str, times: f64) -> Wait {
        let line = format!(
            r#"{{"store": "Redis", "mib": 1024, "rounds": 3, "get": "{get}", "beside": "our put", "gets": 9,
                "alone": 0.0001, "p99": {}}}"#,
            times * 1e-4
        );
        parse(&line.replace('\n', "")).unwrap().remove(0)
    }

    #[test]
    fn gets_of_ours_that_wait_too_long_are_a_problem() {
        let waits = [wait("our get", 2.99), wait("bare get", 15.0)];
        assert_eq!(problems(&waits), [""; 0]);
        let problems = problems(&[wait("our get", 3.01)]);
        assert_eq!(
            problems,
            ["Redis: our get beside our put: the p99 is 3.01 times that alone; 3 is the most"]
        );
    }

    #[test]
    fn lines_that_lack_a_figure_are_refused() {
        for line in [
            "{}",
            "no json",
            r#"{"store": "Redis", "mib": 1, "rounds": 1, "get": "g", "beside": "b", "alone": 0.0, "p99": 1.0}"#,
        ] {
            assert!(
                parse(line).unwrap_err().contains("expected shape"),
                "{line}"
            );
        }
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn the_section_has_the_figures_and_the_bound() {
        let text = section(&[wait("our get", 2.0), wait("bare get", 15.0)]);
        assert!(
            text.contains("| Redis | our get | our put | 100 µs | 200 µs | 2.00 | 3 |"),
            "{text}"
        );
        assert!(
            text.contains("| Redis | bare get | our put | 100 µs | 1.50 ms | 15.0 |  |"),
            "{text}"
        );
        assert!(
            text.contains("moves 1024 MiB") && !text.contains('{'),
            "{text}"
        );
    }
}
