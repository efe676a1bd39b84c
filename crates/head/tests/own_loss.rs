//! A loss that this crate does not have, written as another crate would, trains like one that it has.

// G = global batch, T = rows of a tile, C = classes, D = embedding.

#![allow(clippy::unwrap_used)] // helpers of tests may

use pfc_head::{
    Head, HeadConfig, Loss, Negatives, ParameterStep, Parts, SampleLoss, Solo, Target, TileCosines,
};
use tch::{Kind, TchError, Tensor};

/// `SphereFace2` (arXiv 2108.01513): with `g(z) = 2 ((z + 1) / 2)^t - 1`,
/// `lambda / s ln(1 + exp(-s (g(cos_y) - m) - b)) + (1 - lambda) / s sum ln(1 + exp(s (g(cos_j) + m) + b))`,
/// every class judged by itself, with a trained bias b.
struct Sphereface2 {
    lambda: f64,
    m: f64,
    t: f64,
    s: f64,
    bias: f64,
    last_gradient: f64,
}

impl Sphereface2 {
    fn new(s: f64) -> Sphereface2 {
        Sphereface2 { lambda: 0.7, m: 0.4, t: 3.0, s, bias: -2.0, last_gradient: 0.0 }
    }
}

impl Loss for Sphereface2 {
    fn target(&self, _: usize, cosine: f64) -> Target {
        let half = (cosine + 1.0) / 2.0;
        Target::new(2.0 * half.powf(self.t) - 1.0 - self.m, self.t * half.powf(self.t - 1.0))
    }

    fn shapes_negatives(&self) -> bool {
        true
    }

    fn largest_negative(&self) -> f64 {
        0.0
    }

    fn negatives(&self, tile: &TileCosines<'_>) -> Result<Negatives, TchError> {
        let half_tg = tile.cosines()?.f_add_scalar(1.0)?.f_div_scalar(2.0)?;
        let raised_tg = half_tg.f_pow_tensor_scalar(self.t)?.f_mul_scalar(2.0)?;
        let logits_tg =
            raised_tg.f_add_scalar(self.m - 1.0)?.f_mul_scalar(self.s)?.f_add_scalar(self.bias)?;
        let share = (1.0 - self.lambda) / self.s;
        let values_tg = logits_tg.f_softplus()?.f_mul_scalar(share)?;
        let by_bias_tg = logits_tg.f_sigmoid()?.f_mul_scalar(share)?;
        let raised_by_cos_tg = half_tg.f_pow_tensor_scalar(self.t - 1.0)?.f_mul_scalar(self.t)?;
        let slopes_tg = by_bias_tg.f_mul(&raised_by_cos_tg)?;
        tile.sums_of(values_tg, slopes_tg, Some(&by_bias_tg))
    }

    fn combine(&self, negatives: f64, logit: f64) -> SampleLoss {
        let lead = -logit - self.bias;
        let share = self.lambda / self.s;
        SampleLoss {
            loss: share * (lead.max(0.0) + (-lead.abs()).exp().ln_1p()) + negatives,
            by_positive: -share / (1.0 + (-lead).exp()),
            by_negatives: 1.0,
        }
    }

    fn has_parameter(&self) -> bool {
        true
    }

    fn move_parameter(&mut self, step: &ParameterStep) {
        self.last_gradient = step.by_positives + step.by_negatives;
        self.bias -= step.lr * self.last_gradient;
    }

    fn memory(&self) -> Vec<f64> {
        vec![self.bias, self.last_gradient]
    }
}

#[test]
fn a_loss_of_another_crate_has_the_gradient_of_automatic_differentiation() {
    const C: i64 = 40;
    let config = HeadConfig {
        scale: 32.0,
        momentum: 0.0,
        weight_decay: 0.0,
        tile_rows: 7,
        ..HeadConfig::new(C as u64, 16)
    };
    let mut parts = Parts::of_config(&config, Box::new(Solo)).unwrap();
    parts.loss = Box::new(Sphereface2::new(config.scale));
    let mut head = Head::with_parts(&config, parts).unwrap();
    let before_cd = head.state().unwrap().swap_remove(0).1;
    // Embeddings that are a function of their place, near nothing in particular.
    let values: Vec<f32> = (0..9 * 16).map(|i| ((i * i * 7 + i) as f32 * 0.37).sin()).collect();
    let embeddings_gd = Tensor::from_slice(&values).view([9, 16]);
    let labels: Vec<i64> = (0..9).map(|i| i * 11 % C).collect();
    let output = head.step(&embeddings_gd, &labels, 0, 1.0).unwrap();

    let leaf = |t: &Tensor| t.to_kind(Kind::Double).detach().set_requires_grad(true);
    let (x_gd, w_cd, bias) = (leaf(&embeddings_gd), leaf(&before_cd), leaf(&Tensor::from(-2.0f64)));
    let unit = |t: &Tensor| t / t.norm_scalaropt_dim(2, [1i64], true);
    let g_gc =
        ((unit(&x_gd).matmul(&unit(&w_cd).tr()) + 1.0) / 2.0).pow_tensor_scalar(3.0) * 2.0 - 1.0;
    let own_gc = Tensor::from_slice(&labels).one_hot(C).to_kind(Kind::Bool);
    let s = config.scale;
    let positives_gc = (-((&g_gc - 0.4) * s + &bias)).softplus() * (0.7 / s);
    let negatives_gc = ((&g_gc + 0.4) * s + &bias).softplus() * (0.3 / s);
    let losses_gc = positives_gc.where_self(&own_gc, &negatives_gc);
    let loss = losses_gc.sum(Kind::Double) / 9.0;
    loss.backward();

    let relative = |a: &Tensor, b: &Tensor| {
        let largest = |t: Tensor| t.to_kind(Kind::Double).abs().max().double_value(&[]);
        largest(a - b) / largest(b.shallow_clone())
    };
    let expected = loss.double_value(&[]);
    assert!((output.loss - expected).abs() < 1e-5 * expected, "{} for {expected}", output.loss);
    assert!(relative(&output.grad_embeddings_bd, &x_gd.grad()) < 2e-5);
    let after_cd = head.state().unwrap().swap_remove(0).1;
    assert!(relative(&(before_cd - after_cd), &w_cd.grad()) < 2e-5);
    let by_bias = bias.grad().double_value(&[]);
    assert!((head.loss_memory()[1] - by_bias).abs() < 1e-5 * by_bias.abs());
}
