//! Whether time grows faster than work.

use std::ops::RangeInclusive;

/// From one point to the next, a decade on at most, time per unit of work may grow by this factor: caches of the
/// processor are left behind, an entry becomes several, and measurements vary. Where a control is measured beside, by
/// its growth more. Quadratic time grows by ten in a decade.
///
/// A curve too short for a slope has nothing else to be judged by: there this is what a decade may cost, and a part of
/// it is allowed that much less.
pub const STEP: f64 = 2.0;

/// What is allowed all the same to points that are close together. Tasks that share a processor for the first time
/// cost up to 1.36 times as much on curves that are linear otherwise; quadratic time grows by 2 when work doubles.
const NOISE: f64 = 1.5;

/// From the second point on, time may grow as this power of the work, fitted over all points; more where the
/// control does.
pub const SLOPE: f64 = 1.1;

/// The slope of a shorter stretch is the noise of its ends. Within it, each point is compared with all others.
const LEAST_SPAN: f64 = 10.0;

/// Some work, and the seconds that it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub work: f64,
    pub seconds: f64,
}

/// In what the curve grows faster than its work, beyond what the control, measured at the same work, does.
#[must_use]
pub fn problems(curve: &[Point], control: Option<&[Point]>) -> Vec<String> {
    let slope_of_curve = slope(curve);
    let allowed = match slope_of_curve {
        Some(_) => |_| STEP,
        None => of_short,
    };
    let mut problems = Vec::new();
    for stretch in stretches(curve) {
        let of_control = control.and_then(|points| points.get(stretch.clone()));
        problems.extend(problem(&curve[stretch], of_control, allowed));
    }
    if let Some(power) = slope_of_curve {
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

/// From each point to the next, and to all others that are no decade away.
fn stretches(curve: &[Point]) -> impl Iterator<Item = RangeInclusive<usize>> {
    let starts = 0..curve.len();
    starts.flat_map(move |start| {
        let is_near = move |&end: &usize| curve[end].work < LEAST_SPAN * curve[start].work;
        let near = (start + 2..curve.len()).take_while(is_near);
        let next = (start + 1 < curve.len()).then_some(start + 1);
        next.into_iter().chain(near).map(move |end| start..=end)
    })
}

/// Whether time grows too much from the first point to the last.
fn problem(
    stretch: &[Point],
    control: Option<&[Point]>,
    allowed: fn(f64) -> f64,
) -> Option<String> {
    let (from, to) = (stretch.first()?.work, stretch.last()?.work);
    let growth = growth(stretch);
    let allowed = allowed(to / from) * control.map_or(1.0, self::growth).max(1.0);
    (growth > allowed).then(|| {
        format!(
            "time per unit of work grows by {growth:.2} from {from} to {to}; {allowed:.2} is allowed"
        )
    })
}

/// By what time per unit of work may grow on a short curve when work grows by `ratio`.
fn of_short(ratio: f64) -> f64 {
    STEP.powf(ratio.log10()).clamp(NOISE, STEP)
}

/// By what time per unit of work grows from the first point of a curve to the last, in words; an error when that is
/// more than `most`, which is promised whatever the machine's share. Nothing for curves that were not measured.
///
/// # Errors
///
/// The words, when the promise is broken.
pub fn promise(curve: &[Point], most: f64) -> Option<Result<String, String>> {
    let [first, .., last] = curve else {
        return None;
    };
    let growth = growth(curve);
    let words = format!(
        "at {} {growth:.2} times what it takes at {}; {most} is promised",
        last.work, first.work
    );
    Some(if growth > most { Err(words) } else { Ok(words) })
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
#[must_use]
pub fn slope(curve: &[Point]) -> Option<f64> {
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
        let noisy = |n: f64| {
            n * if (n.log10() as u32).is_multiple_of(2) {
                1.2
            } else {
                1.0
            }
        };
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
    fn promises_are_of_the_last_point_beside_the_first() {
        let puts = |last: f64| {
            let each = [(1e3, 10e-6), (1e5, 30e-6), (1e6, last)];
            each.map(|(work, each)| Point {
                work,
                seconds: work * each,
            })
        };
        assert!(promise(&puts(14.9e-6), 1.5).unwrap().is_ok());
        let broken = promise(&puts(15.1e-6), 1.5).unwrap().unwrap_err();
        assert_eq!(
            broken,
            "at 1000000 1.51 times what it takes at 1000; 1.5 is promised"
        );
        assert_eq!(promise(&[], 1.5), None);
    }

    /// One, two and four tasks: the seconds that all of them take.
    fn tasks(seconds: [f64; 3]) -> Vec<Point> {
        let points = [1.0, 2.0, 4.0].into_iter().zip(seconds);
        points
            .map(|(work, seconds)| Point { work, seconds })
            .collect()
    }

    #[test]
    fn few_points_close_together_have_no_slope() {
        assert_eq!(slope(&tasks([1.0, 2.0, 4.0])), None);
    }

    #[test]
    fn quadratic_curves_fail_over_few_points_close_together() {
        let problems = problems(&tasks([1.0, 4.0, 16.0]), None);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(
            problems[0].contains("by 2.00 from 1 to 2; 1.50 is allowed"),
            "{problems:?}"
        );
    }

    #[test]
    fn what_each_step_hides_shows_in_all_of_them() {
        let slow = tasks([1.0, 2.0, 4.0].map(|n: f64| n.powf(1.4)));
        let problems = problems(&slow, None);
        assert!(
            matches!(&problems[..], [one] if one.contains("from 1 to 4")),
            "{problems:?}"
        );
    }

    #[test]
    fn linear_curves_pass_over_few_points_with_their_noise() {
        for seconds in [
            // Gets of files, of zstd and in the process by one, two and four tasks, as two processors did them.
            [5.56, 5.48, 14.67],
            [0.116, 0.114, 0.263],
            [0.052, 0.067, 0.158],
            [1.0, 2.5, 4.0],
            [1.0, 1.7, 4.6],
        ] {
            let problems = problems(&tasks(seconds), None);
            assert!(problems.is_empty(), "{problems:?}");
        }
    }

    #[test]
    fn parts_of_a_decade_are_allowed_less_than_all_of_it() {
        assert!((of_short(10.0) - STEP).abs() < 1e-9);
        assert!((of_short(1e6) - STEP).abs() < 1e-9);
        assert!((of_short(4.0) - 1.52).abs() < 0.01);
    }

    #[test]
    fn one_step_of_a_long_curve_is_allowed_as_much_whatever_its_length() {
        // Gets from memcached in nanoseconds a byte, each of four times the bytes: from one item to several.
        let each = [114.0, 26.1, 5.98, 1.88, 0.546, 0.897, 0.505, 0.419];
        let mut work = 256.0;
        let curve: Vec<_> = each
            .map(|each| {
                work *= 4.0;
                Point {
                    work,
                    seconds: each * work,
                }
            })
            .into();
        assert_eq!(problems(&curve, None), [""; 0]);
    }
}
