//! The work on the rows of a tile by tensor operations.

// C = rows of the rank, D = embedding, N = numbers of a row's state, T = rows of one tile,
// G = global batch, O = positives of the tile.

use tch::{Kind, TchError, Tensor};

use super::ops::{Missed, Pulls, RowKeys, RowOps, RowSteps, Rows, may_move};
use crate::{
    centres::row::LENGTH_LEAST,
    loss::TileCosines,
    optim::{AdamW, Motion, RowAdagrad, Sgd, Stamp, UNTOUCHED},
};

/// Plain tensor operations, on any device.
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorOps;

impl RowOps for TensorOps {
    fn name(&self) -> &str {
        "tensor operations"
    }

    fn unit_rows(&self, rows: &Rows, unit_td: &Tensor) -> Result<(), TchError> {
        unit_td.shallow_clone().f_copy_(&unit(rows)?)
    }

    fn exponentials(&self, tile: &TileCosines<'_>) -> Result<(Tensor, Tensor), TchError> {
        let (slopes_tg, sums_g) = tile.exponentials_there()?;
        Ok((slopes_tg, sums_g.f_to_kind(Kind::Double)?))
    }

    fn update(&self, rows: &Rows, steps: &RowSteps<'_>) -> Result<(), TchError> {
        let (weight_td, state_tn) = rows.read(true)?;
        let state_tn = state_tn.expect("it was asked for");
        let gradient_td = by_unit_rows(&rows.rows_t, steps)?;
        let gradient_td = before_normalisation(&gradient_td, &weight_td)?;
        let (weight_td, state_tn) = step(steps.motion, &gradient_td, &weight_td, &state_tn)?;
        rows.write((&weight_td, &state_tn), (steps.keys, steps.stamp_after), steps.figures)
    }

    fn catch_up(&self, rows: &Rows, keys: RowKeys, now: Stamp) -> Result<(), TchError> {
        let (weight_td, state_tn) = rows.read(true)?;
        rows.write((&weight_td, &state_tn.expect("it was asked for")), (keys, now), None)
    }
}

impl Rows {
    /// Weight `[T, D]` and state `[T, N]` in f32, after what the rows have missed; the state where it
    /// is asked for or has a part in that.
    fn read(&self, with_state: bool) -> Result<(Tensor, Option<Tensor>), TchError> {
        let gather = |table: &Tensor| table.f_index_select(0, &self.rows_t)?.f_to_kind(Kind::Float);
        let weight_td = gather(&self.weight_cd)?;
        let Some(missed_t4) = self.missed_t4()? else {
            let state_tn = if with_state { Some(gather(&self.state_cn)?) } else { None };
            return Ok((weight_td, state_tn));
        };
        let momentum_td = gather(&self.state_cn)?;
        let mix = |to_weight, to_momentum| -> Result<Tensor, TchError> {
            let [of_weight, of_momentum] =
                [to_weight, to_momentum].map(|column| missed_t4.narrow(1, column, 1));
            weight_td.f_mul(&of_weight)?.f_add(&momentum_td.f_mul(&of_momentum)?)
        };
        Ok((mix(0, 1)?, Some(mix(2, 3)?)))
    }

    /// `[T, 4]`, the map of what each row has missed.
    fn missed_t4(&self) -> Result<Option<Tensor>, TchError> {
        let Some(Missed { maps_k4, now }) = &self.missed else { return Ok(None) };
        let stamps_t = self.stamps_c.f_index_select(0, &self.rows_t)?.f_to_kind(Kind::Int64)?;
        let n_missed_t = stamps_t.f_neg()?.f_add_scalar(i64::from(*now))?;
        let is_untouched_t = stamps_t.f_eq(i64::from(UNTOUCHED))?;
        // One that is up to date is at 1; there is none that is further behind than the maps go.
        let at_t = n_missed_t.f_add_scalar(1)?.f_clamp(1, maps_k4.size()[0] - 1)?;
        maps_k4.f_index_select(0, &at_t.f_masked_fill(&is_untouched_t, 0)?).map(Some)
    }

