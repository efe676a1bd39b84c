//! How the picture was taken: everything that differs between two images of one identity.

use pfc_random::Stream;

use crate::{colour::Colour, face::Face};

/// A turn about one axis, as its cosine and sine.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    pub cos: f32,
    pub sin: f32,
}

impl Turn {
    /// From the tangent of half the angle: exact arithmetic instead of a maths library's sine.
    pub fn from_half_tangent(t: f32) -> Turn {
        let norm = 1.0 + t * t;
        Turn { cos: (1.0 - t * t) / norm, sin: 2.0 * t / norm }
    }

    /// The pair `(a, b)` turned back.
    pub fn undo(self, a: f32, b: f32) -> (f32, f32) {
        (a * self.cos + b * self.sin, b * self.cos - a * self.sin)
    }
}

/// Where the head is and where it looks.
#[derive(Debug, Clone)]
pub struct Pose {
    pub yaw: Turn,
    pub pitch: Turn,
    pub roll: Turn,
    pub scale: f32,
    pub shift: (f32, f32),
}

/// What the face does.
#[derive(Debug, Clone)]
pub struct Expression {
    /// -1 corners down, 1 a broad smile.
    pub smile: f32,
    /// Pixels between the lips.
    pub gape: f32,
    /// Pixels the brows are raised by.
    pub brows: f32,
    /// Factor on how far the eyes are open.
    pub lids: f32,
    pub gaze: (f32, f32),
}

/// Light on the scene.
#[derive(Debug, Clone)]
pub struct Light {
    /// Unit vector towards the light; `z` towards the camera.
    pub direction: (f32, f32, f32),
    pub ambient: f32,
    pub diffuse: f32,
}

/// What the camera makes of it.
#[derive(Debug, Clone)]
pub struct Camera {
    pub gain: f32,
    pub tint: Colour,
    pub contrast: f32,
    pub grey: bool,
    /// Passes of a small blur.
    pub blur: u32,
    /// Pixels that fell onto one sensor cell, 1 to 3.
    pub coarse: usize,
    /// Standard deviation of the sensor noise, of 1.
    pub noise: f32,
    /// Quality of the JPEG, 1 to 100.
    pub quality: u8,
}

/// What hides parts of the face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cover {
    Nothing,
    Sunglasses,
    /// A cloth over mouth and nose.
    Mask(Colour),
    /// A bar across the crop: its angle, offset and half width.
    Bar {
        turn: (f32, f32),
        offset: f32,
        half_width: f32,
        colour: Colour,
    },
}

/// One picture's circumstances.
#[derive(Debug, Clone)]
pub struct Shot {
    pub pose: Pose,
    pub expression: Expression,
    pub light: Light,
    pub camera: Camera,
    pub cover: Cover,
    pub glasses: bool,
    /// Factor on beard and moustache: shaved or grown since.
    pub beard: f32,
    /// Pixels of hair grown since, or tied back.
    pub hair_change: f32,
    pub backdrop: [Colour; 2],
    pub clothes: Colour,
    /// Keys the noise of this picture alone.
    pub key: u64,
}

impl Shot {
    /// The circumstances of picture `image` of `identity`, whose habits (glasses) `face` knows.
    pub fn new(seed: u64, identity: u64, image: u64, face: &Face) -> Shot {
        let mut draw = Stream::new(&[seed, identity, image, 0x5807]);
        Shot {
            pose: pose(&mut draw),
            expression: expression(&mut draw),
            light: light(&mut draw),
            camera: camera(&mut draw),
            cover: cover(&mut draw),
            glasses: draw.chance(face.glasses),
            beard: if draw.chance(0.2) { draw.between(0.0, 0.5) } else { draw.between(0.7, 1.1) },
            hair_change: 2.5 * draw.normal(),
            backdrop: [any_colour(&mut draw), any_colour(&mut draw)],
            clothes: any_colour(&mut draw),
            key: draw.bits(),
        }
    }
}

