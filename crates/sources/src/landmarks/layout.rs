//! Which fields of a line are what.

use clap::ValueEnum;
use pfc_image::align::{Landmarks, Point, five_of_68, residual};

/// In which order a line without header has its numbers; five points, or 68 in the iBUG order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LandmarkFormat {
    /// Whichever of the others makes faces of the first lines.
    #[default]
    Auto,
    /// `path x1 y1 x2 y2 …`, as most lists have it.
    Xy,
    /// `path x1 x2 … y1 y2 …`: lists of PFE, and the order in which MTCNN gives points.
    Xxyy,
    /// `path label x1 y1 x2 y2 …`: `SphereFace`, for CASIA-WebFace.
    LabelXy,
    /// `path x1 y1 x2 y2 … score`: InsightFace's of IJB-B and IJB-C.
    XyScore,
}

/// Where the parts of a line are among its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The field with the path.
    pub image: usize,
    /// The fields of each point, x and y: 5 or 68.
    pub points: Vec<(usize, usize)>,
    /// Fields of a line.
    pub n_fields: usize,
}

impl Layout {
    /// The layout of `n_fields` fields in the order of `format`, if there is one.
    fn of(format: LandmarkFormat, n_fields: usize) -> Option<Layout> {
        // Fields beside path and points.
        let (before, after) = match format {
            LandmarkFormat::Auto => return None,
            LandmarkFormat::Xy | LandmarkFormat::Xxyy => (0, 0),
            LandmarkFormat::LabelXy => (1, 0),
            LandmarkFormat::XyScore => (0, 1),
        };
        let n_points = match n_fields.checked_sub(1 + before + after)? {
            10 => 5,
            136 => 68,
            _ => return None,
        };
        let first = 1 + before;
        let point = |i| match format {
            LandmarkFormat::Xxyy => (first + i, first + n_points + i),
            _ => (first + 2 * i, first + 2 * i + 1),
        };
        Some(Layout { image: 0, points: (0..n_points).map(point).collect(), n_fields })
    }

    /// The layouts that lines of `n_fields` fields may have; one if `format` says which.
    pub fn candidates(format: LandmarkFormat, n_fields: usize) -> Vec<Layout> {
        let formats = match format {
            LandmarkFormat::Auto => LandmarkFormat::value_variants(),
            _ => &[format],
        };
        formats.iter().filter_map(|format| Layout::of(*format, n_fields)).collect()
    }

    /// The numbers of fields for which there are candidates, to say so.
    pub fn expected_fields(format: LandmarkFormat) -> String {
        let counts: Vec<String> = (1..=140)
            .filter(|n| !Layout::candidates(format, *n).is_empty())
            .map(|n| n.to_string())
            .collect();
        counts.join(" or ")
    }

    /// The landmarks among the numbers of a line, which are `numbers[field]`.
    ///
    /// `None` if there are too few.
    pub fn landmarks(&self, numbers: &[f64]) -> Option<Landmarks> {
        Some(self.five(numbers)?.map(|point| point.map(|value| value as f32)))
    }

    /// The five points, those that stand for the eyes of 68 not yet rounded.
    fn five(&self, numbers: &[f64]) -> Option<[Point; 5]> {
        let point = |&(x, y): &(usize, usize)| Some([*numbers.get(x)?, *numbers.get(y)?]);
        let points: Vec<Point> = self.points.iter().map(point).collect::<Option<_>>()?;
        match <&[Point; 5]>::try_from(&points[..]) {
            Ok(five) => Some(*five),
            Err(_) => Some(five_of_68(<&[Point; 68]>::try_from(&points[..]).ok()?)),
        }
    }

    /// The median distance from the template over `lines` of numbers; infinite without any.
    pub fn misfit(&self, lines: &[Vec<f64>]) -> f64 {
        let fit = |line: &Vec<f64>| residual(&self.five(line)?).ok();
        let mut fits: Vec<f64> = lines.iter().filter_map(fit).collect();
        fits.sort_by(f64::total_cmp);
        fits.get(fits.len() / 2).copied().unwrap_or(f64::INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use pfc_image::align::TEMPLATE;

    use super::*;

    #[track_caller]
    fn check(format: LandmarkFormat, numbers: &[f64]) {
        let lines = [numbers.to_vec()];
        let mut candidates = Layout::candidates(LandmarkFormat::Auto, numbers.len());
        candidates.sort_by(|a, b| a.misfit(&lines).total_cmp(&b.misfit(&lines)));
        assert_eq!(Some(&candidates[0]), Layout::of(format, numbers.len()).as_ref());
        assert_eq!(candidates[0].five(numbers), Some(TEMPLATE));
        assert!(candidates[1].misfit(&lines) > 10.0);
    }

    #[test]
    fn the_order_that_makes_a_face_is_found() {
        let xy = TEMPLATE.as_flattened();
        let xxyy = [TEMPLATE.map(|p| p[0]), TEMPLATE.map(|p| p[1])].concat();
        let path = [f64::NAN];
        check(LandmarkFormat::Xy, &[&path, xy].concat());
        check(LandmarkFormat::Xxyy, &[&path[..], &xxyy].concat());
        check(LandmarkFormat::LabelXy, &[&path, &[17.0], xy].concat());
        check(LandmarkFormat::XyScore, &[&path, xy, &[0.99]].concat());
    }

    #[test]
    fn numbers_of_fields_without_a_layout_have_no_candidates() {
        assert!(Layout::candidates(LandmarkFormat::Auto, 10).is_empty());
        assert!(Layout::candidates(LandmarkFormat::Xy, 12).is_empty());
        assert_eq!(Layout::expected_fields(LandmarkFormat::Auto), "11 or 12 or 137 or 138");
    }
}
