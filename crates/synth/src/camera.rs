//! From a scene to the bytes of a JPEG: sampling, blur, exposure, sensor noise, compression.

use pfc_image::{Pixels, encode_jpeg};

use crate::{
    colour::Colour,
    face::Face,
    paint::colour_at,
    scene::Scene,
    shot::{Camera, Shot},
};

/// Width and height of every synthetic image, in pixels.
pub const SIDE: usize = 112;

/// The JPEG of picture `image` of `identity` in the world of `seed`.
pub fn photograph(seed: u64, identity: u64, image: u64) -> Vec<u8> {
    let face = Face::new(seed, identity);
    let shot = Shot::new(seed, identity, image, &face);
    develop(&face, &shot, shot.camera.quality)
}

/// As [`photograph`], at another JPEG quality: the same picture, other bytes.
pub fn photograph_at_quality(seed: u64, identity: u64, image: u64, quality: u8) -> Vec<u8> {
    let face = Face::new(seed, identity);
    let shot = Shot::new(seed, identity, image, &face);
    develop(&face, &shot, quality)
}

fn develop(face: &Face, shot: &Shot, quality: u8) -> Vec<u8> {
    let mut picture = sample(&Scene::new(face, shot), shot.camera.coarse);
    for _ in 0..shot.camera.blur {
        picture = blur(&picture);
    }
    let rgb = expose(&picture, &shot.camera, shot.key);
    let pixels = Pixels::rgb(SIDE as u32, SIDE as u32, rgb);
    encode_jpeg(&pixels, quality).expect("112 pixels a side is within what JPEG can hold")
}

/// One colour per pixel; with `coarse` above 1 a low-resolution picture, enlarged.
fn sample(scene: &Scene<'_>, coarse: usize) -> Vec<Colour> {
    let side = SIDE.div_ceil(coarse);
    let scale = coarse as f32;
    let centre = |i: usize| (i as f32 + 0.5) * scale - 0.5;
    let small: Vec<Colour> =
        (0..side * side).map(|i| colour_at(scene, centre(i % side), centre(i / side))).collect();
    if coarse == 1 { small } else { enlarge(&small, side, scale) }
}

fn enlarge(small: &[Colour], side: usize, scale: f32) -> Vec<Colour> {
    // Per output index: left source index and the weight of its right neighbour.
    let place = |i: usize| {
        let at = ((i as f32 + 0.5) / scale - 0.5).clamp(0.0, (side - 1) as f32);
        let left = (at as usize).min(side - 2);
        (left, at - left as f32)
    };
    let mut out = Vec::with_capacity(SIDE * SIDE);
    for y in 0..SIDE {
        let (top, fy) = place(y);
        for x in 0..SIDE {
            let (left, fx) = place(x);
            let row = |r: usize| small[r * side + left].towards(small[r * side + left + 1], fx);
            out.push(row(top).towards(row(top + 1), fy));
        }
    }
    out
}

/// One pass of the kernel (1 2 1)/4 along both axes; edges repeat.
fn blur(picture: &[Colour]) -> Vec<Colour> {
    let at = |x: usize, y: usize| picture[y * SIDE + x];
    let pass = |a: Colour, b: Colour, c: Colour| a * 0.25 + b * 0.5 + c * 0.25;
    let before = |i: usize| i.saturating_sub(1);
    let after = |i: usize| (i + 1).min(SIDE - 1);
    let rows: Vec<Colour> = (0..SIDE * SIDE)
        .map(|i| (i % SIDE, i / SIDE))
        .map(|(x, y)| pass(at(before(x), y), at(x, y), at(after(x), y)))
        .collect();
    let at = |x: usize, y: usize| rows[y * SIDE + x];
    (0..SIDE * SIDE)
        .map(|i| (i % SIDE, i / SIDE))
        .map(|(x, y)| pass(at(x, before(y)), at(x, y), at(x, after(y))))
        .collect()
}

fn expose(picture: &[Colour], camera: &Camera, key: u64) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(picture.len() * 3);
    for (i, &colour) in picture.iter().enumerate() {
        let colour = if camera.grey { Colour::grey(colour.luma()) } else { colour };
        let tint = if camera.grey { Colour::grey(1.0) } else { camera.tint };
        let shot_noise = pfc_random::mix(key ^ i as u64);
        let channels = [colour.red * tint.red, colour.green * tint.green, colour.blue * tint.blue];
        for (c, value) in channels.into_iter().enumerate() {
            let lit = (value * camera.gain - 0.5) * camera.contrast + 0.5;
            let byte = (shot_noise >> (16 * if camera.grey { 0 } else { c })) as u16;
            // Uniform noise of standard deviation 1 spans ±1.732.
            let grain = (f32::from(byte) / 32_768.0 - 1.0) * 1.732 * camera.noise;
            rgb.push(((lit + grain).clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
        }
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_photograph_is_a_112_pixel_jpeg_and_always_the_same_bytes() {
        let bytes = photograph(1, 2, 3);
        assert_eq!(bytes, photograph(1, 2, 3));
        assert_eq!(pfc_image::jpeg_header(&bytes).unwrap(), pfc_image::ImageSize::FACE);
    }

    #[test]
    fn a_flat_picture_stays_flat_under_blur_and_enlargement() {
        let flat = vec![Colour::grey(0.5); SIDE * SIDE];
        assert_eq!(blur(&flat), flat);
        assert_eq!(enlarge(&vec![Colour::grey(0.5); 56 * 56], 56, 2.0), flat);
    }
}
