//! Hair: the mass behind the head, then what falls over it.

use crate::{
    colour::{Colour, ellipse, hill, inside_soft},
    noise::noise,
    scene::{Point, Scene},
};

/// Hair seen past the outline of the head.
pub fn behind(scene: &Scene<'_>, p: &Point, under: Colour) -> Colour {
    let hair = &scene.face.hair;
    let length = length(scene);
    if hair.bald || length < 0.0 || p.head_y > length + 8.0 {
        return under;
    }
    let width = scene.face.head.half_width + 0.8 * hair.volume + 0.06 * (p.head_y + 20.0).max(0.0);
    let rough = roughness(scene, p);
    let cover = inside_soft(p.head_x.abs() - width + rough, 2.0)
        * inside_soft(p.head_y - length + rough, 4.0)
        * inside_soft(-p.head_y - 20.0, 6.0);
    if cover == 0.0 {
        return under;
    }
    under.towards(strands(scene, p) * 0.8, cover)
}

/// Hair over the skull, at the temples and, when long, down both sides of the face.
pub fn in_front(scene: &Scene<'_>, p: &Point, under: Colour) -> Colour {
    let hair = &scene.face.hair;
    if hair.bald {
        return under;
    }
    let head = &scene.face.head;
    let rough = roughness(scene, p);
    let (rx, ry) = (head.half_width + hair.volume, head.crown + hair.volume);
    // Above the ears the hair has its own outline, wider than the skull's.
    let outline =
        if p.head_y < 0.0 { ellipse(p.head_x, p.head_y, rx, ry) } else { p.head_x.abs() - rx };
    let on_hair = inside_soft(outline + rough, 2.0);
    if on_hair == 0.0 {
        return under;
    }
    let across = (p.u.abs() / head.half_width).min(1.0);
    let past_the_skull = if p.front { 1.0 - p.on_head } else { 1.0 };
    let above = inside_soft(p.v - line(scene, p.u, across) + rough, 2.5);
    let beside = inside_soft((0.88 - across) * head.half_width + rough, 3.0);
    let hangs = inside_soft(p.v - length(scene) + rough, 4.0);
    let rim = past_the_skull * inside_soft(p.head_y - length(scene).max(-14.0), 5.0);
    let cover = on_hair * above.max(beside * hangs).max(rim);
    if cover == 0.0 {
        return under;
    }
    under.towards(strands(scene, p), cover)
}

/// Where the forehead ends, in `v`.
fn line(scene: &Scene<'_>, u: f32, across: f32) -> f32 {
    let hair = &scene.face.hair;
    let fringe = hair.fringe * (1.0 - across * across);
    hair.line_v
        + fringe
        + hair.line_curve * across * across
        + hair.peak * hill(u, 0.0, 9.0, 1.0)
        + hair.parting * u
        + 0.5 * scene.shot.hair_change
}

fn length(scene: &Scene<'_>) -> f32 {
    scene.face.hair.length + 1.5 * scene.shot.hair_change
}

/// Displacement of hair's edges, in pixels.
fn roughness(scene: &Scene<'_>, p: &Point) -> f32 {
    let key = scene.face.skin.key ^ 6;
    let size = 2.5 + 4.0 * scene.face.hair.curl;
    size * (noise(key, p.head_x / 4.5, p.head_y / 4.5) - 0.5)
}

fn strands(scene: &Scene<'_>, p: &Point) -> Colour {
    let (hair, key) = (&scene.face.hair, scene.face.skin.key ^ 7);
    let straight = noise(key, p.head_x / 1.7 + 0.03 * p.head_y, p.head_y / 16.0);
    let curled = noise(key ^ 8, p.head_x / 3.2, p.head_y / 3.2);
    let tone = straight + (curled - straight) * hair.curl;
    let (x, y) = (p.head_x / 60.0, (p.head_y / 75.0).clamp(-0.9, 0.6));
    let normal = (x, y, (1.0 - x * x - y * y).max(0.1).sqrt());
    hair.colour * ((0.6 + 0.75 * tone) * scene.shade(normal)) + Colour::grey(0.015)
}
