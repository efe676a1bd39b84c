//! Decoded pixels, eight bits a channel.

use std::borrow::Cow;

/// What a pixel consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// One byte of luma.
    Grey,
    /// Red, green, blue.
    Rgb,
}

impl Channels {
    /// Bytes per pixel.
    pub fn count(self) -> usize {
        match self {
            Channels::Grey => 1,
            Channels::Rgb => 3,
        }
    }
}

/// An image in memory, row by row without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels per row, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
    /// What `data` holds per pixel.
    pub channels: Channels,
    /// `width · height · channels.count()` bytes.
    pub data: Vec<u8>,
}

impl Pixels {
    /// A colour image; `data` must have `3 · width · height` bytes.
    pub fn rgb(width: u32, height: u32, data: Vec<u8>) -> Pixels {
        Pixels::new(width, height, Channels::Rgb, data)
    }

    /// A grey image; `data` must have `width · height` bytes.
    pub fn grey(width: u32, height: u32, data: Vec<u8>) -> Pixels {
        Pixels::new(width, height, Channels::Grey, data)
    }

    fn new(width: u32, height: u32, channels: Channels, data: Vec<u8>) -> Pixels {
        let expected = width as usize * height as usize * channels.count();
        assert_eq!(data.len(), expected, "bytes of {width}x{height} {channels:?} pixels");
        Pixels { width, height, channels, data }
    }

    /// Three bytes a pixel, red, green, blue; those of a grey image are equal.
    pub fn to_rgb(&self) -> Cow<'_, [u8]> {
        match self.channels {
            Channels::Rgb => Cow::Borrowed(&self.data),
            Channels::Grey => Cow::Owned(self.data.iter().flat_map(|&v| [v; 3]).collect()),
        }
    }

    /// As [`to_rgb`](Pixels::to_rgb), without a copy of what is coloured.
    pub fn into_rgb(self) -> Vec<u8> {
        match self.channels {
            Channels::Rgb => self.data,
            Channels::Grey => self.to_rgb().into_owned(),
        }
    }

    /// Brightness of every pixel as the eye weighs it (ITU-R BT.601, rounded).
    pub fn luma(&self) -> Cow<'_, [u8]> {
        match self.channels {
            Channels::Grey => Cow::Borrowed(&self.data),
            Channels::Rgb => Cow::Owned(self.data.chunks_exact(3).map(luma_of).collect()),
        }
    }
}

fn luma_of(rgb: &[u8]) -> u8 {
    let [red, green, blue] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((299 * red + 587 * green + 114 * blue + 500) / 1000) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luma_weighs_green_most_and_keeps_white_white() {
        let pixels = Pixels::rgb(4, 1, vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(pixels.luma().as_ref(), [76, 150, 29, 255]);
    }
}
