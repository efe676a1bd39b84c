//! Stochastic rounding to bf16 in tensor operations, by the random bits of
//! [`round`](crate::round).

// T = rows, N = numbers of a row.

use tch::{Kind, TchError, Tensor};

const LOW_32_BITS: i64 = 0xffff_ffff;

/// `values_tn`, `[T, N]` f32, in bf16: what `round::stochastic` makes of each row under its key.
///
/// * `keys_t`: `[T]` i64, the bits of each row's 64-bit key
pub(super) fn stochastic(values_tn: &Tensor, keys_t: &Tensor) -> Result<Tensor, TchError> {
    let bits_tn = values_tn.f_contiguous()?.f_view_dtype(Kind::Int)?.f_to_kind(Kind::Int64)?;
    let moved_tn = bits_tn.f_add(&random_bits(values_tn.size()[1], keys_t)?)?;
    // Cut to 32 bits, of which the low 16 are dropped; an i64 becomes the i32 of its low bits.
    let kept_tn = moved_tn.f_bitwise_and(0xffff_0000i64)?.f_to_kind(Kind::Int)?;
    let rounded_tn = kept_tn.f_view_dtype(Kind::Float)?;
    // Nothing may carry out of a NaN.
    rounded_tn
        .f_where_self(&values_tn.f_isnan()?.f_logical_not()?, values_tn)?
        .f_to_kind(Kind::BFloat16)
}

/// `[T, N]` i64, 16 random bits each. 64-bit products wrap, which leaves their low 32 bits right.
fn random_bits(n_numbers: i64, keys_t: &Tensor) -> Result<Tensor, TchError> {
    let low_t1 = keys_t.f_bitwise_and(LOW_32_BITS)?.f_unsqueeze(1)?;
    let high_t1 = keys_t
        .f_bitwise_right_shift_tensor_scalar(32)?
        .f_bitwise_and(LOW_32_BITS)?
        .f_unsqueeze(1)?;
    let position_n = Tensor::f_arange(n_numbers, (Kind::Int64, keys_t.device()))?;
    let cut = |x: Tensor| x.f_bitwise_and(LOW_32_BITS);
    let mixed = |x: &Tensor, shift: i64| {
        x.f_bitwise_xor_tensor(&x.f_bitwise_right_shift_tensor_scalar(shift)?)
    };
    let x = cut(position_n.f_mul_scalar(0x9e37_79b9i64)?.f_add(&low_t1)?)?;
    let x = cut(mixed(&x, 16)?.f_mul_scalar(0x7feb_352di64)?)?;
    let x = cut(mixed(&x, 15)?.f_bitwise_xor_tensor(&high_t1)?.f_mul_scalar(0x846c_a68bi64)?)?;
    mixed(&x, 16)?.f_bitwise_right_shift_tensor_scalar(16)
}
