use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::{Result, report};

/// What `xtask/ceilings.toml` holds, in its order.
#[derive(Debug, PartialEq)]
pub(super) struct Ceilings(Vec<Ceiling>);

/// What the cases of some names may need.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ceiling {
    /// Patterns of names, with blanks between.
    pub(super) cases: String,
    pub(super) reason: String,
    /// The most that each metric may be, at every size. Bytes unless `unit` says otherwise.
    pub(super) limits: BTreeMap<String, f64>,
    /// The least that a metric may be.
    pub(super) floors: BTreeMap<String, f64>,
    /// The most by which a metric may grow with the source, in bytes per byte.
    pub(super) slopes: BTreeMap<String, f64>,
    /// Growth that is no trend, on top of the slope: one batch more or less in flight, say.
    pub(super) noise: BTreeMap<String, f64>,
    /// The checks that these cases fail on purpose, and no others.
    pub(super) must_fail: Vec<Check>,
}

/// A kind of check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Max,
    Min,
    Slope,
}

impl Ceilings {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let table: Table = text
            .parse()
            .map_err(|e| format!("xtask/ceilings.toml: {e}"))?;
        let parse = |(cases, value): (String, Value)| {
            Ceiling::parse(&cases, value)
                .map_err(|e| format!("xtask/ceilings.toml: [{cases:?}] {e}"))
        };
        Ok(Self(table.into_iter().map(parse).collect::<Result<_>>()?))
    }

    /// The first one with a pattern that fits.
    pub(super) fn of(&self, case: &str) -> Option<&Ceiling> {
        self.0.iter().find(|ceiling| ceiling.fits(case))
    }

    pub(super) fn all(&self) -> &[Ceiling] {
        &self.0
    }

    /// Without bounds of time, which hold only where nobody else uses the machine.
    pub(super) fn without_times(mut self) -> Self {
        for ceiling in &mut self.0 {
            ceiling.limits.retain(|metric, _| unit(metric) != "us");
        }
        self
    }

    /// Cases without ceilings, and ceilings that are those of no case.
    pub(super) fn unmatched<'a>(
        &self,
        cases: impl Iterator<Item = &'a str> + Clone,
    ) -> Vec<String> {
        let free = cases.clone().filter(|case| self.of(case).is_none());
        let free = free.map(|case| format!("{case}: has no ceiling in xtask/ceilings.toml"));
        let is_stale = |ceiling: &&Ceiling| {
            let mut found = cases.clone().filter_map(|case| self.of(case));
            !found.any(|used| used.cases == ceiling.cases)
        };
        let stale = self.0.iter().filter(is_stale).map(|ceiling| {
            format!(
                "{}: is in xtask/ceilings.toml, but it is the first that fits for no case",
                ceiling.cases
            )
        });
        free.chain(stale).collect()
    }
}

impl Ceiling {
    fn fits(&self, case: &str) -> bool {
        self.cases.split(' ').any(|pattern| fits(pattern, case))
    }

    /// What a check holds metrics against.
    pub(super) fn bounds(&self, check: Check) -> &BTreeMap<String, f64> {
        match check {
            Check::Max => &self.limits,
            Check::Min => &self.floors,
            Check::Slope => &self.slopes,
        }
    }

    fn parse(cases: &str, value: Value) -> Result<Self> {
        let Value::Table(table) = value else {
            return Err("is not a table".to_owned());
        };
        let mut ceiling = Self {
            cases: cases.to_owned(),
            ..Self::default()
        };
        for (name, value) in table {
            match (name.as_str(), &value) {
                ("reason", Value::String(reason)) => reason.trim().clone_into(&mut ceiling.reason),
                ("must_fail", Value::Array(checks)) => {
                    let check = |name: &Value| Check::parse(name.as_str().unwrap_or_default());
                    ceiling.must_fail = checks.iter().map(check).collect::<Result<_>>()?;
                }
                ("max", Value::Table(table)) => ceiling.limits = quantities(table)?,
                ("min", Value::Table(table)) => ceiling.floors = quantities(table)?,
                ("slope", Value::Table(table)) => ceiling.slopes = quantities(table)?,
                ("noise", Value::Table(table)) => ceiling.noise = quantities(table)?,
                _ => return Err(format!("{name} = {value} means nothing")),
            }
        }
        if ceiling.reason.is_empty() {
            return Err("needs a reason".to_owned());
        }
        if ceiling.limits.is_empty() && ceiling.floors.is_empty() {
            return Err("needs a max or a min".to_owned());
        }
        Ok(ceiling)
    }
}

