//! Eyes, brows, nostrils and mouth, drawn onto the lit skin.

use crate::{
    colour::{Colour, ellipse, hill, inside, inside_soft},
    noise::noise,
    scene::{Point, Scene},
};

const WHITE_OF_THE_EYE: Colour = Colour::new(0.84, 0.82, 0.80);
const INSIDE_OF_THE_MOUTH: Colour = Colour::new(0.22, 0.06, 0.06);
const TEETH: Colour = Colour::new(0.88, 0.85, 0.78);
const LIPS: Colour = Colour::new(0.72, 0.25, 0.27);

/// The features over `skin`.
pub fn paint(scene: &Scene<'_>, p: &Point, skin: Colour) -> Colour {
    if !p.front {
        return skin;
    }
    let colour = brow(scene, p, skin);
    let colour = eye(scene, p, colour);
    let colour = nostrils(scene, p, colour);
    mouth(scene, p, colour)
}

fn brow(scene: &Scene<'_>, p: &Point, under: Colour) -> Colour {
    let eyes = &scene.face.eyes;
    // Outwards from the middle of the brow, in half lengths.
    let t = (p.u.abs() - eyes.apart - 0.5) / eyes.brow_half_length;
    if t.abs() >= 1.0 {
        return under;
    }
    let arch = eyes.brow_arch * (1.0 - t * t);
    let raised = eyes.brow_gap + scene.shot.expression.brows + arch;
    let middle = eyes.v - raised - eyes.brow_tilt * t * eyes.brow_half_length;
    let thickness = eyes.brow_thickness * (1.0 - 0.55 * t.max(0.0)) * (1.0 - t * t * t * t);
    let cover = inside_soft((p.v - middle).abs() - thickness, 1.8);
    let strands = 0.7 + 0.5 * noise(scene.face.skin.key ^ 5, p.u / 1.1, p.v / 1.6);
    let hair = scene.face.hair.colour * (0.75 * scene.shade(p.normal));
    under.towards(hair, (cover * eyes.brow_strength * strands).min(1.0))
}

fn eye(scene: &Scene<'_>, p: &Point, under: Colour) -> Colour {
    let (eyes, expression) = (&scene.face.eyes, &scene.shot.expression);
    let u = p.u.abs() - eyes.apart;
    let v = p.v - eyes.v + eyes.tilt * u;
    let t = u / eyes.half_width;
    if t.abs() >= 1.15 || v.abs() > 12.0 {
        return under;
    }
    let lens = (1.0 - t * t).max(0.0);
    let squint = 1.0 - 0.18 * expression.smile.max(0.0);
    let open = eyes.open * expression.lids * squint;
    let (upper, lower) = (-open * lens, 0.6 * open * lens);
    let light = scene.shade(p.normal).min(1.1);
    let ball = eyeball(scene, p, v) * light;
    let mut colour = under.towards(ball, inside((upper - v).max(v - lower)));
    // Lashes close the upper edge; a softer crease follows the lid above it.
    let ends = (lens * 3.0).min(1.0);
    let lashes = 0.85 * ends * inside((v - upper).abs() - 0.55);
    colour = colour.towards(Colour::grey(0.06), lashes);
    let crease = 0.3 * ends * inside_soft((v - upper + 2.2 + 0.3 * eyes.open).abs() - 0.3, 1.6);
    colour = colour * (1.0 - crease);
    let rim = 0.25 * ends * inside((v - lower).abs() - 0.4);
    colour * (1.0 - rim)
}

fn eyeball(scene: &Scene<'_>, p: &Point, v: f32) -> Colour {
    let (eyes, gaze) = (&scene.face.eyes, scene.shot.expression.gaze);
    // Both eyes look the same way, so the gaze is not mirrored.
    let side = if p.u < 0.0 { -1.0 } else { 1.0 };
    let (x, y) = (p.u - side * eyes.apart - gaze.0, v - gaze.1 + 0.3);
    let radius = (x * x + y * y).sqrt();
    let ring = eyes.iris * (0.75 + 0.5 * (radius / eyes.iris_radius).min(1.0));
    let iris = ring.towards(Colour::grey(0.03), inside(radius - 0.42 * eyes.iris_radius));
    let limbus = 0.45 * inside((radius - eyes.iris_radius).abs() - 0.4);
    let ball = WHITE_OF_THE_EYE.towards(iris, inside(radius - eyes.iris_radius)) * (1.0 - limbus);
    let light = scene.shot.light.direction;
    let glint = inside(ellipse(x - 1.6 * light.0, y - 1.6 * light.1, 0.8, 0.8));
    ball.towards(Colour::grey(1.0), 0.85 * glint)
}

fn nostrils(scene: &Scene<'_>, p: &Point, under: Colour) -> Colour {
    let mouth = &scene.face.mouth;
    if (p.v - mouth.nose_v).abs() > 9.0 {
        return under;
    }
    let u = scene.raised_u(p, 5.0).abs();
    let hole = ellipse(
        u - 0.45 * mouth.nose_half_width,
        p.v - mouth.nose_v,
        1.35 * mouth.nostril,
        0.8 * mouth.nostril,
    );
    let wing_u = u - mouth.nose_half_width * 0.98;
    let wing = 0.42 * hill(wing_u, p.v - mouth.nose_v + 1.8, 1.5, 4.2);
    (under * (1.0 - wing)).towards(Colour::new(0.13, 0.07, 0.06), 0.8 * inside_soft(hole, 1.6))
}

fn mouth(scene: &Scene<'_>, p: &Point, under: Colour) -> Colour {
    let (mouth, expression) = (&scene.face.mouth, &scene.shot.expression);
    let half_width = mouth.half_width * (1.0 + 0.13 * expression.smile);
    let t = p.u / half_width;
    if t.abs() >= 1.1 {
        return under;
    }
    let lens = (1.0 - t * t).max(0.0);
    let line = mouth.v - (mouth.curve + 2.8 * expression.smile) * (t * t - 0.3);
    let thin = 1.0 - 0.25 * expression.smile.max(0.0);
    let gap = expression.gape * lens;
    let notch = mouth.bow * hill(p.u, 0.0, 3.0, 1.0);
    let top = line - 0.35 * gap - (mouth.upper_lip * thin * lens - notch).max(0.0);
    let bottom = line + 0.65 * gap + mouth.lower_lip * thin * lens;
    let light = scene.shade(p.normal);
    let tint = scene.face.skin.colour.towards(LIPS, 0.4 + 0.5 * mouth.redness);
    let upper_is_darker = if p.v < line { 0.82 } else { 0.96 };
    let lips = tint * (light * upper_is_darker);
    let mut colour = under.towards(lips, inside_soft((top - p.v).max(p.v - bottom), 1.3));
    if gap > 0.2 {
        let (roof, floor) = (line - 0.35 * gap, line + 0.65 * gap);
        let teeth = 0.9 * inside(p.v - roof - 0.6 * gap) * inside((t.abs() - 0.75) * half_width);
        let cavity = INSIDE_OF_THE_MOUTH.towards(TEETH, teeth) * light.min(1.0);
        return colour.towards(cavity, inside((roof - p.v).max(p.v - floor)));
    }
    let seam =
        0.6 * inside_soft((p.v - line).abs() - 0.25, 1.3) * inside((t.abs() - 0.97) * half_width);
    colour = colour * (1.0 - seam);
    colour
}
