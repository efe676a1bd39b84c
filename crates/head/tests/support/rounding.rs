//! How far rounded centres may carry one step from the reference, computed for each case.

// G = global batch, D = embedding, S = classes that take part in the step, on all ranks.

use pfc_head::{ClassRange, HeadConfig, Margin};
use tch::{Kind, Tensor};

use super::golden::{Case, Slack};

/// Deviations of a sum of many rounding errors that are allowed. Of a thousand normal numbers one in
/// sixteen runs has one beyond 4.
const DEVIATIONS: f64 = 4.0;

/// Beyond this no sample loses more.
const LOSS_MAX: f64 = 69.08;

/// What bf16 centres change in a step that begins at the reference's own centres.
///
/// An element of a centre is off by up to half a unit in its last place, 2^-8 of it at most, and the
/// errors of a row's elements are independent: the cosine of row w with the unit embedding x is off by
/// some `2^-8 / sqrt(3) * sqrt(sum x_i^2 w_i^2) / |w|`. The softmax turns that into a relative error of
/// its probabilities s times as large. A negative whose cosine is within the error of the filter's
/// threshold may be on either side of it; then all that it carries is in doubt.
pub fn slack(case: &Case, config: &HeadConfig, step: u64) -> Slack {
    let known = Known::of(case, config, step);
    let n_samples = known.labels_g.len();
    let mut slack = Slack::default();
    let mut by_centre = vec![0.0; known.classes_s.len()];
    for sample in 0..n_samples {
        let doubt = known.doubt(config, sample);
        slack.loss += doubt.loss / n_samples as f64;
        let per_cosine = config.scale / n_samples as f64;
        let by_embedding = doubt.probabilities_s.iter().sum::<f64>() * per_cosine;
        slack.grad_embeddings =
            slack.grad_embeddings.max(by_embedding / known.embedding_lengths_g[sample]);
        for (sum, p) in by_centre.iter_mut().zip(doubt.probabilities_s) {
            *sum += p * per_cosine;
        }
    }
    let by_centre = by_centre.iter().zip(&known.centre_lengths_s).map(|(sum, length)| sum / length);
    slack.momentum = by_centre.fold(0.0, f64::max);
    slack
}

/// The part of a case that decides a step.
struct Known {
    labels_g: Vec<i64>,
    classes_s: Vec<i64>,
    /// `[G, S]`.
    cosines: Vec<Vec<f64>>,
    /// `[G, S]`, standard deviation of each.
    deviations: Vec<Vec<f64>>,
    embedding_lengths_g: Vec<f64>,
    centre_lengths_s: Vec<f64>,
}

/// What is in doubt of one sample.
struct Doubt {
    loss: f64,
    /// `[S]`, of the derivatives by its logits.
    probabilities_s: Vec<f64>,
}

impl Known {
    fn of(case: &Case, config: &HeadConfig, step: u64) -> Known {
        let world = case.world();
        let (mut classes_s, mut weights) = (Vec::new(), Vec::new());
        for rank in 0..world {
            let range = ClassRange::of_rank(config.classes, rank, world);
            let rows: Vec<i64> =
                case.rows(rank, step, range.len()).into_iter().map(i64::from).collect();
            weights.push(case.before(rank, step).0.index_select(0, &Tensor::from_slice(&rows)));
            classes_s.extend(rows.iter().map(|row| row + range.first() as i64));
        }
        let double = |t: Tensor| t.to_kind(Kind::Double);
        let weight_sd = double(Tensor::cat(&weights, 0));
        let embeddings = |rank| format!("rank{rank}.step{step}.embeddings");
        let x_gd = double(case.of_all_ranks(embeddings));
        let length = |t: &Tensor| t.norm_scalaropt_dim(2, [1i64], true);
        let (length_s1, length_g1) = (length(&weight_sd), length(&x_gd));
        let (unit_sd, unit_gd) = (&weight_sd / &length_s1, &x_gd / &length_g1);
        let cosines_gs = unit_gd.matmul(&unit_sd.tr());
        let spread_gs = unit_gd.square().matmul(&unit_sd.square().tr()).sqrt();
        let deviations_gs = spread_gs * (2f64.powi(-8) / 3f64.sqrt());
        let labels_g = (0..world)
            .flat_map(|rank| case.integers(&format!("rank{rank}.step{step}.labels")))
            .collect();
        Known {
            labels_g,
            classes_s,
            cosines: Vec::try_from(cosines_gs).unwrap(),
            deviations: Vec::try_from(deviations_gs).unwrap(),
            embedding_lengths_g: Vec::try_from(length_g1.reshape([-1])).unwrap(),
            centre_lengths_s: Vec::try_from(length_s1.reshape([-1])).unwrap(),
        }
    }

