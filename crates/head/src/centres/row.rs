//! A row of centres: how it lies in memory, how it is rounded, and the arithmetic on it.
//!
//! Everything is inlined into the loop over a tile's rows, which is compiled once for each kind of
//! vector unit. Sums are taken in a fixed order, so that all of them give the same bits.

use bytemuck::cast_slice;
use half::bf16;

use crate::{
    config::{CentreOptimizer, HeadConfig, Storage},
    elements::Number,
    optim::{AdamW, Motion, RowAdagrad, Sgd, UpdateMap},
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

/// Below this length a row is divided by it instead, as `torch.nn.functional.normalize` does.
pub(crate) const LENGTH_LEAST: f32 = 1e-12;

/// Independent partial sums of a dot product. Their number is fixed, so that the result does not
/// depend on how wide the machine's vectors are.
const LANES: usize = 64;

/// Dot product of two rows of equal length.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let ((a_lanes, a_rest), (b_lanes, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    // In halves, which loses less than one after the other.
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0] + rest
}

/// Applies `flow` to a row in place.
#[inline(always)]
pub(crate) fn advance(flow: &UpdateMap, weight: &mut [f32], momentum: &mut [f32]) {
    let [ww, wv, vw, vv] = [flow.ww, flow.wv, flow.vw, flow.vv].map(|c| c as f32);
    for (w, v) in weight.iter_mut().zip(momentum) {
        (*w, *v) = (ww * *w + wv * *v, vw * *w + vv * *v);
    }
}

/// `1 / max(|row|, 1e-12)`.
#[inline(always)]
pub(crate) fn inverse_length(row: &[f32]) -> f32 {
    1.0 / dot(row, row).sqrt().max(LENGTH_LEAST)
}

/// Sends the gradient by the unit row back through the normalisation of `weight`: `gradient` becomes
/// the one by `weight`.
#[inline(always)]
pub(crate) fn before_normalisation(gradient: &mut [f32], weight: &[f32]) {
    let inverse = inverse_length(weight);
    // Only the part of the gradient across the row turns it; a row shorter than the least length is
    // scaled by a constant, and nothing is taken off.
    let along =
        if inverse < 1.0 / LENGTH_LEAST { dot(gradient, weight) * inverse * inverse } else { 0.0 };
    for (g, w) in gradient.iter_mut().zip(weight) {
        *g = (*g - along * *w) * inverse;
    }
}

/// One step of an optimizer, given the gradient by the weight.
#[inline(always)]
pub(crate) fn step(motion: &Motion, gradient: &[f32], weight: &mut [f32], state: &mut [f32]) {
    match motion {
        Motion::Sgd(sgd) => step_sgd(sgd, gradient, weight, state),
        Motion::AdamW(adam) => step_adamw(adam, gradient, weight, state),
        Motion::RowAdagrad(adagrad) => step_row_adagrad(adagrad, gradient, weight, state),
    }
}

#[inline(always)]
fn step_sgd(sgd: &Sgd, gradient: &[f32], weight: &mut [f32], momentum: &mut [f32]) {
    let [lr, mu, decay] = [sgd.lr, sgd.momentum, sgd.weight_decay].map(|c| c as f32);
    for ((w, v), g) in weight.iter_mut().zip(momentum).zip(gradient) {
        *v = mu * *v + g + decay * *w;
        *w -= lr * *v;
    }
}

#[inline(always)]
fn step_adamw(adam: &AdamW, gradient: &[f32], weight: &mut [f32], state: &mut [f32]) {
    let (means, squares) = state.split_at_mut(weight.len());
    let [beta1, beta2, eps] = [adam.beta1, adam.beta2, adam.eps].map(|c| c as f32);
    let kept = (1.0 - adam.lr * adam.weight_decay) as f32;
    let rate = (adam.lr / adam.correction1) as f32;
    let root_correction = (1.0 / adam.correction2.sqrt()) as f32;
    let moments = means.iter_mut().zip(squares);
    for ((w, (m, s)), g) in weight.iter_mut().zip(moments).zip(gradient) {
        *m = beta1 * *m + (1.0 - beta1) * g;
        *s = beta2 * *s + (1.0 - beta2) * g * g;
        *w = kept * *w - rate * *m / (s.sqrt() * root_correction + eps);
    }
}

#[inline(always)]
fn step_row_adagrad(adagrad: &RowAdagrad, gradient: &[f32], weight: &mut [f32], state: &mut [f32]) {
    let [eps, decay] = [adagrad.eps, adagrad.weight_decay].map(|c| c as f32);
    // |g + decay w|^2, from the dot products of its parts.
    let squares = dot(gradient, gradient)
        + 2.0 * decay * dot(gradient, weight)
        + decay * decay * dot(weight, weight);
    state[0] += (squares / weight.len() as f32).max(0.0);
    let rate = adagrad.lr as f32 / (state[0].sqrt() + eps);
    for (w, g) in weight.iter_mut().zip(gradient) {
        *w -= rate * (g + decay * *w);
    }
}

