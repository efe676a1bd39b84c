//! What moves the backbone: SGD and `AdamW` as PyTorch defines them, the learning rate of each step,
//! clipping, the loss scale of f16 and the exponential moving average (EMA) of the weights.

pub mod ema;
pub mod loss_scale;
pub mod lr;
mod rules;

use pfc_autograd::lists;
use pfc_model::ModelError;
use tch::{Kind, TchError, Tensor};

pub use rules::BackboneOptimizer;

/// L2 norm over all elements of all of `tensors` together, `NaN` or infinite if any element is; 0 of none.
///
/// On a GPU a few launches and one wait, however many tensors there are.
///
/// # Errors
///
/// [`ModelError::Torch`], which only a lack of memory can bring about, as for all functions here.
pub fn global_norm(tensors: &[Tensor]) -> Result<f64, ModelError> {
    if tensors.is_empty() {
        return Ok(0.0);
    }
    let norm = tch::no_grad(|| Tensor::f_stack(&lists::norms(tensors)?, 0)?.f_norm());
    Ok(norm.map_err(ModelError::torch("take the norm of the gradient"))?.double_value(&[]))
}

/// Scales `gradients`, whose [`global_norm`] is `norm`, to at most `norm_max`, as
/// `torch.nn.utils.clip_grad_norm_` does: by `norm_max / (norm + 1e-6)` where that is below 1.
///
/// # Errors
///
/// As [`global_norm`].
pub fn clip(gradients: &mut [Tensor], norm: f64, norm_max: f64) -> Result<(), ModelError> {
    let factor = norm_max / (norm + 1e-6);
    if factor < 1.0 {
        lists::multiply(gradients, factor).map_err(ModelError::torch("clip the gradient"))?;
    }
    Ok(())
}

/// Overwrites `targets`, some of which count and are in the host's memory while others are on a device.
pub(crate) fn overwrite(targets: &[Tensor], sources: &[Tensor]) -> Result<(), TchError> {
    for counts in [true, false] {
        lists::copy(&of_kind(targets, counts), &of_kind(sources, counts))?;
    }
    Ok(())
}

/// Those of `tensors` that are counters, or those that are not.
pub(crate) fn of_kind(tensors: &[Tensor], counts: bool) -> Vec<&Tensor> {
    tensors.iter().filter(|tensor| (tensor.kind() == Kind::Int64) == counts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double).reshape(-1)).unwrap()
    }

    #[test]
    fn the_norm_is_that_of_all_tensors_together_and_clipping_scales_them_all() {
        let three_four = || [Tensor::from_slice(&[3.0_f32]), Tensor::from_slice(&[0.0_f32, 4.0])];
        let mut gradients = three_four();
        let norm = global_norm(&gradients).unwrap();
        assert_eq!(norm, 5.0);
        clip(&mut gradients, norm, 10.0).unwrap();
        assert_eq!(numbers(&gradients[1]), [0.0, 4.0]);
        clip(&mut gradients, norm, 1.0).unwrap();
        let near = |found: &Tensor, expected: f64| {
            let found = found.sum(Kind::Double).double_value(&[]);
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        };
        near(&gradients[0], 0.6);
        near(&gradients[1], 0.8);
    }

    #[test]
    fn the_norm_shows_a_number_that_is_none() {
        let with = |x: f32| [Tensor::from_slice(&[1.0_f32]), Tensor::from_slice(&[0.0, x])];
        assert!(global_norm(&with(f32::NAN)).unwrap().is_nan());
        assert!(global_norm(&with(f32::INFINITY)).unwrap().is_infinite());
        assert_eq!(global_norm(&[]).unwrap(), 0.0);
    }

    #[test]
    fn counters_and_numbers_are_overwritten_alike() {
        let of = |x: f32, n: i64| [Tensor::from_slice(&[x, x]), Tensor::from(n)];
        let (targets, sources) = (of(1.0, 2), of(3.0, 4));
        overwrite(&targets, &sources).unwrap();
        assert_eq!(targets, sources);
    }
}
