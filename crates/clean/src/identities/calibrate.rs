//! Bounds from the data set itself: how alike different people are to this network.
//!
//! False-match rates near 1e-6 cannot be estimated by counting pairs of a sample, and the highest scores
//! are polluted by label noise. The tail is therefore fitted between two quantiles that neither affects,
//! and extrapolated as that of a normal distribution.

use pfc_embeddings::Embeddings;
use pfc_metrics::Rows;
use pfc_shard::Permutation;
use serde_json::{Value, json};

use super::centres::{Centres, cosine};
use crate::CleanError;

/// Samples per distribution: rows times centres.
const SAMPLE_ROWS: u64 = 2048;
const SAMPLE_CENTRES: u64 = 2048;
/// With fewer pairs nothing can be said of the tail.
const PAIRS_MIN: u64 = 1000;
/// The two rates at which the tail is read. Beyond them it may hold people with two labels, which the passes
/// look for.
const RATES: [f64; 2] = [1e-1, 1e-2];
/// Rate of the bound that tells centres of one person from mixtures, whose scores say nothing.
pub const SURE_RATE: f64 = 1e-3;
const SEED: u64 = 0x1a7e;

/// Scores of pairs of different identities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tail {
    pairs: usize,
    /// The scores that a tenth and a hundredth of the pairs exceed.
    scores: [f32; 2],
}

impl Tail {
    /// Measures `scores`, in any order. Most of them must be of different people, but not all need be.
    ///
    /// # Errors
    ///
    /// [`CleanError::TooFewPairs`] if there are fewer than a thousand.
    pub fn of(mut scores: Vec<f32>) -> Result<Tail, CleanError> {
        let pairs = scores.len();
        if (pairs as u64) < PAIRS_MIN {
            return Err(CleanError::TooFewPairs { pairs: pairs as u64 });
        }
        scores.sort_by(|a, b| b.total_cmp(a));
        let at = |rate: f64| scores[(rate * pairs as f64) as usize];
        Ok(Tail { pairs, scores: RATES.map(at) })
    }

    /// The score that a share `rate` of pairs of different people exceeds: beyond the two rates that
    /// were counted along the tail of the normal distribution through both.
    pub fn at(&self, rate: f64) -> f32 {
        let [first, second] = RATES.map(normal_quantile);
        let [low, high] = self.scores.map(f64::from);
        let slope = (high - low) / (second - first);
        let wanted = normal_quantile(rate.clamp(1e-300, 0.4));
        ((high + slope * (wanted - second)) as f32).clamp(-1.0, 1.0)
    }

    /// The figures, to be printed and kept with the run.
    pub fn note(&self) -> Value {
        json!({"pairs": self.pairs, "at_0.1": self.scores[0], "at_0.01": self.scores[1]})
    }
}

/// Impostor scores of single images with centres of at least two images. A second round counts neither
/// mixtures of people nor images that are far from their own centre.
///
/// # Errors
///
/// [`CleanError`] if embeddings cannot be read, are too few, or say nothing about these identities.
pub fn image_to_centre(centres: &Centres, embeddings: &Embeddings) -> Result<Tail, CleanError> {
    let first = image_to_sure_centre(centres, embeddings, -1.0)?;
    check_rows(centres, &first)?;
    image_to_sure_centre(centres, embeddings, first.at(SURE_RATE))
}

fn image_to_sure_centre(
    centres: &Centres,
    embeddings: &Embeddings,
    least: f32,
) -> Result<Tail, CleanError> {
    let is_sure = |place: &usize| centres.cohesion[*place] >= least;
    let places: Vec<usize> = (0..centres.len()).filter(is_sure).collect();
    let of = sample(places.len() as u64, SAMPLE_CENTRES, SEED);
    let with = sample(places.len() as u64, SAMPLE_ROWS, SEED + 1);
    let mut scores = Vec::new();
    let mut image = vec![0.0; embeddings.dim()];
    // Where there are few identities, each gives several images.
    let turns = (SAMPLE_ROWS as usize / with.len().max(1)).clamp(1, 64);
    for (turn, from) in with.iter().cycle().take(turns * with.len()).copied().enumerate() {
        let rows: Vec<(u64, f32)> =
            centres.own(places[from]).filter(|(_, own)| *own >= least).collect();
        // Every turn takes another image of the identity.
        let nth = turn + turn / with.len();
        let Some((row, _)) = rows.get(nth % rows.len().max(1)) else { continue };
        embeddings.read(*row, &mut image)?;
        let others = of.iter().filter(|to| **to != from);
        scores.extend(others.map(|to| cosine(&image, centres.centre(places[*to]))));
    }
    Tail::of(scores)
}

