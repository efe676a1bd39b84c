//! Passes that compare embeddings, to find outliers, wrong labels and people with two labels.
//!
//! Scores are cosines. `G` is the number of identities, `D` the number of values in an embedding.

mod calibrate;
mod centres;
mod compare;
mod labels;
mod merges;
mod outliers;
mod overlap;

pub use compare::{Keeper, Nowhere, Standing};
pub use labels::labels;
pub use merges::{joined, merges};
pub use outliers::outliers;
pub use overlap::overlap;

/// Bounds of the passes that compare embeddings. Those that are not given are calibrated. All are cosines
/// unless it says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// `merges`, `overlap`: number of wrong pairs to expect among all that are compared.
    pub false_matches: f64,
    /// `merges`: cosine of two centres above which they are one person.
    pub same_person: Option<f32>,
    /// `merges`: cosine of two centres above which it is a suspicion.
    pub maybe_same_person: Option<f32>,
    /// `labels`: cosine of an image with another identity's centre above which it belongs to that identity.
    pub label_match: Option<f32>,
    /// `labels`: share of images of other people that may exceed that bound.
    pub label_rate: f64,
    /// `labels`: by how much that centre must be nearer than its own.
    pub label_margin: f32,
    /// `outliers`, `labels`: cosine with its own centre below which an image may be a stranger's.
    pub stranger: Option<f32>,
    /// `outliers`: cosine with its own centre below which an image is left out.
    pub outlier: Option<f32>,
    /// `overlap`: cosine of a probe with a centre above which the identity is left out.
    pub probe_match: Option<f32>,
    /// `outliers`: what becomes of a second person's images among those of one identity.
    pub second_cluster: SecondCluster,
}

impl Default for Bounds {
    /// All bounds are calibrated, as on the command line.
    fn default() -> Bounds {
        Bounds {
            false_matches: 1.0,
            same_person: None,
            maybe_same_person: None,
            label_match: None,
            label_rate: 1e-5,
            label_margin: 0.1,
            stranger: None,
            outlier: None,
            probe_match: None,
            second_cluster: SecondCluster::Keep,
        }
    }
}

/// What becomes of images that are like one another, but not like the rest of their identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondCluster {
    /// They stay, as a suspicion.
    Keep,
    /// They become an identity of their own.
    Split,
    /// They are left out.
    Drop,
}
