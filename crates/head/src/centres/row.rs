//! A row of centres: how it lies in memory, how it is rounded, and the arithmetic of `pfc-rows` on it.
//!
//! Everything is inlined into the loop over a tile's rows, which is compiled once for each kind of
//! vector unit.

use bytemuck::cast_slice;
use half::bf16;

use crate::{
    config::{CentreOptimizer, HeadConfig, Storage},
    elements::Number,
};
pub(crate) use pfc_rows::row::{
    LENGTH_LEAST, add_scaled, advance, before_normalisation, inverse_length, step,
};

/// Rows start at a cache line.
const ALIGNMENT: usize = 64;

/// How numbers are brought into a shorter format.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rounding {
    /// To the nearest, of two to the even one.
    Nearest,
    /// Up or down, with probabilities that make it right on average; a function of the key.
    Stochastic(u64),
}

/// A number of a row that no step can go on from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NotFinite {
    /// What of the row it is in: its weight or the state of its optimizer.
    pub part: &'static str,
    /// NaN or infinite.
    pub value: f32,
}

/// The first number of a row that is not finite.
#[inline(always)]
pub(crate) fn not_finite(weight: &[f32], state: &[f32]) -> Option<NotFinite> {
    for (part, numbers) in [("weight", weight), ("optimizer state", state)] {
        // One number stands for all, found without a branch for each: NaN and infinity have the largest bits.
        let largest = numbers.iter().fold(0, |most, x| x.abs().to_bits().max(most));
        if largest >= f32::INFINITY.to_bits() {
            let value = numbers.iter().copied().find(|x| !x.is_finite());
            return value.map(|value| NotFinite { part, value });
        }
    }
    None
}

/// The bytes of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLayout {
    dim: usize,
    n_state: usize,
    weight: Storage,
    state: Storage,
}

impl RowLayout {
    /// The layout of the rows of a head.
    #[must_use]
    pub fn of_config(config: &HeadConfig) -> RowLayout {
        let n_state = match config.optimizer {
            CentreOptimizer::Sgd => config.dim,
            CentreOptimizer::Adamw { .. } => 2 * config.dim,
            CentreOptimizer::RowAdagrad { .. } => 1,
        };
        // One number of a row is no memory to save.
        let state = if n_state == 1 { Storage::F32 } else { config.state };
        RowLayout::new((config.dim, config.weights), (n_state, state))
    }

    /// * `dim`: numbers of the weight
    /// * `n_state`: numbers of the optimizer's state
    #[must_use]
    pub fn new((dim, weight): (usize, Storage), (n_state, state): (usize, Storage)) -> RowLayout {
        RowLayout { dim, n_state, weight, state }
    }

    /// Numbers of the weight.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Numbers of the optimizer's state.
    #[must_use]
    pub fn n_state(&self) -> usize {
        self.n_state
    }

    /// Number format of the weight.
    #[must_use]
    pub fn weights(&self) -> Storage {
        self.weight
    }

    /// Number format of the state.
    #[must_use]
    pub fn states(&self) -> Storage {
        self.state
    }

    /// Bytes of the weight.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.dim * self.weight.size_bytes()
    }

    /// Bytes from one row to the next, a multiple of 64.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        (self.state_at() + self.n_state * self.state.size_bytes()).next_multiple_of(ALIGNMENT)
    }

    /// Where the state begins; a multiple of 4, so that either format is aligned.
    fn state_at(&self) -> usize {
        self.weight_bytes().next_multiple_of(4)
    }

    /// Bytes of the state.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.n_state * self.state.size_bytes()
    }

    /// The bytes of a row that are its weight.
    pub(crate) fn weight_of<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        &row[..self.weight_bytes()]
    }

    /// The bytes of a row that are its state.
    pub(crate) fn state_of<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        &row[self.state_at()..][..self.state_bytes()]
    }

    #[inline(always)]
    pub(crate) fn read_weight(&self, row: &[u8], weight: &mut [f32]) {
        read_numbers(self.weight, &row[..self.weight_bytes()], weight);
    }

    #[inline(always)]
    pub(crate) fn read_state(&self, row: &[u8], state: &mut [f32]) {
        let at = self.state_at();
        read_numbers(self.state, &row[at..at + self.n_state * self.state.size_bytes()], state);
    }

    /// * `rounding`: for the weight; the state takes the next key
    #[inline(always)]
    pub(super) fn write(&self, weight: &[f32], state: &[f32], rounding: Rounding, row: &mut [u8]) {
        let at = self.state_at();
        write_numbers(self.weight, weight, rounding, &mut row[..self.weight_bytes()]);
        let rounding = match rounding {
            Rounding::Stochastic(key) => Rounding::Stochastic(key.wrapping_add(1)),
            Rounding::Nearest => Rounding::Nearest,
        };
        let end = at + self.n_state * self.state.size_bytes();
        write_numbers(self.state, state, rounding, &mut row[at..end]);
    }
}

