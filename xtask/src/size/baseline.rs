use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

use crate::Result;

/// Growth that passes, in percent of the baseline.
const TOLERANCE_PERCENT: u64 = 2;

/// What `xtask/size.toml` holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Baseline {
    /// What it was measured with.
    pub(super) toolchain: String,
    pub(super) entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) bytes: u64,
    pub(super) crates: Vec<String>,
    /// Why it may be as large as it is.
    pub(super) reason: String,
}

impl Baseline {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let error = |what: String| format!("xtask/size.toml: {what}");
        let mut table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| error(e.to_string()))?;
        let toolchain = match table.remove("toolchain") {
            Some(Value::String(toolchain)) => toolchain,
            _ => return Err(error("no toolchain".to_owned())),
        };
        let mut entries = BTreeMap::new();
        for (name, value) in table {
            let entry = Entry::parse(&value).ok_or_else(|| {
                error(format!(
                    "[{name}] needs bytes, crates and a reason that says something"
                ))
            })?;
            entries.insert(name, entry);
        }
        Ok(Self { toolchain, entries })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::from(
            "# What a minimal program per library crate costs: bytes when stripped, and the crates it compiles.\n\
             # `cargo xtask size` compares, `cargo xtask size --bless REASON` writes.\n",
        );
        let _ = writeln!(text, "toolchain = {}", quoted(&self.toolchain));
        for (name, entry) in &self.entries {
            let (name, reason) = (quoted(name), quoted(&entry.reason));
            let _ = writeln!(text, "\n[{name}]\nreason = {reason}");
            let _ = writeln!(text, "bytes = {}\ncrates = [", entry.bytes);
            for crate_name in &entry.crates {
                let _ = writeln!(text, "    {},", quoted(crate_name));
            }
            text.push_str("]\n");
        }
        text
    }
}

impl Entry {
    fn parse(value: &Value) -> Option<Self> {
        let crates = value.get("crates")?.as_array()?;
        let reason = value.get("reason")?.as_str()?.trim();
        Some(Self {
            bytes: u64::try_from(value.get("bytes")?.as_integer()?).ok()?,
            crates: crates
                .iter()
                .map(|name| name.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            reason: if reason.is_empty() {
                return None;
            } else {
                reason.to_owned()
            },
        })
    }
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// What differs from the baseline.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) failures: Vec<String>,
    /// Where the baseline allows more than there is.
    pub(super) notes: Vec<String>,
}

impl Verdict {
    pub(super) fn has_changed(&self) -> bool {
        !self.failures.is_empty() || !self.notes.is_empty()
    }
}

pub(super) fn compare(name: &str, before: Option<&Entry>, now: &Entry) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(before) = before else {
        verdict.failures.push(format!("{name}: has no baseline"));
        return verdict;
    };
    let change = change(before.bytes, now.bytes);
    if now.bytes * 100 > before.bytes * (100 + TOLERANCE_PERCENT) {
        verdict.failures.push(format!(
            "{name}: grew by {change}, from {} to {} bytes",
            before.bytes, now.bytes
        ));
    }
    if before.bytes * 100 > now.bytes * (100 + TOLERANCE_PERCENT) {
        verdict.notes.push(format!(
            "{name}: the baseline is too generous: {change}; bless the gain"
        ));
    }
    let lacks = |list: &[String], name: &String| !list.contains(name);
    for new in now.crates.iter().filter(|new| lacks(&before.crates, new)) {
        verdict
            .failures
            .push(format!("{name}: brings the new crate {new}"));
    }
    for gone in before.crates.iter().filter(|gone| lacks(&now.crates, gone)) {
        verdict
            .notes
            .push(format!("{name}: no longer brings {gone}; bless the gain"));
    }
    verdict
}

/// `+1.25 %`
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(super) fn change(before: u64, now: u64) -> String {
    format!("{:+.2} %", (now as f64 / before as f64 - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: u64, crates: &[&str]) -> Entry {
        Entry {
            bytes,
            crates: crates.iter().map(|&c| c.to_owned()).collect(),
            reason: "a \"first\" form".to_owned(),
        }
    }

    #[test]
    fn a_baseline_survives_being_written_and_read() {
        let entries =
            BTreeMap::from([("ck-core".to_owned(), entry(1234, &["bytes 1", "zstd 0.14"]))]);
        let baseline = Baseline {
            toolchain: "1.95.0 x86_64-unknown-linux-gnu".to_owned(),
            entries,
        };
        assert_eq!(Baseline::parse(&baseline.text()), Ok(baseline));
    }

    #[test]
    fn a_baseline_without_figures_or_reasons_is_refused() {
        for bad in [
            "bytes = 1",
            "crates = []\nreason = \"r\"",
            "bytes = 1\ncrates = []\nreason = \" \"",
            "bytes = -1\ncrates = []\nreason = \"r\"",
        ] {
            let error =
                Baseline::parse(&format!("toolchain = \"t\"\n[ck-core]\n{bad}\n")).unwrap_err();
            assert!(error.contains("[ck-core]"), "{error}");
        }
        assert!(
            Baseline::parse("[ck-core]\n")
                .unwrap_err()
                .contains("no toolchain")
        );
    }

    #[test]
    fn two_percent_pass_and_more_fails() {
        let before = entry(100_000, &["bytes 1"]);
        assert!(!compare("c", Some(&before), &entry(102_000, &["bytes 1"])).has_changed());
        let verdict = compare("c", Some(&before), &entry(102_001, &["bytes 1"]));
        assert_eq!(
            verdict.failures,
            ["c: grew by +2.00 %, from 100000 to 102001 bytes"]
        );
    }

    #[test]
    fn one_new_crate_fails() {
        let verdict = compare(
            "c",
            Some(&entry(100, &["a 1"])),
            &entry(100, &["a 1", "b 0.2"]),
        );
        assert_eq!(verdict.failures, ["c: brings the new crate b 0.2"]);
    }

    #[test]
    fn a_crate_without_a_baseline_fails() {
        assert_eq!(
            compare("c", None, &entry(100, &[])).failures,
            ["c: has no baseline"]
        );
    }

    #[test]
    fn a_generous_baseline_is_reported_but_passes() {
        let verdict = compare(
            "c",
            Some(&entry(103_000, &["a 1", "b 1"])),
            &entry(100_000, &["a 1"]),
        );
        assert!(verdict.failures.is_empty());
        assert_eq!(verdict.notes.len(), 2, "{verdict:?}");
        assert!(verdict.notes[0].contains("too generous") && verdict.notes[1].contains("b 1"));
    }
}
