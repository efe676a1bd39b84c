//! Bare skin: neck, ears, and the head before any feature is drawn on it.

use crate::{
    colour::{Colour, ellipse, hill, inside, inside_soft},
    noise::noise,
    scene::{Point, Scene},
};

/// Clothes and neck, below and behind the head.
pub fn body(scene: &Scene<'_>, p: &Point, under: Colour) -> Colour {
    let (head, shot) = (&scene.face.head, scene.shot);
    let shoulder = p.head_y - (head.chin + 9.0) - (p.head_x / 9.0) * (p.head_x / 26.0);
    if p.head_y < 0.0 {
        return under;
    }
    let mut under = under;
    if shoulder > -0.5 {
        let fold = noise(shot.key ^ 0xc1, p.x / 9.0, p.y / 22.0);
        under = under.towards(shot.clothes * (0.75 + 0.4 * fold), inside(-shoulder));
    }
    let throat = (p.head_x.abs() - head.neck).max(-p.head_y - 10.0).max(shoulder - 2.0);
    // The chin throws its shadow on the neck.
    let shadow = 0.62 + 0.2 * ((p.head_y - head.chin) / 20.0).clamp(0.0, 1.0);
    under.towards(scene.face.skin.colour * (shadow * scene.shade((0.0, 0.0, 1.0))), inside(throat))
}

/// Both ears; the one on the far side of a turned head goes out of sight.
pub fn ears(scene: &Scene<'_>, p: &Point, under: Colour) -> Colour {
    let head = &scene.face.head;
    let side = if p.head_x < 0.0 { -1.0 } else { 1.0 };
    let turned = scene.shot.pose.yaw.sin * side;
    let out = head.half_width + head.ear_width * (0.35 - 1.2 * turned).clamp(-1.0, 1.0);
    let (x, y) = (p.head_x.abs() - out + head.ear_width * 0.6, p.head_y + 2.0);
    let cover = inside(ellipse(x, y, head.ear_width * 0.8, head.ear_height));
    if cover == 0.0 {
        return under;
    }
    let hollow = 0.3 * hill(x, y + 1.0, head.ear_width * 0.5, head.ear_height * 0.6);
    let light = scene.shade((0.5 * side, 0.0, 0.85)) * (0.92 - hollow);
    under.towards(scene.face.skin.colour * light, cover)
}

/// The skin of the head, lit.
pub fn head(scene: &Scene<'_>, p: &Point) -> Colour {
    let (face, skin) = (scene.face, &scene.face.skin);
    if !p.front {
        return skin.colour * scene.shade(p.normal);
    }
    let coarse = noise(skin.key, p.u / 10.0, p.v / 10.0) - 0.5;
    let fine = noise(skin.key ^ 1, p.u / 3.0, p.v / 3.0) - 0.5;
    let mut factor = 1.0 + skin.blotches * (2.0 * coarse + fine);
    factor *= 1.0 - wrinkles(scene, p);
    factor *= 1.0 - freckles(scene, p) - moles(scene, p);
    factor *= 1.0 - hollows(scene, p);
    factor *= 1.0 + relief_of_the_nose(scene, p);
    let blush = 0.10 * hill(p.u.abs() - 22.0, p.v - 9.0, 13.0, 11.0);
    let pale = skin.colour * factor;
    let warm = Colour::new(pale.red, pale.green * (1.0 - blush), pale.blue * (1.0 - blush));
    beard(scene, p, warm) * scene.shade(p.normal) * (1.0 - under_lip(face.mouth.v, p))
}

fn wrinkles(scene: &Scene<'_>, p: &Point) -> f32 {
    let skin = &scene.face.skin;
    if skin.wrinkles == 0.0 {
        return 0.0;
    }
    let forehead = hill(p.u, p.v + 34.0, 34.0, 13.0);
    let corners = hill(p.u.abs() - 31.0, p.v + 9.0, 8.0, 9.0);
    if forehead + corners == 0.0 {
        return 0.0;
    }
    let lines = (noise(skin.key ^ 2, p.u / 30.0, p.v / 2.2) - 0.45).max(0.0);
    2.2 * skin.wrinkles * lines * (forehead + corners)
}

fn freckles(scene: &Scene<'_>, p: &Point) -> f32 {
    let skin = &scene.face.skin;
    if skin.freckles == 0.0 {
        return 0.0;
    }
    let where_they_grow = hill(p.u, p.v - 3.0, 40.0, 22.0);
    if where_they_grow == 0.0 {
        return 0.0;
    }
    let spots = (noise(skin.key ^ 3, p.u / 1.7, p.v / 1.7) - 0.68).max(0.0) * 3.0;
    skin.freckles * spots * where_they_grow
}

