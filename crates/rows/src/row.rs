//! The arithmetic on a row of centres.
//!
//! Everything is inlined into the loop over rows, which is compiled once for each kind of vector unit. Sums are
//! taken in a fixed order, so that all of them give the same bits.

use crate::optim::{AdamW, Motion, RowAdagrad, Sgd, UpdateMap};

/// Below this length a row is divided by it instead, as `torch.nn.functional.normalize` does.
pub const LENGTH_LEAST: f32 = 1e-12;

/// Independent partial sums of a dot product. Their number is fixed, so that the result does not
/// depend on how wide the machine's vectors are.
const LANES: usize = 64;

/// Dot product of two rows of equal length.
#[must_use]
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
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
pub fn advance(flow: &UpdateMap, weight: &mut [f32], momentum: &mut [f32]) {
    let [ww, wv, vw, vv] = [flow.ww, flow.wv, flow.vw, flow.vv].map(|c| c as f32);
    for (w, v) in weight.iter_mut().zip(momentum) {
        (*w, *v) = (ww * *w + wv * *v, vw * *w + vv * *v);
    }
}

/// `1 / max(|row|, 1e-12)`.
#[must_use]
#[inline(always)]
pub fn inverse_length(row: &[f32]) -> f32 {
    1.0 / dot(row, row).sqrt().max(LENGTH_LEAST)
}

/// Sends the gradient by the unit row back through the normalisation of `weight`: `gradient` becomes
/// the one by `weight`.
#[inline(always)]
pub fn before_normalisation(gradient: &mut [f32], weight: &[f32]) {
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
pub fn step(motion: &Motion, gradient: &[f32], weight: &mut [f32], state: &mut [f32]) {
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
pub fn add_scaled(row: &mut [f32], factor: f32, other: &[f32]) {
    for (r, o) in row.iter_mut().zip(other) {
        *r += factor * o;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
