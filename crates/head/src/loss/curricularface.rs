//! `CurricularFace` (arXiv 2004.00288): negatives that are harder than the positive count more, the more
//! so the further training has come.

use pfc_rows::margin::guarded;
use tch::{TchError, Tensor};

use super::{Loss, Shaped, Target};

/// `psi = cos(theta + m)`, guarded past pi as in ArcFace, and for a negative with `cos > cos(theta + m)`
/// the value `cos * (t + cos)` in place of `cos`.
///
/// `t` is the running mean of the positives' cosines over the global batches, the newest one included,
/// and begins at 0. No gradient flows through it, nor through the choice of the hard negatives.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curricularface {
    m: f64,
    /// Weight of the newest batch in the running mean.
    alpha: f64,
    t: f64,
    /// `cos(theta + m)` of each sample of the step, above which a negative is hard.
    hard_above_g: Vec<f64>,
}

impl Curricularface {
    pub fn new(m: f64, alpha: f64) -> Curricularface {
        Curricularface { m, alpha, t: 0.0, hard_above_g: Vec::new() }
    }
}

impl Loss for Curricularface {
    fn wants_cosines(&self) -> bool {
        true
    }

    fn see_cosines(&mut self, cosines_g: &[f64]) {
        let mean = cosines_g.iter().sum::<f64>() / cosines_g.len() as f64;
        self.t += self.alpha * (mean - self.t);
        self.hard_above_g = cosines_g.iter().map(|cosine| (cosine.acos() + self.m).cos()).collect();
    }

    fn target(&self, _: usize, cosine: f64) -> Target {
        guarded(cosine, self.m)
    }

    fn shapes_negatives(&self) -> bool {
        true
    }

    fn shape(&self, cos_tg: &Tensor) -> Result<Option<Shaped>, TchError> {
        let hard_above_g = Tensor::f_from_slice(&self.hard_above_g)?
            .f_to_kind(cos_tg.kind())?
            .f_to_device(cos_tg.device())?;
        let is_hard_tg = cos_tg.f_gt_tensor(&hard_above_g)?;
        let raised_tg = cos_tg.f_add_scalar(self.t)?;
        let values_tg = raised_tg.f_mul(cos_tg)?.f_where_self(&is_hard_tg, cos_tg)?;
        let slopes_tg =
            raised_tg.f_add(cos_tg)?.f_where_self(&is_hard_tg, &cos_tg.f_ones_like()?)?;
        Ok(Some(Shaped { values_tg, slopes_tg }))
    }

    fn largest_negative(&self) -> f64 {
        // At cosine 1, or -1 where t is negative.
        1.0 + self.t.abs()
    }

    fn memory(&self) -> Vec<f64> {
        vec![self.t]
    }

    fn remember(&mut self, memory: &[f64]) {
        if let &[t] = memory {
            self.t = t;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::to_f64;

    /// On paper: alpha 0.5, cosines 1 and 0, so t = 0.25; m = pi/3 makes cosines above 0.5 hard for the
    /// first sample, and above -0.866 for the second.
    #[test]
    fn negatives_above_the_margined_positive_count_more() {
        let mut loss = Curricularface::new(std::f64::consts::FRAC_PI_3, 0.5);
        loss.see_cosines(&[1.0, 0.0]);
        assert_eq!(loss.memory(), [0.25]);
        let cos_tg = Tensor::from_slice(&[0.6f32, 0.6, 0.4, 0.4, -0.9, -0.9]).view([3, 2]);
        let Shaped { values_tg, slopes_tg } = loss.shape(&cos_tg).unwrap().unwrap();
        let near = |found: &Tensor, expected: [f64; 6]| {
            let found = to_f64(found);
            let far = found.iter().zip(expected).any(|(f, e)| (f - e).abs() > 1e-6);
            assert!(!far, "{found:?}, not {expected:?}");
        };
        near(&values_tg, [0.6 * 0.85, 0.6 * 0.85, 0.4, 0.4 * 0.65, -0.9, -0.9]);
        near(&slopes_tg, [1.45, 1.45, 1.0, 1.05, 1.0, 1.0]);
    }
}
