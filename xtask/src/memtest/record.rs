//! What runs have measured, as lines of JSON.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::workspace::{read, write};

/// What one case measured at one size.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// The size of the source.
    pub(super) bytes: u64,
    pub(super) metrics: BTreeMap<String, f64>,
    /// Memory over time, as the case reported it.
    pub(super) series: Value,
}

/// The runs of each case, from the smallest to the largest size.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Record(BTreeMap<String, Vec<Run>>);

impl Run {
    /// From what a case printed.
    pub(super) fn parse(bytes: u64, line: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(line).ok()?;
        let metrics = json["metrics"].as_object()?.iter();
        let number = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64()?));
        Some(Self {
            bytes,
            metrics: metrics.filter_map(number).collect(),
            series: json["series"].clone(),
        })
    }

    pub(super) fn json(&self, case: &str) -> Value {
        json!({
            "case": case,
            "bytes": self.bytes,
            "metrics": self.metrics,
            "series": self.series,
        })
    }

    /// Seconds after the start, and how much of `kind` there was beyond what stood before.
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53 bytes")]
    pub(super) fn points(&self, kind: &str) -> Vec<(f64, f64)> {
        let list = |name: &str| -> Vec<u64> {
            let values = self.series[name].as_array().into_iter().flatten();
            values.filter_map(Value::as_u64).collect()
        };
        let before = self.series["before"][kind].as_u64().unwrap_or_default();
        let points = list("ms").into_iter().zip(list(kind));
        points
            .map(|(ms, value)| (ms as f64 / 1e3, value.saturating_sub(before) as f64))
            .collect()
    }
}

impl Record {
    /// What was measured before; nothing where there is no such file.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let mut record = Self::default();
        if path.exists() {
            let text = read(path)?;
            for line in whole_lines(&text) {
                let parsed = serde_json::from_str::<Value>(line).ok().and_then(|json| {
                    let (case, bytes) = (json["case"].as_str()?, json["bytes"].as_u64()?);
                    Some((case.to_owned(), Run::parse(bytes, line)?))
                });
                let (case, run) =
                    parsed.ok_or_else(|| format!("{}: not a line of figures", path.display()))?;
                record.add(&case, run);
            }
        }
        Ok(record)
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let runs = self.0.iter();
        let lines = runs.flat_map(|(case, runs)| runs.iter().map(|run| run.json(case)));
        let lines: String = lines.map(|line| format!("{line}\n")).collect();
        write(path, &lines)
    }

    /// Adds a run to what was saved, so that what is cut short has not measured for nothing.
    pub(super) fn append(path: &Path, case: &str, run: &Run) -> Result<()> {
        let line = format!("{}\n", run.json(case));
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Adds a run, in place of an earlier one of this size.
    pub(super) fn add(&mut self, case: &str, run: Run) {
        let runs = self.0.entry(case.to_owned()).or_default();
        runs.retain(|other| other.bytes != run.bytes);
        let at = runs.partition_point(|other| other.bytes < run.bytes);
        runs.insert(at, run);
    }

    pub(super) fn of(&self, case: &str) -> &[Run] {
        self.0.get(case).map_or(&[], Vec::as_slice)
    }

    pub(super) fn cases(&self) -> impl Iterator<Item = (&str, &[Run])> + Clone {
        self.0
            .iter()
            .map(|(case, runs)| (case.as_str(), runs.as_slice()))
    }

    /// All sizes, from the smallest on.
    pub(super) fn sizes(&self) -> Vec<u64> {
        let runs = self.0.values().flatten();
        let mut sizes: Vec<_> = runs.map(|run| run.bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

/// Without one that was being written when everything ended.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    text[..end].lines()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::target_dir;

    const LINE: &str = r#"{"case":"put","metrics":{"heap":3.5},"series":{"before":{"heap":10},"ms":[0,2],"heap":[12,9]}}"#;

    #[test]
    fn a_line_of_figures_gives_metrics_and_points_above_the_source() {
        let run = Run::parse(64, LINE).unwrap();
        assert_eq!(run.metrics["heap"], 3.5);
        assert_eq!(run.points("heap"), [(0.0, 2.0), (0.002, 0.0)]);
        assert!(run.points("rss").is_empty());
        assert!(Run::parse(64, "ready").is_none());
    }

    #[test]
    fn a_record_comes_back_in_order_of_sizes_with_the_last_run_of_each() {
        let path = target_dir().join("xtask-tests/runs.jsonl");
        let mut record = Record::default();
        for bytes in [256, 64, 256] {
            record.add("put", Run::parse(bytes, LINE).unwrap());
        }
        record.save(&path).unwrap();
        let changed = Run::parse(64, &LINE.replace("3.5", "4.5")).unwrap();
        Record::append(&path, "put", &changed).unwrap();
        record.add("put", changed);
        let cut = format!("{}{}", read(&path).unwrap(), &LINE[..40]);
        write(&path, &cut).unwrap();
        let loaded = Record::load(&path).unwrap();
        assert_eq!(loaded, record);
        assert_eq!(loaded.sizes(), [64, 256]);
        assert_eq!(loaded.of("put").len(), 2);
        assert_eq!(
            Record::load(Path::new("/nowhere/runs")).unwrap(),
            Record::default()
        );
    }
}
