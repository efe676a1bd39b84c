//! Arithmetic on one row of centres.

use super::update::{Flow, Sgd};

/// Below this length a row is divided by it instead, as `torch.nn.functional.normalize` does.
pub(super) const LENGTH_LEAST: f32 = 1e-12;

/// Independent partial sums of a dot product. Their number is fixed, so that the result does not
/// depend on how wide the machine's vectors are.
const LANES: usize = 16;

/// Dot product of two rows of equal length.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
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
pub(super) fn advance(flow: &Flow, weight: &mut [f32], momentum: &mut [f32]) {
    let [ww, wv, vw, vv] = [flow.ww, flow.wv, flow.vw, flow.vv].map(|c| c as f32);
    for (w, v) in weight.iter_mut().zip(momentum) {
        (*w, *v) = (ww * *w + wv * *v, vw * *w + vv * *v);
    }
}

/// Writes the weight that `flow` leads to, leaving the row as it is.
pub(super) fn advanced(flow: &Flow, (weight, momentum): (&[f32], &[f32]), out: &mut [f32]) {
    let [ww, wv] = [flow.ww, flow.wv].map(|c| c as f32);
    for ((out, w), v) in out.iter_mut().zip(weight).zip(momentum) {
        *out = ww * w + wv * v;
    }
}

/// `1 / max(|row|, 1e-12)`.
pub(super) fn inverse_length(row: &[f32]) -> f32 {
    1.0 / dot(row, row).sqrt().max(LENGTH_LEAST)
}

/// Sends `gradient`, by the unit row, back through the normalisation of `weight`, and takes one
/// step of SGD.
pub(super) fn step(sgd: &Sgd, gradient: &[f32], weight: &mut [f32], momentum: &mut [f32]) {
    let inverse = inverse_length(weight);
    // Only the part of the gradient across the row turns it; a row shorter than the least length is
    // scaled by a constant, and nothing is taken off.
    let along =
        if inverse < 1.0 / LENGTH_LEAST { dot(gradient, weight) * inverse * inverse } else { 0.0 };
    let [lr, mu, decay] = [sgd.lr, sgd.momentum, sgd.weight_decay].map(|c| c as f32);
    for ((w, v), g) in weight.iter_mut().zip(momentum).zip(gradient) {
        let gradient = (g - along * *w) * inverse;
        *v = mu * *v + gradient + decay * *w;
        *w -= lr * *v;
    }
}

/// Adds `factor * other` to `row`.
pub(super) fn add_scaled(row: &mut [f32], factor: f32, other: &[f32]) {
    for (r, o) in row.iter_mut().zip(other) {
        *r += factor * o;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_of_any_length_is_exact_on_small_integers() {
        for len in [0, 1, 15, 16, 17, 100] {
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
        let sgd = Sgd { lr: 1.0, momentum: 0.5, weight_decay: 0.0 };
        let (mut w, mut v) = ([3.0, 4.0], [0.2, 0.0]);
        step(&sgd, &[1.0, 0.0], &mut w, &mut v);
        let expected_v = [0.1 + 0.128, -0.096];
        for i in 0..2 {
            assert!((v[i] - expected_v[i]).abs() < 1e-6);
            assert!((w[i] - ([3.0, 4.0][i] - expected_v[i])).abs() < 1e-6);
        }
    }

    #[test]
    fn a_row_of_zeros_stays_finite() {
        let sgd = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 1e-4 };
        let (mut w, mut v) = ([0.0; 4], [0.0; 4]);
        assert!(inverse_length(&w) <= 1.0 / LENGTH_LEAST);
        step(&sgd, &[0.0; 4], &mut w, &mut v);
        assert_eq!((w, v), ([0.0; 4], [0.0; 4]));
    }

    #[test]
    fn what_a_row_leads_to_is_what_it_becomes() {
        let flow = Flow { ww: 0.5, wv: -0.25, vw: 0.125, vv: 2.0 };
        let (mut w, mut v) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]);
        let mut out = [0.0; 3];
        advanced(&flow, (&w, &v), &mut out);
        advance(&flow, &mut w, &mut v);
        assert_eq!((out, w, v), ([-0.5, -0.25, 0.0], out, [8.125, 10.25, 12.375]));
    }
}
