//! Who is in the picture: the parameters that all images of an identity share.
//!
//! Lengths are pixels of the 112×112 crop, in the frontal face's own frame: the origin lies between
//! the eyes and the tip of the nose, `u` to the right, `v` down.

use pfc_random::Stream;

use crate::colour::Colour;

/// Identities come in families of this many, whose members resemble each other.
const FAMILY_SIZE: u64 = 3;

const SKIN: [Colour; 5] = [
    Colour::new(0.95, 0.80, 0.72),
    Colour::new(0.90, 0.72, 0.60),
    Colour::new(0.78, 0.58, 0.44),
    Colour::new(0.58, 0.40, 0.29),
    Colour::new(0.42, 0.29, 0.22),
];
const HAIR: [Colour; 4] = [
    Colour::new(0.06, 0.05, 0.05),
    Colour::new(0.25, 0.16, 0.10),
    Colour::new(0.48, 0.32, 0.18),
    Colour::new(0.80, 0.64, 0.40),
];
const IRIS: [Colour; 4] = [
    Colour::new(0.16, 0.09, 0.05),
    Colour::new(0.38, 0.24, 0.11),
    Colour::new(0.36, 0.44, 0.28),
    Colour::new(0.36, 0.52, 0.70),
];

/// Outline of the head.
#[derive(Debug, Clone)]
pub struct Head {
    pub half_width: f32,
    /// From the origin up to the top of the skull.
    pub crown: f32,
    /// From the origin down to the chin.
    pub chin: f32,
    /// Above 0 a square jaw, below 0 a pointed one.
    pub jaw: f32,
    /// Above 0 cheekbones stand out.
    pub cheek: f32,
    pub ear_height: f32,
    pub ear_width: f32,
    pub neck: f32,
}

/// One eye and its brow; the other is its mirror image.
#[derive(Debug, Clone)]
pub struct Eyes {
    pub apart: f32,
    pub v: f32,
    pub half_width: f32,
    pub open: f32,
    /// Above 0 the outer corner is the higher one.
    pub tilt: f32,
    pub iris_radius: f32,
    pub iris: Colour,
    /// How dark the socket is, 0 to 1.
    pub socket: f32,
    pub bags: f32,
    pub brow_gap: f32,
    pub brow_half_length: f32,
    pub brow_thickness: f32,
    pub brow_arch: f32,
    pub brow_tilt: f32,
    pub brow_strength: f32,
}

/// Nose and mouth.
#[derive(Debug, Clone)]
pub struct Mouth {
    pub nose_v: f32,
    pub nose_half_width: f32,
    pub bridge_half_width: f32,
    pub nose_relief: f32,
    pub nostril: f32,
    pub v: f32,
    pub half_width: f32,
    pub upper_lip: f32,
    pub lower_lip: f32,
    /// Depth of the notch in the upper lip.
    pub bow: f32,
    /// Above 0 the corners point up at rest.
    pub curve: f32,
    pub redness: f32,
    pub cleft: f32,
}

/// Hair of the head and of the chin.
#[derive(Debug, Clone)]
pub struct Hair {
    pub colour: Colour,
    /// No hair above the hairline at all.
    pub bald: bool,
    pub line_v: f32,
    /// How far the line comes down at the temples.
    pub line_curve: f32,
    pub peak: f32,
    /// Slope of the line: a parting on one side.
    pub parting: f32,
    /// Thickness of the hair over the skull.
    pub volume: f32,
    /// Where the hair at the sides ends, in `v`.
    pub length: f32,
    /// 0 straight, 1 curly.
    pub curl: f32,
    pub fringe: f32,
    pub beard: f32,
    pub moustache: f32,
    /// Where the beard begins, as a share of the half width from the middle.
    pub beard_edge: f32,
}

/// What the skin looks like from near.
#[derive(Debug, Clone)]
pub struct Skin {
    pub colour: Colour,
    pub freckles: f32,
    pub blotches: f32,
    pub wrinkles: f32,
    pub folds: f32,
    /// Position and radius of each mole.
    pub moles: Vec<(f32, f32, f32)>,
    /// Keys the noise fields.
    pub key: u64,
}

