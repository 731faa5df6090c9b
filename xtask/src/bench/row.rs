use serde_json::Value;

use crate::{Result, report};

/// What holds for all rows of a run.
#[derive(Debug, PartialEq)]
pub(super) struct About {
    pub(super) cores: u64,
    pub(super) file_system: String,
    pub(super) table_bytes: u64,
    pub(super) l1_bytes: u64,
    /// Names and versions of the Python packages.
    pub(super) versions: Vec<(String, String)>,
}

/// The same work on both sides. Of pairs, the first is ours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) group: String,
    pub(super) work: String,
    pub(super) peer: String,
    pub(super) durability: String,
    pub(super) verification: String,
    /// Seconds of one operation, by round; as many as the other side has.
    pub(super) rounds: Vec<(f64, f64)>,
    pub(super) stored: [Option<u64>; 2],
    pub(super) memory: [Option<u64>; 2],
    pub(super) hit_ratio: [Option<f64>; 2],
}

/// Reads what `benches/compare` prints: a line about the run, then one a row, also of those that failed.
pub(super) fn parse(lines: &str) -> Result<(About, Vec<Row>, Vec<String>)> {
    let mut values = lines.lines().map(|line| {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("compare: {e}"))?;
        Ok::<_, String>(value)
    });
    let unexpected = |what: &str| format!("compare: {what} is not of the expected shape");
    let about = values.next().ok_or_else(|| unexpected("nothing"))??;
    let about = About::parse(&about).ok_or_else(|| unexpected("the first line"))?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for value in values {
        let value = value?;
        match value["failed"].as_str() {
            Some(error) => failed.push(error.to_owned()),
            None => rows.push(Row::parse(&value).ok_or_else(|| unexpected(&value.to_string()))?),
        }
    }
    Ok((about, rows, failed))
}

impl About {
    fn parse(json: &Value) -> Option<Self> {
        let versions = json["versions"].as_object();
        let versions = versions.into_iter().flatten();
        Some(Self {
            cores: json["cores"].as_u64()?,
            file_system: json["file_system"].as_str()?.to_owned(),
            table_bytes: json["table_bytes"].as_u64()?,
            l1_bytes: json["l1_bytes"].as_u64()?,
            versions: versions
                .map(|(name, version)| Some((name.clone(), version.as_str()?.to_owned())))
                .collect::<Option<_>>()?,
        })
    }
}

impl Row {
    fn parse(json: &Value) -> Option<Self> {
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let seconds = |name: &str| -> Option<Vec<f64>> {
            json[name].as_array()?.iter().map(Value::as_f64).collect()
        };
        let (ours, theirs) = (seconds("ours")?, seconds("theirs")?);
        if ours.is_empty() || ours.len() != theirs.len() {
            return None;
        }
        let bytes = |name: &str| [0, 1].map(|side| json[name][side].as_u64());
        Some(Self {
            group: text("group")?,
            work: text("work")?,
            peer: text("peer")?,
            durability: text("durability")?,
            verification: text("verification")?,
            rounds: ours.into_iter().zip(theirs).collect(),
            stored: bytes("stored"),
            memory: bytes("memory"),
            hit_ratio: [0, 1].map(|side| json["hit_ratio"][side].as_f64()),
        })
    }

    /// The name that patterns are compared with.
    pub(super) fn name(&self) -> String {
        format!("{}: {} / {}", self.group, self.work, self.peer)
    }

    /// Our median.
    pub(super) fn ours(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.0))
    }

    /// The peer's median.
    pub(super) fn theirs(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.1))
    }

    /// The peer's median by ours: above 1, we are the faster.
    pub(super) fn times_as_fast(&self) -> f64 {
        self.theirs() / self.ours()
    }

    /// The middle half of the ratios of the rounds.
    pub(super) fn spread(&self) -> (f64, f64) {
        let ratios = sorted(self.rounds.iter().map(|(ours, theirs)| theirs / ours));
        let quarter = ratios.len() / 4;
        (ratios[quarter], ratios[ratios.len() - 1 - quarter])
    }
}

