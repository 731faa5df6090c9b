//! Whether time grows faster than work.

/// From one point to the next, a decade on at most, time per unit of work may grow by this factor: caches of the
/// processor are left behind, and measurements vary. Where a control is measured beside, by its growth more.
/// Quadratic time grows by ten in a decade.
pub(crate) const STEP: f64 = 2.0;

/// From the second point on, time may grow as this power of the work, fitted over all points; more where the
/// control does.
pub(crate) const SLOPE: f64 = 1.1;

/// The slope of a shorter stretch is the noise of its ends.
const LEAST_SPAN: f64 = 10.0;

/// Some work, and the seconds that it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) work: f64,
    pub(crate) seconds: f64,
}

/// In what the curve grows faster than its work, beyond what the control, measured at the same work, does.
pub(crate) fn problems(curve: &[Point], control: Option<&[Point]>) -> Vec<String> {
    let mut problems = Vec::new();
    for (i, pair) in curve.windows(2).enumerate() {
        let of_control = control.and_then(|points| points.get(i..i + 2));
        let allowed = STEP * of_control.map_or(1.0, growth).max(1.0);
        let growth = growth(pair);
        if growth > allowed {
            problems.push(format!(
                "time per unit of work grows by {growth:.2} from {} to {}; {allowed:.2} is allowed",
                pair[0].work, pair[1].work
            ));
        }
    }
    if let Some(power) = slope(curve) {
        let of_control = control.and_then(slope).unwrap_or(1.0);
        let allowed = SLOPE + (of_control - 1.0).max(0.0);
        if power > allowed {
            problems.push(format!(
                "time grows as work to the power of {power:.2}; {allowed:.2} is allowed"
            ));
        }
    }
    problems
}

/// By what time per unit of work grows from the first point to the last.
fn growth(points: &[Point]) -> f64 {
    let cost = |point: &Point| point.seconds / point.work;
    match points {
        [first, .., last] => cost(last) / cost(first),
        _ => 1.0,
    }
}

/// The power of the work as which time grows from the second point on: least squares of the logarithms.
pub(crate) fn slope(curve: &[Point]) -> Option<f64> {
    let points = curve.get(1..)?;
    if points.last()?.work < LEAST_SPAN * points.first()?.work {
        return None;
    }
    let logs: Vec<_> = points
        .iter()
        .map(|p| (p.work.ln(), p.seconds.ln()))
        .collect();
    let count = logs.len() as f64;
    let mean_x = logs.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = logs.iter().map(|(_, y)| y).sum::<f64>() / count;
    let rise: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let run: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    Some(rise / run)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From 1 to a million in steps of ten.
    fn curve(seconds: impl Fn(f64) -> f64) -> Vec<Point> {
        let point = |power| {
            let work = 10_f64.powi(power);
            Point {
                work,
                seconds: seconds(work),
            }
        };
        (0..7).map(point).collect()
    }

    #[test]
    fn linear_curves_pass() {
        assert!(problems(&curve(|n| 3e-9 * n), None).is_empty());
        assert!((slope(&curve(|n| 3e-9 * n)).unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_fixed_cost_beside_linear_ones_passes() {
        assert!(problems(&curve(|n| 1e-4 + 3e-9 * n), None).is_empty());
    }

    #[test]
    fn noise_of_a_fifth_passes() {
        let noisy = |n: f64| n * if n.log10() as u32 % 2 == 0 { 1.2 } else { 1.0 };
        assert!(problems(&curve(noisy), None).is_empty());
    }

    #[test]
    fn quadratic_curves_fail_by_step_and_by_slope() {
        let problems = problems(&curve(|n| 1e-9 * n * n), None);
        assert_eq!(problems.len(), 7, "{problems:?}");
        assert!(problems[6].contains("the power of 2.00"), "{problems:?}");
    }

    #[test]
    fn a_quadratic_part_that_shows_late_fails() {
        let problems = problems(&curve(|n| 1e-3 + 1e-9 * n + 1e-13 * n * n), None);
        assert!(
            problems
                .iter()
                .any(|problem| problem.contains("from 100000 to 1000000")),
            "{problems:?}"
        );
    }

    #[test]
    fn slow_but_steady_growth_beyond_linear_fails_by_slope() {
        let problems = problems(&curve(|n| n.powf(1.15)), None);
        assert!(
            matches!(&problems[..], [one] if one.contains("1.15")),
            "{problems:?}"
        );
    }

    #[test]
    fn what_the_control_grows_by_is_allowed_and_no_more() {
        let control = curve(|n| n.powf(1.3));
        assert!(problems(&curve(|n| 5.0 * n.powf(1.3)), Some(&control)).is_empty());
        assert!(!problems(&curve(|n| n.powf(1.7)), Some(&control)).is_empty());
        // A control that gets cheaper by the unit takes nothing away.
        assert!(problems(&curve(|n| n), Some(&curve(|n| n.sqrt()))).is_empty());
    }

    #[test]
    fn few_points_close_together_have_no_slope() {
        let curve: Vec<_> = [1.0, 2.0, 4.0]
            .map(|n| Point {
                work: n,
                seconds: n * 1.2_f64.powf(n),
            })
            .into();
        assert_eq!(slope(&curve), None);
        assert!(problems(&curve, None).is_empty());
    }
}
