//! Passes that compare embeddings: who is nobody's, someone else's, or twice there.
//!
//! Scores are cosines. `G` identities, `D` numbers of an embedding.

mod calibrate;
mod centres;
mod compare;
mod labels;
mod merges;
mod outliers;
mod overlap;
mod union;

use clap::ValueEnum;

pub use labels::labels;
pub use merges::{joined, merges};
pub use outliers::outliers;
pub use overlap::overlap;

/// Bounds of the passes that compare embeddings; those not stated are calibrated.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Bounds {
    /// merges, overlap: wrong pairs to expect among all that are compared; bounds are calibrated to
    /// that, and of the pairs above them merges takes only those that are mutually nearest
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = positive)]
    pub false_matches: f64,
    /// merges: cosine of two centres above which they are one person
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub same_person: Option<f32>,
    /// merges: cosine above which it is a suspicion
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub maybe_same_person: Option<f32>,
    /// labels: cosine of an image with another identity's centre above which it is theirs
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub label_match: Option<f32>,
    /// labels: share of images of others that are so near to a centre; its bound is calibrated to that
    #[arg(long, value_name = "RATE", default_value_t = 1e-5, value_parser = positive)]
    pub label_rate: f64,
    /// labels: by how much that centre must be nearer than its own
    #[arg(long, value_name = "COSINE", default_value_t = 0.1, value_parser = cosine)]
    pub label_margin: f32,
    /// outliers, labels: cosine with its own centre below which an image may be a stranger's
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub stranger: Option<f32>,
    /// outliers: cosine with its own centre below which an image is left out
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub outlier: Option<f32>,
    /// overlap: cosine of a probe with a centre above which the identity is left out
    #[arg(long, value_name = "COSINE", value_parser = cosine)]
    pub probe_match: Option<f32>,
    /// outliers: what becomes of a second person's images among those of one identity
    #[arg(long, value_name = "HOW", default_value = "keep")]
    pub second_cluster: SecondCluster,
}

/// What becomes of images that are like one another, but not like the rest of their identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SecondCluster {
    /// They stay, as a suspicion
    Keep,
    /// They become an identity of their own
    Split,
    /// They are left out
    Drop,
}

impl Bounds {
    /// As arguments.
    pub fn stated(&self) -> Vec<String> {
        let bound = |name: &str, value: Option<f32>| value.map(|v| format!("--{name}={v}"));
        let second = match self.second_cluster {
            SecondCluster::Keep => "keep",
            SecondCluster::Split => "split",
            SecondCluster::Drop => "drop",
        };
        let given = [
            bound("same-person", self.same_person),
            bound("maybe-same-person", self.maybe_same_person),
            bound("label-match", self.label_match),
            bound("stranger", self.stranger),
            bound("outlier", self.outlier),
            bound("probe-match", self.probe_match),
        ];
        let mut all = vec![
            format!("--false-matches={}", self.false_matches),
            format!("--label-rate={}", self.label_rate),
            format!("--label-margin={}", self.label_margin),
            format!("--second-cluster={second}"),
        ];
        all.extend(given.into_iter().flatten());
        all
    }
}

/// The value of an option that is a cosine.
pub fn cosine(text: &str) -> Result<f32, String> {
    pfc_cli::number::within(-1.0..=1.0)(text)
}

/// The value of an option that is above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    pfc_cli::number::positive(text)
}
