//! Charts as SVG and PNG, without fonts of the system.

mod axis;
mod band;
mod draw;
mod kinds;

pub use axis::{Axis, Scale};
pub use kinds::{
    Curve, Histogram, MATES_FOUND, PROBES_FOUND, align, cmc, det, histogram, open_set, roc,
};

use std::{fmt, io::Cursor, path::PathBuf, str::FromStr};

use crate::{
    ReportError,
    html::{self, Markup, PreEscaped, html},
};

/// A chart, independent of the format it is drawn in.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Above the plot.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Drawn in order, each in its own colour.
    pub series: Vec<Series>,
    /// Where the legend disturbs least.
    pub legend: Legend,
}

/// One entry of the legend.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its text in the legend.
    pub label: String,
    /// What is drawn; values outside the axes are drawn on their edge.
    pub shape: Shape,
    /// How far off a line may be at some places: `(x, low, high)`, drawn as vertical lines, with a band about
    /// the line from the first to the last.
    pub intervals: Vec<(f64, f64, f64)>,
}

impl Series {
    /// A curve through `points`.
    pub fn line(label: String, points: Vec<(f64, f64)>) -> Series {
        Series { label, shape: Shape::Line(points), intervals: Vec::new() }
    }

    /// A vertical line from edge to edge at `x`.
    pub fn mark(label: String, x: f64) -> Series {
        Series { label, shape: Shape::Mark(x), intervals: Vec::new() }
    }
}

/// What a series looks like.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A line through the points.
    Line(Vec<(f64, f64)>),
    /// Filled bars `(from, to, height)` that stand on the horizontal axis.
    Bars(Vec<(f64, f64, f64)>),
    /// A vertical line from edge to edge, such as a threshold.
    Mark(f64),
}

/// A corner of the plot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legend {
    /// Lower right.
    LowerRight,
    /// Lower left.
    LowerLeft,
    /// Upper right.
    UpperRight,
}

/// File format of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

/// Where a chart goes; the extension says in which format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlotPath {
    path: PathBuf,
    format: Format,
}

impl FromStr for PlotPath {
    type Err = String;

    fn from_str(text: &str) -> Result<PlotPath, String> {
        let path = PathBuf::from(text);
        let format = match path.extension().and_then(|e| e.to_str()) {
            Some(e) if e.eq_ignore_ascii_case("svg") => Format::Svg,
            Some(e) if e.eq_ignore_ascii_case("png") => Format::Png,
            _ => return Err("a plot's name ends in .svg or .png".to_owned()),
        };
        Ok(PlotPath { path, format })
    }
}

impl fmt::Display for PlotPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Width and height of a chart in points.
const SIZE: (u32, u32) = (640, 480);
/// Pixels per point of a PNG, for sharp text.
const PNG_SCALE: u32 = 2;

impl Chart {
    /// Draws the chart and writes it whole or not at all.
    ///
    /// # Errors
    ///
    /// [`ReportError::Draw`] if it cannot be drawn, [`ReportError::Durable`] if not written.
    pub fn write(&self, to: &PlotPath) -> Result<(), ReportError> {
        let bytes = match to.format {
            Format::Svg => self.svg()?.into_bytes(),
            Format::Png => self.png()?,
        };
        Ok(pfc_durable::write(&to.path, &bytes)?)
    }

    /// The chart as an SVG file with a white background.
    ///
    /// # Errors
    ///
    /// [`ReportError::Draw`].
    pub fn svg(&self) -> Result<String, ReportError> {
        draw::svg(self, SIZE, draw::Ground::White)
    }

    /// The chart for a page: an SVG element without a background, text in the page's colour, as wide as there is
    /// room, and its legend below, where it covers nothing.
    ///
    /// # Errors
    ///
    /// [`ReportError::Draw`].
    pub fn inline_svg(&self) -> Result<Markup, ReportError> {
        // Smaller than on file, so that text stays readable on a phone.
        const INLINE: (u32, u32) = (400, 300);
        let svg = draw::svg(self, INLINE, draw::Ground::Clear)?;
        let size = format!("width=\"{}\" height=\"{}\"", INLINE.0, INLINE.1);
        let title = html::text(&self.title).into_string();
        let role = format!("role=\"img\" aria-label=\"{title}\"");
        // The library has made text of all titles and names.
        let svg = svg.replacen(&size, &role, 1).replace("#000000", "currentColor");
        Ok(html! { (PreEscaped(svg)) (self.key()) })
    }