#[inline(always)]
fn read_numbers(format: Storage, bytes: &[u8], out: &mut [f32]) {
    match format {
        Storage::F32 => out.copy_from_slice(&cast_slice(bytes)[..out.len()]),
        Storage::Bf16 => {
            let values: &[bf16] = cast_slice(bytes);
            for (out, value) in out.iter_mut().zip(values) {
                *out = Number::to_f32(*value);
            }
        }
    }
}

#[inline(always)]
fn write_numbers(format: Storage, values: &[f32], rounding: Rounding, bytes: &mut [u8]) {
    match format {
        Storage::F32 => {
            bytemuck::cast_slice_mut(bytes)[..values.len()].copy_from_slice(values);
        }
        Storage::Bf16 => {
            let out: &mut [bf16] = bytemuck::cast_slice_mut(bytes);
            match rounding {
                Rounding::Nearest => {
                    for (out, value) in out.iter_mut().zip(values) {
                        *out = Number::of_f32(*value);
                    }
                }
                Rounding::Stochastic(key) => stochastic(values, key, out),
            }
        }
    }
}

/// Writes each value as one of the two bf16 numbers around it, the nearer one more often, so that
/// the mean over keys is the value itself. Numbers that bf16 holds, and infinities, stay as they are;
/// a NaN stays one.
///
/// 16 random bits, a function of `key` and the position alone, are added below the bits that bf16
/// keeps; a carry rounds up.
#[inline(always)]
pub(crate) fn stochastic(values: &[f32], key: u64, out: &mut [bf16]) {
    let (low, high) = (key as u32, (key >> 32) as u32);
    for (i, (out, value)) in out.iter_mut().zip(values).enumerate() {
        *out = bf16::from_bits(rounded(value.to_bits(), random_bits(i as u32, low, high)));
    }
}

#[inline(always)]
fn rounded(bits: u32, random: u32) -> u16 {
    const EXPONENT: u32 = 0x7f80_0000;
    let moved = (bits.wrapping_add(random)) >> 16;
    // Nothing may carry out of a NaN, whose quiet bit is set instead.
    let is_nan = bits & 0x7fff_ffff > EXPONENT;
    (if is_nan { bits >> 16 | 0x40 } else { moved }) as u16
}