/// Everything that stays the same between two images of one identity.
#[derive(Debug, Clone)]
pub struct Face {
    pub head: Head,
    pub eyes: Eyes,
    pub mouth: Mouth,
    pub hair: Hair,
    pub skin: Skin,
    /// Share of the images that show glasses.
    pub glasses: f32,
    /// Shape of the glasses, 0 round to 1 square.
    pub frame_shape: f32,
}

impl Face {
    /// The face of `identity` in the world of `seed`.
    pub fn new(seed: u64, identity: u64) -> Face {
        let mut draw = Draw::new(seed, identity);
        Face {
            head: head(&mut draw),
            eyes: eyes(&mut draw),
            mouth: mouth(&mut draw),
            hair: hair(&mut draw),
            skin: skin(&mut draw, pfc_random::key(&[seed, identity, 0x5417])),
            glasses: if draw.chance(0.22) { 0.75 } else { 0.06 },
            frame_shape: draw.between(0.0, 1.0),
        }
    }
}

/// Draws that members of a family share in part.
struct Draw {
    family: Stream,
    own: Stream,
}

impl Draw {
    fn new(seed: u64, identity: u64) -> Draw {
        Draw {
            family: Stream::new(&[seed, identity / FAMILY_SIZE, 0xfa]),
            own: Stream::new(&[seed, identity, 0x1d]),
        }
    }

    /// Variance 1: 0.7² from the family and 0.714² from the identity.
    fn normal(&mut self) -> f32 {
        0.7 * self.family.normal() + 0.714 * self.own.normal()
    }

    /// Bell-shaped in `[low, high]`; the ends are 1.8 standard deviations away.
    fn between(&mut self, low: f32, high: f32) -> f32 {
        let position = (self.normal() / 1.8).clamp(-1.0, 1.0);
        (low + high) / 2.0 + (high - low) / 2.0 * position
    }

    /// A strength in `[0, high]`, 0 for about `absent` of all identities.
    fn at_times(&mut self, absent: f32, high: f32) -> f32 {
        let present = !self.chance(absent);
        let strength = self.between(0.25, 1.0) * high;
        if present { strength } else { 0.0 }
    }

    fn chance(&mut self, share: f32) -> bool {
        self.own.chance(share)
    }
}

fn head(draw: &mut Draw) -> Head {
    Head {
        half_width: draw.between(35.0, 46.0),
        crown: draw.between(53.0, 64.0),
        chin: draw.between(42.0, 54.0),
        jaw: draw.between(-0.16, 0.16),
        cheek: draw.between(-0.05, 0.08),
        ear_height: draw.between(8.0, 13.0),
        ear_width: draw.between(2.5, 7.5),
        neck: draw.between(20.0, 32.0),
    }
}

fn eyes(draw: &mut Draw) -> Eyes {
    let shade = draw.between(0.0, 1.0);
    Eyes {
        apart: draw.between(15.2, 20.0),
        v: draw.between(-14.5, -10.0),
        half_width: draw.between(6.2, 9.8),
        open: draw.between(2.2, 5.0),
        tilt: draw.between(-0.16, 0.22),
        iris_radius: draw.between(2.7, 3.9),
        iris: Colour::along(&IRIS, shade),
        socket: draw.between(0.02, 0.32),
        bags: draw.at_times(0.4, 0.35),
        brow_gap: draw.between(6.5, 12.0),
        brow_half_length: draw.between(8.0, 12.5),
        brow_thickness: draw.between(0.9, 3.0),
        brow_arch: draw.between(-0.5, 4.0),
        brow_tilt: draw.between(-0.16, 0.2),
        brow_strength: draw.between(0.35, 1.0),
    }
}

