//! Losses: what becomes of the cosines between embeddings and class centres.
//!
//! A loss is one struct at the trait [`Loss`], and one file here. The step asks it, in this order: to
//! look at the lengths of the embeddings ([`Loss::see_lengths`]) and, if it wants them, at the cosines
//! of the positives ([`Loss::see_cosines`]); what each positive's cosine becomes ([`Loss::target`]); what
//! a tile of negatives adds to each sample ([`Loss::negatives`]); what the two together cost
//! ([`Loss::combine`]); and what the lengths cost by themselves ([`Loss::length_penalty`]). Every method
//! returns the derivative beside the value. All but `target` have the margin softmax as their default.

mod adaface;
mod curricularface;
mod magface;
mod subcentre;
mod tile;
mod uniface;

use tch::{TchError, Tensor};

use super::config::{HeadConfig, Margin};
pub use pfc_rows::{
    cross_entropy::SampleLoss,
    margin::{AngularMargin, Target},
};
pub(super) use tile::OwnThere;
pub use tile::{Negatives, Shaped, TileCosines};

/// What one step tells a loss that has a parameter of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterStep {
    /// Mean over the batch of [`SampleLoss::by_positive`]: the derivative by the positives' logits.
    pub by_positives: f64,
    /// The same of [`Negatives::parameter_sums_g`] over all tiles, weighted as the negatives are.
    pub by_negatives: f64,
    /// Learning rate of the centres.
    pub lr: f64,
    /// Momentum of the centres under SGD.
    pub momentum: f64,
    /// Weight decay of the centres.
    pub weight_decay: f64,
}

/// A loss of embeddings against class centres.
///
/// With `s` the scale of the head, a loss adds up, over the samples of the global batch, what
/// [`combine`](Loss::combine) makes of the sum over its negatives and of the positive's logit,
/// `s * target`. It may keep figures of the batches so far, which belong into a checkpoint
/// ([`memory`](Loss::memory)). Every rank asks its own copy the same questions about lengths, cosines and
/// parameters, with the figures of the global batch, so that all copies stay equal.
///
/// G = global batch, T = rows of one tile of centres.
pub trait Loss: Send + Sync {
    /// Called once per step, before anything else.
    ///
    /// * `lengths_g`: `[G]`, the lengths of the embeddings, all ranks' rows in rank order
    fn see_lengths(&mut self, lengths_g: &[f64]) {
        let _ = lengths_g;
    }

    /// Whether [`Loss::see_cosines`] is called, which costs one more collective of G numbers.
    fn wants_cosines(&self) -> bool {
        false
    }

    /// Called once per step after [`Loss::see_lengths`], if [`Loss::wants_cosines`].
    ///
    /// * `cosines_g`: `[G]`, the cosine of each sample with its own centre, in `[-1, 1]`
    fn see_cosines(&mut self, cosines_g: &[f64]) {
        let _ = cosines_g;
    }

    /// The margined value of a positive's cosine, with its derivatives.
    ///
    /// * `sample`: row of the global batch
    /// * `cosine`: of that row's embedding and its own centre, in `[-1, 1]`
    fn target(&self, sample: usize, cosine: f64) -> Target;

    /// The margin, if it is all that there is to the loss: targets are those of the margin, and everything
    /// else is as the methods of this trait have it by default. A device can then compute the loss, and the
    /// host need not wait for it.
    fn angular_margin(&self) -> Option<&AngularMargin> {
        None
    }

    /// Whether the negatives are anything but `exp(s * cos)`. If they are not, the store of the centres
    /// takes the exponentials, for which it may have a kernel.
    fn shapes_negatives(&self) -> bool {
        false
    }

    /// The values that take the place of the negatives' cosines, for a softmax over them; `None` if
    /// these stay.
    ///
    /// * `cos_tg`: `[T, G]` f32, in `[-1, 1]`; those of positives are among them and are left out later
    ///
    /// # Errors
    ///
    /// That of libtorch if memory runs out, here and below.
    fn shape(&self, cos_tg: &Tensor) -> Result<Option<Shaped>, TchError> {
        let _ = cos_tg;
        Ok(None)
    }

    /// The largest value that [`Loss::shape`] may give, which decides whether the exponentials can be
    /// summed as they are; 0 if no exponentials are summed.
    fn largest_negative(&self) -> f64 {
        1.0
    }

