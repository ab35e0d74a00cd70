//! Curves over time as SVG, drawn by plotters. What the colours of text and background are is left
//! to the page, so that the same drawing is read on light and on dark.

use plotters::prelude::*;
use plotters::style::RGBColor;

/// A grey that is seen on white and on black.
const GREY: RGBColor = RGBColor(136, 136, 136);

/// One curve.
pub struct Series {
    /// What it shows.
    pub name: &'static str,
    /// Its colour, seen on white and on black.
    pub color: (u8, u8, u8),
    /// Drawn in dashes: expected, not seen.
    pub is_expected: bool,
    /// Seconds and values, in sequence.
    pub points: Vec<(f64, f64)>,
}

/// Curves that share their axes.
pub struct Chart {
    /// What it is about, with the unit.
    pub title: &'static str,
    /// The curves.
    pub series: Vec<Series>,
    /// Seconds at which something happened; numbered from 1.
    pub events: Vec<f64>,
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
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x_max = points().map(|point| point.0).fold(1.0, f64::max);
        let y_max = points().map(|point| point.1).fold(0.0, f64::max) * 1.08;
        let y_max = if y_max > 0.0 { y_max } else { 1.0 };
        let root = SVGBackend::with_string(text, size).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .x_label_area_size(26)
            .y_label_area_size(52)
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
        for (number, at_s) in (1..).zip(&self.events) {
            let line = vec![(*at_s, 0.0), (*at_s, y_max)];
            chart.draw_series([PathElement::new(line, GREY.mix(0.7))])?;
            let label = Text::new(format!("{number}"), (*at_s, y_max), ("sans-serif", 12));
            chart.draw_series([label])?;
        }
        for series in &self.series {
            let (red, green, blue) = series.color;
            let style = RGBColor(red, green, blue).stroke_width(2);
            let points = series.points.iter().copied();
            if series.is_expected {
                chart.draw_series(DashedLineSeries::new(points, 6, 5, style))?;
            } else {
                chart.draw_series(LineSeries::new(points, style))?;
            }
        }
        root.present()
    }
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

    #[test]
    fn every_curve_and_every_event_is_drawn() {
        let series = |is_expected| Series {
            name: "backlog",
            color: (200, 60, 60),
            is_expected,
            points: vec![(0.0, 0.0), (60.0, 200_000.0), (100.0, 0.0)],
        };
        let chart = Chart {
            title: "backlog",
            series: vec![series(false), series(true)],
            events: vec![30.0],
        };
        let svg = chart.svg((900, 260)).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("#C83C3C") && svg.contains("200k"), "{svg}");
        let plain = Chart {
            events: Vec::new(),
            ..chart
        };
        assert!(plain.svg((900, 260)).unwrap().len() < svg.len());
    }

    #[test]
    fn a_chart_of_nothing_is_drawn_all_the_same() {
        let chart = Chart {
            title: "nothing",
            series: Vec::new(),
            events: Vec::new(),
        };
        assert!(chart.svg((420, 220)).is_ok());
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
