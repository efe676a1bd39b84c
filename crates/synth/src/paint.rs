//! One picture as a function from pixel to colour: what lies in front is painted last.

use crate::{colour::Colour, features, hair, scene::Scene, skin, worn};

/// The colour of the pixel whose centre is at (`column`, `row`).
pub fn colour_at(scene: &Scene<'_>, column: f32, row: f32) -> Colour {
    let p = scene.locate(column, row);
    let mut colour = Colour::grey(0.0);
    if p.on_head < 1.0 {
        colour = hair::behind(scene, &p, scene.backdrop(&p));
        colour = skin::body(scene, &p, colour);
        colour = skin::ears(scene, &p, colour);
    }
    if p.on_head > 0.0 {
        let flesh = features::paint(scene, &p, skin::head(scene, &p));
        colour = colour.towards(flesh, p.on_head);
    }
    colour = hair::in_front(scene, &p, colour);
    worn::paint(scene, &p, colour)
}
