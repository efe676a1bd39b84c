//! The measures of a crop: those that are kept in the shards of a data set, and its exposure.

/// Measures of a crop, kept as columns; the packer defines and computes them. Each may be NaN:
/// not measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quality {
    /// How much fine detail the luma has; more is sharper.
    pub sharpness: f32,
    /// Mean luma.
    pub brightness: f32,
    /// Standard deviation of the luma.
    pub contrast: f32,
}

impl Quality {
    /// Of a crop that nobody has measured.
    pub const UNKNOWN: Quality =
        Quality { sharpness: f32::NAN, brightness: f32::NAN, contrast: f32::NAN };

    /// Whether every measure is a number.
    pub fn is_known(self) -> bool {
        !(self.sharpness.is_nan() || self.brightness.is_nan() || self.contrast.is_nan())
    }
}

/// Measures `luma`, `height` rows of `width` pixels of 0 to 255.
///
/// * `brightness`: mean, 0 to 255
/// * `contrast`: standard deviation, 0 to 127.5
/// * `sharpness`: variance of the four-neighbour Laplacian over the inner pixels, the usual measure
///   of focus; a crop of fewer than 3 pixels a side has 0
///
/// Sums are integers, so the result does not depend on the order of summation.
pub fn measure(luma: &[u8], width: usize) -> Quality {
    let values = || luma.iter().map(|&v| u64::from(v));
    let (mean, variance) =
        moments(luma.len(), values().sum::<u64>() as i64, values().map(|v| v * v).sum::<u64>());
    let (mut n, mut sum, mut squares) = (0, 0i64, 0u64);
    for ((above, row), below) in luma
        .chunks_exact(width)
        .zip(luma.chunks_exact(width).skip(1))
        .zip(luma.chunks_exact(width).skip(2))
    {
        let (row_sum, row_squares) = laplacian_sums(above, row, below);
        n += width.saturating_sub(2);
        sum += i64::from(row_sum);
        squares += row_squares;
    }
    let (_, sharpness) = moments(n, sum, squares);
    Quality {
        sharpness: sharpness as f32,
        brightness: mean as f32,
        contrast: variance.sqrt() as f32,
    }
}

/// Luma up to this counts as underexposed: the range that ISO/IEC 29794-5 counts, as its reference implementation
/// OFIQ 1.0 has it.
const DARK_MAX: u8 = 25;
/// Luma from this on counts as overexposed; see [`DARK_MAX`].
const BRIGHT_MIN: u8 = 247;

/// How much of a picture is nearly black or nearly white.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exposure {
    /// Share of pixels with a luma of at most 25, in `[0, 1]`.
    pub dark: f32,
    /// Share of pixels with a luma of at least 247, in `[0, 1]`.
    pub bright: f32,
}

/// Measures the exposure of `luma`, pixels of 0 to 255. No pixels have NaN.
pub fn exposure(luma: &[u8]) -> Exposure {
    let share = |is_it: &dyn Fn(u8) -> bool| {
        let n = luma.iter().filter(|&&v| is_it(v)).count();
        (n as f64 / luma.len() as f64) as f32
    };
    Exposure { dark: share(&|v| v <= DARK_MAX), bright: share(&|v| v >= BRIGHT_MIN) }
}

/// Sum and sum of squares of the Laplacian over the inner pixels of one row.
fn laplacian_sums(above: &[u8], row: &[u8], below: &[u8]) -> (i32, u64) {
    let inner = 1..row.len().max(2) - 1;
    let (mut sum, mut squares) = (0, 0u64);
    let (above, below) = (&above[inner.clone()], &below[inner.clone()]);
    for ((three, &up), &down) in row.windows(3).zip(above).zip(below) {
        let value = i32::from(up) + i32::from(down) + i32::from(three[0]) + i32::from(three[2])
            - 4 * i32::from(three[1]);
        sum += value;
        squares += u64::from((value * value) as u32);
    }
    (sum, squares)
}