fn pose(draw: &mut Stream) -> Pose {
    // Half tangents: 0.1 is 11.4°, so most heads turn by less than ±20° and few by 40°.
    Pose {
        yaw: Turn::from_half_tangent((0.10 * draw.normal()).clamp(-0.32, 0.32)),
        pitch: Turn::from_half_tangent((0.045 * draw.normal()).clamp(-0.13, 0.13)),
        roll: Turn::from_half_tangent(0.022 * draw.normal()),
        scale: 1.0 + 0.03 * draw.normal(),
        shift: (1.3 * draw.normal(), 1.3 * draw.normal()),
    }
}

fn expression(draw: &mut Stream) -> Expression {
    let smile = draw.between(-0.5, 1.0);
    let talks = draw.chance(0.35);
    Expression {
        smile,
        gape: if talks { draw.between(0.8, 5.0) } else { 0.0 },
        brows: 1.0 * draw.normal(),
        lids: if draw.chance(0.04) { 0.15 } else { draw.between(0.7, 1.15) },
        gaze: (1.1 * draw.normal(), 0.4 * draw.normal()),
    }
}

fn light(draw: &mut Stream) -> Light {
    let (x, y) = (0.55 * draw.normal(), -0.35 + 0.3 * draw.normal());
    let norm = (x * x + y * y + 0.64).sqrt();
    Light {
        direction: (x / norm, y / norm, 0.8 / norm),
        ambient: draw.between(0.35, 0.75),
        diffuse: draw.between(0.25, 0.75),
    }
}

fn camera(draw: &mut Stream) -> Camera {
    let tint = |draw: &mut Stream| 1.0 + 0.055 * draw.normal();
    Camera {
        gain: draw.between(0.65, 1.3),
        tint: Colour::new(tint(draw), tint(draw), tint(draw)),
        contrast: draw.between(0.75, 1.15),
        grey: draw.chance(0.05),
        blur: [0, 0, 1, 1, 2, 4][draw.below(6) as usize],
        coarse: [1, 1, 1, 1, 1, 1, 2, 2, 3][draw.below(9) as usize],
        noise: draw.between(0.0, 0.035),
        quality: 60 + draw.below(36) as u8,
    }
}

fn cover(draw: &mut Stream) -> Cover {
    let pick = draw.unit();
    let colour = any_colour(draw);
    let turn = Turn::from_half_tangent(draw.between(-1.0, 1.0));
    let offset = draw.between(-40.0, 40.0);
    let half_width = draw.between(4.0, 9.0);
    match pick {
        p if p < 0.03 => Cover::Sunglasses,
        p if p < 0.05 => Cover::Mask(colour.towards(Colour::grey(0.85), 0.6)),
        p if p < 0.11 => Cover::Bar { turn: (turn.cos, turn.sin), offset, half_width, colour },
        _ => Cover::Nothing,
    }
}

fn any_colour(draw: &mut Stream) -> Colour {
    let value = draw.between(0.1, 0.95);
    let mut channel = || (value + 0.14 * draw.normal()).clamp(0.02, 0.98);
    Colour::new(channel(), channel(), channel())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_back_matches_the_3_4_5_triangle() {
        let turn = Turn::from_half_tangent(0.5);
        // Half tangent 1/2 is the 3-4-5 triangle.
        assert_eq!((turn.cos, turn.sin), (0.6, 0.8));
        let (a, b) = turn.undo(1.0, 2.0);
        assert!((a - 2.2).abs() < 1e-6 && (b - 0.4).abs() < 1e-6);
    }

    #[test]
    fn two_images_of_an_identity_differ() {
        let face = Face::new(3, 4);
        let text = |image| format!("{:?}", Shot::new(3, 4, image, &face));
        assert_eq!(text(0), text(0));
        assert_ne!(text(0), text(1));
    }
}
