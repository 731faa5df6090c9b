//! Pictures for the documentation: lines over an axis, and bars with their spread, as SVG.
//!
//! Each can be read without the page around it: title, what was measured, units at every tick, and a
//! legend in the order of the lines' ends.

use std::fs;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Result;

const WIDTH: u32 = 960;
const LEGEND: u32 = 250;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Okabe and Ito's colours, which colour-blind people tell apart; yellow left out, a dark brown added.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
    RGBColor(110, 60, 20),
];

/// Others, for what is not ours: Tol's muted colours without those that are like the ones above.
const PEER_COLOURS: [RGBColor; 10] = [
    RGBColor(136, 34, 85),
    RGBColor(17, 119, 51),
    RGBColor(51, 34, 136),
    RGBColor(153, 153, 51),
    RGBColor(204, 102, 119),
    RGBColor(170, 68, 153),
    RGBColor(175, 175, 175),
    RGBColor(0, 0, 0),
    RGBColor(255, 110, 180),
    RGBColor(120, 220, 90),
];

/// Lines over two axes.
pub(crate) struct Chart {
    pub(crate) title: String,
    /// One line that says what was measured, and how.
    pub(crate) note: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
    /// A horizontal line, and what it bounds.
    pub(crate) bound: Option<(f64, String)>,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Somebody else's: drawn dashed.
    pub(crate) peer: bool,
}

#[derive(Clone)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) unit: Unit,
    pub(crate) log: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Seconds,
    Count,
    Ratio,
}

/// Horizontal bars, one a row, each with its spread.
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) note: String,
    pub(crate) axis: Axis,
    pub(crate) bars: Vec<Bar>,
    /// A vertical line, and what it means.
    pub(crate) mark: Option<(f64, String)>,
}

pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Bars of one group have one number.
    pub(crate) colour: usize,
}

impl Chart {
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        save(path, 480, |root| self.draw(root))
    }

    fn draw(&self, root: &Area<'_>) -> Drawn {
        let body = heading(root, &self.title, &self.note)?;
        let (plot, legend) = body.split_horizontally(WIDTH - LEGEND);
        let xs = self.lines.iter().flat_map(|l| l.points.iter().map(|p| p.0));
        let ys = self.lines.iter().flat_map(|l| l.points.iter().map(|p| p.1));
        let bound = self.bound.iter().map(|(y, _)| *y);
        let (x, y) = (
            Scale::over(&self.x, xs),
            Scale::over(&self.y, ys.chain(bound)),
        );
        let mut chart = ChartBuilder::on(&plot)
            .margin_left(12)
            .margin_bottom(6)
            .margin_right(18)
            .x_label_area_size(48)
            .y_label_area_size(88)
            .build_cartesian_2d(x.clone(), y.clone())?;
        let (x_tick, y_tick) = (|at: &f64| x.label(*at), |at: &f64| y.label(*at));
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style((FONT, 13).into_font().color(&INK))
            .axis_desc_style((FONT, 14).into_font().color(&INK))
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&x_tick)
            .y_label_formatter(&y_tick)
            .draw()?;
        for (line, colour) in self.lines.iter().zip(self.colours()) {
            let points: Vec<_> = line.points.iter().map(|p| (x.at(p.0), y.at(p.1))).collect();
            let style = colour.stroke_width(2);
            if line.peer {
                chart.draw_series(DashedLineSeries::new(points.iter().copied(), 6, 4, style))?;
            } else {
                chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            }
            if points.len() <= FEW_POINTS {
                chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, style.filled())))?;
            }
        }
        if let Some((bound, what)) = &self.bound {
            let ends = [x.range.start, x.range.end].map(|end| (end, y.at(*bound)));
            chart.draw_series(DashedLineSeries::new(ends, 2, 3, INK.stroke_width(1)))?;
            let style = (FONT, 12).into_font().color(&INK);
            let style = style.pos(Pos::new(HPos::Right, VPos::Bottom));
            chart.draw_series([Text::new(what.clone(), ends[1], style)])?;
        }
        self.legend(&legend)
    }

    /// Of each line; no two are alike as long as there are eight of ours and ten of others.
    fn colours(&self) -> Vec<RGBColor> {
        let (mut own, mut others) = (COLOURS.iter().cycle(), PEER_COLOURS.iter().cycle());
        let colours = self.lines.iter().filter_map(|line| match line.peer {
            true => others.next(),
            false => own.next(),
        });
        colours.copied().collect()
    }

    /// Names in the order of the lines' right ends, so that eyes need not search.
    fn legend(&self, area: &Area<'_>) -> Drawn {
        let last = |line: &Line| line.points.last().map_or(f64::MIN, |point| point.1);
        let mut order: Vec<_> = self.lines.iter().zip(self.colours()).collect();
        order.sort_by(|a, b| last(b.0).total_cmp(&last(a.0)));
        for (row, (line, colour)) in order.into_iter().enumerate() {
            let y = 16 + 20 * i32::try_from(row)?;
            let style = colour.stroke_width(3);
            let dashes: &[(i32, i32)] = if line.peer {
                &[(0, 7), (12, 19)]
            } else {
                &[(0, 19)]
            };
            for &(from, to) in dashes {
                area.draw(&PathElement::new([(from, y), (to, y)], style))?;
            }
            let text = (FONT, 13).into_font().color(&INK);
            let text = text.pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(line.name.clone(), (26, y), text))?;
        }
        Ok(())
    }
}

