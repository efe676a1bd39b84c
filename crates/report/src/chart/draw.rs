//! The drawing itself, by `plotters`.

use std::{ops::Range, sync::Once};

use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter},
    },
    prelude::*,
    style::register_font,
};

use super::{Axis, Chart, Legend, Series, Shape};
use crate::ReportError;

/// What the chart stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    White,
    Clear,
}

/// Okabe and Ito's colours: told apart by colour-blind readers, on white and on black.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const GRID: RGBColor = RGBColor(128, 128, 128);
const FONT: &str = "sans-serif";

pub(super) fn svg(chart: &Chart, size: (u32, u32), ground: Ground) -> Result<String, ReportError> {
    let mut text = String::new();
    draw(chart, SVGBackend::with_string(&mut text, size).into_drawing_area(), ground, 1.0)?;
    Ok(text)
}

pub(super) fn rgb(chart: &Chart, size: (u32, u32), scale: f64) -> Result<Vec<u8>, ReportError> {
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    let backend = BitMapBackend::with_buffer(&mut pixels, size);
    draw(chart, backend.into_drawing_area(), Ground::White, scale)?;
    Ok(pixels)
}

/// The system may have no font, and then plotters draws none: bring one along.
fn bring_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        // An error would leave the text out, which the tests see.
        let _ = register_font(FONT, FontStyle::Normal, font);
    });
}

fn draw<B: DrawingBackend>(
    chart: &Chart,
    area: DrawingArea<B, Shift>,
    ground: Ground,
    scale: f64,
) -> Result<(), ReportError> {
    bring_font();
    try_draw(chart, &area, ground, scale)
        .map_err(|error| ReportError::Draw { reason: error.to_string() })
}

fn try_draw<B: DrawingBackend>(
    chart: &Chart,
    area: &DrawingArea<B, Shift>,
    ground: Ground,
    scale: f64,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    if ground == Ground::White {
        area.fill(&WHITE)?;
    }
    let points = |n: f64| (n * scale).round() as u32;
    let text = |size: f64| (FONT, size * scale).into_font().color(&BLACK);
    let (x, y) = (&chart.x, &chart.y);
    let mut plot = ChartBuilder::on(area)
        .margin(points(10.0))
        // The last label of the horizontal axis is centred on its end.
        .margin_right(points(26.0))
        .caption(shortened(&chart.title, 40), text(18.0))
        .x_label_area_size(points(44.0))
        .y_label_area_size(points(60.0))
        .build_cartesian_2d(x.clone(), y.clone())?;
    plot.configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.mix(0.3))
        .axis_style(GRID)
        .x_desc(&x.label)
        .y_desc(&y.label)
        .label_style(text(13.0))
        .axis_desc_style(text(14.0))
        .draw()?;
    for (i, series) in chart.series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let stroke = colour.stroke_width(points(2.0));
        let drawn = match &series.shape {
            Shape::Line(line) => plot.draw_series(std::iter::once(PathElement::new(
                line.iter().map(|&(a, b)| (x.at(a), y.at(b))).collect::<Vec<_>>(),
                stroke,
            )))?,
            Shape::Mark(at) => {
                let ends = [(x.at(*at), y.at(y.low)), (x.at(*at), y.at(y.high))];
                plot.draw_series(std::iter::once(PathElement::new(ends.to_vec(), stroke)))?
            }
            Shape::Bars(bars) => plot.draw_series(visible(bars).map(|&(from, to, height)| {
                let corners = [(x.at(from), y.at(0.0)), (x.at(to), y.at(height))];
                Rectangle::new(corners, colour.mix(0.55).filled())
            }))?,
        };
        let key = points(18.0) as i32;
        drawn
            .label(legend_text(series))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + key, y)], stroke));
        // Those beyond the end of the axis would stand on its edge.
        let inside = |interval: &&(f64, f64, f64)| (x.low..=x.high).contains(&interval.0);
        plot.draw_series(series.intervals.iter().filter(inside).map(|&(at, low, high)| {
            PathElement::new([(x.at(at), y.at(low)), (x.at(at), y.at(high))], stroke)
        }))?;
    }
    if chart.series.is_empty() {
        return area.present();
    }
    let position = match chart.legend {
        Legend::LowerRight => SeriesLabelPosition::LowerRight,
        Legend::LowerLeft => SeriesLabelPosition::LowerLeft,
        Legend::UpperRight => SeriesLabelPosition::UpperRight,
    };
    let mut labels = plot.configure_series_labels();
    labels.position(position).label_font(text(13.0)).border_style(GRID.mix(0.5));
    labels.margin(points(8.0)).legend_area_size(points(24.0));
    if ground == Ground::White {
        labels.background_style(WHITE.mix(0.85));
    }
    labels.draw()?;
    area.present()
}

/// An axis in `plotters`' terms; coordinates are those of `Axis::at`.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, position: &f64, limit: (i32, i32)) -> i32 {
        let Range { start, end } = Axis::range(self);
        let share = (position - start) / (end - start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _hint: H) -> Vec<f64> {
        self.ticks()
    }

    fn range(&self) -> Range<f64> {
        Axis::range(self)
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(position: &f64) -> String {
        position.to_string()
    }

    fn format_ext(&self, position: &f64) -> String {
        self.text(*position)
    }
}

fn visible(bars: &[(f64, f64, f64)]) -> impl Iterator<Item = &(f64, f64, f64)> {
    bars.iter().filter(|bar| bar.2 > 0.0)
}

/// Long names would cover the plot.
fn legend_text(series: &Series) -> String {
    shortened(&series.label, 36)
}

fn shortened(text: &str, n_max: usize) -> String {
    let n = text.chars().count();
    if n <= n_max {
        return text.to_owned();
    }
    // The end of a path tells more than its start.
    let tail: String = text.chars().skip(n - n_max + 1).collect();
    format!("…{tail}")
}
