//! What a run on MegaFace found, as it is printed and written to JSON.

use pfc_metrics::roc::RocPoint;
use pfc_report::chart::{Curve, Histogram};
use pfc_verify::Figure;
use serde::{Deserialize, Serialize};

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MegaFaceReport {
    /// Probe images.
    pub n_probes: usize,
    /// People among the probes.
    pub n_people: usize,
    /// Ordered pairs of a probe and a mate.
    pub n_pairs: usize,
    /// Whether noisy images were replaced.
    pub cleaned: bool,
    /// What is not as in the complete benchmark; empty if all is.
    pub incomplete: Vec<String>,
    /// One row per list of distractors.
    pub galleries: Vec<DistractorsRow>,
}

/// One list of distractors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistractorsRow {
    /// Size and set, or the name of the list.
    pub name: String,
    /// Distractors in it.
    pub n_distractors: u64,
    /// Pairs of a probe and a distractor.
    pub n_negatives: u64,
    /// Share of pairs whose mate is nearest.
    pub rank1: Figure,
    /// Share of pairs with the mate among the ten nearest.
    #[serde(default)]
    pub rank10: Option<Figure>,
    /// Share of pairs with the mate among the k nearest, from k = 1.
    pub cmc: Vec<f64>,
    /// The same, counting each probe once, with its nearest mate.
    pub cmc_of_best_mates: Vec<f64>,
    /// Verification.
    pub tar_at_far: Vec<DistractorTarRow>,
    /// The curve up to the largest of those FARs; scores are negated distances.
    #[serde(default)]
    pub roc: Vec<RocPoint>,
    /// Spread of the cosines: all mate pairs, and the probes with a sample of the distractors.
    #[serde(default)]
    pub histogram: Option<Histogram>,
}

impl DistractorsRow {
    /// The ROC curve, with the intervals of the rows.
    pub fn curve<'a>(&'a self, name: &'a str) -> Curve<'a> {
        let rows = self.tar_at_far.iter();
        let intervals = rows.filter_map(|row| Some((row.far, row.tar.interval?))).collect();
        Curve { name, points: &self.roc, n_impostors: self.n_negatives, intervals }
    }
}

/// TAR at one FAR.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DistractorTarRow {
    /// FAR asked for.
    pub far: f64,
    /// Share of mate pairs strictly nearer than the threshold; the interval resamples people and
    /// leaves the threshold.
    pub tar: Figure,
    /// Euclidean distance that a pair must stay below.
    pub threshold: f64,
    /// Negatives that `far` allows: the figure rests on that many.
    pub n_negatives_allowed: u64,
    /// Whether `far` is less than one negative.
    pub finer_than_data: bool,
}
