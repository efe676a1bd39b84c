//! What is worn on the face or held before it.

use crate::{
    colour::{Colour, inside},
    scene::{Point, Scene},
    shot::Cover,
};

/// Glasses stand out from the face by this many pixels.
const GLASSES_HEIGHT: f32 = 4.0;

/// Glasses and covers over `under`.
pub fn paint(scene: &Scene<'_>, p: &Point, under: Colour) -> Colour {
    let mut colour = under;
    if scene.shot.glasses && scene.shot.cover != Cover::Sunglasses && p.front {
        let (glass, frame) = glasses(scene, p);
        colour = colour.towards(Colour::grey(0.75), 0.08 * glass);
        colour = colour.towards(Colour::new(0.12, 0.10, 0.09), 0.9 * frame);
    }
    match scene.shot.cover {
        Cover::Nothing => colour,
        Cover::Sunglasses if p.front => {
            let (glass, frame) = glasses(scene, p);
            colour.towards(Colour::grey(0.07), 0.93 * glass.max(frame))
        }
        Cover::Sunglasses => colour,
        Cover::Mask(cloth) => {
            let edge = scene.face.mouth.nose_v - 5.0 + 0.08 * p.u.abs();
            let cover = p.on_head * inside(edge - p.v);
            colour.towards(cloth * scene.shade(p.normal), cover)
        }
        Cover::Bar { turn: (cos, sin), offset, half_width, colour: bar } => {
            let distance = (p.x * cos + p.y * sin - offset).abs() - half_width;
            colour.towards(bar, inside(distance))
        }
    }
}

/// How much of the pixel is glass, and how much is frame.
fn glasses(scene: &Scene<'_>, p: &Point) -> (f32, f32) {
    let face = scene.face;
    let u = scene.raised_u(p, GLASSES_HEIGHT);
    let (x, y) = (u.abs() - face.eyes.apart, p.v - face.eyes.v - 1.0);
    let (rx, ry) = (0.78 * face.eyes.apart, 9.5);
    let (tx, ty) = (x / rx, y / ry);
    let round = (tx * tx + ty * ty).sqrt();
    let square = tx.abs().max(ty.abs());
    let distance = (round + (square - round) * face.frame_shape - 1.0) * ry;
    let rim = inside(distance.abs() - 0.8);
    let bridge = inside(y.abs() - 0.7) * inside(u.abs() - (face.eyes.apart - rx));
    // The arms run along the temples and end where the head does.
    let arm = p.on_head * inside((y + 3.0).abs() - 0.7) * inside(face.eyes.apart + rx - u.abs());
    (inside(distance), rim.max(bridge).max(arm))
}
