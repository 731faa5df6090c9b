//! How time grows with the work, as pictures and words: docs/scaling.md.
//!
//! The binary `scaling` of the package `own` in `benches` measures and judges.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::cmd::Cmd;
use crate::plot::{Axis, Chart, Line, Unit};
use crate::workspace::{root, target_dir, write};
use crate::{Result, debian, unknown_argument};

pub(crate) const USAGE: &str = "scaling [--quick]
    Measures how time grows with tasks, entries, columns and bytes, fails where it grows faster than
    the work, and writes docs/scaling.md with its pictures (--quick: two minutes with smaller tops,
    written below target/). Wants a machine with nothing else to do, and 16 GB of memory.
";

pub(crate) fn command(args: &[String]) -> Result<()> {
    let quick = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--quick"] => true,
        [arg, ..] => return Err(unknown_argument(arg)),
    };
    run(quick)
}

/// Measures, draws and judges. A quick run leaves the documentation alone.
pub(crate) fn run(quick: bool) -> Result<()> {
    debian::servers()?;
    let program = ["run", "--release", "--package", "own", "--bin", "scaling"];
    let mut options = vec!["--", "--json"];
    options.extend(quick.then_some("--quick"));
    let cmd = Cmd::cargo().dir(root().join("benches"));
    let (lines, judged) = cmd
        .args(program)
        .args(options)
        .tee(|line| line.starts_with('{'));
    let points: Option<Vec<_>> = lines.iter().map(|line| Point::parse(line)).collect();
    let points = points.ok_or("scaling: not the expected shape")?;
    let docs = if quick {
        target_dir().join("scaling")
    } else {
        root().join("docs")
    };
    report(&points, &docs)?;
    judged
}

/// Writes the page and its pictures.
fn report(points: &[Point], docs: &Path) -> Result<()> {
    let mut page = INTRODUCTION.to_owned();
    for figure in FIGURES {
        let name = format!("plots/scaling-{}.svg", figure.chart);
        figure.draw(points).save(&docs.join(&name))?;
        let _ = write!(
            page,
            "\n## {}\n\n![{}]({name})\n\n{}\n",
            figure.title, figure.note, figure.text
        );
    }
    write(&docs.join("scaling.md"), &page)
}

/// What the measuring program prints.
#[derive(Debug, PartialEq)]
struct Point {
    chart: String,
    series: String,
    x: f64,
    work: f64,
    seconds: f64,
}

impl Point {
    fn parse(line: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(line).ok()?;
        Some(Self {
            chart: json["chart"].as_str()?.to_owned(),
            series: json["series"].as_str()?.to_owned(),
            x: json["x"].as_f64()?,
            work: json["work"].as_f64()?,
            seconds: json["seconds"].as_f64()?,
        })
    }
}

