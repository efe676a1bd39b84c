//! The JSON of `--json`, which `pfc-eval report` reads back.

use std::path::Path;

use pfc_metrics::{quality::QualityBin, roc::RocPoint};
use pfc_report::chart::{Curve, Histogram};
use pfc_verify::{Judged, PairsSet, VerificationReport};
use serde::{Deserialize, Serialize};

use crate::{
    EvalError,
    files::read_regular_file,
    ijb::IjbReport,
    megaface::MegaFaceReport,
    nn::NnReport,
    worst::{Source, Worst, WorstPair},
};

/// Version of the layout below; a reader refuses a newer one.
///
/// Fields are only ever added within a version, and a reader takes a result that lacks them.
pub const SCHEMA: u32 = 1;
/// A result of one set is under 1 MB.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;

/// What one run of a command found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Program and version.
    pub tool: String,
    /// Subcommand, which tells what the findings are.
    pub command: String,
    /// The model or the embeddings, as given on the command line.
    pub model: String,
    /// The figures; their fields stand beside those above.
    #[serde(flatten)]
    pub findings: Findings,
}

/// The figures, by kind of protocol.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Findings {
    /// Of `lfw`, `bin` and the other commands that judge pairs of images.
    Pairs {
        /// One entry per set.
        results: Vec<SetResult>,
    },
    /// Of `ijbb` and `ijbc`.
    Ijb(Box<IjbReport>),
    /// Of `megaface`.
    MegaFace(Box<MegaFaceReport>),
    /// Of `nn`.
    Nn(Box<NnReport>),
}

/// What is read first, so that a newer layout is told from a broken one.
#[derive(Debug, Deserialize)]
struct Head {
    schema: u32,
    #[serde(default)]
    tool: String,
    #[serde(default)]
    command: String,
    #[serde(default)]
    model: String,
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
    /// Errors by the quality of the images, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<ByQuality>,
    /// Impostor pairs of highest similarity, worst first.
    pub worst_accepts: Vec<WorstPair>,
    /// Genuine pairs of lowest similarity, worst first.
    pub worst_rejects: Vec<WorstPair>,
}

/// Errors of a set's pairs at its threshold, by the quality of their images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ByQuality {
    /// The measure of `pfc-ingest quality`.
    pub column: String,
    /// The bins, from the lowest value to the highest.
    pub bins: Vec<QualityBin>,
}

impl Document {
    /// A document of this version of the program.
    pub fn new(command: &str, model: &Path, findings: Findings) -> Document {
        Document {
            schema: SCHEMA,
            tool: format!("pfc-eval {}", env!("CARGO_PKG_VERSION")),
            command: command.to_owned(),
            model: model.display().to_string(),
            findings,
        }
    }

    /// Reads a document that `--json` wrote.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`]; [`EvalError::Document`] for JSON of another layout or a newer schema.
    pub fn read(path: &Path) -> Result<Document, EvalError> {
        let bytes = read_regular_file(path, DOCUMENT_BYTES_MAX)?;
        Document::parse(&bytes).map_err(|reason| EvalError::document(path, reason))
    }

    /// Parses the JSON, or says what is wrong with it.
    fn parse(bytes: &[u8]) -> Result<Document, String> {
        let broken = |error: serde_json::Error| error.to_string();
        let Head { schema, tool, command, model } =
            serde_json::from_slice(bytes).map_err(broken)?;
        if schema > SCHEMA {
            return Err(format!("schema {schema}, and this program knows up to {SCHEMA}"));
        }
        let findings = Findings::parse(&command, bytes).map_err(broken)?;
        Ok(Document { schema, tool, command, model, findings })
    }
}

impl Findings {
    fn parse(command: &str, bytes: &[u8]) -> serde_json::Result<Findings> {
        #[derive(Deserialize)]
        struct Pairs {
            results: Vec<SetResult>,
        }
        Ok(match command {
            "ijbb" | "ijbc" => Findings::Ijb(serde_json::from_slice(bytes)?),
            "megaface" => Findings::MegaFace(serde_json::from_slice(bytes)?),
            "nn" => Findings::Nn(serde_json::from_slice(bytes)?),
            _ => {
                let Pairs { results } = serde_json::from_slice(bytes)?;
                Findings::Pairs { results }
            }
        })
    }
}

impl SetResult {
    /// The ROC curve, with the intervals of the rates that TAR is given at.
    pub fn curve<'a>(&'a self, name: &'a str) -> Curve<'a> {
        let rows = self.figures.tar_at_far.iter();
        let intervals = rows.filter_map(|row| Some((row.far, row.interval?))).collect();
        Curve { name, points: &self.roc, n_impostors: self.figures.n_impostor, intervals }
    }

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
        let row = |pair: usize| WorstPair {
            pair: Some(pair),
            left: set.image_name(set.pairs()[pair].left as usize).to_owned(),
            right: set.image_name(set.pairs()[pair].right as usize).to_owned(),
            similarity: similarities[pair],
            wrong: (judged.distances[pair] < threshold) != same[pair],
        };
        // Not similarities: near 1 they are too coarse to tell pairs apart.
        let scores: Vec<f64> = judged.distances.iter().map(|distance| -distance).collect();
        let worst = Worst::of(&scores, &same, |pair| pair);
        SetResult {
            source,
            differs,
            figures: judged.report.clone(),
            roc: thinned(&judged.roc()),
            histogram: Histogram::new(&similarities, &same),
            quality: None,
            worst_accepts: worst.accepts.into_iter().map(row).collect(),
            worst_rejects: worst.rejects.into_iter().map(row).collect(),
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
