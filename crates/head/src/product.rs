//! Matrix products that are added up.

use tch::{TchError, Tensor};

use super::traffic;

/// Adds `a * b` to the f32 `sum`.
pub(super) fn add_product(sum: &mut Tensor, a: &Tensor, b: &Tensor) -> Result<(), TchError> {
    traffic::hand_over(1);
    let added = if a.kind() == sum.kind() {
        sum.f_addmm_(a, b)
    } else if sum.device().is_cuda() {
        // Sums of bf16 factors in f32, and one pass. libtorch has it for CUDA alone.
        sum.f_addmm_dtype(a, b, sum.kind()).inspect(|added| *sum = added.shallow_clone())
    } else {
        a.f_matmul(b).and_then(|product| sum.f_add_(&product))
    };
    added.map(drop)
}
