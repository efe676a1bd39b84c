//! Pictures that decode, but show nobody well enough.

use pfc_image::{Fit, ImageSize, Limits, Pixels, decode, encode_jpeg, resize};
use pfc_random::Stream;

use crate::camera::SIDE;

/// Ways in which a picture shows too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Junk {
    /// One colour with a little grain.
    Blank,
    /// Enlarged from a few pixels.
    Tiny,
    /// A narrow strip between black borders.
    Strip,
}

impl Junk {
    pub const ALL: [Junk; 3] = [Junk::Blank, Junk::Tiny, Junk::Strip];

    pub fn name(self) -> &'static str {
        match self {
            Junk::Blank => "blank",
            Junk::Tiny => "tiny",
            Junk::Strip => "strip",
        }
    }
}

/// Makes junk of a picture.
pub fn spoil(jpeg: &[u8], junk: Junk, draw: &mut Stream) -> Vec<u8> {
    let limits = Limits { pixels_max: 1 << 20 };
    let mut pixels = decode(jpeg, limits).expect("a picture just made decodes");
    let side = SIDE as u32;
    match junk {
        Junk::Blank => {
            let level = draw.between(40.0, 200.0);
            let grain = |_: &u8| level as u8 + draw.below(4) as u8;
            pixels.data = pixels.data.iter().map(grain).collect();
        }
        Junk::Tiny => {
            let few = ImageSize::square(8 + draw.below(4) as u16);
            let small = resize(pixels, few, Fit::Stretch);
            let enlarged =
                small.and_then(|small| resize(small, ImageSize::square(SIDE as u16), Fit::Stretch));
            pixels = enlarged.expect("sizes of at least one pixel can be resized");
        }
        Junk::Strip => {
            let n_channels = pixels.channels.count();
            let half = draw.between(9.0, 24.0) as u32;
            let is_inside = |x: u32| x.abs_diff(side / 2) < half;
            for (i, value) in pixels.data.iter_mut().enumerate() {
                if !is_inside((i / n_channels) as u32 % side) {
                    *value = 0;
                }
            }
        }
    }
    let Pixels { width, height, .. } = pixels;
    debug_assert_eq!((width, height), (side, side));
    encode_jpeg(&pixels, 90).expect("112 pixels a side is within what JPEG can hold")
}
