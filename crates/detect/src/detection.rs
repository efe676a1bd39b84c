//! A face that a network reports, and which of many reports are of the same face.

use pfc_image::align::Landmarks;

/// Reports that are kept of one look at most. More overlap, or are of a network that reports noise.
const CANDIDATES_MAX: usize = 4096;

/// How far beyond the sides of what the network sees a coordinate may lie, in its longer sides.
const REACH: f32 = 4.0;

/// A face that a network reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// How sure the network is, above 0 and up to 1.
    pub score: f32,
    /// Left, top, right and bottom, in pixels of the picture.
    pub bounds: [f32; 4],
    /// In pixels of the picture.
    pub landmarks: Landmarks,
}

impl Detection {
    /// Width and height.
    pub fn size(&self) -> [f32; 2] {
        let [left, top, right, bottom] = self.bounds;
        [right - left, bottom - top]
    }

    /// The shorter side, in pixels of the picture.
    pub fn side(&self) -> f32 {
        let [width, height] = self.size();
        width.min(height)
    }

    /// Pixels that it covers.
    pub fn area(&self) -> f64 {
        let [width, height] = self.size().map(f64::from);
        width * height
    }

    /// The middle.
    pub fn middle(&self) -> [f32; 2] {
        let [left, top, right, bottom] = self.bounds;
        [(left + right) / 2.0, (top + bottom) / 2.0]
    }

    /// What two have in common, of what they cover together; 0 to 1.
    fn overlap(&self, other: &Detection) -> f64 {
        let ([a, b, c, d], [e, f, g, h]) = (self.bounds, other.bounds);
        let width = f64::from(c.min(g) - a.max(e)).max(0.0);
        let height = f64::from(d.min(h) - b.max(f)).max(0.0);
        let common = width * height;
        common / (self.area() + other.area() - common)
    }
}

/// Reports as they are decoded: those that cannot be of a face are passed over, and the surest are kept.
#[derive(Debug)]
pub(crate) struct Candidates {
    found: Vec<Detection>,
    score_min: f32,
    reach: f32,
}

impl Candidates {
    /// * `score_min`: what is below is passed over
    /// * `size`: rows and columns of what the network saw
    pub(crate) fn new(score_min: f32, size: [usize; 2]) -> Candidates {
        let longest = size[0].max(size[1]) as f32;
        Candidates { found: Vec::new(), score_min, reach: longest * REACH }
    }

    /// Whether a score is high enough. NaN is not.
    pub(crate) fn is_sure(&self, score: f32) -> bool {
        score >= self.score_min
    }

    /// Adds a report; one with coordinates that are no numbers, far outside, or a box without extent is none.
    ///
    /// * `bounds`: left, top, right, bottom
    pub(crate) fn add(&mut self, score: f32, bounds: [f32; 4], landmarks: Landmarks) {
        let mut all = bounds.iter().chain(landmarks.as_flattened());
        let is_near = all.all(|v| v.abs() <= self.reach);
        let [left, top, right, bottom] = bounds;
        if !(self.is_sure(score) && is_near && right - left > 0.0 && bottom - top > 0.0) {
            return;
        }
        self.found.push(Detection { score: score.min(1.0), bounds, landmarks });
        if self.found.len() >= 2 * CANDIDATES_MAX {
            self.found = surest(std::mem::take(&mut self.found));
        }
    }

    /// Those that remain, the surest first.
    pub(crate) fn finish(self) -> Vec<Detection> {
        surest(self.found)
    }
}

/// The surest first, and no more than are kept. Equal ones keep their order.
fn surest(mut found: Vec<Detection>) -> Vec<Detection> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(CANDIDATES_MAX);
    found
}

/// One report of each face, the surest first: of two that have more than `overlap_max` in common, the surer
/// one stays (non-maximum suppression). Takes N·K steps for N reports of K faces.
pub(crate) fn distinct(found: Vec<Detection>, overlap_max: f64) -> Vec<Detection> {
    let mut kept: Vec<Detection> = Vec::new();
    for one in surest(found) {
        if kept.iter().all(|other| other.overlap(&one) <= overlap_max) {
            kept.push(one);
        }
    }
    kept
}

/// A report of the same face is heard from this share of the surest one's score on,
const HEARD_SCORE: f32 = 0.8;
/// and if it has at least this share in common with it.
const HEARD_OVERLAP: f64 = 0.5;

