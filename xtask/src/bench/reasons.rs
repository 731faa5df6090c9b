use toml::{Table, Value};

use super::row::{Row, ratio};
use crate::{Result, report};

/// Why a peer is better at some of the work, as `benches/compare/reasons.toml` says.
#[derive(Debug, PartialEq)]
pub(super) struct Reasons(Vec<Reason>);

#[derive(Debug, PartialEq)]
struct Reason {
    /// Names of rows; `*` stands for anything.
    row: String,
    of: Measure,
    why: String,
    /// How many times as fast we must be for it to hold.
    least: Option<f64>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    Time,
    Stored,
    Memory,
}

/// A median below this says enough, however much the rounds differ.
const CLEARLY_SLOWER: f64 = 0.9;

/// Memory within this of each other is the same: pages, pools and threads.
const MEMORY_NOISE: u64 = 4 << 20;

impl Reasons {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let fail = |what: String| format!("{}: {what}", super::REASONS);
        let table: Table = text.parse().map_err(|e| fail(format!("{e}")))?;
        let mut reasons = Vec::new();
        for (name, value) in table {
            let Value::Array(entries) = value else {
                return Err(fail(format!("{name} = {value} means nothing")));
            };
            if name != "reason" {
                return Err(fail(format!("[[{name}]] means nothing")));
            }
            for entry in entries {
                let reason = Reason::parse(&entry);
                reasons.push(reason.ok_or_else(|| {
                    fail(format!(
                        "{entry} needs row, of (time, stored, memory) and why; of time it may have least, a number"
                    ))
                })?);
            }
        }
        Ok(Self(reasons))
    }

    /// The first that explains why the peer is better at `row`.
    pub(super) fn of(&self, row: &Row, measure: Measure) -> Option<&str> {
        let reasons = self.0.iter().filter(|reason| reason.of == measure);
        let name = row.name();
        let mut reasons = reasons.filter(|reason| {
            let holds = |least| row.times_as_fast() >= least;
            matches(&reason.row, &name) && reason.least.is_none_or(holds)
        });
        reasons.next().map(|reason| reason.why.as_str())
    }

    /// Rows without a reason that they need.
    pub(super) fn missing(&self, rows: &[Row]) -> Vec<String> {
        let mut problems = Vec::new();
        for row in rows {
            for measure in Measure::ALL {
                if measure.is_worse(row) && self.of(row, measure).is_none() {
                    let how = measure.compared(row);
                    problems.push(format!(
                        "{}: {how}, and {} has no reason",
                        row.name(),
                        super::REASONS
                    ));
                }
            }
        }
        problems
    }

    /// Reasons that no row needs, in these figures at least. Reasons without a row count when all rows are there.
    pub(super) fn stale(&self, rows: &[Row], all: bool) -> Vec<String> {
        let mut problems = Vec::new();
        for reason in &self.0 {
            let mut rows = rows
                .iter()
                .filter(|row| matches(&reason.row, &row.name()))
                .peekable();
            if rows.peek().is_none() {
                if all {
                    problems.push(format!(
                        "{}: there is no row {:?}",
                        super::REASONS,
                        reason.row
                    ));
                }
            } else if rows.all(|row| reason.of.is_better(row)) {
                let (of, row) = (reason.of.name(), &reason.row);
                problems.push(format!(
                    "{}: the reason for {of} of {row:?} is stale: we are better there now",
                    super::REASONS
                ));
            }
        }
        problems
    }
}

impl Reason {
    fn parse(value: &Value) -> Option<Self> {
        let table = value.as_table()?;
        let text = |name: &str| table.get(name).and_then(Value::as_str);
        let of = text("of")?;
        let least = match table.get("least") {
            Some(least) if of == Measure::Time.name() => Some(least.as_float()?),
            _ => None,
        };
        if table.len() != 3 + usize::from(least.is_some()) {
            return None;
        }
        Some(Self {
            row: text("row")?.to_owned(),
            of: Measure::ALL
                .into_iter()
                .find(|measure| measure.name() == of)?,
            why: text("why")
                .map(str::trim)
                .filter(|why| !why.is_empty())?
                .to_owned(),
            least,
        })
    }
}

impl Measure {
    pub(super) const ALL: [Self; 3] = [Self::Time, Self::Stored, Self::Memory];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Stored => "stored",
            Self::Memory => "memory",
        }
    }

    /// Whether the peer is better, beyond what chance does: in three of four rounds or by the median, 2 % of the
    /// bytes, a tenth and some pages of memory.
    pub(super) fn is_worse(self, row: &Row) -> bool {
        match (self, row.stored, row.memory) {
            (Self::Time, ..) => {
                let ratio = row.times_as_fast();
                ratio < CLEARLY_SLOWER || (ratio < 1.0 && row.spread().1 < 1.0)
            }
            (Self::Stored, [Some(ours), Some(theirs)], _) => ours > theirs + theirs / 50 + 4096,
            (Self::Memory, _, [Some(ours), Some(theirs)]) => {
                ours > theirs + theirs / 10 + MEMORY_NOISE
            }
            _ => false,
        }
    }

    /// Whether we are better, beyond what chance does.
    fn is_better(self, row: &Row) -> bool {
        match (self, row.stored, row.memory) {
            (Self::Time, ..) => row.times_as_fast() > 1.0 && row.spread().0 > 1.0,
            (Self::Stored, [Some(ours), Some(theirs)], _) => ours < theirs,
            (Self::Memory, _, [Some(ours), Some(theirs)]) => ours < theirs,
            // Without figures nothing is known.
            _ => false,
        }
    }

    /// How the peer is better.
    pub(super) fn compared(self, row: &Row) -> String {
        let bytes = |[ours, theirs]: [Option<u64>; 2]| {
            [theirs, ours].map(|bytes| bytes.map(report::bytes).unwrap_or_default())
        };
        match self {
            Self::Time => format!(
                "the peer is {} times as fast",
                ratio(1.0 / row.times_as_fast())
            ),
            Self::Stored => {
                let [theirs, ours] = bytes(row.stored);
                format!("the peer stores {theirs}, we {ours}")
            }
            Self::Memory => {
                let [theirs, ours] = bytes(row.memory);
                format!("the peer needs {theirs} of memory, we {ours}")
            }
        }
    }
}

