//! From 8-bit pixels to what networks are trained on.

/// Bytes of a pixel, numbers of a pixel.
const CHANNELS: usize = 3;

/// `(x − 127.5) / 127.5` of every byte, rounded as a division is: multiplying by the inverse gives
/// other last bits.
static NORMAL: [f32; 256] = {
    let mut normal = [0.0; 256];
    let mut x = 0;
    while x < 256 {
        normal[x] = (x as f32 - 127.5) / 127.5;
        x += 1;
    }
    normal
};

/// Writes `(x − 127.5) / 127.5` of every byte of `rgb` to `out`, mirrored left to right if asked:
/// the range 0 to 255 becomes −1 to 1, as the networks of `InsightFace` expect it.
///
/// Both hold rows of `width` pixels of red, green, blue, so that a batch of `out`s is an NHWC
/// tensor (channels last). No allocation.
///
/// # Panics
///
/// If `out` is not as long as `rgb`, or `rgb` holds no whole number of rows.
pub fn normalise(rgb: &[u8], width: usize, mirror: bool, out: &mut [f32]) {
    assert_eq!(rgb.len(), out.len(), "the output has another size than the image");
    check_rows(rgb, width);
    if !mirror {
        for (to, from) in out.iter_mut().zip(rgb) {
            *to = NORMAL[usize::from(*from)];
        }
        return;
    }
    let rows = rgb.chunks_exact(width * CHANNELS).zip(out.chunks_exact_mut(width * CHANNELS));
    for (from, to) in rows {
        let pixels = from.as_chunks::<CHANNELS>().0.iter().rev();
        for (to, from) in to.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(pixels) {
            *to = from.map(|x| NORMAL[usize::from(x)]);
        }
    }
}

/// Mirrors rows of `width` pixels of red, green, blue left to right, in place.
///
/// # Panics
///
/// If `rgb` holds no whole number of rows.
pub fn mirror_rgb(rgb: &mut [u8], width: usize) {
    check_rows(rgb, width);
    for row in rgb.chunks_exact_mut((width * CHANNELS).max(1)) {
        row.as_chunks_mut::<CHANNELS>().0.reverse();
    }
}

fn check_rows(rgb: &[u8], width: usize) {
    assert!(rgb.len().is_multiple_of(width * CHANNELS), "the image has no whole number of rows");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_becomes_what_a_division_gives() {
        let bytes: Vec<u8> = (0..=255).chain(0..=255).chain(0..=255).collect();
        let mut out = vec![0.0; bytes.len()];
        normalise(&bytes, 256, false, &mut out);
        for (byte, value) in bytes.iter().zip(&out) {
            assert_eq!(*value, (f32::from(*byte) - 127.5) / 127.5, "{byte}");
        }
        assert_eq!((out[0], out[255], out[51]), (-1.0, 1.0, -0.6));
    }

    #[test]
    fn mirroring_turns_pixels_round_within_a_row_and_keeps_their_channels() {
        let mut rgb: Vec<u8> = (0..12).collect();
        let mut out = [0.0; 12];
        normalise(&rgb, 2, true, &mut out);
        let order = [3u8, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8];
        assert_eq!(out, order.map(|x| NORMAL[usize::from(x)]));
        mirror_rgb(&mut rgb, 2);
        assert_eq!(rgb, order);
    }
}
