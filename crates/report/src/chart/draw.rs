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

use super::{Axis, Chart, Legend, Series, Shape, band};
use crate::ReportError;

/// What the chart stands on: paper of its own, where its legend is too, or a page, which has the legend
/// beside it.
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
/// Pixels of a dash, and between two.
const DASH: (f64, f64) = (7.0, 4.0);
const GRID: RGBColor = RGBColor(128, 128, 128);
const FONT: &str = "sans-serif";

/// How the series of this number is drawn: its colour, and whether its line is dashed, as those are whose
/// colour another one has.
pub(super) fn look(series: usize) -> (RGBColor, bool) {
    (COLOURS[series % COLOURS.len()], series / COLOURS.len() % 2 == 1)
}

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
    let points = |n: f64| scaled(n, scale);
    let text = |size: f64| text_style(size, scale);
    let (x, y) = (&chart.x, &vertical(chart, ground));
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
        draw_series(&mut plot, (x, y), (i, series), scale)?;
    }
    if !chart.series.is_empty() && ground == Ground::White {
        draw_legend(&mut plot, chart.legend, scale)?;
    }
    area.present()
}

/// What series are drawn on.
type Plot<'a, B> = ChartContext<'a, B, Cartesian2d<Axis, Axis>>;

/// Draws the series of a number, and what is known of how far off it may be.
fn draw_series<B: DrawingBackend>(
    plot: &mut Plot<'_, B>,
    (x, y): (&Axis, &Axis),
    (number, series): (usize, &Series),
    scale: f64,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let points = |n: f64| scaled(n, scale);
    let (colour, is_dashed) = look(number);
    let stroke = colour.stroke_width(points(2.0));
    // Those beyond the end of the axis would stand on its edge.
    let inside = series.intervals.iter().filter(|at| (x.low..=x.high).contains(&at.0));
    let intervals: Vec<(f64, f64, f64)> =
        inside.map(|&(at, low, high)| (x.at(at), y.at(low), y.at(high))).collect();
    let drawn = match &series.shape {
        Shape::Line(line) => {
            let line: Vec<(f64, f64)> = line.iter().map(|&(a, b)| (x.at(a), y.at(b))).collect();
            let band = band_within(y, &line, &intervals);
            let band = (!band.is_empty()).then(|| Polygon::new(band, colour.mix(0.18).filled()));
            plot.draw_series(band)?;
            if is_dashed {
                let (dash, gap) = (points(DASH.0), points(DASH.1));
                plot.draw_series(DashedLineSeries::new(line, dash, gap, stroke))?
            } else {
                plot.draw_series(std::iter::once(PathElement::new(line, stroke)))?
            }
        }
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
    let thin = colour.stroke_width(points(1.0));
    let ends = |&(at, low, high): &(f64, f64, f64)| PathElement::new([(at, low), (at, high)], thin);
    plot.draw_series(intervals.iter().filter(|(_, low, high)| low != high).map(ends))?;
    Ok(())
}

fn draw_legend<'a, B: DrawingBackend + 'a>(
    plot: &mut Plot<'a, B>,
    at: Legend,
    scale: f64,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let position = match at {
        Legend::LowerRight => SeriesLabelPosition::LowerRight,
        Legend::LowerLeft => SeriesLabelPosition::LowerLeft,
        Legend::UpperRight => SeriesLabelPosition::UpperRight,
    };
    let mut labels = plot.configure_series_labels();
    labels.position(position).label_font(text_style(13.0, scale)).border_style(GRID.mix(0.5));
    labels.margin(scaled(8.0, scale)).legend_area_size(scaled(24.0, scale));
    labels.background_style(WHITE.mix(0.85));
    labels.draw()
}

/// Points as pixels.
fn scaled(points: f64, scale: f64) -> u32 {
    (points * scale).round() as u32
}

/// Black text of a size in points.
fn text_style(points: f64, scale: f64) -> TextStyle<'static> {
    (FONT, points * scale).into_font().color(&BLACK)
}

/// The vertical axis; where the legend is within the plot, bars leave it room above them.
fn vertical(chart: &Chart, ground: Ground) -> Axis {
    let mut axis = chart.y.clone();
    let has_bars = chart.series.iter().any(|series| matches!(series.shape, Shape::Bars(_)));
    if has_bars && ground == Ground::White {
        axis.high *= 1.25;
    }
    axis
}

/// The band about a line, cut off where the vertical axis ends.
fn band_within(y: &Axis, line: &[(f64, f64)], intervals: &[(f64, f64, f64)]) -> Vec<(f64, f64)> {
    let Range { start, end } = Axis::range(y);
    let corners = band::corners(line, intervals);
    corners.into_iter().map(|(x, height)| (x, height.clamp(start, end))).collect()
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