/// A picture and what is to be seen in it.
struct Figure {
    /// The chart's name in what is measured.
    chart: &'static str,
    title: &'static str,
    note: &'static str,
    x: (&'static str, Unit),
    y: (&'static str, Y),
    text: &'static str,
}

/// What is drawn of a point.
#[derive(Clone, Copy, PartialEq)]
enum Y {
    Time,
    /// The time of one unit of work.
    TimeOfEach,
    /// Work per time, as a multiple of that of the curve's first point.
    Speedup,
}

const INTRODUCTION: &str = "\
# How time grows with the work

Written by `cargo xtask scaling`, which measures, draws the pictures and fails where a curve is worse than linear.
Points are medians of warm repetitions. What is called *bare* and drawn dashed is the same work without the library, by
plain calls of the file system, arrow-ipc or a hash map: the machine's own share. The rule is in
`benches/growth/src/lib.rs`: from one point to the next, a factor of ten in the work at most, the time per unit of
work may grow by a factor of 2, and over all points from the second on time may grow as the 1.1th power of the work;
over the few points of tasks side by side it may grow by a factor of 1.5 from any point to any other. Where a bare curve
grows faster, so may ours, by as much. Servers run on the same machine and share its processors.
";

const FIGURES: &[Figure] = &[
    Figure {
        chart: "concurrent-puts",
        title: "Concurrent puts",
        note: "Total throughput of tasks that put tables of 16 MiB under keys of their own, times that of one task",
        x: ("tasks", Unit::Count),
        y: ("total throughput", Y::Speedup),
        text: "\
A line that stays at 1 says that one task used all there is; none falls far below it, so puts do not get into each
other's way. A put hashes on a thread beside and compresses on several, so that one of them keeps two processors busy
already.",
    },
    Figure {
        chart: "concurrent-gets",
        title: "Concurrent gets",
        note: "Total throughput of tasks that read tables of 16 MiB, or hit them in the process, times that of one task",
        x: ("tasks", Unit::Count),
        y: ("total throughput", Y::Speedup),
        text: "\
Gets of files and hits in the process wait for nobody: they grow with the processors, and stay there with more tasks
than processors. Redis answers one command at a time, and with memcached the copying on both sides shares the machine.",
    },
    Figure {
        chart: "opening",
        title: "Opening a store",
        note: "Time to open a directory of entries and to put one, by how many entries there are",
        x: ("entries", Unit::Count),
        y: ("time", Y::Time),
        text: "\
A process that opens a directory, and has to know how full it is for its first put, reads a few pages of the ledger,
not the entries.",
    },
    Figure {
        chart: "entries-file",
        title: "Entries in a directory",
        note: "Time of an operation on an entry of a few bytes in the file store, by how many entries there are",
        x: ("entries", Unit::Count),
        y: ("time of one operation", Y::TimeOfEach),
        text: "\
Opening, looking up and removing an entry cost the same in a large store as in a small one, apart from what the
processor's caches no longer hold: a put among a million entries may take 1.5 times one among a thousand at most,
whatever a bare call does, or this fails. A put at the limit also evicts, which takes a fixed number of steps in the ledger.
The directory is in memory: how long a disk takes for such calls depends on the disk and on what is waiting to be
written (`--dir` puts the directory there; its bare curves then say how much is the disk's).",
    },
    Figure {
        chart: "entries-process",
        title: "Entries in the process",
        note: "Time of an operation on an entry of the tier in the process, by how many entries there are",
        x: ("entries", Unit::Count),
        y: ("time of one operation", Y::TimeOfEach),
        text: "\
What grows is the time that memory takes: a thousand entries fit into the processor's caches, a million do not. A bare
hash map, in which entries have neither order nor weight, grows alike.",
    },
    Figure {
        chart: "entries-redis",
        title: "Entries in Redis",
        note: "Time of an operation on an entry of a few bytes in Redis, by how many entries there are",
        x: ("entries", Unit::Count),
        y: ("time of one operation", Y::TimeOfEach),
        text: "A round trip each, whatever the number of entries.",
    },
    Figure {
        chart: "entries-memcached",
        title: "Entries in memcached",
        note: "Time of an operation on an entry of a few bytes in memcached, by how many entries there are",
        x: ("entries", Unit::Count),
        y: ("time of one operation", Y::TimeOfEach),
        text: "As with Redis.",
    },
    Figure {
        chart: "columns",
        title: "Columns of a table of fixed size",
        note: "Time by the number of numeric columns among which the same bytes are spread; file store, not compressed",
        x: ("columns", Unit::Count),
        y: ("time", Y::Time),
        text: "\
At first the bytes are what takes time, and their number is the same. Then each column costs its share of schema, index
and hashes. One column of many costs the opening, which reads the whole schema, and little else.",
    },
    Figure {
        chart: "width",
        title: "Columns of a fixed number of rows",
        note: "Time by the number of numeric columns, each with 128 rows; file store, not compressed",
        x: ("columns", Unit::Count),
        y: ("time", Y::Time),
        text: "\
A fixed cost first, then a line: nothing is done for pairs of columns. From a thousand to ten thousand columns the time
of each grows somewhat, for bare Arrow files too, because the table no longer fits into the processor's caches.",
    },
    Figure {
        chart: "values-put",
        title: "Puts by size",
        note: "Time to put a numeric table of eight columns, by its bytes",
        x: ("bytes of the table", Unit::Bytes),
        y: ("time", Y::Time),
        text: "\
Up to some hundred KiB a put costs what an entry costs, from some MiB on what its bytes cost. The bare line writes as many bytes
into a file.",
    },
    Figure {
        chart: "values-get",
        title: "Whole gets by size",
        note: "Time to open a numeric table of eight columns and to read all its batches, verified, by its bytes",
        x: ("bytes of the table", Unit::Bytes),
        y: ("time", Y::Time),
        text: "\
As with puts. Uncompressed tables in files are mapped and hashed where they lie; the bare line reads as many bytes of a
file, a MiB at a time, and hashes them.",
    },
];

impl Figure {
    fn draw(&self, points: &[Point]) -> Chart {
        let ours: Vec<_> = points.iter().filter(|p| p.chart == self.chart).collect();
        // In the order in which they were measured.
        let mut seen = BTreeSet::new();
        let series = ours.iter().map(|p| p.series.as_str());
        let series: Vec<_> = series.filter(|name| seen.insert(*name)).collect();
        let line = |name: &&str| {
            let of_series: Vec<_> = ours.iter().filter(|p| p.series == *name).collect();
            let first = of_series.first().map_or(1.0, |p| p.work / p.seconds);
            let y = |p: &Point| match self.y.1 {
                Y::Time => p.seconds,
                Y::TimeOfEach => p.seconds / p.work,
                Y::Speedup => p.work / p.seconds / first,
            };
            Line {
                name: (*name).to_owned(),
                points: of_series.iter().map(|p| (p.x, y(p))).collect(),
                peer: name.starts_with("bare "),
            }
        };
        let is_speedup = self.y.1 == Y::Speedup;
        Chart {
            title: self.title.to_owned(),
            note: self.note.to_owned(),
            x: Axis {
                label: self.x.0.to_owned(),
                unit: self.x.1,
                log: !is_speedup,
            },
            y: Axis {
                label: self.y.0.to_owned(),
                unit: if is_speedup {
                    Unit::Ratio
                } else {
                    Unit::Seconds
                },
                log: !is_speedup,
            },
            lines: series.iter().map(line).collect(),
            bound: is_speedup.then(|| (1.0, "one task".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(chart: &str, series: &str, x: f64, work: f64, seconds: f64) -> Point {
        let json = serde_json::json!({
            "chart": chart, "series": series, "x": x, "work": work, "seconds": seconds
        });
        Point::parse(&json.to_string()).unwrap()
    }

    fn figure(chart: &str) -> &'static Figure {
        FIGURES.iter().find(|figure| figure.chart == chart).unwrap()
    }

    #[test]
    fn each_figure_draws_what_it_says_of_its_own_points() {
        let points = [
            point("concurrent-puts", "file", 1.0, 10.0, 2.0),
            point("concurrent-puts", "file", 2.0, 20.0, 2.5),
            point("entries-file", "get", 1000.0, 1000.0, 2.0),
            point("entries-file", "bare get", 1000.0, 1000.0, 1.0),
            point("columns", "put", 10.0, 10.0, 3.0),
        ];
        let chart = figure("concurrent-puts").draw(&points);
        assert_eq!(chart.lines[0].points, [(1.0, 1.0), (2.0, 1.6)]);
        let chart = figure("entries-file").draw(&points);
        assert_eq!(chart.lines[0].points, [(1000.0, 0.002)]);
        assert!(chart.lines[1].peer && !chart.lines[0].peer);
        let chart = figure("columns").draw(&points);
        assert_eq!(chart.lines[0].points, [(10.0, 3.0)]);
    }

    #[test]
    fn a_line_that_lacks_a_figure_is_no_point() {
        assert_eq!(
            Point::parse(r#"{"chart": "columns", "series": "put", "x": 1}"#),
            None
        );
    }

    #[test]
    fn the_page_shows_every_figure() {
        let docs = std::env::temp_dir().join(format!("ck-scaling-{}", std::process::id()));
        report(&[point("columns", "put", 10.0, 10.0, 3.0)], &docs).unwrap();
        let page = std::fs::read_to_string(docs.join("scaling.md")).unwrap();
        for figure in FIGURES {
            let name = format!("plots/scaling-{}.svg", figure.chart);
            assert!(page.contains(&name) && docs.join(&name).is_file(), "{name}");
        }
        std::fs::remove_dir_all(&docs).unwrap();
    }
}
