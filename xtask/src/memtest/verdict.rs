use std::collections::BTreeMap;

use super::ceilings::{Ceiling, show};
use crate::report;

/// What one case measured at one size.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// The size of the source.
    pub(super) bytes: u64,
    pub(super) metrics: BTreeMap<String, f64>,
}

/// What is wrong with the runs of a case. `runs` go from the smallest to the largest size.
pub(super) fn judge(case: &str, ceiling: &Ceiling, runs: &[Run]) -> Vec<String> {
    let beyond: Vec<_> = runs.iter().flat_map(|run| beyond(ceiling, run)).collect();
    let growing = growing(ceiling, runs);
    let mut problems = if ceiling.must_fail {
        let both = [
            (beyond, "passes its ceilings"),
            (growing, "does not grow with its size"),
        ];
        let missed = both.into_iter().filter(|(problems, _)| problems.is_empty());
        missed
            .map(|(_, what)| format!("a case that must fail {what}: the check cannot fail"))
            .collect()
    } else {
        beyond.into_iter().chain(growing).collect::<Vec<_>>()
    };
    problems.extend(missing(ceiling, runs));
    problems
        .into_iter()
        .map(|problem| format!("{case}: {problem}"))
        .collect()
}

fn beyond(ceiling: &Ceiling, run: &Run) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |bounds: &BTreeMap<String, f64>, holds: fn(f64, f64) -> bool, what: &str| {
        for (metric, &bound) in bounds {
            if let Some(&value) = run.metrics.get(metric)
                && !holds(value, bound)
            {
                let (value, bound) = (show(metric, value), show(metric, bound));
                problems.push(format!(
                    "{metric} {value} at {}, {what} {bound}",
                    report::bytes(run.bytes)
                ));
            }
        }
    };
    expect(&ceiling.limits, |value, limit| value <= limit, "more than");
    expect(&ceiling.floors, |value, floor| value >= floor, "less than");
    problems
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53 bytes")]
fn growing(ceiling: &Ceiling, runs: &[Run]) -> Vec<String> {
    let [smallest, .., largest] = runs else {
        return Vec::new();
    };
    let grown = (largest.bytes - smallest.bytes) as f64;
    let mut problems = Vec::new();
    for (metric, &bound) in &ceiling.slopes {
        if let (Some(before), Some(after)) =
            (smallest.metrics.get(metric), largest.metrics.get(metric))
        {
            let noise = ceiling.noise.get(metric).copied().unwrap_or_default();
            let slope = (after - before - noise) / grown;
            if slope > bound {
                let (before, after) = (show(metric, *before), show(metric, *after));
                problems.push(format!(
                    "{metric} grows with the source, from {before} to {after}"
                ));
            }
        }
    }
    problems
}

/// Metrics with a bound that a run did not report.
fn missing(ceiling: &Ceiling, runs: &[Run]) -> Vec<String> {
    let bounded = ceiling
        .limits
        .keys()
        .chain(ceiling.floors.keys())
        .chain(ceiling.slopes.keys());
    let unreported =
        bounded.filter(|metric| runs.iter().any(|run| !run.metrics.contains_key(*metric)));
    unreported
        .map(|metric| format!("{metric} is not measured"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1048576.0;

    fn run(mib: u64, heap_mib: f64) -> Run {
        Run {
            bytes: mib << 20,
            metrics: BTreeMap::from([("heap".to_owned(), heap_mib * MIB)]),
        }
    }

    fn ceiling(must_fail: bool) -> Ceiling {
        Ceiling {
            limits: BTreeMap::from([("heap".to_owned(), 4.0 * MIB)]),
            slopes: BTreeMap::from([("heap".to_owned(), 0.004)]),
            must_fail,
            ..Ceiling::default()
        }
    }

    #[test]
    fn a_flat_case_below_its_ceiling_passes() {
        assert_eq!(
            judge("put", &ceiling(false), &[run(64, 2.0), run(256, 2.1)]),
            [""; 0]
        );
    }

    #[test]
    fn a_peak_beyond_the_ceiling_fails_at_any_size() {
        let problems = judge("put", &ceiling(false), &[run(64, 4.5), run(256, 2.0)]);
        assert_eq!(
            problems,
            ["put: heap 4.5 MiB at 64.0 MiB, more than 4.0 MiB"]
        );
    }

    #[test]
    fn a_peak_that_grows_with_the_size_fails_below_the_ceiling_too() {
        let problems = judge(
            "put",
            &ceiling(false),
            &[run(64, 1.0), run(128, 2.0), run(256, 3.0)],
        );
        assert_eq!(
            problems,
            ["put: heap grows with the source, from 1.0 MiB to 3.0 MiB"]
        );
    }

    #[test]
    fn growth_within_the_noise_is_no_trend() {
        let noise = BTreeMap::from([("heap".to_owned(), 2.0 * MIB)]);
        let ceiling = Ceiling {
            noise,
            ..ceiling(false)
        };
        assert_eq!(
            judge("put", &ceiling, &[run(64, 1.0), run(256, 3.0)]),
            [""; 0]
        );
        assert_eq!(
            judge("put", &ceiling, &[run(64, 0.1), run(256, 3.0)]).len(),
            1
        );
    }

    #[test]
    fn a_value_below_its_floor_fails() {
        let floors = BTreeMap::from([("heap".to_owned(), 3.0 * MIB)]);
        let problems = judge(
            "put",
            &Ceiling {
                floors,
                ..ceiling(false)
            },
            &[run(64, 2.0)],
        );
        assert_eq!(
            problems,
            ["put: heap 2.0 MiB at 64.0 MiB, less than 3.0 MiB"]
        );
    }

    #[test]
    fn a_metric_that_is_not_measured_fails() {
        let limits = BTreeMap::from([("pages".to_owned(), 1.0)]);
        let problems = judge(
            "put",
            &Ceiling {
                limits,
                ..ceiling(false)
            },
            &[run(64, 2.0)],
        );
        assert_eq!(problems, ["put: pages is not measured"]);
    }

    #[test]
    fn a_case_that_must_fail_has_to_fail_both_checks() {
        assert_eq!(
            judge("buffer", &ceiling(true), &[run(64, 64.0), run(256, 256.0)]),
            [""; 0]
        );
        let flat = judge("buffer", &ceiling(true), &[run(64, 64.0), run(256, 64.0)]);
        assert_eq!(
            flat,
            ["buffer: a case that must fail does not grow with its size: the check cannot fail"]
        );
        let low = judge("buffer", &ceiling(true), &[run(64, 1.0), run(256, 3.0)]);
        assert_eq!(
            low,
            ["buffer: a case that must fail passes its ceilings: the check cannot fail"]
        );
    }
}
