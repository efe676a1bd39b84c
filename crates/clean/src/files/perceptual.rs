//! Hashes of what a picture looks like: equal or nearly so for the same picture encoded again.

/// Side of the picture that is transformed.
const SIDE: usize = 32;
/// Lowest frequencies kept each way.
const LOW: usize = 8;

/// Hashes of a picture and of its mirror image, 64 bits each: which of the 8×8 lowest frequencies of
/// the luma, shrunk to 32×32, are above their median (the cosine-transform hash, pHash).
pub fn perceptual_hashes(luma: &[u8], width: usize, height: usize) -> [u64; 2] {
    let low = lowest_frequencies(&shrink(luma, width, height, SIDE, SIDE));
    // Waves across that turn their sign where left and right are exchanged have odd numbers.
    let mirrored: Vec<f32> =
        low.iter().enumerate().map(|(i, v)| if i % LOW % 2 == 1 { -v } else { *v }).collect();
    [low, mirrored].map(|low| above_median(&low))
}

fn above_median(low: &[f32]) -> u64 {
    // The mean says how bright the picture is, not what is on it.
    let mut others = low[1..].to_vec();
    others.sort_by(f32::total_cmp);
    let median = others[others.len() / 2];
    low.iter().enumerate().fold(0, |hash, (i, value)| hash | (u64::from(*value > median) << i))
}

/// Mean of every cell of a grid of `columns` by `rows`; pixels that lie in two cells count in parts.
pub fn shrink(luma: &[u8], width: usize, height: usize, columns: usize, rows: usize) -> Vec<f32> {
    // Down first: that adds whole lines, and leaves few of them to go across.
    let mut lines = vec![0.0; rows * width];
    for (line, span) in lines.chunks_exact_mut(width).zip(spans(height, rows)) {
        for (y, weight) in span {
            let row = &luma[y * width..(y + 1) * width];
            line.iter_mut().zip(row).for_each(|(sum, v)| *sum += f32::from(*v) * weight);
        }
    }
    let across = spans(width, columns);
    let cell = |line: &[f32], span: &[(usize, f32)]| -> f32 {
        span.iter().map(|&(x, weight)| line[x] * weight).sum()
    };
    lines.chunks_exact(width).flat_map(|line| across.iter().map(|s| cell(line, s))).collect()
}

/// For each of `n` cells along a side of `length` pixels, the pixels in it and their weights, which
/// sum to 1.
fn spans(length: usize, n: usize) -> Vec<Vec<(usize, f32)>> {
    let step = length as f32 / n as f32;
    let span = |cell: usize| {
        let (start, end) = (cell as f32 * step, (cell + 1) as f32 * step);
        let pixels = start as usize..(end.ceil() as usize).min(length);
        let part = |i: usize| (end.min((i + 1) as f32) - start.max(i as f32)).max(0.0);
        pixels.map(|i| (i, part(i) / step)).collect()
    };
    (0..n).map(span).collect()
}

/// The type-II cosine transform of a 32×32 picture, its 8×8 lowest coefficients.
fn lowest_frequencies(picture: &[f32]) -> Vec<f32> {
    let wave = |k: usize, i: usize| {
        (std::f32::consts::PI * k as f32 * (2 * i + 1) as f32 / (2 * SIDE) as f32).cos()
    };
    let waves: Vec<f32> = (0..LOW * SIDE).map(|at| wave(at / SIDE, at % SIDE)).collect();
    let wave_of = |k: usize| &waves[k * SIDE..(k + 1) * SIDE];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let mut lines = vec![0.0; LOW * SIDE];
    for (y, row) in picture.chunks_exact(SIDE).enumerate() {
        (0..LOW).for_each(|k| lines[k * SIDE + y] = dot(row, wave_of(k)));
    }
    let coefficient = |at: usize| dot(&lines[at % LOW * SIDE..][..SIDE], wave_of(at / LOW));
    (0..LOW * LOW).map(coefficient).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(of: impl Fn(usize, usize) -> f32) -> Vec<u8> {
        (0..112 * 112).map(|i| of(i % 112, i / 112).clamp(0.0, 255.0) as u8).collect()
    }

    #[test]
    fn brightness_and_contrast_leave_the_hash_as_it_is() {
        // Squares of arbitrary levels, so that no frequency is missing.
        let level = |x: usize, y: usize, seed: u32| {
            let at = (x / 14) as u32 * 8 + (y / 14) as u32 + seed;
            (at.wrapping_mul(2_654_435_761) >> 25) as f32 - 64.0
        };
        let hash_of = |picture: Vec<u8>| perceptual_hashes(&picture, 112, 112);
        let [hash, mirrored] = hash_of(picture(|x, y| 128.0 + level(x, y, 1)));
        let [dimmer, _] = hash_of(picture(|x, y| 100.0 + 0.7 * level(x, y, 1)));
        let [other, _] = hash_of(picture(|x, y| 128.0 + level(y, x, 77)));
        let [turned, back] = hash_of(picture(|x, y| 128.0 + level(111 - x, y, 1)));
        assert!((mirrored ^ turned).count_ones() <= 2 && (back ^ hash).count_ones() <= 2);
        assert!((hash ^ turned).count_ones() > 10);
        assert!((hash ^ dimmer).count_ones() <= 2, "{:064b}", hash ^ dimmer);
        assert!((hash ^ other).count_ones() > 10);
    }

    #[test]
    fn shrinking_averages() {
        assert_eq!(shrink(&[0, 10, 20, 30, 40, 50], 3, 2, 1, 1), [25.0]);
        // Cells of one and a half pixels.
        let halves = shrink(&[0, 30, 90], 3, 1, 2, 1);
        assert!((halves[0] - 10.0).abs() < 1e-4 && (halves[1] - 70.0).abs() < 1e-4, "{halves:?}");
    }
}