/// Impostor scores of centres with centres of several images each: the first are of one image if `single`,
/// else of several. As in [`image_to_centre`], mixtures do not count.
///
/// # Errors
///
/// [`CleanError::TooFewPairs`]; [`CleanError::OtherRows`] if the embeddings say nothing about these
/// identities.
pub fn centre_to_centre(centres: &Centres, single: bool) -> Result<Tail, CleanError> {
    let first = centre_to_sure_centre(centres, single, -1.0)?;
    check_rows(centres, &first)?;
    centre_to_sure_centre(centres, single, first.at(SURE_RATE))
}

fn centre_to_sure_centre(centres: &Centres, single: bool, least: f32) -> Result<Tail, CleanError> {
    let is_sure = |place: &usize| centres.cohesion[*place] >= least;
    let others: Vec<usize> = (0..centres.len()).filter(is_sure).collect();
    let places: Vec<usize> = match single {
        true => (0..centres.len()).filter(|place| centres.n_images(*place) == 1).collect(),
        false => others.clone(),
    };
    let from = sample(places.len() as u64, SAMPLE_ROWS, SEED + 2);
    let to = sample(others.len() as u64, SAMPLE_CENTRES, SEED + 3);
    let mut scores = Vec::new();
    for a in from.into_iter().map(|i| places[i]) {
        let others = to.iter().map(|i| others[*i]).filter(|b| *b != a);
        scores.extend(others.map(|b| cosine(centres.centre(a), centres.centre(b))));
    }
    Tail::of(scores)
}

/// Refuses embeddings by which images are hardly nearer to their own identity than to others. Those of
/// another data set, or rows in another order, are such, and every bound calibrated with them would be wrong.
fn check_rows(centres: &Centres, impostors: &Tail) -> Result<(), CleanError> {
    let (Some(own), other) = (centres.typical_own(), impostors.scores[0]) else { return Ok(()) };
    match own <= other {
        true => Err(CleanError::OtherRows { own, other }),
        false => Ok(()),
    }
}

/// Impostor scores of probes with centres.
///
/// # Errors
///
/// [`CleanError::TooFewPairs`].
pub fn probe_to_centre(centres: &Centres, probes: Rows<'_>) -> Result<Tail, CleanError> {
    let from = sample(probes.len() as u64, SAMPLE_ROWS, SEED + 4);
    let to = sample(centres.len() as u64, SAMPLE_CENTRES, SEED + 5);
    let score = |a: usize| to.iter().map(move |b| (a, *b));
    let pairs = from.into_iter().flat_map(score);
    Tail::of(pairs.map(|(a, b)| cosine(probes.row(a), centres.centre(b))).collect())
}

/// `n` of the numbers below `total`, drawn at random and the same in every run.
fn sample(total: u64, n: u64, seed: u64) -> Vec<usize> {
    let order = Permutation::new(total, seed);
    (0..n.min(total)).map(|place| order.apply(place) as usize).collect()
}

/// The number that a share `rate` of a standard normal distribution exceeds, for rates of 1e-300 to
/// 0.4; by bisection.
fn normal_quantile(rate: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if normal_tail(middle) > rate { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The share of a standard normal distribution above `z`, by Laplace's continued fraction of Mills'
/// ratio (Abramowitz and Stegun 26.2.14); good to 1e-6 from 0.2 on.
fn normal_tail(z: f64) -> f64 {
    let fraction = (1..=400).rev().fold(0.0, |rest, k| f64::from(k) / (z + rest));
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    density / (z + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_printed_tables() {
        for (rate, z) in [(0.1, 1.281552), (0.01, 2.326348), (1e-3, 3.090232), (1e-6, 4.753424)] {
            assert!((normal_quantile(rate) - z).abs() < 1e-5, "{rate}");
        }
    }

    #[test]
    fn a_tail_goes_on_as_the_normal_one_does() {
        // Values at equally spaced ranks of a normal distribution with deviation 0.1.
        let n = 200_000;
        let value = |i: usize| {
            let rate = (i as f64 + 0.5) / n as f64;
            if rate < 0.4 { 0.1 * normal_quantile(rate) as f32 } else { 0.0 }
        };
        let tail = Tail::of((0..n).map(value).collect()).unwrap();
        assert!((tail.at(1e-3) - 0.309).abs() < 2e-3);
        assert!((tail.at(1e-6) - 0.4753).abs() < 2e-3);
        assert!(tail.at(1e-2) < tail.at(1e-4));
        assert!(Tail::of(vec![0.0; 10]).is_err());
    }
}