impl Bars {
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let rows = u32::try_from(self.bars.len()).unwrap_or(u32::MAX);
        save(path, 130 + 24 * rows.min(200), |root| self.draw(root))
    }

    fn draw(&self, root: &Area<'_>) -> Drawn {
        let body = heading(root, &self.title, &self.note)?;
        let values = self.bars.iter().flat_map(|bar| [bar.low, bar.high]);
        let mark = self.mark.iter().map(|(at, _)| *at);
        let x = Scale::over(&self.axis, values.chain(mark));
        let rows = i32::try_from(self.bars.len())?;
        let mut chart = ChartBuilder::on(&body)
            .margin_bottom(6)
            .margin_right(70)
            .x_label_area_size(46)
            .y_label_area_size(330)
            .build_cartesian_2d(x.clone(), 0..rows.max(1))?;
        let tick = |at: &f64| x.label(*at);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style((FONT, 13).into_font().color(&INK))
            .axis_desc_style((FONT, 14).into_font().color(&INK))
            .x_desc(&self.axis.label)
            .x_label_formatter(&tick)
            .draw()?;
        let base = x.at(if self.axis.log { 1.0 } else { 0.0 });
        let base = base.clamp(x.range.start, x.range.end);
        let plot = chart.plotting_area();
        for (bar, row) in self.bars.iter().zip((0..rows).rev()) {
            let colour = COLOURS[bar.colour % COLOURS.len()];
            let (left, top) = plot.map_coordinate(&(base, row + 1));
            let (right, bottom) = plot.map_coordinate(&(x.at(bar.value), row));
            let middle = i32::midpoint(top, bottom);
            let corners = [(left, middle - 7), (right, middle + 7)];
            root.draw(&Rectangle::new(corners, colour.mix(0.75).filled()))?;
            let whisker =
                [bar.low, bar.high].map(|v| (plot.map_coordinate(&(x.at(v), row)).0, middle));
            root.draw(&PathElement::new(whisker, INK.stroke_width(1)))?;
            for (end, y) in whisker {
                let tip = [(end, y - 4), (end, y + 4)];
                root.draw(&PathElement::new(tip, INK.stroke_width(1)))?;
            }
            let label = (FONT, 13).into_font().color(&INK);
            let right_of = label.pos(Pos::new(HPos::Right, VPos::Center));
            root.draw(&Text::new(bar.label.clone(), (322, middle), right_of))?;
            let value = (FONT, 12).into_font().color(&INK);
            let value = value.pos(Pos::new(HPos::Left, VPos::Center));
            let beside = whisker[1].0.max(right).max(left) + 6;
            root.draw(&Text::new(
                self.axis.unit.show(bar.value),
                (beside, middle),
                value,
            ))?;
        }
        if let Some((at, what)) = &self.mark {
            let (at, top) = plot.map_coordinate(&(x.at(*at), rows));
            let (_, bottom) = plot.map_coordinate(&(x.range.start, 0));
            let mut dash = top;
            while dash < bottom {
                let ends = [(at, dash), (at, bottom.min(dash + 4))];
                root.draw(&PathElement::new(ends, INK.stroke_width(1)))?;
                dash += 7;
            }
            let style = (FONT, 12).into_font().color(&INK);
            let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
            root.draw(&Text::new(what.clone(), (at, top - 1), style))?;
        }
        Ok(())
    }
}

/// Lines with at most so many points show each of them.
const FEW_POINTS: usize = 16;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn save(path: &Path, height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<()> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = root
            .fill(&WHITE)
            .map_err(Into::into)
            .and_then(|()| draw(&root))
            .and_then(|()| root.present().map_err(Into::into));
        drawn.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let written = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = written.and_then(|()| fs::write(path, svg));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// Draws title and note, and gives what is left.
fn heading<'a>(
    root: &Area<'a>,
    title: &str,
    note: &str,
) -> std::result::Result<Area<'a>, Box<dyn std::error::Error>> {
    let (head, body) = root.split_vertically(58);
    let bold = (FONT, 19).into_font().style(FontStyle::Bold).color(&INK);
    head.draw(&Text::new(title.to_owned(), (14, 12), bold))?;
    let plain = (FONT, 13).into_font().color(&INK);
    head.draw(&Text::new(note.to_owned(), (14, 36), plain))?;
    Ok(body)
}

