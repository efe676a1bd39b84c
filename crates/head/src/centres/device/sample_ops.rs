//! The work on the samples of a step by tensor operations: embeddings, cosines with their own centres, losses.

// G = global batch, D = embedding.

use tch::{Device, Kind, TchError, Tensor};

use super::{
    ops::{Embeddings, Figures, Gradients, Losses, OwnCentres, Reading, Rows, SampleOps, Terms},
    tensor_ops::{TensorOps, places, unit},
};
use crate::{
    centres::row::LENGTH_LEAST,
    loss::{AngularMargin, SampleLoss},
    sampling::DrawPlan,
    traffic,
};
use pfc_rows::margin::{ArcfaceGradient, SINE_LEAST};

/// Figures that are copied when they are asked for.
struct Later(Tensor);

impl Reading for Later {
    fn wait(self: Box<Self>) -> Result<Figures, TchError> {
        Ok(Figures::of(&self.0.f_to_device(Device::Cpu)?))
    }
}

impl SampleOps for TensorOps {
    fn normalise(&self, raw_gd: &Tensor, kind: Kind) -> Result<Embeddings, TchError> {
        let lengths_g1 = raw_gd.f_norm_scalaropt_dim(2, [1i64], true)?;
        let unit_gd = raw_gd.f_div(&lengths_g1.f_clamp_min(f64::from(LENGTH_LEAST))?)?;
        let operand_gd = unit_gd.f_to_kind(kind)?;
        Ok(Embeddings { unit_gd, operand_gd, lengths_g: lengths_g1.f_squeeze_dim(1)? })
    }

    fn draw(&self, plan: &DrawPlan, positives: &[u64], device: Device) -> Result<Tensor, TchError> {
        let rows: Vec<i64> = plan.rows(positives).into_iter().map(i64::from).collect();
        traffic::upload(&rows, device)
    }

