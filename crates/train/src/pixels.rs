//! From 8-bit pixels to what networks are trained on.

/// Bytes of a pixel, numbers of a pixel.
const CHANNELS: usize = 3;

/// Writes `(x − 127.5) / 127.5` of every byte of `rgb` to `out`, mirrored left to right if asked.
///
/// Both hold rows of `width` pixels of red, green, blue, so that a batch of `out`s is an NHWC
/// tensor: what libtorch calls channels-last, and convolves fastest.
///
/// # Panics
///
/// If `out` is not as long as `rgb`, or `rgb` holds no whole number of rows.
pub fn normalise(rgb: &[u8], width: usize, mirror: bool, out: &mut [f32]) {
    assert_eq!(rgb.len(), out.len(), "the output has another size than the image");
    assert_eq!(rgb.len() % (width * CHANNELS), 0, "the image has no whole number of rows");
    if !mirror {
        for (to, from) in out.iter_mut().zip(rgb) {
            *to = normal(*from);
        }
        return;
    }
    let rows = rgb.chunks_exact(width * CHANNELS).zip(out.chunks_exact_mut(width * CHANNELS));
    for (from, to) in rows {
        let pixels = from.as_chunks::<CHANNELS>().0.iter().rev();
        for (to, from) in to.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(pixels) {
            *to = from.map(normal);
        }
    }
}

/// Divides, as the reference does: multiplying by the inverse gives other last bits.
fn normal(x: u8) -> f32 {
    (f32::from(x) - 127.5) / 127.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_range_become_minus_one_and_one() {
        let mut out = [0.0; 6];
        normalise(&[0, 255, 127, 128, 51, 204], 2, false, &mut out);
        assert_eq!(out[..2], [-1.0, 1.0]);
        assert_eq!(out[2..4], [-1.0 / 255.0, 1.0 / 255.0]);
        assert!((out[4] + 0.6).abs() < 1e-7 && (out[5] - 0.6).abs() < 1e-7);
    }

    #[test]
    fn mirroring_turns_pixels_round_within_a_row_and_keeps_their_channels() {
        let rgb: Vec<u8> = (0..12).collect();
        let mut out = [0.0; 12];
        normalise(&rgb, 2, true, &mut out);
        let order = [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8];
        assert_eq!(out, order.map(normal));
    }
}
