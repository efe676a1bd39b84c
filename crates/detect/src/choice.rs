//! Which faces of a picture are used.

use pfc_image::{
    ImageSize, Pixels,
    align::{self, AlignError, Landmarks, Point, Pose, pose},
    measure,
};

use crate::{DetectError, Detection, Detector, Search};

/// Which face of several comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The one with the largest box.
    #[default]
    Largest,
    /// The one whose box has its middle nearest the middle of the picture.
    Central,
}

/// What a face must be to be used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Pixels of the picture that the shorter side of its box has at least.
    pub side_min: f32,
    /// Sharpness of its aligned crop, as the column `sharpness` of a data set, at least.
    pub sharpness_min: Option<f32>,
    /// Degrees that it is turned to the side at most.
    pub yaw_max: Option<f64>,
    /// Degrees that it looks up or down at most.
    pub pitch_max: Option<f64>,
    /// Degrees that it is turned in the plane of the picture at most.
    pub roll_max: Option<f64>,
}

impl Bounds {
    /// Of a face that need only be one.
    pub const NONE: Bounds = Bounds {
        side_min: 0.0,
        sharpness_min: None,
        yaw_max: None,
        pitch_max: None,
        roll_max: None,
    };
}

/// A face, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// Where it is.
    pub detection: Detection,
    /// How it is turned.
    pub pose: Pose,
    /// Variance of the Laplacian of the luma of its 112×112 crop.
    pub sharpness: f32,
}

/// Why a picture gives no face.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum NoFace {
    /// The detector finds none.
    #[error("no face is found in it")]
    None,
    /// It is too small.
    #[error("its face has {side:.0} pixels, at least {side_min} are asked for")]
    Small {
        /// The shorter side of its box.
        side: f32,
        /// The bound.
        side_min: f32,
    },
    /// It is not sharp.
    #[error("its face has a sharpness of {sharpness:.1}, at least {sharpness_min} is asked for")]
    Blurred {
        /// That of its crop.
        sharpness: f32,
        /// The bound.
        sharpness_min: f32,
    },
    /// It is turned too far.
    #[error("its face has a {axis} of {angle:.0} degrees, at most {angle_max} are asked for")]
    Turned {
        /// `yaw`, `pitch` or `roll`.
        axis: &'static str,
        /// Degrees.
        angle: f64,
        /// The bound.
        angle_max: f64,
    },
    /// Its points are those of no face, or it lies beside the picture.
    #[error("its face cannot be cut out: {0}")]
    Misfit(AlignError),
}

impl NoFace {
    /// A short fixed word for the reason, to count and filter by.
    pub fn reason(&self) -> &'static str {
        match self {
            NoFace::None => "no_face",
            NoFace::Small { .. } => "face_small",
            NoFace::Blurred { .. } => "face_blurred",
            NoFace::Turned { .. } => "face_turned",
            NoFace::Misfit(_) => "landmarks",
        }
    }
}

/// A detector with what makes a face usable, and which one is taken.
#[derive(Debug)]
pub struct Finder {
    /// What finds them.
    pub detector: Detector,
    /// Which of them count.
    pub bounds: Bounds,
    /// Which comes first.
    pub choice: Choice,
}

impl Finder {
    /// The one face of a picture that is used: the first that keeps the bounds. If none does, the reason of the
    /// first.
    ///
    /// # Errors
    ///
    /// [`DetectError`], which says nothing of the picture.
    pub fn one(&self, pixels: &Pixels) -> Result<Result<Face, NoFace>, DetectError> {
        let found = self.detector.find(pixels, Search::Main)?;
        Ok(self.usable(pixels, found).map(|faces| faces[0]))
    }

    /// The landmarks of [`one`](Finder::one).
    ///
    /// # Errors
    ///
    /// As [`one`](Finder::one).
    pub fn landmarks(&self, pixels: &Pixels) -> Result<Result<Landmarks, NoFace>, DetectError> {
        Ok(self.one(pixels)?.map(|face| face.detection.landmarks))
    }

    /// All faces of a picture that keep the bounds, the first of them first; at least one.
    ///
    /// # Errors
    ///
    /// As [`one`](Finder::one).
    pub fn all(&self, pixels: &Pixels) -> Result<Result<Vec<Face>, NoFace>, DetectError> {
        let found = self.detector.find(pixels, Search::Every)?;
        Ok(self.usable(pixels, found))
    }

    fn usable(&self, pixels: &Pixels, found: Vec<Detection>) -> Result<Vec<Face>, NoFace> {
        usable(pixels, found, &self.bounds, self.choice)
    }
}