/// Adds `factor * other` to `row`.
#[inline(always)]
pub(crate) fn add_scaled(row: &mut [f32], factor: f32, other: &[f32]) {
    for (r, o) in row.iter_mut().zip(other) {
        *r += factor * o;
    }
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

    #[test]
    fn a_dot_product_of_any_length_is_exact_on_small_integers() {
        for len in [0, 1, 15, 16, 17, 63, 64, 65, 100, 300] {
            let a: Vec<f32> = (0..len).map(|i| (i % 7) as f32).collect();
            let b: Vec<f32> = (0..len).map(|i| (i % 5) as f32 - 2.0).collect();
            let expected: i64 = (0..len).map(|i| (i % 7) * (i % 5 - 2)).sum();
            assert_eq!(dot(&a, &b), expected as f32, "length {len}");
        }
    }

    #[test]
    fn a_step_turns_the_row_and_does_not_stretch_it_at_first_order() {
        // w = (3, 4), |w| = 5; gradient (1, 0) by the unit row (0.6, 0.8): across the row it is
        // (1, 0) - 0.6 (0.6, 0.8) = (0.64, -0.48), divided by 5: (0.128, -0.096).
        let sgd = Motion::Sgd(Sgd { lr: 1.0, momentum: 0.5, weight_decay: 0.0 });
        let (mut g, mut w, mut v) = ([1.0, 0.0], [3.0, 4.0], [0.2, 0.0]);
        before_normalisation(&mut g, &w);
        step(&sgd, &g, &mut w, &mut v);
        let expected_v = [0.1 + 0.128, -0.096];
        for i in 0..2 {
            assert!((v[i] - expected_v[i]).abs() < 1e-6);
            assert!((w[i] - ([3.0, 4.0][i] - expected_v[i])).abs() < 1e-6);
        }
    }

    #[test]
    fn a_step_of_adamw_is_that_of_the_paper() {
        // Step 1 from nothing: m = 0.1 g, s = 0.001 g^2, both corrected to g and g^2, so each
        // element moves by lr * sign(g); before that the decay takes 0.1 * 0.5 of the weight.
        let adam = AdamW {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.5,
            correction1: 0.1,
            correction2: 0.001,
        };
        let (mut w, mut state) = ([2.0, 4.0], [0.0; 4]);
        step(&Motion::AdamW(adam), &[0.3, -0.02], &mut w, &mut state);
        for (found, expected) in w.iter().zip([1.9 - 0.1, 3.8 + 0.1]) {
            assert!((found - expected).abs() < 1e-5, "{w:?}");
        }
        let expected = [0.03, -0.002, 9e-5, 4e-7];
        assert!(state.iter().zip(expected).all(|(s, e)| (s - e).abs() < 1e-8), "{state:?}");
    }

    #[test]
    fn row_wise_adagrad_keeps_the_sum_of_mean_squares() {
        // g = (3, 4) + 0.5 * (2, 0) = (4, 4): mean square 16, added to 9 gives 25, root 5.
        let adagrad = RowAdagrad { lr: 0.5, eps: 1e-8, weight_decay: 0.5 };
        let (mut w, mut state) = ([2.0, 0.0], [9.0]);
        step(&Motion::RowAdagrad(adagrad), &[3.0, 4.0], &mut w, &mut state);
        assert!((state[0] - 25.0).abs() < 1e-5, "{state:?}");
        assert!((w[0] - 1.6).abs() < 1e-6 && (w[1] + 0.4).abs() < 1e-6, "{w:?}");
    }

    #[test]
    fn a_row_of_zeros_stays_finite() {
        let sgd = Motion::Sgd(Sgd { lr: 0.1, momentum: 0.9, weight_decay: 1e-4 });
        let (mut g, mut w, mut v) = ([0.0; 4], [0.0; 4], [0.0; 4]);
        assert!(inverse_length(&w) <= 1.0 / LENGTH_LEAST);
        before_normalisation(&mut g, &w);
        step(&sgd, &g, &mut w, &mut v);
        assert_eq!((w, v), ([0.0; 4], [0.0; 4]));
    }

    #[test]
    fn a_flow_moves_weight_and_momentum_at_once() {
        let flow = UpdateMap { ww: 0.5, wv: -0.25, vw: 0.125, vv: 2.0 };
        let (mut w, mut v) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]);
        advance(&flow, &mut w, &mut v);
        assert_eq!((w, v), ([-0.5, -0.25, 0.0], [8.125, 10.25, 12.375]));
    }
}
