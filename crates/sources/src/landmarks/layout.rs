//! Which fields of a line are what.

use clap::ValueEnum;
use pfc_image::align::{Landmarks, Point, five_of_68, residual};

/// The pupils, the tip of the nose and the corners of the mouth among the 106 points of JD's detectors
/// (FaceX-Zoo's `lms_trans.py`), counted from 0.
const FIVE_OF_106_JD: [usize; 5] = [104, 105, 54, 84, 90];
/// The same of InsightFace's `2d106det`.
const FIVE_OF_106_INSIGHTFACE: [usize; 5] = [38, 88, 86, 52, 61];
/// The five points among 106, in each order that is around.
pub const FIVE_OF_106: [[usize; 5]; 2] = [FIVE_OF_106_JD, FIVE_OF_106_INSIGHTFACE];

/// Numbers beside the points: a box and a score, or a label.
const OTHERS_MAX: usize = 5;
const FIELDS_MAX: usize = 1 + 2 * 106 + OTHERS_MAX;

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
        if format != LandmarkFormat::Auto {
            return Layout::of(format, n_fields).into_iter().collect();
        }
        let formats = LandmarkFormat::value_variants().iter();
        let mut all: Vec<Layout> = formats.filter_map(|f| Layout::of(*f, n_fields)).collect();
        for layout in Layout::beside_others(n_fields) {
            if !all.contains(&layout) {
                all.push(layout);
            }
        }
        all
    }

    /// The layouts of points with other numbers before or behind them: a box, a label, a score.
    fn beside_others(n_fields: usize) -> Vec<Layout> {
        let mut all = Vec::new();
        let all_of = |n: usize| (0..n).collect::<Vec<usize>>();
        let sets = [
            (5, all_of(5)),
            (68, all_of(68)),
            (106, FIVE_OF_106_JD.to_vec()),
            (106, FIVE_OF_106_INSIGHTFACE.to_vec()),
        ];
        for (n_points, points) in sets {
            let n_others = n_fields.checked_sub(1 + 2 * n_points).filter(|n| *n <= OTHERS_MAX);
            for before in n_others.into_iter().flat_map(|n| 0..=n) {
                let first = 1 + before;
                let together = |i: &usize| (first + 2 * i, first + 2 * i + 1);
                let apart = |i: &usize| (first + i, first + n_points + i);
                for points in
                    [points.iter().map(together).collect(), points.iter().map(apart).collect()]
                {
                    all.push(Layout { image: 0, points, n_fields });
                }
            }
        }
        all
    }

    /// The numbers of fields for which there are candidates, to say so.
    pub fn expected_fields(format: LandmarkFormat) -> String {
        let is_known = |n: &usize| !Layout::candidates(format, *n).is_empty();
        let counts: Vec<usize> = (1..=FIELDS_MAX).filter(is_known).collect();
        let ranges = counts.chunk_by(|a, b| a + 1 == *b).map(|range| match range {
            [one] => one.to_string(),
            [first, second] => format!("{first} or {second}"),
            range => format!("{} to {}", range[0], range[range.len() - 1]),
        });
        ranges.collect::<Vec<_>>().join(" or ")
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
    fn points_are_found_beside_boxes_and_among_106() {
        let path = [f64::NAN];
        let boxed = [10.0, 12.0, 90.0, 95.0];
        let xy = TEMPLATE.as_flattened();
        let best = |numbers: &[f64]| {
            let lines = [numbers.to_vec()];
            let mut candidates = Layout::candidates(LandmarkFormat::Auto, numbers.len());
            candidates.sort_by(|a, b| a.misfit(&lines).total_cmp(&b.misfit(&lines)));
            candidates[0].five(numbers)
        };
        assert_eq!(best(&[&path[..], &boxed, xy].concat()), Some(TEMPLATE));
        assert_eq!(best(&[&path[..], xy, &boxed].concat()), Some(TEMPLATE));
        assert_eq!(best(&[&path[..], &boxed, &[0.9], xy].concat()), Some(TEMPLATE));
        for five in [FIVE_OF_106_JD, FIVE_OF_106_INSIGHTFACE] {
            let mut points = [[50.0, 60.0]; 106];
            for (place, point) in five.into_iter().zip(TEMPLATE) {
                points[place] = point;
            }
            let all = points.as_flattened();
            assert_eq!(best(&[&path[..], &boxed, all].concat()), Some(TEMPLATE));
            assert_eq!(best(&[&path[..], all].concat()), Some(TEMPLATE));
        }
    }

    #[test]
    fn numbers_of_fields_without_a_layout_have_no_candidates() {
        assert!(Layout::candidates(LandmarkFormat::Auto, 10).is_empty());
        assert!(Layout::candidates(LandmarkFormat::Xy, 12).is_empty());
        assert_eq!(
            Layout::expected_fields(LandmarkFormat::Auto),
            "11 to 16 or 137 to 142 or 213 to 218"
        );
    }
}
