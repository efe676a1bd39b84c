//! The JSON of `--json`, which `pfc-eval report` reads back.

use std::path::{Path, PathBuf};

use pfc_metrics::roc::RocPoint;
use serde::{Deserialize, Serialize};

use crate::{
    EvalError,
    pairs::read_regular_file,
    plot::Histogram,
    verification::{Judged, PairsSet, VerificationReport},
};

/// Version of the layout below; a reader refuses a newer one.
pub const SCHEMA: u32 = 1;
/// A result of one set is under 1 MB.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;
/// Pairs kept of each kind of mistake.
const N_WORST: usize = 12;

/// What one run of a pair verification command found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Program and version.
    pub tool: String,
    /// Subcommand.
    pub command: String,
    /// The model, as given on the command line.
    pub model: String,
    /// One entry per set.
    pub results: Vec<SetResult>,
}

/// One set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetResult {
    /// Where its images are.
    pub source: Source,
    /// How the set differs from the published one of this name, if it does.
    pub differs: Option<String>,
    /// The figures.
    pub figures: VerificationReport,
    /// Corners of the ROC curve, thinned to what a plot can show; empty unless both classes are
    /// present.
    pub roc: Vec<RocPoint>,
    /// Spread of the scores.
    pub histogram: Histogram,
    /// Impostor pairs of highest similarity, worst first.
    pub worst_accepts: Vec<WorstPair>,
    /// Genuine pairs of lowest similarity, worst first.
    pub worst_rejects: Vec<WorstPair>,
}

/// Where the images of a set are, with absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Source {
    /// A folder of images; pairs name paths below it.
    Folder {
        /// The folder.
        root: PathBuf,
    },
    /// An `InsightFace` pack; pairs name image numbers.
    Pack {
        /// The file.
        path: PathBuf,
    },
}

/// A pair that the model judges worst.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstPair {
    /// Position in the list, from 0.
    pub pair: usize,
    /// Image name in the source.
    pub left: String,
    /// Image name in the source.
    pub right: String,
    /// Cosine similarity.
    pub similarity: f64,
    /// Whether it lies on the wrong side of the mean threshold.
    pub wrong: bool,
}

impl Source {
    /// The source of a set in `data`, a folder or a pack.
    pub fn of(data: &Path) -> Source {
        // A path that cannot be resolved now could not be found later either: keep it as given.
        let absolute = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        if data.is_dir() {
            Source::Folder { root: absolute }
        } else {
            Source::Pack { path: absolute }
        }
    }
}

impl Document {
    /// A document of this version of the program.
    pub fn new(command: &str, model: &Path, results: Vec<SetResult>) -> Document {
        Document {
            schema: SCHEMA,
            tool: format!("pfc-eval {}", env!("CARGO_PKG_VERSION")),
            command: command.to_owned(),
            model: model.display().to_string(),
            results,
        }
    }

    /// Reads a document that `--json` wrote.
    ///
    /// # Errors
    ///
    /// [`EvalError::Io`]; [`EvalError::Document`] for JSON of another layout or a newer schema.
    pub fn read(path: &Path) -> Result<Document, EvalError> {
        /// Read first, so that a newer layout is told from a broken one.
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let bytes = read_regular_file(path, DOCUMENT_BYTES_MAX)?;
        let broken = |error: serde_json::Error| EvalError::document(path, error.to_string());
        let Head { schema } = serde_json::from_slice(&bytes).map_err(broken)?;
        if schema != SCHEMA {
            let reason = format!("schema {schema}, and this program knows {SCHEMA}");
            return Err(EvalError::document(path, reason));
        }
        serde_json::from_slice(&bytes).map_err(broken)
    }
}

impl SetResult {
    /// What is kept of a judged set; `differs` says how it is not the published one.
    pub fn new(
        source: Source,
        set: &PairsSet,
        judged: &Judged,
        differs: Option<String>,
    ) -> SetResult {
        let similarities = judged.similarities();
        let same: Vec<bool> = set.pairs().iter().map(|pair| pair.same).collect();
        let threshold = judged.report.accuracy.threshold;
        let worst = |of_same: bool| {
            let mut pairs: Vec<usize> = (0..same.len()).filter(|&i| same[i] == of_same).collect();
            let badness =
                |i: usize| if of_same { judged.distances[i] } else { -judged.distances[i] };
            pairs.sort_by(|&a, &b| badness(b).total_cmp(&badness(a)).then(a.cmp(&b)));
            pairs.truncate(N_WORST);
            let row = |pair: usize| WorstPair {
                pair,
                left: set.image_name(set.pairs()[pair].left as usize).to_owned(),
                right: set.image_name(set.pairs()[pair].right as usize).to_owned(),
                similarity: similarities[pair],
                wrong: (judged.distances[pair] < threshold) != of_same,
            };
            pairs.into_iter().map(row).collect::<Vec<_>>()
        };
        SetResult {
            source,
            differs,
            figures: judged.report.clone(),
            roc: thinned(&judged.roc()),
            histogram: Histogram::new(&similarities, &same),
            worst_accepts: worst(false),
            worst_rejects: worst(true),
        }
    }
}

/// Leaves out corners that a plot would draw on top of the one before.
fn thinned(corners: &[RocPoint]) -> Vec<RocPoint> {
    let far_apart = |a: &RocPoint, b: &RocPoint| {
        // From a FAR of 0 this is infinite: the first accepted impostor always shows.
        let decades = if b.far > a.far { (b.far / a.far).log10() } else { 0.0 };
        decades >= 0.005 || b.tar - a.tar >= 0.001
    };
    let mut kept: Vec<RocPoint> = Vec::new();
    for (i, corner) in corners.iter().enumerate() {
        let last = i + 1 == corners.len();
        if last || kept.last().is_none_or(|before| far_apart(before, corner)) {
            kept.push(*corner);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_curve_keeps_its_ends_and_its_shape() {
        let n = 100_000;
        let corner = |i: u32| {
            let far = f64::from(i) / f64::from(n);
            RocPoint { threshold: 1.0 - far, far, tar: far.sqrt() }
        };
        let corners: Vec<RocPoint> = (0..=n).map(corner).collect();
        let kept = thinned(&corners);
        assert_eq!((kept[0], kept[1], kept.last()), (corners[0], corners[1], corners.last()));
        assert!(kept.len() < 2500, "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[1].tar - pair[0].tar < 0.005));
    }
}