impl Check {
    fn parse(name: &str) -> Result<Self> {
        match name {
            "max" => Ok(Self::Max),
            "min" => Ok(Self::Min),
            "slope" => Ok(Self::Slope),
            _ => Err(format!("must_fail: {name:?} is no check")),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::Min => "min",
            Self::Slope => "slope",
        }
    }
}

/// Whether a name fits a pattern, in which `*` stands for anything.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let ends = name.char_indices().map(|(at, _)| at);
            let mut ends = ends.chain([name.len()]);
            ends.any(|at| fits(rest, &name[at..]))
        }),
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
        _ if metric == "finished" => "count",
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
        "count" => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_read_with_their_units() {
        let text = "[put]\nreason = \"the issue\"\nmax = { heap = \"4 MiB\", open_us = 300, x_ratio = 1.05 }\n\
                    min = { x_ratio = 0.95 }\nslope = { heap = 0.002 }\nnoise = { heap = \"8 MiB\" }\n\
                    must_fail = [\"max\", \"slope\"]\n";
        let ceilings = Ceilings::parse(text).unwrap();
        let put = ceilings.of("put").unwrap();
        assert_eq!(put.limits["heap"], 4_194_304.0);
        assert_eq!(put.limits["open_us"], 300.0);
        assert_eq!(put.floors["x_ratio"], 0.95);
        assert_eq!(put.slopes["heap"], 0.002);
        assert_eq!(put.noise["heap"], 8_388_608.0);
        assert_eq!(put.must_fail, [Check::Max, Check::Slope]);
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
            ("reason = \"r\"\nmust_fail = true", "means nothing"),
            ("reason = \"r\"\nmust_fail = [\"most\"]", "is no check"),
            (
                "reason = \"r\"\nmax = { heap = \"4 MB\" }",
                "neither a number",
            ),
        ] {
            let error = Ceilings::parse(&format!("[put]\n{bad}\n")).unwrap_err();
            assert!(error.contains("put") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn bounds_of_time_can_be_left_out() {
        let text = "[open]\nreason = \"r\"\nmax = { heap = 4, open_us = 300 }\n";
        let ceilings = Ceilings::parse(text).unwrap().without_times();
        let limits = &ceilings.of("open").unwrap().limits;
        assert_eq!(limits.keys().collect::<Vec<_>>(), ["heap"]);
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, expected) in [
            ("put", "put", true),
            ("put", "put-reader", false),
            ("*-put-none-*", "file-put-none-nested", true),
            ("*-put-none-*", "file-put-zstd-nested", false),
            ("file-*", "file-", true),
            ("*a*a", "banana", true),
            ("*a*n", "banana", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_pattern_that_fits_counts() {
        let one = |cases: &str, heap: u32| {
            format!("[\"{cases}\"]\nreason = \"r\"\nmax = {{ heap = {heap} }}\n")
        };
        let text = [one("z-put", 1), one("get a-* z-*", 2), one("*", 3)].concat();
        let ceilings = Ceilings::parse(&text).unwrap();
        for (case, heap) in [("z-put", 1.0), ("z-get", 2.0), ("get", 2.0), ("put", 3.0)] {
            assert_eq!(ceilings.of(case).unwrap().limits["heap"], heap, "{case}");
        }
    }

    #[test]
    fn a_case_without_a_ceiling_and_a_ceiling_without_a_case_are_problems() {
        let text = "[\"old-*\"]\nreason = \"r\"\nmax = { heap = 1 }\n";
        let twice = format!("{text}{}", text.replace("old-*", "*-b"));
        let ceilings = Ceilings::parse(&twice).unwrap();
        let problems = ceilings.unmatched(["new", "old-b"].into_iter());
        assert_eq!(problems.len(), 2);
        assert!(
            problems[0].starts_with("new: has no ceiling") && problems[1].starts_with("*-b: is in")
        );
        assert!(ceilings.unmatched(["old-a", "a-b"].into_iter()).is_empty());
    }
}
