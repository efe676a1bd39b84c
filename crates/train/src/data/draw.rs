//! Drawing images by weights, in place of showing each once an epoch.

use pfc_shard::mix;

use crate::error::BadWeights;

/// Rows in a block, of which the sum of the weights before is known.
const BLOCK_ROWS: usize = 256;
/// Tells the draws of this module from others of the same seed.
const KEY: u64 = 0x0077_e164_7ed0_d4a3;

/// The rows of a data set, to be drawn in proportion to their weights. Takes 4 bytes a row.
///
/// An epoch has as many draws as there are rows. Draw number `i` takes the row at a random place of the `i`-th of
/// as many equal stretches of the sum of all weights (systematic sampling by strata): a row of `k` times the mean
/// weight is drawn `k` times an epoch, give or take less than two, other rows of equal weights in other epochs, and
/// one of weight 0 never. What is drawn is a function of (weights, seed, epoch, number).
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    weights: Vec<f32>,
    /// Sum of the weights before each block, and of all.
    before: Vec<f64>,
}

impl Draw {
    /// Of weights by row; one that is NaN, not known, counts as the mean of the others.
    ///
    /// # Errors
    ///
    /// [`BadWeights`].
    pub fn new(mut weights: Vec<f32>) -> Result<Draw, BadWeights> {
        let is_bad = |weight: &f32| !(weight.is_nan() || weight.is_finite() && *weight >= 0.0);
        if let Some(row) = weights.iter().position(is_bad) {
            return Err(BadWeights::Negative { row: row as u64, weight: weights[row] });
        }
        let known = || weights.iter().filter(|weight| !weight.is_nan());
        let (sum, n) = (known().map(|w| f64::from(*w)).sum::<f64>(), known().count());
        if sum <= 0.0 {
            return Err(BadWeights::AllZero);
        }
        let mean = (sum / n as f64) as f32;
        weights.iter_mut().filter(|weight| weight.is_nan()).for_each(|weight| *weight = mean);
        let mut before = Vec::with_capacity(weights.len() / BLOCK_ROWS + 2);
        let mut total = 0.0;
        for block in weights.chunks(BLOCK_ROWS) {
            before.push(total);
            total += block.iter().map(|weight| f64::from(*weight)).sum::<f64>();
        }
        before.push(total);
        Ok(Draw { weights, before })
    }

    /// The row that draw `i` of `epoch` takes. Some 100 steps.
    ///
    /// # Panics
    ///
    /// If `i` is not below the number of rows.
    pub fn row(&self, i: u64, seed: u64, epoch: u64) -> u64 {
        let n = self.weights.len();
        assert!(i < n as u64, "draw {i} of {n}");
        let bits = mix(mix(mix(seed ^ KEY) ^ epoch) ^ i);
        // Below 1, in steps that f64 holds.
        let within = (bits >> 11) as f64 / (1u64 << 53) as f64;
        let total = self.before[self.before.len() - 1];
        let place = (i as f64 + within) / n as f64 * total;
        let block = self.before[1..self.before.len() - 1].partition_point(|end| *end <= place);
        let start = block * BLOCK_ROWS;
        let mut sum = self.before[block];
        let mut last = None;
        for (row, weight) in (start..).zip(&self.weights[start..(start + BLOCK_ROWS).min(n)]) {
            sum += f64::from(*weight);
            if *weight > 0.0 {
                last = Some(row);
                if sum > place {
                    break;
                }
            }
        }
        // Sums are rounded, and the last rows of a block may have no weight.
        last.unwrap_or_else(|| self.nearest_with_weight(start)) as u64
    }

    /// The last row before `start` that has a weight, or else the first one behind it.
    fn nearest_with_weight(&self, start: usize) -> usize {
        let has_weight = |row: &usize| self.weights[*row] > 0.0;
        let before = (0..start).rev().find(has_weight);
        before.or_else(|| (start..self.weights.len()).find(has_weight)).unwrap_or(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[f32], epoch: u64) -> Vec<u64> {
        let draw = Draw::new(weights.to_vec()).unwrap();
        let mut counts = vec![0; weights.len()];
        (0..weights.len() as u64).for_each(|i| counts[draw.row(i, 7, epoch) as usize] += 1);
        counts
    }

    #[test]
    fn equal_weights_show_each_row_once() {
        for n in [1, 2, 255, 256, 257, 5000] {
            assert_eq!(counts(&vec![1.0; n], 3), vec![1; n]);
        }
    }

    #[test]
    fn rows_are_drawn_in_proportion_to_their_weights_and_never_without() {
        let n = 3000;
        // Of every four rows: none, 1, 2 and 5; whole blocks of none in between.
        let weight = |row: usize| match (row / 600 % 2, row % 4) {
            (1, _) => 0.0,
            (_, i) => [0.0, 1.0, 2.0, 5.0][i],
        };
        let weights: Vec<f32> = (0..n).map(weight).collect();
        let mean = weights.iter().sum::<f32>() / n as f32;
        let mut total = vec![0; n];
        for epoch in 0..50 {
            let counts = counts(&weights, epoch);
            assert_eq!(counts.iter().sum::<u64>(), n as u64);
            for (row, count) in counts.iter().enumerate() {
                let expected = weights[row] / mean;
                assert!((*count as f32 - expected).abs() < 2.0, "{row}: {count} for {expected}");
                total[row] += count;
            }
        }
        for (row, total) in total.iter().enumerate() {
            // What is left of a row in the strata at its ends is drawn by chance: five deviations, each of at most
            // the root of a half an epoch.
            let expected = 50.0 * weights[row] / mean;
            assert!((*total as f32 - expected).abs() < 5.0 * 25f32.sqrt(), "{row}: {total}");
            assert!(*total > 0 || weights[row] == 0.0);
        }
    }

    #[test]
    fn what_is_drawn_depends_on_seed_and_epoch_alone() {
        let weights: Vec<f32> = (0..1000).map(|i| 1.0 + (i % 3) as f32).collect();
        assert_eq!(counts(&weights, 1), counts(&weights, 1));
        assert_ne!(counts(&weights, 1), counts(&weights, 2));
    }

    #[test]
    fn unknown_weights_count_as_the_mean_and_bad_ones_are_refused() {
        let draw = Draw::new(vec![1.0, f32::NAN, 3.0]).unwrap();
        assert_eq!(draw.weights, [1.0, 2.0, 3.0]);
        let bad = |weights: &[f32]| Draw::new(weights.to_vec()).unwrap_err();
        assert_eq!(bad(&[1.0, -2.0]), BadWeights::Negative { row: 1, weight: -2.0 });
        assert!(matches!(bad(&[f32::INFINITY]), BadWeights::Negative { row: 0, .. }));
        assert_eq!(bad(&[0.0, 0.0]), BadWeights::AllZero);
        assert_eq!(bad(&[f32::NAN]), BadWeights::AllZero);
        assert_eq!(bad(&[]), BadWeights::AllZero);
    }
}