/// Mean and variance of `n` numbers from their sums; 0 of none.
fn moments(n: usize, sum: i64, squares: u64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 0.0);
    }
    let mean = sum as f64 / n as f64;
    (mean, (squares as f64 / n as f64 - mean * mean).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_image_has_no_contrast_and_no_sharpness() {
        let quality = measure(&[90; 25], 5);
        assert_eq!(quality, Quality { sharpness: 0.0, brightness: 90.0, contrast: 0.0 });
    }

    #[test]
    fn one_bright_pixel_matches_a_hand_worked_case() {
        // 4x3 zeros with a 12 at row 1, column 1: mean 1, mean square 12.
        // Laplacian at the two inner pixels: -48 and 12: mean -18, variance 30².
        let mut luma = [0; 12];
        luma[5] = 12;
        let quality = measure(&luma, 4);
        assert_eq!(quality.brightness, 1.0);
        assert!((quality.contrast - 11f32.sqrt()).abs() < 1e-6);
        assert_eq!(quality.sharpness, 900.0);
    }

    /// The variance of the Laplacian of upright stripes, each `width` pixels wide, of `middle` ± `amplitude`.
    fn of_stripes(width: usize, middle: u8, amplitude: u8) -> f32 {
        let value = |x: usize| match x / width % 2 {
            0 => middle + amplitude,
            _ => middle - amplitude,
        };
        // Two columns more than whole periods, as those at the edges have no Laplacian.
        let columns = 2 + 4 * 2 * width;
        let luma: Vec<u8> = (0..9 * columns).map(|i| value(i % columns)).collect();
        measure(&luma, columns).sharpness
    }

    #[test]
    fn the_sharpness_of_stripes_is_that_of_the_closed_form() {
        for amplitude in [1, 10, 60] {
            let square = f32::from(amplitude) * f32::from(amplitude);
            // Next to a stripe of one pixel both neighbours are of the other kind: the Laplacian is 4A; of two
            // pixels one is: 2A; of w pixels two in w have 2A, and all others 0.
            assert_eq!(of_stripes(1, 100, amplitude), 16.0 * square);
            assert_eq!(of_stripes(2, 100, amplitude), 4.0 * square);
            assert_eq!(of_stripes(8, 100, amplitude), square);
        }
    }

    #[test]
    fn the_wider_a_picture_is_blurred_the_less_sharp_it_is() {
        let side = 64;
        let mut state = 7_u32;
        let noise: Vec<u8> = (0..side * side)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let blurred = |reach: usize| -> Vec<u8> {
            let mean = |i: usize| {
                let (x, y) = (i % side, i / side);
                let span = |at: usize| at.saturating_sub(reach)..=(at + reach).min(side - 1);
                let all = span(y).flat_map(|y| span(x).map(move |x| y * side + x));
                let (sum, n) = all.fold((0, 0), |(sum, n), i| (sum + u32::from(noise[i]), n + 1));
                (sum / n) as u8
            };
            (0..side * side).map(mean).collect()
        };
        let found: Vec<f32> =
            (0..5).map(|reach| measure(&blurred(reach), side).sharpness).collect();
        assert!(found.windows(2).all(|pair| pair[0] > 1.5 * pair[1]), "{found:?}");
    }

    #[test]
    fn the_exposure_of_flat_and_half_flat_pictures_is_known() {
        let check = |luma: &[u8], dark: f32, bright: f32| {
            assert_eq!(exposure(luma), Exposure { dark, bright }, "{luma:?}");
        };
        check(&[0; 9], 1.0, 0.0);
        check(&[25; 9], 1.0, 0.0);
        check(&[26; 9], 0.0, 0.0);
        check(&[246; 9], 0.0, 0.0);
        check(&[247; 9], 0.0, 1.0);
        check(&[0, 120, 255, 255], 0.25, 0.5);
        assert!(exposure(&[]).dark.is_nan());
    }

    #[test]
    fn tiny_images_have_no_sharpness_to_measure() {
        assert_eq!(measure(&[1], 1).sharpness, 0.0);
        assert_eq!(measure(&[1, 200, 3, 4, 90, 255], 2).sharpness, 0.0);
        assert_eq!(measure(&[1, 200, 3, 4], 4).sharpness, 0.0);
    }
}