fn mouth(draw: &mut Draw) -> Mouth {
    Mouth {
        nose_v: draw.between(5.0, 13.0),
        nose_half_width: draw.between(5.0, 10.5),
        bridge_half_width: draw.between(2.2, 5.0),
        nose_relief: draw.between(0.12, 0.5),
        nostril: draw.between(0.9, 2.4),
        v: draw.between(24.5, 32.0),
        half_width: draw.between(11.5, 18.0),
        upper_lip: draw.between(1.4, 4.6),
        lower_lip: draw.between(2.2, 6.0),
        bow: draw.between(0.0, 1.6),
        curve: draw.between(-1.8, 2.2),
        redness: draw.between(0.05, 0.8),
        cleft: draw.at_times(0.75, 0.3),
    }
}

fn hair(draw: &mut Draw) -> Hair {
    let shade = draw.between(0.0, 1.0);
    let red = draw.at_times(0.85, 0.8);
    let grey = draw.at_times(0.8, 0.9);
    let colour = Colour::along(&HAIR, shade)
        .towards(Colour::new(0.50, 0.20, 0.09), red)
        .towards(Colour::grey(0.66), grey);
    let long = draw.chance(0.42);
    let bearded = !long && draw.chance(0.45);
    Hair {
        colour,
        bald: !long && draw.chance(0.14),
        line_v: draw.between(-50.0, -36.0),
        line_curve: draw.between(2.0, 16.0),
        peak: draw.at_times(0.6, 6.0),
        parting: draw.between(-0.22, 0.22),
        volume: draw.between(1.0, 9.0),
        length: if long { draw.between(18.0, 75.0) } else { draw.between(-24.0, 2.0) },
        curl: draw.at_times(0.5, 1.0),
        fringe: if long { draw.at_times(0.6, 15.0) } else { draw.at_times(0.8, 8.0) },
        beard: if bearded { draw.between(0.25, 0.95) } else { 0.0 },
        moustache: if bearded { draw.between(0.2, 1.0) } else { 0.0 },
        beard_edge: draw.between(0.35, 0.8),
    }
}

fn skin(draw: &mut Draw, key: u64) -> Skin {
    let tone = draw.between(0.0, 1.0);
    let warmth = draw.between(-0.03, 0.03);
    let plain = Colour::along(&SKIN, tone);
    let n_moles = draw.own.below(3);
    let moles = (0..n_moles).map(|_| {
        let (u, v) = (draw.own.between(-0.7, 0.7), draw.own.between(-30.0, 36.0));
        (u, v, draw.own.between(0.7, 1.6))
    });
    let moles = moles.collect();
    Skin {
        colour: Colour::new(plain.red + warmth, plain.green, plain.blue - warmth),
        freckles: draw.at_times(0.72, 0.5) * (1.0 - tone),
        blotches: draw.between(0.01, 0.07),
        wrinkles: draw.at_times(0.45, 0.16),
        folds: draw.at_times(0.3, 0.17),
        moles,
        key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_face_depends_on_seed_and_identity_alone() {
        let text = |seed, identity| format!("{:?}", Face::new(seed, identity));
        assert_eq!(text(1, 2), text(1, 2));
        assert_ne!(text(1, 2), text(1, 3));
        assert_ne!(text(1, 2), text(2, 2));
    }

    #[test]
    fn members_of_a_family_are_closer_than_strangers() {
        let gap = |a: u64, b: u64| {
            let (a, b) = (Face::new(0, a), Face::new(0, b));
            let head = (a.head.half_width - b.head.half_width).abs() / 11.0;
            let eyes = (a.eyes.apart - b.eyes.apart).abs() / 4.8;
            head + eyes + (a.mouth.v - b.mouth.v).abs() / 7.5
        };
        let families: f32 = (0..300).map(|f| gap(f * FAMILY_SIZE, f * FAMILY_SIZE + 1)).sum();
        let strangers: f32 = (0..300).map(|f| gap(f * FAMILY_SIZE, f * FAMILY_SIZE + 3)).sum();
        assert!(families < 0.85 * strangers, "{families} against {strangers}");
    }
}
