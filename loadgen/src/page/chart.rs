//! Curves over time as SVG, drawn by plotters. What the colours of text and background are is left
//! to the page, so that the same drawing is read on light and on dark.

use plotters::prelude::*;
use plotters::style::RGBColor;

/// A grey that is seen on white and on black.
const GREY: RGBColor = RGBColor(136, 136, 136);

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// A line.
    Line,
    /// A line over a tinted area, for what others lie upon.
    Area,
    /// Dashes: expected, not seen.
    Expected,
}

/// One curve.
pub struct Series {
    /// What it shows.
    pub name: &'static str,
    /// Its colour, seen on white and on black.
    pub color: (u8, u8, u8),
    /// How it is drawn.
    pub stroke: Stroke,
    /// Seconds and values, in sequence; where there is no value, a gap.
    pub points: Vec<(f64, Option<f64>)>,
}

/// Curves that share their axes.
pub struct Chart {
    /// What it is about, with the unit.
    pub title: &'static str,
    /// The curves; the later ones lie upon the earlier ones.
    pub series: Vec<Series>,
    /// Seconds at which something happened; numbered from 1.
    pub events: Vec<f64>,
    /// Where the axis of time ends, the same in charts that are compared.
    pub until_s: f64,
}

/// Marks that are nearer than this share of the axis get their numbers below each other.
const MARKS_APART: f64 = 0.03;

impl Series {
    /// When its last value is.
    pub fn ends_at_s(&self) -> f64 {
        self.points.last().map_or(0.0, |point| point.0)
    }

    /// The pieces between its gaps.
    fn pieces(&self) -> impl Iterator<Item = Vec<(f64, f64)>> {
        let pieces = self.points.split(|(_, value)| value.is_none());
        let pieces = pieces.filter(|piece| !piece.is_empty());
        pieces.map(|piece| {
            piece
                .iter()
                .filter_map(|(at_s, value)| Some((*at_s, (*value)?)))
                .collect()
        })
    }
}

impl Chart {
    /// The drawing, in pixels; it may be scaled.
    pub fn svg(&self, size: (u32, u32)) -> Result<String, String> {
        let mut text = String::new();
        self.draw(&mut text, size)
            .map_err(|error| error.to_string())?;
        Ok(text)
    }

    fn draw(
        &self,
        text: &mut String,
        size: (u32, u32),
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let points = self.series.iter().flat_map(|series| &series.points);
        let highest = points.filter_map(|point| point.1).fold(0.0, f64::max);
        let y_max = if highest > 0.0 { highest * 1.12 } else { 1.0 };
        let x_max = self.until_s.max(1.0);
        let root = SVGBackend::with_string(text, size).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(22)
            .x_label_area_size(26)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..x_max, 0.0..y_max)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GREY.mix(0.3))
            .axis_style(GREY)
            .x_labels((size.0 / 80) as usize)
            .y_labels(5)
            .label_style(("sans-serif", 13))
            .x_label_formatter(&|at_s| format!("{at_s:.0} s"))
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        for series in &self.series {
            let (red, green, blue) = series.color;
            let color = RGBColor(red, green, blue);
            let style = color.stroke_width(2);
            for piece in series.pieces() {
                if series.stroke == Stroke::Area {
                    let area = AreaSeries::new(piece.iter().copied(), 0.0, color.mix(0.22));
                    chart.draw_series(area)?;
                }
                if series.stroke == Stroke::Expected {
                    chart.draw_series(DashedLineSeries::new(piece, 6, 5, style))?;
                } else {
                    chart.draw_series(LineSeries::new(piece, style))?;
                }
            }
        }
        for (number, (at_s, row)) in (1..).zip(rows_of_marks(&self.events, x_max * MARKS_APART)) {
            let line = vec![(at_s, 0.0), (at_s, y_max)];
            chart.draw_series([PathElement::new(line, GREY.mix(0.8))])?;
            let place = (at_s + x_max * 0.006, y_max * (1.0 - 0.07 * f64::from(row)));
            let label = Text::new(format!("{number}"), place, ("sans-serif", 13));
            chart.draw_series([label])?;
        }
        root.present()
    }
}

/// The marks, each with the row of its number: one that is near the mark before it goes below.
fn rows_of_marks(events: &[f64], apart: f64) -> Vec<(f64, u8)> {
    let mut rows: Vec<(f64, u8)> = Vec::new();
    for at_s in events {
        let row = match rows.last() {
            Some((before, row)) if at_s - before < apart => (row + 1) % 10,
            _ => 0,
        };
        rows.push((*at_s, row));
    }
    rows
}

/// 1500 as "1.5k".
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    match scaled {
        scaled if scaled.fract().abs() < 0.05 => format!("{scaled:.0}{unit}"),
        scaled => format!("{scaled:.1}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(stroke: Stroke) -> Series {
        Series {
            name: "backlog",
            color: (200, 60, 60),
            stroke,
            points: vec![
                (0.0, Some(0.0)),
                (60.0, Some(200_000.0)),
                (100.0, Some(0.0)),
            ],
        }
    }

    fn chart(series: Vec<Series>, events: Vec<f64>) -> String {
        let chart = Chart {
            title: "backlog",
            series,
            events,
            until_s: 100.0,
        };
        chart.svg((900, 260)).unwrap()
    }

    #[test]
    fn every_curve_and_every_event_is_drawn() {
        let curves = || vec![backlog(Stroke::Area), backlog(Stroke::Expected)];
        let svg = chart(curves(), vec![30.0]);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("#C83C3C") && svg.contains("200k"), "{svg}");
        assert!(svg.contains("<polygon") && svg.contains("100 s"), "{svg}");
        assert!(chart(curves(), Vec::new()).len() < svg.len());
        assert!(chart(vec![backlog(Stroke::Line)], vec![30.0]).len() < svg.len());
    }

    #[test]
    fn where_there_is_no_value_the_curve_has_a_gap() {
        let mut broken = backlog(Stroke::Line);
        broken.points = [1.0, 2.0, 3.0, 4.0, 5.0]
            .map(|at_s| (at_s, Some(at_s)))
            .into();
        assert_eq!(broken.pieces().count(), 1);
        broken.points[2].1 = None;
        assert_eq!(broken.pieces().count(), 2);
        assert_eq!(broken.pieces().next().unwrap(), [(1.0, 1.0), (2.0, 2.0)]);
        broken.points[0].1 = None;
        broken.points[1].1 = None;
        assert_eq!(
            broken.pieces().count(),
            1,
            "nothing is drawn of a gap at the start"
        );
    }

    #[test]
    fn numbers_of_marks_do_not_cover_each_other() {
        let rows = rows_of_marks(&[30.0, 30.4, 31.0, 45.0], 3.0);
        assert_eq!(rows, [(30.0, 0), (30.4, 1), (31.0, 2), (45.0, 0)]);
    }

    #[test]
    fn a_chart_of_nothing_is_drawn_all_the_same() {
        assert!(chart(Vec::new(), Vec::new()).contains("<svg"));
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1_500.0, "1.5k"),
            (200_000.0, "200k"),
            (2.5e6, "2.5M"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