/// Those of `found` that keep the bounds, at least one.
fn usable(
    pixels: &Pixels,
    mut found: Vec<Detection>,
    bounds: &Bounds,
    choice: Choice,
) -> Result<Vec<Face>, NoFace> {
    let middle = [pixels.width, pixels.height].map(|side| f64::from(side) / 2.0);
    let rank = |face: &Detection| match choice {
        Choice::Largest => -face.area(),
        Choice::Central => {
            let [x, y] = face.middle().map(f64::from);
            (x - middle[0]).hypot(y - middle[1])
        }
    };
    found.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let (mut faces, mut first_reason) = (Vec::new(), None);
    for detection in found {
        match judge(pixels, detection, bounds) {
            Ok(face) => faces.push(face),
            Err(reason) => first_reason = first_reason.or(Some(reason)),
        }
    }
    if faces.is_empty() { Err(first_reason.unwrap_or(NoFace::None)) } else { Ok(faces) }
}

/// What is known of a face, if it keeps the bounds.
fn judge(pixels: &Pixels, detection: Detection, bounds: &Bounds) -> Result<Face, NoFace> {
    let (side, side_min) = (detection.side(), bounds.side_min);
    if side < side_min {
        return Err(NoFace::Small { side, side_min });
    }
    let points: [Point; 5] = detection.landmarks.map(|point| point.map(f64::from));
    align::judge(&points, pixels.width, pixels.height).map_err(NoFace::Misfit)?;
    let pose = pose(&points);
    let angles = [
        ("yaw", pose.yaw, bounds.yaw_max),
        ("pitch", pose.pitch, bounds.pitch_max),
        ("roll", pose.roll, bounds.roll_max),
    ];
    for (axis, angle, angle_max) in angles {
        // Points that tell no angle give NaN, which is within no bound.
        if let Some(angle_max) = angle_max
            && (angle.abs() > angle_max || angle.is_nan())
        {
            return Err(NoFace::Turned { axis, angle, angle_max });
        }
    }
    let crop = align::cut(pixels, &points, ImageSize::FACE).map_err(NoFace::Misfit)?;
    let sharpness = measure(&crop.luma(), crop.width as usize).sharpness;
    match bounds.sharpness_min {
        Some(sharpness_min) if sharpness < sharpness_min => {
            Err(NoFace::Blurred { sharpness, sharpness_min })
        }
        _ => Ok(Face { detection, pose, sharpness }),
    }
}

#[cfg(test)]
mod tests {
    use pfc_image::align::TEMPLATE;

    use super::*;

    fn picture() -> Pixels {
        let pixel = |i: u32| ((i % 400 / 8 + i / 400 / 8) % 2 * 200) as u8;
        Pixels::grey(400, 300, (0..400 * 300).map(pixel).collect())
    }

    /// The template's face at a place, `scale` times as large, in a box about it.
    fn face(left: f32, top: f32, scale: f32) -> Detection {
        let landmarks = TEMPLATE.map(|[x, y]| [x as f32 * scale + left, y as f32 * scale + top]);
        let side = 112.0 * scale;
        Detection { score: 0.9, bounds: [left, top, left + side, top + side], landmarks }
    }

    #[track_caller]
    fn check(found: &[Detection], bounds: &Bounds, choice: Choice, expected: Result<usize, &str>) {
        let usable = usable(&picture(), found.to_vec(), bounds, choice);
        let taken = usable.as_ref().map(|faces| faces[0].detection).map_err(NoFace::reason);
        assert_eq!(taken, expected.map(|i| found[i]), "{usable:?}");
    }

    #[test]
    fn the_largest_or_the_most_central_face_is_taken() {
        let found = [face(10.0, 10.0, 0.4), face(20.0, 120.0, 1.2), face(180.0, 130.0, 0.5)];
        check(&found, &Bounds::NONE, Choice::Largest, Ok(1));
        check(&found, &Bounds::NONE, Choice::Central, Ok(2));
        check(&[], &Bounds::NONE, Choice::Largest, Err("no_face"));
    }

    #[test]
    fn a_face_beyond_the_bounds_gives_way_to_the_next_and_else_its_reason() {
        let found = [face(20.0, 120.0, 1.2), face(180.0, 130.0, 0.5)];
        let bounds = Bounds { side_min: 60.0, ..Bounds::NONE };
        check(&found, &bounds, Choice::Central, Ok(0));
        check(&found, &Bounds { side_min: 200.0, ..bounds }, Choice::Central, Err("face_small"));
        let sharp = Bounds { sharpness_min: Some(1e6), ..Bounds::NONE };
        check(&found, &sharp, Choice::Largest, Err("face_blurred"));
        let mut turned = found[0];
        turned.landmarks[2][0] += 25.0;
        let frontal = Bounds { yaw_max: Some(30.0), ..Bounds::NONE };
        check(&[turned, found[1]], &frontal, Choice::Largest, Ok(1));
        check(&[turned], &frontal, Choice::Largest, Err("face_turned"));
        let mut swapped = found[0];
        swapped.landmarks.swap(0, 1);
        check(&[swapped], &Bounds::NONE, Choice::Largest, Err("landmarks"));
    }
}