    /// * `figures`: as [`RowSteps::figures`]
    fn write(
        &self,
        (weight_td, state_tn): (&Tensor, &Tensor),
        (keys, stamp): (RowKeys, Stamp),
        figures: Option<&Tensor>,
    ) -> Result<(), TchError> {
        let write = |table: &Tensor, values: Tensor| -> Result<(), TchError> {
            let values = match figures {
                Some(figures) => {
                    let before = table.f_index_select(0, &self.rows_t)?;
                    values.f_where_self(&may_move(figures)?, &before)?
                }
                None => values,
            };
            table.shallow_clone().f_index_copy_(0, &self.rows_t, &values).map(drop)
        };
        let put = |table: &Tensor, values: &Tensor, keys_t: &Tensor| -> Result<(), TchError> {
            let values = match table.kind() {
                Kind::BFloat16 => stochastic(values, keys_t)?,
                _ => values.shallow_clone(),
            };
            write(table, values)
        };
        let keys_t = keys.of_rows(&self.rows_t)?;
        put(&self.weight_cd, weight_td, &keys_t)?;
        put(&self.state_cn, state_tn, &keys_t.f_add_scalar(1)?)?;
        let stamps_t = self.rows_t.f_full_like(i64::from(stamp))?.f_to_kind(Kind::Int)?;
        write(&self.stamps_c, stamps_t)
    }
}

/// The rows, after what they have missed, as unit rows, `[T, D]` f32.
pub(super) fn unit(rows: &Rows) -> Result<Tensor, TchError> {
    let (weight_td, _) = rows.read(false)?;
    weight_td.f_mul(&inverse_lengths(&weight_td)?)
}

/// `[T, 1]`: `1 / max(|row|, 1e-12)`.
fn inverse_lengths(rows_td: &Tensor) -> Result<Tensor, TchError> {
    lengths(rows_td)?.f_clamp_min(f64::from(LENGTH_LEAST))?.f_reciprocal()
}

fn lengths(rows_td: &Tensor) -> Result<Tensor, TchError> {
    dot(rows_td, rows_td)?.f_sqrt()
}

/// `[T, 1]`: dot products row by row.
fn dot(a_td: &Tensor, b_td: &Tensor) -> Result<Tensor, TchError> {
    a_td.f_mul(b_td)?.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)
}

/// `[T, D]` f32: the gradient by the unit rows, from both of their parts.
fn by_unit_rows(rows_t: &Tensor, steps: &RowSteps<'_>) -> Result<Tensor, TchError> {
    let Pulls { rows_o, samples_o, slopes_g, unit_embeddings_gd } = steps.pulls;
    let sum_td = steps.as_negatives_td.f_to_kind(Kind::Float)?;
    if rows_o.size()[0] == 0 {
        return Ok(sum_td);
    }
    // Those of other tiles add 0 to whichever row.
    let (at_o, is_here_o) = places(rows_t, rows_o)?;
    let slopes_o =
        slopes_g.f_index_select(0, samples_o)?.f_mul(&is_here_o.f_to_kind(Kind::Float)?)?;
    let pulls_od =
        unit_embeddings_gd.f_index_select(0, samples_o)?.f_mul(&slopes_o.f_unsqueeze(1)?)?;
    sum_td.f_index_add(0, &at_o, &pulls_od)
}

/// Positions of `rows_o` in the ascending `rows_t`, `[O]` i64, and whether they are there, `[O]`; those that
/// are not have any position.
pub(super) fn places(rows_t: &Tensor, rows_o: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let at_o = rows_o
        .f_searchsorted(rows_t, false, false, "left", None::<Tensor>)?
        .f_clamp_max(rows_t.size()[0] - 1)?;
    let is_there_o = rows_t.f_index_select(0, &at_o)?.f_eq_tensor(rows_o)?;
    Ok((at_o, is_there_o))
}

/// The gradient by the rows themselves; see [`row::before_normalisation`](crate::centres::row).
fn before_normalisation(gradient_td: &Tensor, weight_td: &Tensor) -> Result<Tensor, TchError> {
    let lengths_t1 = lengths(weight_td)?;
    let inverse_t1 = lengths_t1.f_clamp_min(f64::from(LENGTH_LEAST))?.f_reciprocal()?;
    // A row shorter than the least length is scaled by a constant, and nothing is taken off.
    let is_scaled_t1 = lengths_t1.f_gt(f64::from(LENGTH_LEAST))?.f_to_kind(Kind::Float)?;
    let along_t1 = dot(gradient_td, weight_td)?
        .f_mul(&inverse_t1)?
        .f_mul(&inverse_t1)?
        .f_mul(&is_scaled_t1)?;
    gradient_td.f_sub(&weight_td.f_mul(&along_t1)?)?.f_mul(&inverse_t1)
}

