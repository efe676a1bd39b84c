//! How a head is turned, as far as five landmarks tell.

use crate::template::Point;

/// Depth of the tip of the nose before the eyes and the mouth, in distances of the eyes.
const NOSE_DEPTH: f64 = 0.45;

/// Distance from the line of the eyes to that of the mouth, in distances of the eyes: the template's.
const EYES_TO_MOUTH: f64 = 1.155;

/// Where the nose lies between the line of the eyes and that of the mouth on a face seen from the front: the
/// template's.
const NOSE_BETWEEN: f64 = 0.495;

/// How a head is turned, in degrees; all three are 0 for the template's face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// To the side; positive where the nose lies right of the middle, as seen in the image.
    pub yaw: f64,
    /// Up or down; positive where it looks up.
    pub pitch: f64,
    /// In the plane of the image; positive clockwise, as seen.
    pub roll: f64,
}

/// An estimate of how the head with these landmarks is turned: that of a rigid face with the proportions of the
/// template, seen from far away. It is some 10 degrees off where a face has other proportions, and says little
/// beyond 60 degrees. Points that span no face give NaN.
pub fn pose(landmarks: &[Point; 5]) -> Pose {
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = *landmarks;
    let middle = |a: Point, b: Point| [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
    let between = |a: Point, b: Point| [b[0] - a[0], b[1] - a[1]];
    let dot = |a: Point, b: Point| a[0] * b[0] + a[1] * b[1];
    let across = between(left_eye, right_eye);
    let (eyes, mouth) = (middle(left_eye, right_eye), middle(left_mouth, right_mouth));
    let down = between(eyes, mouth);
    // Axes of the face in the image, whose lengths are distances that the turn has shortened.
    let (eye_distance, face_length) = (across[0].hypot(across[1]), down[0].hypot(down[1]));
    let side = dot(between(eyes, nose), across) / eye_distance.powi(2)
        - (dot(between(eyes, mouth), across) / eye_distance.powi(2)) * NOSE_BETWEEN;
    let height = dot(between(eyes, nose), down) / face_length.powi(2);
    Pose {
        yaw: (side / NOSE_DEPTH).atan().to_degrees(),
        pitch: ((NOSE_BETWEEN - height) * EYES_TO_MOUTH / NOSE_DEPTH).atan().to_degrees(),
        roll: across[1].atan2(across[0]).to_degrees(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::TEMPLATE;

    /// The five points of a face in space, in distances of the eyes, turned and seen from far away.
    fn seen(yaw: f64, pitch: f64, roll: f64) -> [Point; 5] {
        let length = EYES_TO_MOUTH;
        let face = [
            [-0.5, 0.0, 0.0],
            [0.5, 0.0, 0.0],
            [0.0, NOSE_BETWEEN * length, NOSE_DEPTH],
            [-0.41, length, 0.0],
            [0.41, length, 0.0],
        ];
        let (yaw, pitch, roll) = (yaw.to_radians(), pitch.to_radians(), roll.to_radians());
        face.map(|[x, y, z]| {
            // Up or down about the axis through the eyes, then to the side, then in the plane.
            let (y, z) = (y * pitch.cos() - z * pitch.sin(), y * pitch.sin() + z * pitch.cos());
            let x = x * yaw.cos() + z * yaw.sin();
            [
                80.0 * (x * roll.cos() - y * roll.sin()) + 200.0,
                80.0 * (x * roll.sin() + y * roll.cos()) + 150.0,
            ]
        })
    }

    #[track_caller]
    fn check(yaw: f64, pitch: f64, roll: f64) {
        let found = pose(&seen(yaw, pitch, roll));
        let is_near = |found: f64, true_one: f64| (found - true_one).abs() < 0.5;
        assert!(
            is_near(found.yaw, yaw) && is_near(found.pitch, pitch) && is_near(found.roll, roll),
            "{found:?} for {yaw} {pitch} {roll}"
        );
    }

    #[test]
    fn a_face_turned_about_one_axis_is_measured_right() {
        for angle in [-50.0, -20.0, 0.0, 10.0, 45.0] {
            check(angle, 0.0, 0.0);
            check(0.0, angle, 0.0);
            check(0.0, 0.0, angle);
            check(angle, 0.0, 30.0);
            check(0.0, angle, -170.0);
        }
    }

    #[test]
    fn the_template_looks_straight_ahead() {
        let Pose { yaw, pitch, roll } = pose(&TEMPLATE);
        assert!(yaw.abs() < 2.0 && pitch.abs() < 1.0 && roll.abs() < 1.0, "{yaw} {pitch} {roll}");
    }

    #[test]
    fn points_without_extent_have_no_pose() {
        let Pose { yaw, pitch, .. } = pose(&[[3.0, 3.0]; 5]);
        assert!(yaw.is_nan() && pitch.is_nan());
    }
}