/// 16 bits from two rounds of multiply and xor-shift: 32-bit steps, which every vector unit has.
#[inline(always)]
fn random_bits(position: u32, low: u32, high: u32) -> u32 {
    let mut x = low.wrapping_add(position.wrapping_mul(0x9e37_79b9));
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15) ^ high).wrapping_mul(0x846c_a68b);
    (x ^ (x >> 16)) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::scramble;

    #[test]
    fn a_row_holds_what_was_written_side_by_side() {
        for (weight, state, size) in [
            (Storage::F32, Storage::F32, 64),
            (Storage::Bf16, Storage::Bf16, 64),
            (Storage::Bf16, Storage::F32, 64),
        ] {
            let layout = RowLayout::new((5, weight), (3, state));
            assert_eq!(layout.size_bytes(), size);
            // Cast from a type of the alignment that mappings have.
            let mut memory = [0u64; 8];
            let row = bytemuck::bytes_of_mut(&mut memory);
            let (w, v) = ([1.0, -2.5, 0.125, 3.0, 4.0], [7.0, -0.5, 96.0]);
            layout.write(&w, &v, Rounding::Stochastic(3), row);
            let (mut found_w, mut found_v) = ([0.0; 5], [0.0; 3]);
            layout.read_weight(row, &mut found_w);
            layout.read_state(row, &mut found_v);
            assert_eq!((found_w, found_v), (w, v), "{weight:?} {state:?}");
        }
    }

    #[test]
    fn rows_of_512_take_4_kib_in_f32_and_half_of_it_in_bf16() {
        let size = |storage| RowLayout::new((512, storage), (512, storage)).size_bytes();
        assert_eq!((size(Storage::F32), size(Storage::Bf16)), (4096, 2048));
        let row_wise = RowLayout::new((512, Storage::Bf16), (1, Storage::F32));
        assert_eq!(row_wise.size_bytes(), 1088);
    }

    #[test]
    fn the_first_number_that_is_not_finite_is_found() {
        let (most, least) = (f32::MAX, f32::MIN_POSITIVE / 2.0);
        assert_eq!(not_finite(&[0.0, -0.0, most, -most, least], &[-least]), None);
        for bad in [f32::INFINITY, f32::NEG_INFINITY] {
            let found = not_finite(&[1.0, bad, f32::NAN], &[f32::NAN]);
            assert_eq!(found, Some(NotFinite { part: "weight", value: bad }));
            let found = not_finite(&[1.0], &[0.0, bad]);
            assert_eq!(found, Some(NotFinite { part: "optimizer state", value: bad }));
        }
        assert!(not_finite(&[-f32::NAN], &[]).is_some_and(|found| found.value.is_nan()));
    }

    fn round(value: f32, key: u64) -> f32 {
        let mut out = [bf16::ZERO; 40];
        stochastic(&[value; 40], key, &mut out);
        // A position of its own for each key.
        out[(key % 40) as usize].to_f32()
    }

    #[test]
    fn rounding_is_unbiased() {
        // A third, and a twentieth, of the way from one bf16 number to the next; and a negative one.
        for value in [1.0 + 1.0 / 384.0, 0.01 * (1.0 + 1.0 / 2560.0), -3.0e-5f32] {
            let n = 200_000u64;
            let draws: Vec<f64> =
                (0..n).map(|key| f64::from(round(value, scramble(key)))).collect();
            let mean = draws.iter().sum::<f64>() / n as f64;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n as f64;
            // Five standard errors of the mean.
            let bound = 5.0 * (variance / n as f64).sqrt();
            assert!(variance > 0.0 && (mean - f64::from(value)).abs() < bound, "{value}: {mean}");
        }
    }

    #[test]
    fn one_key_rounds_neighbouring_elements_independently() {
        let value = 1.0 + 1.0 / 256.0; // half way
        let (mut both, mut ups, n) = (0.0, 0.0, 2000);
        for key in 0..n {
            let mut out = [bf16::ZERO; 64];
            stochastic(&[value; 64], scramble(key), &mut out);
            let up = out.map(|o| f64::from(u8::from(o > bf16::ONE)));
            ups += up.iter().sum::<f64>() / 64.0;
            both += up.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / 63.0;
        }
        // Standard errors: 0.5 / sqrt(128,000) and about 0.43 / sqrt(126,000).
        assert!((ups / n as f64 - 0.5).abs() < 0.007, "{ups}");
        assert!((both / n as f64 - 0.25).abs() < 0.007, "{both}");
    }

    #[test]
    fn small_steps_add_up_where_rounding_to_the_nearest_would_lose_them() {
        let (mut stochastic_sum, mut nearest_sum) = (1.0f32, 1.0f32);
        for step in 0..4000 {
            stochastic_sum = round(stochastic_sum + 1e-3, scramble(step));
            nearest_sum = bf16::from_f32(nearest_sum + 1e-3).to_f32();
        }
        assert_eq!(nearest_sum, 1.0);
        // 5 on average; the variance of a step is at most ulp^2 / 4 with an ulp of 1/32 at 5.
        assert!((stochastic_sum - 5.0).abs() < 1.0, "{stochastic_sum}");
    }

    #[test]
    fn exact_numbers_infinities_and_nans_stay() {
        for value in [0.0, -0.0, 1.5, -96.0, f32::INFINITY, f32::NEG_INFINITY] {
            assert!((0..100).all(|key| round(value, scramble(key)) == value), "{value}");
        }
        for bits in [0x7fff_ffffu32, 0xffff_ffff, 0x7f80_0001] {
            assert!((0..100).all(|key| round(f32::from_bits(bits), scramble(key)).is_nan()));
        }
    }
}