/// As [`distinct`], but the points of each face are the mean of what all reports of it say that are nearly as sure, by
/// their scores. Neighbouring places of a network's grid report one face with points that differ by several pixels, and
/// often rounding decides which of them is the surest.
pub(crate) fn settled(found: Vec<Detection>, overlap_max: f64) -> Vec<Detection> {
    let found = surest(found);
    let mut faces = distinct(found.clone(), overlap_max);
    for face in &mut faces {
        let (mut sum, mut weight) = ([[0.0_f64; 2]; 5], 0.0);
        let nearly = found.iter().take_while(|report| report.score >= HEARD_SCORE * face.score);
        let is_surer = |report: &&Detection| report.score > face.score;
        for report in nearly.skip_while(is_surer) {
            if face.overlap(report) >= HEARD_OVERLAP {
                let of_report = f64::from(report.score);
                weight += of_report;
                let values = report.landmarks.as_flattened();
                for (sum, value) in sum.as_flattened_mut().iter_mut().zip(values) {
                    *sum += of_report * f64::from(*value);
                }
            }
        }
        face.landmarks = sum.map(|point| point.map(|value| (value / weight) as f32));
    }
    faces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(score: f32, bounds: [f32; 4]) -> Detection {
        Detection { score, bounds, landmarks: [[1.0; 2]; 5] }
    }

    #[test]
    fn the_surest_of_overlapping_reports_stays() {
        // The first two have 80 of 120 in common, the third 50 of 150 with the second and 30 with the first.
        let (a, b, c) = (
            at(0.8, [0.0, 0.0, 10.0, 10.0]),
            at(0.9, [2.0, 0.0, 12.0, 10.0]),
            at(0.7, [7.0, 0.0, 17.0, 10.0]),
        );
        assert_eq!(distinct(vec![a, b, c], 0.4), [b, c]);
        assert_eq!(distinct(vec![a, b, c], 0.7), [b, a, c]);
        assert_eq!(distinct(vec![c, b, a], 0.3), [b]);
        assert_eq!(distinct(Vec::new(), 0.4), []);
    }

    #[test]
    fn reports_that_are_nearly_as_sure_are_heard_on_where_the_points_are() {
        let with = |x: f32, face: Detection| Detection { landmarks: [[x, 2.0 * x]; 5], ..face };
        let surest = with(10.0, at(0.9, [0.0, 0.0, 10.0, 10.0]));
        // 90 of 110 in common; the next is not sure enough, and the one behind it has 40 of 160 in common.
        let nearly = with(13.0, at(0.8, [1.0, 0.0, 11.0, 10.0]));
        let unsure = with(90.0, at(0.7, [0.0, 0.0, 10.0, 10.0]));
        let beside = with(70.0, at(0.85, [6.0, 0.0, 16.0, 10.0]));
        let faces = settled(vec![unsure, nearly, beside, surest], 0.3);
        // (0.9 · 10 + 0.8 · 13) / 1.7
        let x = 11.411_765;
        assert_eq!((faces.len(), faces[0].score, faces[0].bounds), (2, 0.9, surest.bounds));
        for [found_x, found_y] in faces[0].landmarks {
            assert!((found_x - x).abs() < 1e-4 && (found_y - 2.0 * x).abs() < 1e-4, "{faces:?}");
        }
        assert_eq!(faces[1], beside);
        assert_eq!(settled(vec![surest], 0.3), [surest]);
    }

    #[test]
    fn what_cannot_be_a_face_is_passed_over() {
        let whole = [0.0, 0.0, 9.0, 9.0];
        let check = |score, bounds, x, expected| {
            let mut candidates = Candidates::new(0.5, [64, 32]);
            candidates.add(score, bounds, [[x, 1.0]; 5]);
            assert_eq!(candidates.finish().len(), expected, "{score} {bounds:?} {x}");
        };
        check(0.6, whole, 1.0, 1);
        check(0.4, whole, 1.0, 0);
        check(f32::NAN, whole, 1.0, 0);
        check(0.6, [0.0, 0.0, f32::INFINITY, 9.0], 1.0, 0);
        check(0.6, [0.0, f32::NAN, 9.0, 9.0], 1.0, 0);
        check(0.6, [9.0, 0.0, 0.0, 9.0], 1.0, 0);
        check(0.6, [0.0, 0.0, 0.0, 9.0], 1.0, 0);
        check(0.6, whole, f32::NEG_INFINITY, 0);
        check(0.6, whole, 257.0, 0);
        check(f32::INFINITY, whole, 1.0, 1);
    }

    #[test]
    fn a_million_reports_are_cut_down_to_the_surest() {
        let mut candidates = Candidates::new(0.0, [64, 64]);
        for i in 0..1_000_000_u32 {
            let score = (i % 10_000) as f32 / 10_000.0;
            candidates.add(score, [0.0, 0.0, 1.0 + (i % 7) as f32, 5.0], [[1.0; 2]; 5]);
        }
        let found = candidates.finish();
        assert_eq!(found.len(), CANDIDATES_MAX);
        assert_eq!((found[0].score, found[99].score, found[100].score), (0.9999, 0.9999, 0.9998));
        assert!(distinct(found, 0.4).len() < 8);
    }
}
