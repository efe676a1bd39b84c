//! What a run on IJB-B or IJB-C found, as it is printed and written to JSON.

use pfc_metrics::{
    bootstrap::{Interval, Replicates},
    ijb::Pooling,
    roc::RocPoint,
};
use pfc_report::chart::{Curve, Histogram};
use pfc_verify::Figure;
use serde::{Deserialize, Serialize};

use crate::worst::{Source, WorstPair};

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IjbReport {
    /// `IJB-B` or `IJB-C`.
    pub benchmark: String,
    /// Faces in the lists.
    pub n_faces: usize,
    /// Templates of those faces.
    pub n_templates: usize,
    /// Template pairs of one person.
    pub n_genuine: usize,
    /// Template pairs of two people.
    pub n_impostor: usize,
    /// What is not as in the complete benchmark; empty if all is.
    pub incomplete: Vec<String>,
    /// Where the faces are, if they were there.
    #[serde(default)]
    pub images: Option<Source>,
    /// What the confidence intervals resample.
    pub units: Units,
    /// One 1:1 table per way of pooling.
    pub one_to_one: Vec<TarTable>,
    /// 1:N, with the first way of pooling.
    pub one_to_n: Option<SearchReport>,
}

/// What is drawn with replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Units {
    /// People, known from the 1:N lists.
    Subjects,
    /// Templates, where the 1:N lists do not name all of them.
    Templates,
}

/// TAR@FAR for one way of pooling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TarTable {
    /// How faces became templates.
    pub pooling: Pooling,
    /// By falling FAR.
    pub rows: Vec<TemplateTarRow>,
    /// Area under the ROC curve.
    pub auc: f64,
    /// Its confidence interval.
    #[serde(default)]
    pub auc_interval: Option<Interval>,
    /// TAR of each row in each resampled set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicates: Option<Replicates>,
    /// Templates whose faces add up to zero.
    pub zero_templates: Vec<u64>,
    /// The curve at FARs that are evenly spaced in the logarithm.
    pub roc: Vec<RocPoint>,
    /// Spread of the scores.
    #[serde(default)]
    pub histogram: Option<Histogram>,
    /// Impostor pairs of highest similarity, worst first; of each template the face with the best
    /// detector score. `wrong` is by the threshold of the row nearest to FAR 1e-4.
    #[serde(default)]
    pub worst_accepts: Vec<WorstPair>,
    /// Genuine pairs of lowest similarity, likewise.
    #[serde(default)]
    pub worst_rejects: Vec<WorstPair>,
}

impl TarTable {
    /// The ROC curve, with the intervals of the rows; `n_impostors` are those of the report.
    pub fn curve<'a>(&'a self, name: &'a str, n_impostors: usize) -> Curve<'a> {
        let rows = self.rows.iter();
        let intervals = rows.filter_map(|row| Some((row.far, row.interval?))).collect();
        Curve { name, points: &self.roc, n_impostors: n_impostors as u64, intervals }
    }
}

/// TAR at one FAR, read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TemplateTarRow {
    /// FAR asked for.
    pub far: f64,
    /// TAR where the decimated curve's FAR is nearest: what papers print.
    pub nearest_tar: f64,
    /// That FAR.
    pub nearest_far: f64,
    /// TAR where at most `far` of the impostors are accepted.
    pub tar: f64,
    /// Confidence interval of `tar`.
    pub interval: Option<Interval>,
    /// Cosine similarity that a pair must exceed for `tar`.
    pub threshold: f64,
    /// Impostor pairs that `far` allows: the figure rests on that many.
    pub n_impostors_allowed: u64,
    /// Whether `far` is less than one impostor pair, so that the best impostor sets the threshold.
    pub finer_than_data: bool,
}

/// 1:N over all galleries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchReport {
    /// One row per gallery.
    pub galleries: Vec<GalleryRow>,
    /// Probes found at rank 1, 5 and 10 in any gallery, over all probes.
    pub top: [f64; 3],
    /// Their confidence intervals.
    #[serde(default)]
    pub top_intervals: [Option<Interval>; 3],
    /// Mean over the galleries of TPIR at each FPIR, by the reference's threshold.
    pub mean_tpir: Vec<(f64, f64)>,
}

/// One gallery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GalleryRow {
    /// `G1`, …
    pub name: String,
    /// Templates in it.
    pub n_templates: usize,
    /// Probes whose person is in it.
    pub n_mated: usize,
    /// Other probes.
    pub n_non_mated: usize,
    /// Closed set: share of mated probes found at rank 1, 5 and 10.
    pub rank: [Option<Figure>; 3],
    /// Closed set: share of mated probes found among the k best, from k = 1 to 100; empty without
    /// mated probes.
    #[serde(default)]
    pub cmc: Vec<f64>,
    /// Open set.
    pub tpir: Vec<TpirRow>,
    /// Open set: TPIR (`tar`) over FPIR (`far`), rising; empty without probes of both kinds.
    #[serde(default)]
    pub open_set: Vec<RocPoint>,
}

impl GalleryRow {
    /// The curve of the open set, with the intervals of the rows.
    pub fn curve<'a>(&'a self, name: &'a str) -> Curve<'a> {
        let rows = self.tpir.iter().filter(|row| !row.finer_than_data);
        let intervals = rows.filter_map(|row| Some((row.fpir, row.tpir?.interval?))).collect();
        Curve { name, points: &self.open_set, n_impostors: self.n_non_mated as u64, intervals }
    }
}

/// TPIR at one FPIR, with two thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TpirRow {
    /// FPIR asked for.
    pub fpir: f64,
    /// TPIR by the threshold of the reference.
    pub reference_tpir: f64,
    /// That threshold.
    pub reference_threshold: f64,
    /// TPIR where at most a share `fpir` of the non-mated probes exceeds the threshold; `None` at 1,
    /// where every threshold does.
    pub tpir: Option<Figure>,
    /// Non-mated probes that `fpir` allows.
    pub n_non_mated_allowed: u64,
    /// Whether `fpir` is less than one non-mated probe.
    pub finer_than_data: bool,
}

/// The options of a table in a few words.
pub(crate) fn pooling(how: &Pooling) -> String {
    let words = [
        (how.flip, "flip"),
        (how.unit_norm_faces, "unit-norm faces"),
        (how.detector_score, "detector score"),
        (how.unit_norm_media, "unit-norm media"),
    ];
    let words: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
    if words.is_empty() { "plain".to_owned() } else { words.join(", ") }
}
