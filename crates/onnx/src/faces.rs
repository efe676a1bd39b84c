//! Two drawn faces that are nobody's, to see how a network takes pictures.
//!
//! They are as bright and as contrasted, in each colour, as aligned photographs are (LFW's crops have
//! means of 133, 105 and 86 and deviations of 65, 56 and 54 in red, green and blue), and unlike each
//! other: fair with dark hair before a dark background, and dark before a light one.

use crate::{FACE_BYTES, FACE_SIDE};

type Colour = [f32; 3];

struct Looks {
    skin: Colour,
    background: Colour,
    hair: Colour,
    lips: Colour,
    /// Half the height and the width of the face.
    radii: [f32; 2],
    /// Of an eye from the middle.
    eye: f32,
    mouth: [f32; 2],
    seed: u32,
}

const LOOKS: [Looks; 2] = [
    Looks {
        skin: [206.0, 158.0, 128.0],
        background: [110.0, 92.0, 78.0],
        hair: [52.0, 40.0, 32.0],
        lips: [160.0, 74.0, 70.0],
        radii: [50.0, 36.0],
        eye: 17.6,
        mouth: [4.5, 16.0],
        seed: 1,
    },
    Looks {
        skin: [124.0, 84.0, 62.0],
        background: [176.0, 166.0, 154.0],
        hair: [34.0, 28.0, 26.0],
        lips: [116.0, 54.0, 50.0],
        radii: [44.0, 42.0],
        eye: 15.0,
        mouth: [6.0, 12.0],
        seed: 2,
    },
];

/// Two faces, each as [`OnnxModel::embed`](crate::OnnxModel::embed) takes them.
pub(crate) fn unlike() -> [Vec<u8>; 2] {
    LOOKS.map(|looks| draw(&looks))
}

fn draw(looks: &Looks) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(FACE_BYTES);
    for row in 0..FACE_SIDE {
        for column in 0..FACE_SIDE {
            let (y, x) = (row as f32, column as f32);
            let texture = 14.0 * texture(looks.seed, y, x);
            let colour = colour(looks, y, x);
            rgb.extend(colour.map(|value| (value + texture).round().clamp(0.0, 255.0) as u8));
        }
    }
    rgb
}

fn colour(looks: &Looks, y: f32, x: f32) -> Colour {
    /// Below 1 within an ellipse.
    fn at(y: f32, x: f32, centre: [f32; 2], radii: [f32; 2]) -> f32 {
        ((y - centre[0]) / radii[0]).powi(2) + ((x - centre[1]) / radii[1]).powi(2)
    }
    let middle = (FACE_SIDE / 2) as f32;
    let eyes = [middle - looks.eye, middle + looks.eye];
    let is_at_eye =
        |y0: f32, radii: [f32; 2]| eyes.iter().any(|&x0| at(y, x, [y0, x0], radii) < 1.0);
    let face = at(y, x, [66.0, middle], looks.radii);
    if is_at_eye(51.0, [3.6, 3.6]) {
        [40.0, 28.0, 22.0]
    } else if is_at_eye(51.0, [4.0, 8.0]) {
        [215.0, 205.0, 195.0]
    } else if is_at_eye(42.0, [2.2, 10.0]) {
        looks.hair
    } else if at(y, x, [92.0, middle], looks.mouth) < 1.0 {
        looks.lips
    } else if face < 1.0 {
        let is_nostril = at(y, x, [72.0, middle], [3.0, 6.0]) < 1.0;
        let shade = 1.05 - 0.35 * face - 0.1 * (x - middle) / middle;
        looks.skin.map(|value| value * shade * if is_nostril { 0.6 } else { 1.0 })
    } else if at(y, x, [50.0, middle], [looks.radii[0] + 6.0, looks.radii[1] + 7.0]) < 1.0 {
        looks.hair
    } else {
        looks.background
    }
}

/// Smooth noise about 0 whose grains are of several sizes, as in photographs.
fn texture(seed: u32, y: f32, x: f32) -> f32 {
    let grains = [(28.0, 1.0), (14.0, 0.6), (7.0, 0.4), (4.0, 0.3)];
    grains.iter().map(|&(size, weight)| weight * smooth(seed, y / size, x / size)).sum()
}

fn smooth(seed: u32, y: f32, x: f32) -> f32 {
    let (row, column) = (y.floor(), x.floor());
    let (dy, dx) = (y - row, x - column);
    let at = |down: u32, right: u32| lattice(seed, row as u32 + down, column as u32 + right);
    let above = at(0, 0) * (1.0 - dx) + at(0, 1) * dx;
    let below = at(1, 0) * (1.0 - dx) + at(1, 1) * dx;
    above * (1.0 - dy) + below * dy
}

/// A number of −1 to 1 that place and seed fix.
fn lattice(seed: u32, row: u32, column: u32) -> f32 {
    let mut key = seed.wrapping_mul(0x9e37_79b9) ^ row.wrapping_mul(0x85eb_ca6b);
    key ^= column.wrapping_mul(0xc2b2_ae35);
    key = (key ^ key >> 15).wrapping_mul(0x2c1b_3c6d);
    key = (key ^ key >> 12).wrapping_mul(0x297a_2d39);
    ((key ^ key >> 15) as f32 / u32::MAX as f32).mul_add(2.0, -1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_as_bright_and_as_colourful_as_photographs() {
        let faces = unlike().concat();
        for (colour, (mean, deviation)) in
            [(133.0, 65.0), (105.0, 56.0), (86.0, 54.0)].into_iter().enumerate()
        {
            let values = || faces.iter().skip(colour).step_by(3).map(|&value| f64::from(value));
            let n = values().count() as f64;
            let found = values().sum::<f64>() / n;
            let spread = (values().map(|value| (value - found).powi(2)).sum::<f64>() / n).sqrt();
            assert!((found - mean).abs() < 20.0, "{colour}: mean {found}");
            assert!((spread - deviation).abs() < 15.0, "{colour}: deviation {spread}");
        }
    }
}