    fn doubt(&self, config: &HeadConfig, sample: usize) -> Doubt {
        let (cosines, deviations) = (&self.cosines[sample], &self.deviations[sample]);
        let own = self.classes_s.iter().position(|&class| class == self.labels_g[sample]).unwrap();
        let (s, filter) = (config.scale, config.interclass_filter);
        let psi = |cosine: f64| match config.margin {
            Margin::Arcface { m, .. } => (cosine.clamp(-1.0, 1.0).acos() + m).cos(),
            Margin::Cosface { m } => cosine - m,
            other => panic!("no case has {other:?}"),
        };
        // The logits of a negative that is counted, and of one that is filtered.
        let extremes = |j: usize| -> (f64, f64) {
            if j == own {
                return (s * psi(cosines[j]), s * psi(cosines[j]));
            }
            let reach = DEVIATIONS * deviations[j];
            let logit =
                |cosine: f64| if filter > 0.0 && cosine > filter { 0.0 } else { s * cosine };
            if filter > 0.0 && (cosines[j] - filter).abs() <= reach {
                (0.0, s * filter)
            } else {
                (logit(cosines[j]), logit(cosines[j]))
            }
        };
        let extremes: Vec<(f64, f64)> = (0..cosines.len()).map(extremes).collect();
        let total = |of: &dyn Fn(&(f64, f64)) -> f64| {
            extremes.iter().map(|pair| of(pair).exp()).sum::<f64>()
        };
        let (low, high) = (total(&|pair| pair.0.min(pair.1)), total(&|pair| pair.0.max(pair.1)));
        let loss = |total: f64| (total.ln() - extremes[own].0).min(LOSS_MAX);
        // Probabilities at either extreme, and what rounding does to each in between.
        let share = |j: usize| {
            let (a, b) = extremes[j];
            let (least, most) = (a.min(b).exp() / high, (a.max(b).exp() / low).min(1.0));
            (least, most)
        };
        let shares: Vec<(f64, f64)> = (0..cosines.len()).map(share).collect();
        let is_filtered =
            |j: usize| j != own && filter > 0.0 && cosines[j] > filter + DEVIATIONS * deviations[j];
        let steepness = |j: usize| match config.margin {
            // The derivative of cos(theta + m).
            Margin::Arcface { m, .. } if j == own => {
                let theta = cosines[j].clamp(-1.0, 1.0).acos();
                ((theta + m).sin() / theta.sin().max(1e-3)).abs()
            }
            _ => 1.0,
        };
        let moved = |j: usize| {
            if is_filtered(j) { 0.0 } else { DEVIATIONS * s * steepness(j) * deviations[j] }
        };
        let together: f64 = (0..cosines.len()).map(|j| (shares[j].1 * moved(j)).powi(2)).sum();
        let (own_low, own_high) = shares[own];
        let own_moved = moved(own);
        let probabilities_s = (0..cosines.len())
            .map(|j| {
                let (least, most) = shares[j];
                if is_filtered(j) {
                    return 0.0;
                }
                let is_in_doubt = extremes[j].0 != extremes[j].1;
                let flip = if is_in_doubt { most } else { most - least };
                let most =
                    if j == own { most.min(1.0 - own_low.min(own_high)).max(0.0) } else { most };
                flip + most * (moved(j).powi(2) + together).sqrt()
            })
            .collect();
        let by_rounding = ((1.0 - own_low) * own_moved).hypot(together.sqrt());
        Doubt { loss: loss(high) - loss(low) + by_rounding, probabilities_s }
    }
}
