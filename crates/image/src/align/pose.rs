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
/// template, seen from far away (scaled orthographic projection). The line of the eyes gives the roll; where the
/// nose lies between eyes and mouth, across that line, the pitch; how far it lies beside the middle of the face, along
/// the line, the yaw.
///
/// It is right for such a face whatever its turn; some 10 degrees off where a face has other proportions, and says
/// little beyond 60 degrees. Points that span no face give NaN.
pub fn pose(landmarks: &[Point; 5]) -> Pose {
    let [left_eye, right_eye, nose, left_mouth, right_mouth] = *landmarks;
    let middle = |a: Point, b: Point| [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
    let between = |a: Point, b: Point| [b[0] - a[0], b[1] - a[1]];
    let across = between(left_eye, right_eye);
    let eyes = middle(left_eye, right_eye);
    let eye_distance = across[0].hypot(across[1]);
    let unit = across.map(|v| v / eye_distance);
    // Along the line of the eyes and across it, downwards on an upright face.
    let turned = |[x, y]: Point| [x * unit[0] + y * unit[1], y * unit[0] - x * unit[1]];
    let [nose_along, nose_across] = turned(between(eyes, nose));
    let [mouth_along, mouth_across] = turned(between(eyes, middle(left_mouth, right_mouth)));
    // In depths of the nose: tan(pitch), and tan(yaw) times cos(pitch).
    let up = (NOSE_BETWEEN - nose_across / mouth_across) * EYES_TO_MOUTH / NOSE_DEPTH;
    let side = (nose_along - NOSE_BETWEEN * mouth_along) / (eye_distance * NOSE_DEPTH);
    Pose {
        yaw: (side * up.hypot(1.0)).atan().to_degrees(),
        pitch: up.atan().to_degrees(),
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
        // The arithmetic is exact but for rounding.
        let is_near = |found: f64, true_one: f64| (found - true_one).abs() < 1e-6;
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
    fn a_face_turned_about_all_axes_is_measured_right() {
        for yaw in [-60.0, -25.0, 15.0, 40.0] {
            for pitch in [-35.0, 10.0, 30.0] {
                for roll in [-120.0, 0.0, 20.0] {
                    check(yaw, pitch, roll);
                }
            }
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
