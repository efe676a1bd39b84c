//! What moves the backbone: SGD and `AdamW` as PyTorch defines them, the learning rate of each step,
//! clipping, the loss scale of f16 and the exponential moving average (EMA) of the weights.

pub mod ema;
pub mod loss_scale;
pub mod lr;
mod rules;

use tch::Tensor;

pub use rules::BackboneOptimizer;

/// L2 norm over all elements of all of `tensors` together, `NaN` or infinite if any element is.
pub fn global_norm(tensors: &[Tensor]) -> f64 {
    let norms: Vec<Tensor> = tensors.iter().map(Tensor::norm).collect();
    Tensor::stack(&norms, 0).norm().double_value(&[])
}

/// Scales `gradients`, whose [`global_norm`] is `norm`, to at most `norm_max`, as
/// `torch.nn.utils.clip_grad_norm_` does: by `norm_max / (norm + 1e-6)` where that is below 1.
pub fn clip(gradients: &mut [Tensor], norm: f64, norm_max: f64) {
    let factor = norm_max / (norm + 1e-6);
    if factor < 1.0 {
        for gradient in gradients {
            *gradient *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(tch::Kind::Double).reshape(-1)).unwrap()
    }

    #[test]
    fn the_norm_is_that_of_all_tensors_together_and_clipping_scales_them_all() {
        let three_four = || [Tensor::from_slice(&[3.0_f32]), Tensor::from_slice(&[0.0_f32, 4.0])];
        let mut gradients = three_four();
        let norm = global_norm(&gradients);
        assert_eq!(norm, 5.0);
        clip(&mut gradients, norm, 10.0);
        assert_eq!(numbers(&gradients[1]), [0.0, 4.0]);
        clip(&mut gradients, norm, 1.0);
        let near = |found: &Tensor, expected: f64| {
            let found = found.sum(tch::Kind::Double).double_value(&[]);
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        };
        near(&gradients[0], 0.6);
        near(&gradients[1], 0.8);
    }

    #[test]
    fn the_norm_shows_a_number_that_is_none() {
        let with = |x: f32| [Tensor::from_slice(&[1.0_f32]), Tensor::from_slice(&[0.0, x])];
        assert!(global_norm(&with(f32::NAN)).is_nan());
        assert!(global_norm(&with(f32::INFINITY)).is_infinite());
    }
}
