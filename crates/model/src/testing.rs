//! What the tests of several layers share.

use tch::{Kind, Tensor};

use crate::{init::Init, layers::Pass, precision::Precision};

pub(crate) fn pass(precision: Precision) -> Pass {
    Pass { train: true, moves_statistics: true, precision, noise_seed: 0 }
}

/// Values that bf16 holds exactly, so that both ways start from the same.
pub(crate) fn random(shape: &[i64], name: &str) -> Tensor {
    let n = shape.iter().product::<i64>() as usize;
    let values = Init::Normal { std: 1.0 }.values(1, name, n);
    let values = Tensor::from_slice(&values).view(shape);
    values.to_kind(Kind::BFloat16).to_kind(Kind::Float)
}

/// Output, gradient at the input and gradient at the parameter, for a random gradient above.
pub(crate) fn with_gradients(
    x: &Tensor,
    parameter: &Tensor,
    layer: impl Fn(&Tensor) -> Tensor,
) -> [Tensor; 3] {
    let x = x.detach().set_requires_grad(true);
    let mut old = parameter.grad();
    if old.defined() {
        let _ = old.zero_();
    }
    let y = layer(&x).to_kind(Kind::Float);
    (&y * random(&y.size(), "gradient")).sum(Kind::Float).backward();
    [y.detach(), x.grad(), parameter.grad().copy()]
}

#[track_caller]
pub(crate) fn check_close(found: &[Tensor], expected: &[Tensor], tolerance: f64) {
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs().max().double_value(&[]);
        let error = difference / expected.abs().max().double_value(&[]);
        assert!(error < tolerance, "tensor {i} is off by {error}");
    }
}