/// One step of an optimizer: the new weight and state.
fn step(
    motion: &Motion,
    gradient_td: &Tensor,
    weight_td: &Tensor,
    state_tn: &Tensor,
) -> Result<(Tensor, Tensor), TchError> {
    match motion {
        Motion::Sgd(Sgd { lr, momentum, weight_decay }) => {
            let decayed_td = gradient_td.f_add(&weight_td.f_mul_scalar(*weight_decay)?)?;
            let momentum_td = state_tn.f_mul_scalar(*momentum)?.f_add(&decayed_td)?;
            Ok((weight_td.f_sub(&momentum_td.f_mul_scalar(*lr)?)?, momentum_td))
        }
        Motion::AdamW(adam) => step_adamw(adam, gradient_td, weight_td, state_tn),
        Motion::RowAdagrad(RowAdagrad { lr, eps, weight_decay }) => {
            let decayed_td = gradient_td.f_add(&weight_td.f_mul_scalar(*weight_decay)?)?;
            let mean_t1 = dot(&decayed_td, &decayed_td)?.f_div_scalar(weight_td.size()[1])?;
            let squares_t1 = state_tn.f_add(&mean_t1)?;
            let rates_t1 = squares_t1.f_sqrt()?.f_add_scalar(*eps)?.f_reciprocal()?;
            let moved_td = decayed_td.f_mul(&rates_t1.f_mul_scalar(*lr)?)?;
            Ok((weight_td.f_sub(&moved_td)?, squares_t1))
        }
    }
}

fn step_adamw(
    adam: &AdamW,
    gradient_td: &Tensor,
    weight_td: &Tensor,
    state_tn: &Tensor,
) -> Result<(Tensor, Tensor), TchError> {
    let AdamW { lr, beta1, beta2, eps, weight_decay, correction1, correction2 } = *adam;
    let dim = weight_td.size()[1];
    let (means_td, squares_td) = (state_tn.narrow(1, 0, dim), state_tn.narrow(1, dim, dim));
    let means_td = means_td.f_mul_scalar(beta1)?.f_add(&gradient_td.f_mul_scalar(1.0 - beta1)?)?;
    let squared_td = gradient_td.f_mul(gradient_td)?.f_mul_scalar(1.0 - beta2)?;
    let squares_td = squares_td.f_mul_scalar(beta2)?.f_add(&squared_td)?;
    let roots_td =
        squares_td.f_sqrt()?.f_mul_scalar(1.0 / correction2.sqrt())?.f_add_scalar(eps)?;
    let moved_td = means_td.f_div(&roots_td)?.f_mul_scalar(lr / correction1)?;
    let weight_td = weight_td.f_mul_scalar(1.0 - lr * weight_decay)?.f_sub(&moved_td)?;
    Ok((weight_td, Tensor::f_cat(&[means_td, squares_td], 1)?))
}

impl RowKeys {
    /// The bits of each row's key, `[T]` i64; sums and products wrap.
    ///
    /// * `rows_t`: `[T]` i64
    pub fn of_rows(self, rows_t: &Tensor) -> Result<Tensor, TchError> {
        let mixed = |x: Tensor, shift: i64| {
            // An i64 is shifted with its sign.
            let kept = (u64::MAX >> shift) as i64;
            x.f_bitwise_xor_tensor(
                &x.f_bitwise_right_shift_tensor_scalar(shift)?.f_bitwise_and(kept)?,
            )
        };
        let x = rows_t.f_add_scalar(self.0 as i64)?;
        let x = mixed(x, 30)?.f_mul_scalar(0xbf58_476d_1ce4_e5b9_u64 as i64)?;
        let x = mixed(x, 27)?.f_mul_scalar(0x94d0_49bb_1331_11eb_u64 as i64)?;
        mixed(x, 31)
    }
}

const LOW_32_BITS: i64 = 0xffff_ffff;

/// Stochastic rounding to bf16, by the random bits that rows in memory take.
///
/// `values_tn`, `[T, N]` f32, in bf16: what [`row::stochastic`](crate::centres::row) makes of each row under its key.
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