    /// What a tile's negatives add to each sample, and the derivatives by their cosines.
    ///
    /// # Errors
    ///
    /// As above.
    fn negatives(&self, tile: &TileCosines<'_>) -> Result<Negatives, TchError> {
        let cos_tg = tile.cosines()?;
        match self.shape(&cos_tg)? {
            Some(shaped) => tile.exponentials_of(shaped.values_tg, Some(&shaped.slopes_tg)),
            None => tile.exponentials_of(cos_tg, None),
        }
    }

    /// Joins the negatives and the positive of one sample.
    ///
    /// * `negatives`: the sum of [`Negatives::sums_g`] over all tiles and ranks
    /// * `logit`: the positive's, less the offset that was taken off the negatives' logits
    fn combine(&self, negatives: f64, logit: f64) -> SampleLoss {
        SampleLoss::softmax(negatives, logit)
    }

    /// Whether a gradient flows to the lengths of the embeddings, by [`Target::by_length`] or by
    /// [`Loss::length_penalty`].
    fn moves_lengths(&self) -> bool {
        false
    }

    /// What an embedding of this length costs, and the derivative.
    fn length_penalty(&self, length: f64) -> (f64, f64) {
        let _ = length;
        (0.0, 0.0)
    }

    /// Whether the loss has a parameter that is trained with the centres.
    fn has_parameter(&self) -> bool {
        false
    }

    /// Called at the end of a step if [`Loss::has_parameter`].
    fn move_parameter(&mut self, step: &ParameterStep) {
        let _ = step;
    }

    /// What a resumed run has to know beside the configuration; nothing for most losses.
    fn memory(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Restores what [`Loss::memory`] gave.
    fn remember(&mut self, memory: &[f64]) {
        let _ = memory;
    }
}

impl Loss for AngularMargin {
    fn target(&self, _: usize, cosine: f64) -> Target {
        AngularMargin::target(self, cosine)
    }

