use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::{Result, report};

/// What `xtask/ceilings.toml` holds, by case.
#[derive(Debug, PartialEq)]
pub(super) struct Ceilings(BTreeMap<String, Ceiling>);

/// What one case may need.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ceiling {
    /// The most that each metric may be, at every size. Bytes unless `unit` says otherwise.
    pub(super) limits: BTreeMap<String, f64>,
    /// The least that a metric may be.
    pub(super) floors: BTreeMap<String, f64>,
    /// The most by which a metric may grow with the source, in bytes per byte.
    pub(super) slopes: BTreeMap<String, f64>,
    /// Growth that is no trend, on top of the slope: one batch more or less in flight, say.
    pub(super) noise: BTreeMap<String, f64>,
    /// A case that passes every limit and slope on purpose.
    pub(super) must_fail: bool,
}

impl Ceilings {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let table: Table = text
            .parse()
            .map_err(|e| format!("xtask/ceilings.toml: {e}"))?;
        let mut cases = BTreeMap::new();
        for (name, value) in table {
            let ceiling =
                Ceiling::parse(value).map_err(|e| format!("xtask/ceilings.toml: [{name}] {e}"))?;
            cases.insert(name, ceiling);
        }
        Ok(Self(cases))
    }

    pub(super) fn of(&self, case: &str) -> Option<&Ceiling> {
        self.0.get(case)
    }

    /// Cases without ceilings and ceilings without a case.
    pub(super) fn unmatched<'a>(
        &self,
        cases: impl Iterator<Item = &'a str> + Clone,
    ) -> Vec<String> {
        let free = cases.clone().filter(|case| !self.0.contains_key(*case));
        let free = free.map(|case| format!("{case}: has no ceiling in xtask/ceilings.toml"));
        let stale = self
            .0
            .keys()
            .filter(|name| !cases.clone().any(|case| case == name.as_str()));
        let stale = stale
            .map(|name| format!("{name}: is in xtask/ceilings.toml, but there is no such case"));
        free.chain(stale).collect()
    }
}

impl Ceiling {
    fn parse(value: Value) -> Result<Self> {
        let Value::Table(table) = value else {
            return Err("is not a table".to_owned());
        };
        let mut ceiling = Self::default();
        let mut has_reason = false;
        for (name, value) in table {
            match (name.as_str(), &value) {
                ("reason", Value::String(reason)) => has_reason = !reason.trim().is_empty(),
                ("must_fail", Value::Boolean(must_fail)) => ceiling.must_fail = *must_fail,
                ("max", Value::Table(table)) => ceiling.limits = quantities(table)?,
                ("min", Value::Table(table)) => ceiling.floors = quantities(table)?,
                ("slope", Value::Table(table)) => ceiling.slopes = quantities(table)?,
                ("noise", Value::Table(table)) => ceiling.noise = quantities(table)?,
                _ => return Err(format!("{name} = {value} means nothing")),
            }
        }
        if !has_reason {
            return Err("needs a reason".to_owned());
        }
        if ceiling.limits.is_empty() {
            return Err("needs a max".to_owned());
        }
        Ok(ceiling)
    }
}

fn quantities(table: &Table) -> Result<BTreeMap<String, f64>> {
    let parsed = table.iter().map(|(name, value)| {
        let quantity = quantity(value)
            .ok_or_else(|| format!("{name} = {value} is neither a number nor \"4 MiB\""))?;
        Ok((name.clone(), quantity))
    });
    parsed.collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody writes a ceiling beyond 2^53 bytes"
)]
fn quantity(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Float(x) => Some(*x),
        Value::String(text) => {
            let (number, unit) = text.split_once(' ')?;
            let scale = match unit {
                "KiB" => 1024.0,
                "MiB" => 1024.0 * 1024.0,
                "GiB" => 1024.0 * 1024.0 * 1024.0,
                _ => return None,
            };
            Some(number.parse::<f64>().ok()? * scale)
        }
        _ => None,
    }
}

/// The unit of a metric, by the end of its name.
pub(super) fn unit(metric: &str) -> &'static str {
    match metric.rsplit_once('_') {
        Some((_, "us")) => "us",
        Some((_, "ratio")) => "ratio",
        _ => "bytes",
    }
}

/// A value of `metric` for people.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "byte counts, shown with three digits"
)]
pub(super) fn show(metric: &str, value: f64) -> String {
    match unit(metric) {
        "bytes" => report::bytes(value.max(0.0) as u64),
        "us" => format!("{value:.0} us"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_read_with_their_units() {
        let text = "[put]\nreason = \"the issue\"\nmax = { heap = \"4 MiB\", open_us = 300, x_ratio = 1.05 }\n\
                    min = { x_ratio = 0.95 }\nslope = { heap = 0.002 }\nnoise = { heap = \"8 MiB\" }\n";
        let ceilings = Ceilings::parse(text).unwrap();
        let put = ceilings.of("put").unwrap();
        assert_eq!(put.limits["heap"], 4_194_304.0);
        assert_eq!(put.limits["open_us"], 300.0);
        assert_eq!(put.floors["x_ratio"], 0.95);
        assert_eq!(put.slopes["heap"], 0.002);
        assert_eq!(put.noise["heap"], 8_388_608.0);
        assert!(!put.must_fail);
        assert_eq!(show("heap", put.limits["heap"]), "4.0 MiB");
        assert_eq!(show("open_us", 299.6), "300 us");
    }

    #[test]
    fn ceilings_without_a_reason_a_limit_or_a_meaning_are_refused() {
        for (bad, what) in [
            ("max = { heap = 1 }", "needs a reason"),
            ("reason = \" \"\nmax = { heap = 1 }", "needs a reason"),
            ("reason = \"r\"", "needs a max"),
            ("reason = \"r\"\nmaximum = { heap = 1 }", "means nothing"),
            (
                "reason = \"r\"\nmax = { heap = \"4 MB\" }",
                "neither a number",
            ),
        ] {
            let error = Ceilings::parse(&format!("[put]\n{bad}\n")).unwrap_err();
            assert!(error.contains("[put]") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_case_without_a_ceiling_and_a_ceiling_without_a_case_are_problems() {
        let ceilings = Ceilings::parse("[old]\nreason = \"r\"\nmax = { heap = 1 }\n").unwrap();
        let problems = ceilings.unmatched(["new"].into_iter());
        assert_eq!(problems.len(), 2);
        assert!(
            problems[0].starts_with("new: has no ceiling") && problems[1].starts_with("old: is in")
        );
        assert!(ceilings.unmatched(["old"].into_iter()).is_empty());
    }
}
