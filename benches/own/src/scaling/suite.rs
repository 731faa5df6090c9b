use std::path::PathBuf;
use std::time::{Duration, Instant};

use growth::Point;
use own::Result;
use serde_json::json;
use tempfile::TempDir;

/// The points measured so far.
pub(crate) struct Suite {
    /// Whether the largest points are left out.
    pub(crate) quick: bool,
    json: bool,
    /// Where the directory of many small entries is made.
    dir: PathBuf,
    curves: Vec<Curve>,
}

struct Curve {
    chart: String,
    series: String,
    points: Vec<Point>,
}

/// How many times as long a unit of work may take at the last point as at the first, whatever the machine's share:
/// figures that are promised, beside the rule for all curves.
const PROMISES: [(&str, &str, f64); 1] = [("entries-file", "put", 1.5)];

/// Series of this name and the name of another are the other's control.
const CONTROL: &str = "bare ";

impl Suite {
    pub(crate) fn new(quick: bool, json: bool, dir: PathBuf) -> Self {
        Self {
            quick,
            json,
            dir,
            curves: Vec::new(),
        }
    }

    /// An empty directory for many small entries. It is removed when this is dropped.
    pub(crate) fn directory(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.dir)?)
    }

    /// Takes note of the next point of a curve, and prints it.
    ///
    /// `x` is where it stands in the chart. The series `bare NAME` is the control of the series `NAME`: the same
    /// work without the library.
    pub(crate) fn note(&mut self, chart: &str, series: &str, x: f64, work: f64, seconds: f64) {
        if self.json {
            let line =
                json!({"chart": chart, "series": series, "x": x, "seconds": seconds, "work": work});
            println!("{line}");
        } else {
            let time = Duration::from_secs_f64(seconds);
            let each = seconds / work * 1e9;
            println!("{chart:<18} {series:<20} {x:>12} {time:>12.2?} {each:>14.3} ns/unit");
        }
        let point = Point { work, seconds };
        let is_it = |curve: &&mut Curve| curve.chart == chart && curve.series == series;
        match self.curves.iter_mut().find(is_it) {
            Some(curve) => curve.points.push(point),
            None => self.curves.push(Curve {
                chart: chart.to_owned(),
                series: series.to_owned(),
                points: vec![point],
            }),
        }
    }

    /// Prints what became of the promises about curves that were measured, and says which are broken.
    fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (chart, series, most) in PROMISES {
            let found = growth::promise(self.points(chart, series).unwrap_or_default(), most);
            // Lines of JSON have the other stream for themselves.
            match found {
                Some(Ok(kept)) => eprintln!("{chart}, {series}: {kept}"),
                Some(Err(problem)) => broken.push(format!("{chart}, {series}: {problem}")),
                None => {}
            }
        }
        broken
    }

    fn points(&self, chart: &str, series: &str) -> Option<&[Point]> {
        let is_it = |curve: &&Curve| curve.chart == chart && curve.series == series;
        self.curves
            .iter()
            .find(is_it)
            .map(|curve| &curve.points[..])
    }

    /// Which curves grow faster than their work. Controls are not judged.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.broken_promises();
        for curve in &self.curves {
            if curve.series.starts_with(CONTROL) {
                continue;
            }
            let name = format!("{CONTROL}{}", curve.series);
            let control = self.points(&curve.chart, &name);
            let found = growth::problems(&curve.points, control);
            problems.extend(
                found
                    .iter()
                    .map(|problem| format!("{}, {}: {problem}", curve.chart, curve.series)),
            );
        }
        problems
    }
}

pub(crate) fn time<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    let done = work()?;
    let time = start.elapsed();
    drop(done);
    Ok(time)
}

/// Repeats work that times itself: at most `most` times, and, after the third, for as long as `patience`.
/// The first time warms up and does not count, unless it alone takes longer than that. The median in seconds of each.
pub(crate) fn medians<const N: usize>(
    most: usize,
    patience: Duration,
    mut work: impl FnMut() -> Result<[Duration; N]>,
) -> Result<[f64; N]> {
    let start = Instant::now();
    let mut times = [(); N].map(|()| Vec::new());
    let first = work()?;
    if start.elapsed() > patience {
        return Ok(first.map(|time| time.as_secs_f64()));
    }
    while times[0].len() < most && (times[0].len() < 3 || start.elapsed() < patience) {
        for (times, time) in times.iter_mut().zip(work()?) {
            times.push(time);
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    }))
}