impl Unit {
    /// A value for people.
    fn show(self, value: f64) -> String {
        match self {
            Self::Bytes => scaled(
                value,
                &[
                    (1_073_741_824.0, " GiB"),
                    (1_048_576.0, " MiB"),
                    (1024.0, " KiB"),
                    (1.0, " B"),
                ],
            ),
            Self::Seconds => scaled(
                value,
                &[(1.0, " s"), (1e-3, " ms"), (1e-6, " us"), (1e-9, " ns")],
            ),
            Self::Count => scaled(value, &[(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")]),
            Self::Ratio => format!("{} x", digits(value)),
        }
    }

    /// What one step of a tick may be a multiple of.
    fn base(self) -> f64 {
        if self == Self::Bytes { 2.0 } else { 10.0 }
    }
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let unit = units.iter().find(|(unit, _)| value.abs() >= unit * 0.9995);
    match unit.or(units.last()) {
        Some((unit, name)) if value != 0.0 => format!("{}{name}", digits(value / unit)),
        _ => "0".to_owned(),
    }
}

/// Three digits, without zeros that say nothing.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        x if x >= 99.95 => 0,
        x if x >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// An axis with its range and ticks, linear or in powers.
#[derive(Clone)]
struct Scale {
    axis: Axis,
    /// In drawn coordinates: logarithms on a logarithmic axis.
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Scale {
    /// Over all `values`; a linear axis starts at nothing.
    fn over(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let usable = finite.filter(|value| !axis.log || *value > 0.0);
        let (low, high) = usable.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = if low > high { (1.0, 1.0) } else { (low, high) };
        if axis.log {
            Self::powers(axis, low, high)
        } else {
            Self::linear(axis, high)
        }
    }

    fn linear(axis: &Axis, high: f64) -> Self {
        let high = if high > 0.0 { high * 1.06 } else { 1.0 };
        let rough = high / 6.0;
        let power = rough.log(axis.unit.base()).floor();
        let unit = axis.unit.base().powf(power);
        let steps = [1.0, 2.0, 5.0, 10.0].map(|times| times * unit);
        // Of bytes, powers of two alone are round.
        let steps = &steps[..if axis.unit == Unit::Bytes { 2 } else { 4 }];
        let step = steps.iter().find(|step| **step >= rough);
        let step = step.copied().unwrap_or(unit * axis.unit.base());
        let mut ticks = vec![0.0];
        while let Some(last) = ticks.last()
            && last + step <= high
        {
            ticks.push(last + step);
        }
        Self {
            axis: axis.clone(),
            range: 0.0..high,
            ticks,
        }
    }

    fn powers(axis: &Axis, low: f64, high: f64) -> Self {
        let base = axis.unit.base().log10();
        let (start, end) = (low.log10() - 0.05, high.log10() + 0.08);
        let mut step = base;
        while (end - start) / step > 9.0 {
            step *= 2.0;
        }
        let first = (start / step).ceil() * step;
        let mut ticks = vec![first];
        while let Some(last) = ticks.last()
            && last + step <= end
        {
            ticks.push(last + step);
        }
        if ticks.len() < 3 && axis.unit.base() > 2.0 {
            let within = |tick: &f64| (start..=end).contains(tick);
            let fine = ticks[0] - step..=end;
            let decades = std::iter::successors(Some(*fine.start()), |at| Some(at + step));
            let decades = decades.take_while(|at| at <= fine.end());
            let parts = [1.0_f64, 2.0, 5.0].map(f64::log10);
            ticks = decades
                .flat_map(|at| parts.map(|part| at + part))
                .filter(within)
                .collect();
        }
        Self {
            axis: axis.clone(),
            range: start..end,
            ticks,
        }
    }

    /// Where `value` is drawn.
    fn at(&self, value: f64) -> f64 {
        if !self.axis.log {
            return value;
        }
        if value > 0.0 {
            value.log10()
        } else {
            self.range.start
        }
    }

    fn label(&self, at: f64) -> String {
        let value = if self.axis.log { 10_f64.powf(at) } else { at };
        self.axis.unit.show(value)
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        Ranged::map(
            &plotters::coord::types::RangedCoordf64::from(self.range.clone()),
            value,
            limit,
        )
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl plotters::coord::ranged1d::ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        digits(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(unit: Unit, log: bool) -> Axis {
        Axis {
            label: "what".to_owned(),
            unit,
            log,
        }
    }

    #[test]
    fn values_are_shown_with_three_digits_and_a_unit() {
        assert_eq!(Unit::Bytes.show(0.0), "0");
        assert_eq!(Unit::Bytes.show(67_108_864.0), "64 MiB");
        assert_eq!(Unit::Seconds.show(0.0025), "2.5 ms");
        assert_eq!(Unit::Seconds.show(0.001), "1 ms");
        assert_eq!(Unit::Count.show(1_000_000.0), "1 M");
        assert_eq!(Unit::Ratio.show(1.234), "1.23 x");
    }

    #[test]
    fn no_two_lines_of_a_chart_are_of_one_colour() {
        let line = |peer| Line {
            name: String::new(),
            points: Vec::new(),
            peer,
        };
        let chart = Chart {
            title: String::new(),
            note: String::new(),
            x: axis(Unit::Bytes, false),
            y: axis(Unit::Bytes, false),
            lines: [[false; 8].as_slice(), &[true; 10]]
                .concat()
                .into_iter()
                .map(line)
                .collect(),
            bound: None,
        };
        let mut colours: Vec<_> = chart.colours().iter().map(RGBColor::rgb).collect();
        colours.sort_unstable();
        colours.dedup();
        assert_eq!(colours.len(), 18);
    }

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let bytes = Scale::over(&axis(Unit::Bytes, false), [3.0e6, 40.0e6].into_iter());
        assert_eq!(bytes.ticks[1], 8_388_608.0);
        assert!(bytes.ticks.iter().all(|tick| bytes.range.contains(tick)));
        let log = Scale::over(
            &axis(Unit::Bytes, true),
            [1024.0, 4.0 * 1024.0 * 1024.0 * 1024.0].into_iter(),
        );
        let labels: Vec<_> = log.ticks.iter().map(|tick| log.label(*tick)).collect();
        assert!(labels.len() >= 4, "{labels:?}");
        assert!(
            labels.iter().all(|label| !label.contains('.')),
            "{labels:?}"
        );
        let narrow = Scale::over(&axis(Unit::Ratio, true), [0.8, 3.0].into_iter());
        let labels: Vec<_> = narrow
            .ticks
            .iter()
            .map(|tick| narrow.label(*tick))
            .collect();
        assert_eq!(labels, ["1 x", "2 x"]);
    }

    #[test]
    fn a_chart_shows_title_units_names_and_bound() {
        let dir = std::env::temp_dir().join(format!("ck-plot-{}", std::process::id()));
        let line = |name: &str, peer| Line {
            name: name.to_owned(),
            points: vec![(1024.0, 0.001), (1_048_576.0, 0.02)],
            peer,
        };
        let chart = Chart {
            title: "Put by size".to_owned(),
            note: "medians".to_owned(),
            x: axis(Unit::Bytes, true),
            y: axis(Unit::Seconds, true),
            lines: vec![line("file", false), line("pyarrow", true)],
            bound: Some((0.03, "ceiling".to_owned())),
        };
        chart.save(&dir.join("deep/chart.svg")).unwrap();
        let bars = Bars {
            title: "Ratios".to_owned(),
            note: "medians".to_owned(),
            axis: axis(Unit::Ratio, true),
            bars: vec![Bar {
                label: "put".to_owned(),
                value: 1.5,
                low: 1.2,
                high: 1.9,
                colour: 0,
            }],
            mark: Some((1.0, "equal".to_owned())),
        };
        bars.save(&dir.join("bars.svg")).unwrap();
        let chart = fs::read_to_string(dir.join("deep/chart.svg")).unwrap();
        let bars = fs::read_to_string(dir.join("bars.svg")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        for text in [
            "Put by size",
            "medians",
            "file",
            "pyarrow",
            "ceiling",
            " ms",
            " KiB",
        ] {
            assert!(chart.contains(text), "{text}");
        }
        for text in ["Ratios", "put", "equal", "1.5 x"] {
            assert!(bars.contains(text), "{text}");
        }
    }

    #[test]
    fn a_chart_without_points_is_still_drawn() {
        let path = std::env::temp_dir().join(format!("ck-plot-empty-{}.svg", std::process::id()));
        let chart = Chart {
            title: "Nothing".to_owned(),
            note: String::new(),
            x: axis(Unit::Count, true),
            y: axis(Unit::Bytes, false),
            lines: Vec::new(),
            bound: None,
        };
        chart.save(&path).unwrap();
        fs::remove_file(&path).unwrap();
    }
}
