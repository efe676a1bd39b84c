//! Faces of 112×112 RGB bytes as the values that a network takes.

use crate::input::{ChannelOrder, FACE_BYTES, FACE_SIDE, InputSpec, Layout};

/// Shares of red, green and blue in grey, by ITU-R BT.601, as OpenCV and PIL have it.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// A face mirrored left to right.
///
/// # Panics
///
/// If `rgb` is not one face.
pub fn mirrored(rgb: &[u8]) -> Vec<u8> {
    assert_eq!(rgb.len(), FACE_BYTES, "not one face");
    let rows = rgb.chunks_exact(3 * FACE_SIDE);
    rows.flat_map(|row| row.rchunks_exact(3).flatten().copied()).collect()
}

impl InputSpec {
    /// Writes one face as the network's values, resized by bilinear interpolation if need be.
    ///
    /// # Panics
    ///
    /// If `rgb` is not one face, or `out` not of [`n_values`](InputSpec::n_values).
    pub fn write(&self, rgb: &[u8], out: &mut [f32]) {
        assert_eq!((rgb.len(), out.len()), (FACE_BYTES, self.n_values()), "not one face");
        if (self.height, self.width) == (FACE_SIDE, FACE_SIDE) {
            self.place(out, |row, column, colour| {
                f32::from(rgb[(row * FACE_SIDE + column) * 3 + colour])
            });
        } else {
            let (rows, columns) = (taps(self.height), taps(self.width));
            self.place(out, |row, column, colour| {
                let (y, x) = (rows[row], columns[column]);
                let at = |y: usize, x: usize| f32::from(rgb[(y * FACE_SIDE + x) * 3 + colour]);
                let above = at(y.0, x.0) * (1.0 - x.2) + at(y.0, x.1) * x.2;
                let below = at(y.1, x.0) * (1.0 - x.2) + at(y.1, x.1) * x.2;
                above * (1.0 - y.2) + below * y.2
            });
        }
    }

    /// Normalises `pixel(row, column, colour)`, red being colour 0, into its place.
    fn place(&self, out: &mut [f32], pixel: impl Fn(usize, usize, usize) -> f32) {
        let (area, n_channels) = (self.height * self.width, self.channels.n_channels());
        for channel in 0..n_channels {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let value = |row: usize, column: usize| match self.channels {
                ChannelOrder::Rgb => pixel(row, column, channel),
                ChannelOrder::Bgr => pixel(row, column, 2 - channel),
                ChannelOrder::Grey => {
                    let weights = LUMA.iter().enumerate();
                    weights.map(|(colour, weight)| weight * pixel(row, column, colour)).sum()
                }
            };
            for row in 0..self.height {
                for column in 0..self.width {
                    let place = row * self.width + column;
                    let to = match self.layout {
                        Layout::Planes => channel * area + place,
                        Layout::Pixels => place * n_channels + channel,
                    };
                    out[to] = (value(row, column) - mean) / std;
                }
            }
        }
    }
}

/// For each of `n` places along a side, the two source places around it and the weight of the second.
fn taps(n: usize) -> Vec<(usize, usize, f32)> {
    let scale = FACE_SIDE as f32 / n as f32;
    let tap = |i: usize| {
        let centre = ((i as f32 + 0.5) * scale - 0.5).clamp(0.0, (FACE_SIDE - 1) as f32);
        let first = centre as usize;
        (first, (first + 1).min(FACE_SIDE - 1), centre - first as f32)
    };
    (0..n).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face() -> Vec<u8> {
        let mut rgb = vec![0; FACE_BYTES];
        // Row 2, column 5: red 255, green 51.
        let at = (2 * FACE_SIDE + 5) * 3;
        (rgb[at], rgb[at + 1]) = (255, 51);
        rgb
    }

    fn values(spec: &InputSpec, rgb: &[u8]) -> Vec<f32> {
        let mut out = vec![0.0; spec.n_values()];
        spec.write(rgb, &mut out);
        out
    }

    #[test]
    fn pixels_are_normalised_and_laid_out_as_asked() {
        let planes = values(&InputSpec::insightface(), &face());
        let at = 2 * 112 + 5;
        assert_eq!([planes[at], planes[12_544 + at], planes[0]], [1.0, -0.6, -1.0]);
        let spec = InputSpec {
            channels: ChannelOrder::Bgr,
            layout: Layout::Pixels,
            mean: [0.0; 3],
            std: [1.0, 1.0, 2.0],
            ..InputSpec::insightface()
        };
        assert_eq!(values(&spec, &face())[at * 3..][..3], [0.0, 51.0, 127.5]);
    }

    #[test]
    fn grey_is_the_weighted_sum_of_the_colours() {
        let spec = InputSpec {
            channels: ChannelOrder::Grey,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..InputSpec::insightface()
        };
        let grey = values(&spec, &face());
        assert_eq!(grey.len(), 112 * 112);
        assert!((grey[2 * 112 + 5] - (0.299 * 255.0 + 0.587 * 51.0)).abs() < 1e-4);
    }

    #[test]
    fn mirroring_twice_changes_nothing() {
        assert_eq!(mirrored(&face())[(2 * 112 + 106) * 3], 255);
        assert_eq!(mirrored(&mirrored(&face())), face());
    }

    #[test]
    fn twice_the_size_interpolates_between_pixels() {
        let spec = InputSpec {
            height: 224,
            width: 224,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..InputSpec::insightface()
        };
        let twice = values(&spec, &face());
        // Pixel centres fall a quarter beside those of the source.
        assert_eq!(twice[4 * 224 + 10], 255.0 * 0.75 * 0.75);
        assert_eq!(twice[6 * 224 + 10], 255.0 * 0.25 * 0.75);
        let grey = values(&InputSpec { height: 96, width: 80, ..spec }, &[77; FACE_BYTES]);
        assert!(grey.iter().all(|value| (value - 77.0).abs() < 1e-4));
    }
}
