use std::collections::BTreeMap;

use super::ceilings::{Ceiling, Check, show};
use super::record::Run;
use crate::report;

/// A check of a metric that did not hold.
struct Problem {
    check: Check,
    metric: String,
    text: String,
}

/// What is wrong with the runs of a case. `runs` go from the smallest to the largest size.
pub(super) fn judge(case: &str, ceiling: &Ceiling, runs: &[Run]) -> Vec<String> {
    let beyond = runs.iter().flat_map(|run| beyond(ceiling, run));
    let found: Vec<_> = beyond.chain(growing(ceiling, runs)).collect();
    let mut problems = passed(ceiling, &found);
    let unexpected = found
        .into_iter()
        .filter(|problem| !ceiling.must_fail.contains(&problem.check));
    problems.extend(unexpected.map(|problem| problem.text));
    problems.extend(missing(ceiling, runs));
    problems
        .into_iter()
        .map(|problem| format!("{case}: {problem}"))
        .collect()
}

/// Checks that a case must fail, but has passed.
fn passed(ceiling: &Ceiling, found: &[Problem]) -> Vec<String> {
    let expected = ceiling.must_fail.iter().flat_map(|&check| {
        let metrics = ceiling.bounds(check).keys();
        metrics.map(move |metric| (check, metric))
    });
    let passed = expected.filter(|(check, metric)| {
        let mut failed = found.iter();
        !failed.any(|problem| problem.check == *check && problem.metric == **metric)
    });
    passed
        .map(|(check, metric)| {
            let check = check.name();
            format!("must fail {check} of {metric}, but passes: the check cannot fail")
        })
        .collect()
}

fn beyond(ceiling: &Ceiling, run: &Run) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut expect =
        |check, bounds: &BTreeMap<String, f64>, holds: fn(f64, f64) -> bool, what: &str| {
            for (metric, &bound) in bounds {
                if let Some(&value) = run.metrics.get(metric)
                    && !holds(value, bound)
                {
                    let (value, bound) = (show(metric, value), show(metric, bound));
                    let at = report::bytes(run.bytes);
                    problems.push(Problem {
                        check,
                        metric: metric.clone(),
                        text: format!("{metric} {value} at {at}, {what} {bound}"),
                    });
                }
            }
        };
    expect(
        Check::Max,
        &ceiling.limits,
        |value, limit| value <= limit,
        "more than",
    );
    expect(
        Check::Min,
        &ceiling.floors,
        |value, floor| value >= floor,
        "less than",
    );
    problems
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53 bytes")]
fn growing(ceiling: &Ceiling, runs: &[Run]) -> Vec<Problem> {
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
                problems.push(Problem {
                    check: Check::Slope,
                    metric: metric.clone(),
                    text: format!("{metric} grows with the source, from {before} to {after}"),
                });
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
            series: serde_json::Value::Null,
        }
    }

    fn ceiling(must_fail: &[Check]) -> Ceiling {
        Ceiling {
            limits: BTreeMap::from([("heap".to_owned(), 4.0 * MIB)]),
            slopes: BTreeMap::from([("heap".to_owned(), 0.004)]),
            must_fail: must_fail.to_vec(),
            ..Ceiling::default()
        }
    }

    #[test]
    fn a_flat_case_below_its_ceiling_passes() {
        assert_eq!(
            judge("put", &ceiling(&[]), &[run(64, 2.0), run(256, 2.1)]),
            [""; 0]
        );
    }

    #[test]
    fn a_peak_beyond_the_ceiling_fails_at_any_size() {
        let problems = judge("put", &ceiling(&[]), &[run(64, 4.5), run(256, 2.0)]);
        assert_eq!(
            problems,
            ["put: heap 4.5 MiB at 64.0 MiB, more than 4.0 MiB"]
        );
    }

    #[test]
    fn a_peak_that_grows_with_the_size_fails_below_the_ceiling_too() {
        let problems = judge(
            "put",
            &ceiling(&[]),
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
            ..ceiling(&[])
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
                ..ceiling(&[])
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
                ..ceiling(&[])
            },
            &[run(64, 2.0)],
        );
        assert_eq!(problems, ["put: pages is not measured"]);
    }

    #[test]
    fn a_case_that_must_fail_has_to_fail_its_checks_and_no_others() {
        let both = ceiling(&[Check::Max, Check::Slope]);
        let growing = [run(64, 64.0), run(256, 256.0)];
        let (flat, low) = (
            [run(64, 64.0), run(256, 64.0)],
            [run(64, 1.0), run(256, 3.0)],
        );
        assert_eq!(judge("buffer", &both, &growing), [""; 0]);
        assert_eq!(
            judge("buffer", &both, &flat),
            ["buffer: must fail slope of heap, but passes: the check cannot fail"]
        );
        assert_eq!(
            judge("buffer", &both, &low),
            ["buffer: must fail max of heap, but passes: the check cannot fail"]
        );
        assert_eq!(judge("leak", &ceiling(&[Check::Slope]), &low), [""; 0]);
        assert_eq!(judge("leak", &ceiling(&[Check::Max]), &flat), [""; 0]);
        assert_eq!(
            judge("leak", &ceiling(&[Check::Max]), &growing),
            ["leak: heap grows with the source, from 64.0 MiB to 256.0 MiB"]
        );
    }
}