/// The lower of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let values = sorted(values);
    values[(values.len() - 1) / 2]
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Three digits: `1.25`, `12.5`, `125`.
pub(super) fn ratio(value: f64) -> String {
    let places = match value {
        x if x < 9.995 => 2,
        x if x < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

/// A time for people: `1.25 ms`.
pub(super) fn seconds(value: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];
    let fitting = units.iter().find(|(unit, _)| value >= unit * 0.9995);
    let (unit, name) = fitting.unwrap_or(&units[3]);
    format!("{} {name}", ratio(value / unit))
}

/// `1.0 MiB / 2.0 MiB`; nothing when neither side has a figure.
pub(super) fn both_bytes(pair: [Option<u64>; 2]) -> String {
    both(pair.map(|bytes| bytes.map(report::bytes)))
}

/// `51 % / 50 %`.
pub(super) fn both_shares(pair: [Option<f64>; 2]) -> String {
    both(pair.map(|share| share.map(|share| format!("{:.0} %", share * 100.0))))
}

fn both(pair: [Option<String>; 2]) -> String {
    match pair {
        [None, None] => String::new(),
        pair => pair
            .map(|side| side.unwrap_or_else(|| "–".to_owned()))
            .join(" / "),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A row whose rounds took these seconds.
    pub(in super::super) fn row(name: &str, rounds: &[(f64, f64)]) -> Row {
        Row {
            group: "files".to_owned(),
            work: name.to_owned(),
            peer: "a peer".to_owned(),
            durability: "no fsync".to_owned(),
            verification: "off".to_owned(),
            rounds: rounds.to_vec(),
            stored: [None; 2],
            memory: [None; 2],
            hit_ratio: [None; 2],
        }
    }

    const ABOUT: &str = r#"{"cores":2,"file_system":"ext4","table_bytes":1,"l1_bytes":2,"versions":{"polars":"2"}}"#;
    const ROW: &str = r#"{"group":"files","work":"put","peer":"p","durability":"d","verification":"v","operations":1,
        "ours":[1.0,2.0],"theirs":[2.0,4.0],"stored":[7,null],"hit_ratio":[null,null],"memory":[null,9]}"#;

    #[test]
    fn the_lines_of_the_program_are_read() {
        let failed = r#"{"failed": "files: get / p: a miss"}"#;
        let lines = format!("{ABOUT}\n{failed}\n{}\n", ROW.replace('\n', ""));
        let (about, rows, failed) = parse(&lines).unwrap();
        assert_eq!(failed, ["files: get / p: a miss"]);
        assert_eq!((about.cores, about.file_system.as_str()), (2, "ext4"));
        assert_eq!(about.versions, [("polars".to_owned(), "2".to_owned())]);
        assert_eq!(rows[0].name(), "files: put / p");
        assert_eq!(rows[0].rounds, [(1.0, 2.0), (2.0, 4.0)]);
        assert_eq!(
            (rows[0].stored, rows[0].memory),
            ([Some(7), None], [None, Some(9)])
        );
    }

    #[test]
    fn rows_whose_sides_have_different_rounds_are_refused() {
        let row = ROW.replace('\n', "").replace("[2.0,4.0]", "[2.0]");
        let error = parse(&format!("{ABOUT}\n{row}\n")).unwrap_err();
        assert!(error.contains("expected shape"), "{error}");
        assert!(parse("").is_err());
        assert!(parse("no json").is_err());
    }

    #[test]
    fn ratios_are_of_medians_and_their_spread_of_rounds() {
        let row = row(
            "put",
            &[(1.0, 9.0), (2.0, 4.0), (4.0, 4.0), (2.0, 6.0), (8.0, 4.0)],
        );
        assert_eq!((row.ours(), row.theirs()), (2.0, 4.0));
        assert!((row.times_as_fast() - 2.0).abs() < 1e-12);
        // Of the rounds: 0.5, 1, 2, 3, 9.
        assert_eq!(row.spread(), (1.0, 3.0));
    }

    #[test]
    fn figures_are_shown_with_three_digits() {
        assert_eq!(["0.95", "12.5", "1250"], [0.951, 12.51, 1250.4].map(ratio));
        assert_eq!(
            ["1.50 s", "2.00 ms", "35.0 µs", "120 ns", "0.50 ns"],
            [1.5, 0.002, 35e-6, 120e-9, 0.5e-9].map(seconds)
        );
        assert_eq!(both_bytes([Some(1 << 20), None]), "1.0 MiB / –");
        assert_eq!(both_bytes([None, None]), "");
        assert_eq!(both_shares([Some(0.5), Some(0.251)]), "50 % / 25 %");
    }
}