    fn own_centres(
        &self,
        rows: &Rows,
        unit_gd: &Tensor,
        rows_s: &Tensor,
    ) -> Result<OwnCentres, TchError> {
        let centres_gd = unit(rows)?;
        let products_gd =
            unit_gd.f_to_kind(Kind::Double)?.f_mul(&centres_gd.f_to_kind(Kind::Double)?)?;
        let cosines_g = products_gd.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Double)?;
        let slots_g = places(rows_s, &rows.rows_t)?.0.f_to_kind(Kind::Int)?;
        Ok(OwnCentres { unit_gd: centres_gd, cosines_g, slots_g })
    }

    fn losses(&self, terms: &Terms<'_>) -> Result<Losses, TchError> {
        let &Terms { sums_g, cosines_g, lengths_g, margin, scale, weight } = terms;
        let n_samples = cosines_g.size()[0] as f64;
        let per_cosine = scale / n_samples;
        let (values_g, by_cosine_g) = targets(margin, &cosines_g.f_clamp(-1.0, 1.0)?)?;
        let logits_g = values_g.f_mul_scalar(scale)?;
        let log_negatives_g = sums_g.f_mul_scalar(weight)?.f_log()?;
        // As `SampleLoss::softmax`.
        let lead_g = log_negatives_g.f_sub(&logits_g)?;
        let losses_g =
            lead_g.f_clamp_min(0.0)?.f_add(&lead_g.f_abs()?.f_neg()?.f_exp()?.f_log1p()?)?;
        let log_sums_g = logits_g.f_add(&losses_g)?;
        let factors_g = log_sums_g.f_neg()?.f_exp()?.f_mul_scalar(per_cosine * weight)?;
        let is_cut_g = cosines_g.f_abs()?.f_gt(1.0)?;
        let by_logits_g = log_negatives_g.f_sub(&log_sums_g)?.f_exp()?.f_mul_scalar(-per_cosine)?;
        let slopes_g = by_logits_g.f_mul(&by_cosine_g)?.f_masked_fill(&is_cut_g, 0.0)?;

        let loss = losses_g.f_clamp_max(SampleLoss::LOSS_MAX)?.f_mean(Kind::Double)?;
        let order_g = Tensor::f_arange(n_samples as i64, (Kind::Double, cosines_g.device()))?;
        let none = order_g.f_full_like(n_samples)?;
        let first =
            order_g.f_where_self(&lengths_g.f_isfinite()?.f_logical_not()?, &none)?.f_min()?;
        let all_finite = first.f_eq(n_samples)?;
        let not_finite = first.f_masked_fill(&all_finite, -1.0)?;
        let may_move = all_finite.f_logical_and(&loss.f_isfinite()?)?.f_to_kind(Kind::Double)?;
        let mean_cosine = cosines_g.f_mean(Kind::Double)?;
        let figures = Tensor::f_stack(&[loss, mean_cosine, not_finite, may_move], 0)?;
        let [factors_g, slopes_g] =
            [factors_g.f_to_kind(Kind::Float)?, slopes_g.f_to_kind(Kind::Float)?];
        Ok(Losses { factors_g, slopes_g, figures })
    }

    fn gradients(
        &self,
        weighted_gd: &Tensor,
        (embeddings, own): (&Embeddings, &OwnCentres),
        losses: &Losses,
    ) -> Result<Gradients, TchError> {
        let unit_gd = &embeddings.unit_gd;
        let [factors_g1, slopes_g1, lengths_g1] =
            [&losses.factors_g, &losses.slopes_g, &embeddings.lengths_g].map(|t| t.unsqueeze(1));
        let by_unit_gd = weighted_gd.f_mul(&factors_g1)?.f_add(&own.unit_gd.f_mul(&slopes_g1)?)?;
        let least = f64::from(LENGTH_LEAST);
        // An embedding shorter than the least length was scaled by a constant.
        let is_scaled_g1 = lengths_g1.f_ge(least)?.f_to_kind(Kind::Float)?;
        let along_g1 = by_unit_gd
            .f_mul(unit_gd)?
            .f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?
            .f_mul(&is_scaled_g1)?;
        let across_gd = by_unit_gd.f_sub(&unit_gd.f_mul(&along_g1)?)?;
        let embeddings_gd = across_gd.f_div(&lengths_g1.f_clamp_min(least)?)?;
        let operand_gd = unit_gd.f_mul(&factors_g1)?.f_to_kind(embeddings.operand_gd.kind())?;
        Ok(Gradients { embeddings_gd, operand_gd })
    }

    fn read(&self, figures: &Tensor) -> Result<Box<dyn Reading>, TchError> {
        Ok(Box::new(Later(figures.shallow_clone())))
    }
}

/// [`AngularMargin::target`] of cosines, `[G]` f64 in `[-1, 1]`: values and slopes.
fn targets(margin: &AngularMargin, cosines_g: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let of_angle = |m1: f64, m2: f64| -> Result<(Tensor, Tensor), TchError> {
        let angles_g = cosines_g.f_acos()?;
        let margined_g = angles_g.f_mul_scalar(m1)?.f_add_scalar(m2)?;
        let sines_g = angles_g.f_sin()?.f_clamp_min(SINE_LEAST)?;
        let slopes_g = margined_g.f_sin()?.f_mul_scalar(m1)?.f_div(&sines_g)?;
        Ok((margined_g.f_cos()?, slopes_g))
    };
    let ones_g = cosines_g.f_ones_like()?;
    match *margin {
        AngularMargin::Cosface { m } => Ok((cosines_g.f_sub_scalar(m)?, ones_g)),
        AngularMargin::Arcface { m, gradient: ArcfaceGradient::StraightThrough } => {
            Ok((of_angle(1.0, m)?.0, ones_g))
        }
        AngularMargin::Arcface { m, gradient: ArcfaceGradient::Exact } => {
            let (values_g, slopes_g) = of_angle(1.0, m)?;
            let is_past_pi_g = cosines_g.f_acos()?.f_gt(std::f64::consts::PI - m)?;
            let line_g = cosines_g.f_sub_scalar(m * m.sin())?;
            let values_g = line_g.f_where_self(&is_past_pi_g, &values_g)?;
            Ok((values_g, ones_g.f_where_self(&is_past_pi_g, &slopes_g)?))
        }
        AngularMargin::Combined { m1, m2, m3 } => {
            let (values_g, slopes_g) = of_angle(m1, m2)?;
            Ok((values_g.f_sub_scalar(m3)?, slopes_g))
        }
    }
}
