//! What an evaluation found, as it is printed and written to JSON.

use pfc_metrics::bootstrap::{Interval, Replicates};
use serde::{Deserialize, Serialize};

use crate::{PeopleFrom, pairs::Protocol};

/// The figures of one set. A figure that the set cannot give is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerificationReport {
    /// What the set is called.
    pub set: String,
    /// How it was judged.
    pub protocol: Protocol,
    /// Pairs in all.
    pub n_pairs: u64,
    /// Pairs of one person.
    pub n_genuine: u64,
    /// Pairs of two people.
    pub n_impostor: u64,
    /// Different images.
    pub n_images: u64,
    /// Different people.
    pub n_people: u64,
    /// How the people are known.
    pub people_from: PeopleFrom,
    /// The headline.
    pub accuracy: Accuracy,
    /// After the optional PCA step.
    pub pca: Option<ReducedAccuracy>,
    /// VAL at FAR 1e-3, as the reference computes it; of ten folds with both classes only.
    pub val: Option<ValRow>,
    /// TAR at each FAR asked for.
    pub tar_at_far: Vec<TarRow>,
    /// Area under the ROC curve.
    pub auc: Option<Figure>,
    /// Equal error rate.
    pub eer: Option<Figure>,
    /// Mean L2 norm of the raw embeddings, plain and mirrored, over both sides of every pair.
    pub mean_norm: f64,
    /// Accuracy, then TAR at each FAR asked for, in each resampled set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicates: Option<Replicates>,
}

/// Accuracy over the folds, or of the single list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Mean over the folds, or the accuracy at the list's own best threshold.
    pub mean: f64,
    /// Population standard deviation over the folds.
    pub std: Option<f64>,
    /// Confidence interval of the mean.
    pub interval: Option<Interval>,
    /// Squared L2 distance below which a pair is accepted; mean over the folds.
    pub threshold: f64,
    /// Fold by fold; empty for a single list.
    pub folds: Vec<FoldRow>,
}

/// One fold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FoldRow {
    /// Share of its pairs judged rightly.
    pub accuracy: f64,
    /// Its threshold, a squared L2 distance.
    pub threshold: f64,
}

/// Accuracy after PCA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReducedAccuracy {
    /// Principal components kept.
    pub components: usize,
    /// Mean over the folds.
    pub mean: f64,
    /// Population standard deviation over the folds.
    pub std: f64,
    /// Confidence interval of the mean; the projections stay.
    #[serde(default)]
    pub interval: Option<Interval>,
}

/// VAL@FAR.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ValRow {
    /// FAR that the thresholds aim at.
    pub far_target: f64,
    /// Share of genuine pairs accepted, mean over the folds.
    pub val: f64,
    /// Population standard deviation over the folds.
    pub std: f64,
    /// Confidence interval of `val`.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// Share of impostor pairs accepted, mean over the folds.
    pub far: f64,
}

/// TAR at one FAR.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TarRow {
    /// FAR asked for.
    pub far: f64,
    /// Share of genuine pairs accepted; `None` where `far` is finer than the set can measure.
    pub tar: Option<f64>,
    /// Cosine similarity that a pair must exceed.
    pub threshold: Option<f64>,
    /// Impostor pairs that `far` allows: the figure rests on that many.
    pub n_impostors_allowed: u64,
    /// Confidence interval of `tar`.
    pub interval: Option<Interval>,
}

/// A value with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The value.
    pub value: f64,
    /// Its interval.
    pub interval: Option<Interval>,
}