    fn angular_margin(&self) -> Option<&AngularMargin> {
        Some(self)
    }
}

/// The loss that a head of this configuration computes.
pub(super) fn of_config(config: &HeadConfig) -> Box<dyn Loss> {
    match config.margin {
        Margin::Cosface { m } => Box::new(AngularMargin::Cosface { m }),
        Margin::Arcface { m, gradient } => Box::new(AngularMargin::Arcface { m, gradient }),
        Margin::Combined { m1, m2, m3 } => Box::new(AngularMargin::Combined { m1, m2, m3 }),
        Margin::Adaface { m, h, alpha } => Box::new(adaface::Adaface::new(m, h, alpha)),
        Margin::Curricularface { m, alpha } => {
            Box::new(curricularface::Curricularface::new(m, alpha))
        }
        Margin::Magface { l_margin, u_margin, l_a, u_a, lambda_g } => {
            Box::new(magface::Magface::new((l_margin, u_margin), (l_a, u_a), lambda_g))
        }
        Margin::Uniface { m, lambda } => {
            let n_negatives = if config.log_q { config.classes } else { config.rows_per_step() };
            Box::new(uniface::Uniface::new(m, lambda, n_negatives))
        }
        Margin::SubcentreArcface { m, k, gradient } => {
            Box::new(subcentre::SubcentreArcface::new(m, k, gradient))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::config::ArcfaceGradient;

    const EXACT: Margin = Margin::Arcface { m: 0.5, gradient: ArcfaceGradient::Exact };
    const STRAIGHT: Margin = Margin::Arcface { m: 0.5, gradient: ArcfaceGradient::StraightThrough };
    const MAGFACE: Margin =
        Margin::Magface { l_margin: 0.45, u_margin: 0.8, l_a: 10.0, u_a: 110.0, lambda_g: 35.0 };

    /// The loss of a configuration, after it saw a batch of one embedding of this length.
    fn of(margin: Margin, length: f64) -> Box<dyn Loss> {
        let mut loss = of_config(&HeadConfig { margin, ..HeadConfig::new(1000, 8) });
        loss.see_lengths(&[length]);
        loss
    }

    #[track_caller]
    fn check(margin: Margin, cosine: f64, value: f64, slope: f64) {
        let target = of(margin, 20.0).target(0, cosine);
        assert!((target.value - value).abs() < 1e-12, "{margin:?} at {cosine}: {target:?}");
        assert!((target.slope - slope).abs() < 1e-12, "{margin:?} at {cosine}: {target:?}");
    }

    #[test]
    fn the_losses_match_values_worked_by_hand() {
        check(Margin::Cosface { m: 0.4 }, 0.7, 0.3, 1.0);
        // theta = pi/3: cos(pi/3 + pi/6) = 0, slope sin(pi/2) / sin(pi/3) = 2 / sqrt(3).
        let sixth = PI / 6.0;
        let arcface = |gradient| Margin::Arcface { m: sixth, gradient };
        check(arcface(ArcfaceGradient::Exact), 0.5, 0.0, 2.0 / 3f64.sqrt());
        check(arcface(ArcfaceGradient::StraightThrough), 0.5, 0.0, 1.0);
        check(Margin::Curricularface { m: sixth, alpha: 0.01 }, 0.5, 0.0, 2.0 / 3f64.sqrt());
        let gradient = ArcfaceGradient::Exact;
        check(Margin::SubcentreArcface { m: sixth, k: 3, gradient }, 0.5, 0.0, 2.0 / 3f64.sqrt());
        // 2 * pi/6 + pi/6 = pi/2: value 0 - 0.1, slope 2 * 1 / (1/2) = 4.
        check(Margin::Combined { m1: 2.0, m2: sixth, m3: 0.1 }, sixth.cos(), -0.1, 4.0);
        // A length of 20, a tenth of the way from 10 to 110, has a tenth of the way from 0 to 5 pi/3.
        let magface = Margin::Magface {
            l_margin: 0.0,
            u_margin: 10.0 * sixth,
            l_a: 10.0,
            u_a: 110.0,
            lambda_g: 1.0,
        };
        check(magface, 0.5, 0.0, 2.0 / 3f64.sqrt());
    }

    #[test]
    fn past_pi_the_exact_loss_falls_on_and_the_straight_one_turns_back() {
        let theta = 3.0f64;
        check(EXACT, theta.cos(), theta.cos() - 0.5 * 0.5f64.sin(), 1.0);
        check(STRAIGHT, theta.cos(), 3.5f64.cos(), 1.0);
        let straight = of(STRAIGHT, 1.0);
        assert!(straight.target(0, -1.0).value > straight.target(0, 2.6f64.cos()).value);
        let (exact, mut last) = (of(EXACT, 1.0), f64::INFINITY);
        for i in 0..=1000 {
            let value = exact.target(0, (PI * f64::from(i) / 1000.0).cos()).value;
            assert!(value < last, "{i}");
            last = value;
        }
    }

    #[test]
    fn the_slopes_are_the_derivatives() {
        for margin in [
            EXACT,
            Margin::Combined { m1: 1.2, m2: 0.3, m3: 0.1 },
            Margin::Cosface { m: 0.35 },
            Margin::Uniface { m: 0.4, lambda: 1.0 },
            Margin::Curricularface { m: 0.5, alpha: 0.01 },
            MAGFACE,
        ] {
            let h = 1e-6;
            for (cosine, length) in (-90..=99).map(|i| (f64::from(i) / 100.0, 60.0)) {
                let value = |cosine, length| of(margin, length).target(0, cosine).value;
                let target = of(margin, length).target(0, cosine);
                let by_cosine = (value(cosine + h, length) - value(cosine - h, length)) / (2.0 * h);
                let by_length = (value(cosine, length + h) - value(cosine, length - h)) / (2.0 * h);
                // The guard past pi begins with a step, at cos(pi - 0.5) = -0.878 for a margin of 0.5.
                let m = if margin == MAGFACE { 0.45 + 0.35 * 0.5 } else { 0.5f64 };
                if (cosine + m.cos()).abs() > 0.01 {
                    assert!((target.slope - by_cosine).abs() < 1e-5, "{margin:?} at {cosine}");
                    assert!((target.by_length - by_length).abs() < 1e-5, "{margin:?} at {cosine}");
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_give_finite_slopes() {
        for margin in [EXACT, STRAIGHT, MAGFACE, Margin::Combined { m1: 1.5, m2: 0.5, m3: 0.2 }] {
            for cosine in [-1.0, 1.0] {
                let Target { value, slope, .. } = of(margin, 20.0).target(0, cosine);
                assert!(value.is_finite() && slope.is_finite(), "{margin:?} at {cosine}");
            }
        }
    }
}
