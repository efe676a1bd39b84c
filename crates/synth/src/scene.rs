//! Where each pixel of a picture lies on the face.
//!
//! The head is an ellipsoid turned before the camera. Each pixel is carried back to the frontal
//! face's frame (`u`, `v`), where the painters work as if every head looked straight ahead.

use crate::{
    colour::{self, Colour},
    face::Face,
    noise::noise,
    shot::Shot,
};

/// Where the origin of the face's frame lies in an aligned 112×112 crop.
const ORIGIN: (f32, f32) = (56.0, 64.0);

/// A face in its circumstances, ready to be looked at.
pub struct Scene<'a> {
    pub face: &'a Face,
    pub shot: &'a Shot,
    /// Centre of the head's outline: an aligned crop keeps the features in the middle, so that a
    /// turned head shifts its outline instead.
    centre: (f32, f32),
}

/// One pixel, in every frame that a painter asks for.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Upright frame of the picture, origin at the face's.
    pub x: f32,
    pub y: f32,
    /// The same from the centre of the head's outline.
    pub head_x: f32,
    pub head_y: f32,
    /// How much of the pixel the head covers.
    pub on_head: f32,
    /// Frontal frame of the face.
    pub u: f32,
    pub v: f32,
    /// The pixel shows the front half of the head.
    pub front: bool,
    /// Surface normal; `z` towards the camera.
    pub normal: (f32, f32, f32),
}

impl<'a> Scene<'a> {
    /// Puts `face` into `shot`.
    pub fn new(face: &'a Face, shot: &'a Shot) -> Scene<'a> {
        let head = &face.head;
        let centre = (
            -0.88 * shot.pose.yaw.sin * head.half_width,
            -0.7 * shot.pose.pitch.sin * (head.crown + head.chin) / 2.0,
        );
        Scene { face, shot, centre }
    }

    /// The light that a surface with this normal sends back, as a factor.
    pub fn shade(&self, normal: (f32, f32, f32)) -> f32 {
        let light = &self.shot.light;
        let (x, y, z) = light.direction;
        let facing = (normal.0 * x + normal.1 * y + normal.2 * z).max(0.0);
        light.ambient + light.diffuse * facing
    }

    /// `u` as seen by something that stands out from the face by `height` pixels.
    pub fn raised_u(&self, p: &Point, height: f32) -> f32 {
        p.u - self.shot.pose.yaw.sin * height
    }

    /// The pixel whose centre is at (`column`, `row`), in every frame.
    pub fn locate(&self, column: f32, row: f32) -> Point {
        let pose = &self.shot.pose;
        let (dx, dy) = (column - ORIGIN.0 - pose.shift.0, row - ORIGIN.1 - pose.shift.1);
        let (x, y) = pose.roll.undo(dx / pose.scale, dy / pose.scale);
        let (head_x, head_y) = (x - self.centre.0, y - self.centre.1);
        let head = &self.face.head;
        let tall = if head_y < 0.0 { head.crown } else { head.chin };
        let (nx, ny) = (head_x / self.half_width_at(head_y / tall), head_y / tall);
        let reach = (nx * nx + ny * ny).sqrt();
        let on_head = colour::inside((reach - 1.0) * head.half_width);
        let fit = if reach > 0.999 { 0.999 / reach } else { 1.0 };
        let (nx, ny) = (nx * fit, ny * fit);
        let nz = (1.0 - nx * nx - ny * ny).sqrt();
        // Pitch turns y and z, yaw turns x and z; undone in the reverse order.
        let (z, y0) = pose.pitch.undo(nz, ny);
        let (z, x0) = pose.yaw.undo(z, nx);
        let (u, v) = (x0 * head.half_width, y0 * if y0 < 0.0 { head.crown } else { head.chin });
        Point { x, y, head_x, head_y, on_head, u, v, front: z > 0.0, normal: (nx, ny, nz) }
    }

    /// Half the width of the head at `t` of the way from the origin down to the chin (or, below 0,
    /// up to the crown).
    fn half_width_at(&self, t: f32) -> f32 {
        let head = &self.face.head;
        let along = t.abs().min(1.0);
        // The cubic is 1 at two thirds of the way, 0 at both ends.
        let bulge = 6.75 * along * along * (1.0 - along);
        if t < 0.0 {
            // A skull is less pointed than an ellipse.
            return head.half_width * (1.0 + 0.13 * bulge);
        }
        head.half_width
            * (1.0 + head.jaw * bulge + head.cheek * colour::hill(t - 0.1, 0.0, 0.5, 1.0))
    }

    /// The colour of what is behind everybody.
    pub fn backdrop(&self, p: &Point) -> Colour {
        let shot = self.shot;
        let across = (p.x + 0.6 * p.y + 80.0) / 160.0;
        let cloud =
            noise(shot.key, p.x / 23.0, p.y / 31.0) + 0.4 * noise(!shot.key, p.x / 7.0, p.y / 9.0);
        let [a, b] = shot.backdrop;
        a.towards(b, (0.5 * across + 0.7 * (cloud - 0.4)).clamp(0.0, 1.0))
    }
}