/// Whether `name` is `pattern`, where `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(start) else {
        return false;
    };
    let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    ends.into_iter().any(|at| matches(rest, &name[at..]))
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    fn reasons(row: &str, of: &str) -> Reasons {
        Reasons::parse(&format!(
            "[[reason]]\nrow = '{row}'\nof = '{of}'\nwhy = 'so'\n"
        ))
        .unwrap()
    }

    const SLOWER: &[(f64, f64)] = &[(2.0, 1.0), (2.0, 1.0), (2.0, 1.0), (2.0, 1.0)];
    const FASTER: &[(f64, f64)] = &[(1.0, 2.0), (1.0, 2.0), (1.0, 2.0), (1.0, 2.0)];
    const EVEN: &[(f64, f64)] = &[(1.0, 2.0), (2.0, 1.0), (1.0, 0.9), (1.0, 1.1)];

    #[test]
    fn a_slower_row_needs_a_reason() {
        let none = Reasons(Vec::new());
        let problems = none.missing(&[row("put", SLOWER)]);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("put / a peer: the peer is 2.00 times as fast"),
            "{problems:?}"
        );
        assert_eq!(
            reasons("files: put*", "time").missing(&[row("put", SLOWER)]),
            [""; 0]
        );
        // The reason is of something else.
        assert_eq!(
            reasons("files: put*", "memory")
                .missing(&[row("put", SLOWER)])
                .len(),
            1
        );
        assert_eq!(
            none.missing(&[row("put", FASTER), row("put", EVEN)]),
            [""; 0]
        );
    }

    #[test]
    fn a_median_that_is_clearly_worse_needs_a_reason_however_much_rounds_differ() {
        let none = Reasons(Vec::new());
        let wild = |ours: f64| {
            row(
                "put",
                &[
                    (ours, 1.0),
                    (ours, 1.0),
                    (ours, 1.0),
                    (0.5, 1.0),
                    (0.5, 1.0),
                ],
            )
        };
        assert!(wild(1.2).spread().1 > 1.0);
        assert_eq!(none.missing(&[wild(1.2)]).len(), 1);
        assert_eq!(none.missing(&[wild(1.1)]), [""; 0]);
        // And it is no reason to call one stale.
        assert_eq!(
            reasons("files: put*", "time").stale(&[wild(1.2)], true),
            [""; 0]
        );
    }

    #[test]
    fn a_reason_with_a_bound_holds_down_to_it() {
        let reasons = |least: &str| {
            let text = format!("[[reason]]\nrow = '*'\nof = 'time'\nwhy = 'so'\nleast = {least}\n");
            Reasons::parse(&text)
        };
        assert_eq!(
            reasons("0.5").unwrap().missing(&[row("put", SLOWER)]),
            [""; 0]
        );
        let problems = reasons("0.51").unwrap().missing(&[row("put", SLOWER)]);
        assert!(problems[0].contains("has no reason"), "{problems:?}");
        assert!(reasons("'half'").is_err());
    }

    #[test]
    fn a_reason_for_a_faster_row_is_stale() {
        let reasons = reasons("files: put*", "time");
        let problems = reasons.stale(&[row("put", FASTER)], true);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("stale"), "{problems:?}");
        assert_eq!(reasons.stale(&[row("put", EVEN)], true), [""; 0]);
        assert_eq!(
            reasons.stale(&[row("put", FASTER), row("put b", SLOWER)], true),
            [""; 0]
        );
    }

    #[test]
    fn a_reason_without_a_row_is_a_problem_when_all_rows_are_there() {
        let reasons = reasons("files: gone*", "time");
        assert!(reasons.stale(&[row("put", FASTER)], true)[0].contains("no row"));
        assert_eq!(reasons.stale(&[row("put", FASTER)], false), [""; 0]);
    }

    #[test]
    fn more_bytes_or_memory_than_the_peer_need_a_reason_too() {
        let none = Reasons(Vec::new());
        let mut larger = row("put", FASTER);
        larger.stored = [Some(1_100_000), Some(1_000_000)];
        larger.memory = [Some(20 << 20), Some(10 << 20)];
        let problems = none.missing(&[larger.clone()]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        larger.stored = [Some(1_010_000), Some(1_000_000)];
        larger.memory = [Some(12 << 20), Some(10 << 20)];
        assert_eq!(none.missing(&[larger]), [""; 0]);
    }

    #[test]
    fn patterns_have_stars() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "aab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("*", "µ", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_reason_says_why_and_of_what() {
        for text in [
            "[[reason]]\nrow = 'a'\nof = 'time'\n",
            "[[reason]]\nrow = 'a'\nof = 'speed'\nwhy = 'so'\n",
            "[[reason]]\nrow = 'a'\nof = 'time'\nwhy = ' '\n",
            "[[other]]\nrow = 'a'\nof = 'time'\nwhy = 'so'\n",
            "[[reason]]\nrow = 'a'\nof = 'memory'\nwhy = 'so'\nleast = 0.5\n",
            "reason = 1\n",
        ] {
            let error = Reasons::parse(text).unwrap_err();
            assert!(
                error.starts_with("benches/compare/reasons.toml: "),
                "{error}"
            );
        }
    }
}