fn moles(scene: &Scene<'_>, p: &Point) -> f32 {
    let half_width = scene.face.head.half_width;
    let each = scene.face.skin.moles.iter().map(|&(u, v, radius)| {
        0.6 * inside(ellipse(p.u - u * half_width, p.v - v, radius, radius))
    });
    each.fold(0.0, f32::max)
}

/// Eye sockets, bags under the eyes, and the folds from the nose to the corners of the mouth.
fn hollows(scene: &Scene<'_>, p: &Point) -> f32 {
    let (eyes, mouth) = (&scene.face.eyes, &scene.face.mouth);
    let (u, v) = (p.u.abs() - eyes.apart, p.v - eyes.v);
    let socket = eyes.socket * hill(u + 3.0, v + 2.0, 15.0, 10.0);
    let bag = eyes.bags * hill(u + 1.0, v - eyes.open - 3.5, 9.0, 2.6);
    let along = ((p.v - mouth.nose_v) / (mouth.v + 3.0 - mouth.nose_v)).clamp(-0.2, 1.2);
    let fold_u =
        mouth.nose_half_width + 3.0 + (mouth.half_width - mouth.nose_half_width + 2.0) * along;
    let depth = scene.face.skin.folds * (0.7 + 0.6 * scene.shot.expression.smile.max(0.0));
    let ends = hill(along - 0.5, 0.0, 0.75, 1.0);
    let fold = depth * ends * (1.0 - ((p.u.abs() - fold_u).abs() / 3.0).min(1.0));
    let cleft = mouth.cleft * hill(p.u, p.v - scene.face.head.chin + 7.0, 1.8, 5.0);
    socket + bag + fold + cleft
}

/// Brighter on the side of the nose that faces the light, darker on the other and below the tip.
fn relief_of_the_nose(scene: &Scene<'_>, p: &Point) -> f32 {
    let (eyes, mouth) = (&scene.face.eyes, &scene.face.mouth);
    let along = (p.v - eyes.v + 2.0) / (mouth.nose_v - eyes.v + 2.0);
    if !(0.0..1.25).contains(&along) {
        return 0.0;
    }
    let u = scene.raised_u(p, 6.0 * along);
    let width =
        mouth.bridge_half_width + (mouth.nose_half_width - mouth.bridge_half_width) * along * along;
    let across = u / width;
    let slope = across * (1.0 - across * across / 2.6).max(0.0);
    let ends = hill(along - 0.6, 0.0, 0.7, 1.0);
    let lit = scene.shot.light.direction.0 * slope * 1.3;
    let ridge =
        0.35 * hill(across, 0.0, 0.55, 1.0) - 0.32 * hill(across.abs() - 1.05, 0.0, 0.5, 1.0);
    let below = -0.9 * hill(u, p.v - mouth.nose_v - 2.6, width * 1.1, 2.6);
    mouth.nose_relief * (ends * (lit + ridge) + below)
}

fn under_lip(mouth_v: f32, p: &Point) -> f32 {
    0.16 * hill(p.u, p.v - mouth_v - 8.0, 11.0, 3.2)
}

fn beard(scene: &Scene<'_>, p: &Point, skin: Colour) -> Colour {
    let (hair, mouth) = (&scene.face.hair, &scene.face.mouth);
    if hair.beard == 0.0 || scene.shot.beard == 0.0 || p.v < 0.0 {
        return skin;
    }
    let edge = p.u.abs() / scene.face.head.half_width;
    let lip = mouth.nose_v + 3.5;
    let moustache =
        hill(p.u, p.v - (lip + mouth.v) / 2.0, mouth.half_width + 6.0, 4.5).min(0.5) * 2.0;
    let cheeks = inside_soft((hair.beard_edge - edge) * 30.0, 7.0) * inside_soft(4.0 - p.v, 8.0);
    let chin = inside_soft(mouth.v + 5.0 - p.v, 6.0);
    if moustache + cheeks + chin == 0.0 {
        return skin;
    }
    let stubble = 0.55 + 0.9 * noise(scene.face.skin.key ^ 4, p.u / 1.3, p.v / 2.2);
    let strength = (hair.moustache * moustache).max(hair.beard * cheeks.max(chin));
    skin.towards(hair.colour, (strength * scene.shot.beard * stubble).clamp(0.0, 0.95))
}