    /// The legend as markup: the colour and the whole name of each series.
    fn key(&self) -> Markup {
        html! {
            ul.key {
                @for (i, series) in self.series.iter().enumerate() {
                    @let (colour, is_dashed) = draw::look(i);
                    @let style = format!("color:rgb({},{},{})", colour.0, colour.1, colour.2);
                    li { i class=[is_dashed.then_some("dashed")] style=(style) {} (series.label) }
                }
            }
        }
    }

    /// The chart as a PNG file.
    ///
    /// # Errors
    ///
    /// [`ReportError::Draw`].
    pub fn png(&self) -> Result<Vec<u8>, ReportError> {
        let (width, height) = (SIZE.0 * PNG_SCALE, SIZE.1 * PNG_SCALE);
        let pixels = draw::rgb(self, (width, height), f64::from(PNG_SCALE))?;
        let image = image::RgbImage::from_raw(width, height, pixels).ok_or_else(|| {
            ReportError::Draw { reason: "the bitmap has the wrong size".to_owned() }
        })?;
        let mut png = Cursor::new(Vec::new());
        image
            .write_to(&mut png, image::ImageFormat::Png)
            .map_err(|error| ReportError::Draw { reason: error.to_string() })?;
        Ok(png.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let roc = [(0.0, 0.0), (0.0, 0.7), (0.01, 0.7), (0.01, 0.9), (1.0, 1.0)];
        let points = roc.map(|(far, tar)| pfc_metrics::roc::RocPoint { threshold: 0.0, far, tar });
        let intervals = Vec::new();
        super::roc(&[Curve { name: "a < b", points: &points, n_impostors: 1000, intervals }])
    }

    #[test]
    fn the_extension_chooses_the_format() {
        assert!("roc.SVG".parse::<PlotPath>().is_ok());
        assert_eq!(
            "roc.pdf".parse::<PlotPath>().unwrap_err(),
            "a plot's name ends in .svg or .png"
        );
        assert!("svg".parse::<PlotPath>().is_err());
    }

    #[test]
    fn an_svg_has_title_axes_and_an_escaped_legend() {
        let svg = chart().svg().unwrap();
        for text in ["ROC", "False accept rate", "1e-3", "a &lt; b"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
    }

    #[test]
    fn an_inline_svg_takes_the_colour_and_width_of_its_page() {
        let svg = chart().inline_svg().unwrap().into_string();
        assert!(svg.contains("currentColor") && svg.contains("viewBox=\"0 0 400 300\""), "{svg}");
        assert!(!svg.contains("width=\"400\" height=\"300\"") && !svg.contains("#FFFFFF"));
    }

    #[test]
    fn an_inline_legend_is_text_below_the_chart_and_tells_equal_colours_apart() {
        let mut chart = chart();
        let line = |i| Series::line(format!("<{i}>"), vec![(1e-3, 0.5), (1.0, 1.0)]);
        chart.series = (0..7).map(line).collect();
        let markup = chart.inline_svg().unwrap().into_string();
        let (svg, key) = markup.split_once("<ul class=\"key\">").unwrap();
        assert!(!svg.contains("&lt;0&gt;") && key.contains("&lt;0&gt;"), "{markup}");
        let first = "<i style=\"color:rgb(0,114,178)\">";
        let seventh = "<i class=\"dashed\" style=\"color:rgb(0,114,178)\">";
        assert!(key.matches(first).count() == 1 && key.matches(seventh).count() == 1, "{key}");
    }

    #[test]
    fn a_png_shows_text_without_fonts_of_the_system() {
        let with = image::load_from_memory(&chart().png().unwrap()).unwrap().into_rgb8();
        let mut untitled = chart();
        untitled.title = String::new();
        let without = image::load_from_memory(&untitled.png().unwrap()).unwrap().into_rgb8();
        assert_eq!(with.dimensions(), (1280, 960));
        assert_ne!(with.as_raw(), without.as_raw());
    }
}
