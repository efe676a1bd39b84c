//! Verification on the way: how well the embeddings tell strangers from namesakes.

use std::path::{Path, PathBuf};

use pfc_cli::Progress;
use pfc_eval::{
    EvalError,
    verification::{Options, PairsSet, VerificationReport},
};
use pfc_model::{Backbone, MirroredEmbeddings};
use serde::{Deserialize, Serialize};

use crate::{
    TrainError, average,
    config::{BadValue, require_path},
    ranks::Ranks,
};

/// Section `[eval]`: how the model is measured on the way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Steps between measurements; 0 measures after every epoch. Step 0, the untrained network, and
    /// the last step are measured in either case.
    pub every_steps: u64,
    /// What to measure on.
    pub sets: Vec<EvalSet>,
}

/// One `[[eval.sets]]`: a list of pairs and the folder that holds their images, or a pack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSet {
    /// What it is called in logs, unlike any other.
    pub name: String,
    /// Folder that the list's paths start from.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub data: PathBuf,
    /// A verification pack of InsightFace, such as `lfw.bin`; instead of `data` and `pairs`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub pack: PathBuf,
    /// The list: LFW's `pairs.txt` (ten folds) or `pairsDevTest.txt` (one list), or lines of two
    /// paths and 1 or 0.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub pairs: PathBuf,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl EvalConfig {
    /// Refuses sets that cannot be told apart or found.
    ///
    /// # Errors
    ///
    /// [`BadValue`] for the first of them.
    pub fn validate(&self) -> Result<(), BadValue> {
        for (i, set) in self.sets.iter().enumerate() {
            let is_new = self.sets[..i].iter().all(|other| other.name != set.name);
            let name = format!("`{}`", set.name);
            let bound = "a name that no other set has";
            BadValue::unless(is_new && !set.name.is_empty(), "eval.sets.name", name, bound)?;
            if is_empty(&set.pack) {
                require_path("eval.sets.data", &set.data)?;
                require_path("eval.sets.pairs", &set.pairs)?;
            } else {
                let alone = is_empty(&set.data) && is_empty(&set.pairs);
                let bound = "the only one of `data`, `pairs` and `pack`, or left out";
                BadValue::unless(alone, "eval.sets.pack", set.pack.display(), bound)?;
            }
        }
        Ok(())
    }
}

/// What one set says of the model after a step. The fields that a set cannot give are `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Name of the set.
    pub set: String,
    /// Share of the pairs judged rightly: mean over the folds, or at a single list's best threshold.
    pub accuracy: f64,
    /// Population standard deviation over the folds.
    pub std: Option<f64>,
    /// Area under the ROC curve.
    pub auc: Option<f64>,
    /// Squared L2 distance below which a pair is taken for one person.
    pub threshold: f64,
    /// Mean L2 norm of the raw embeddings.
    pub mean_norm: f64,
}

impl Score {
    fn new(set: &str, report: &VerificationReport) -> Score {
        Score {
            set: set.to_owned(),
            accuracy: report.accuracy.mean,
            std: report.accuracy.std,
            auc: report.auc.map(|figure| figure.value),
            threshold: report.accuracy.threshold,
            mean_norm: report.mean_norm,
        }
    }
}

/// The sets of a run, in memory.
#[derive(Debug)]
pub struct Verifier {
    sets: Vec<(String, PairsSet)>,
}

impl Verifier {
    /// Reads every set.
    ///
    /// # Errors
    ///
    /// [`EvalError`] for the first list or image that cannot be read.
    pub fn open(config: &EvalConfig) -> Result<Verifier, EvalError> {
        let open = |set: &EvalSet| {
            let opened = if is_empty(&set.pack) {
                PairsSet::open(&set.data, &set.pairs)?
            } else {
                PairsSet::open_pack(&set.pack)?
            };
            Ok((set.name.clone(), opened))
        };
        Ok(Verifier { sets: config.sets.iter().map(open).collect::<Result<_, EvalError>>()? })
    }

    /// Whether there is nothing to measure on.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Measures the network as it is, on images and mirror images summed. Every rank embeds its part
    /// of the images, with the first rank's running statistics, and gets all scores. Unless `quiet`, a
    /// progress bar is shown.
    ///
    /// # Errors
    ///
    /// [`EvalError::Interrupted`] on every rank if the user asks any to stop; else what a broken
    /// network gives.
    pub fn run(
        &self,
        backbone: &Backbone,
        ranks: &Ranks,
        quiet: bool,
    ) -> Result<Vec<Score>, TrainError> {
        ranks.copy_from_first(&average::running(backbone))?;
        self.sets.iter().map(|(name, set)| score(name, set, backbone, ranks, quiet)).collect()
    }
}

fn score(
    name: &str,
    set: &PairsSet,
    backbone: &Backbone,
    ranks: &Ranks,
    quiet: bool,
) -> Result<Score, TrainError> {
    let (n_images, rank, world) = (set.n_images(), ranks.rank(), ranks.world());
    let own = n_images * rank / world..n_images * (rank + 1) / world;
    let progress = Progress::new("verify", "images", own.len() as u64, quiet);
    let embedded = set.embed(backbone, own, &mut |n| {
        progress.add(n as u64);
        if pfc_cli::interrupt::requested() { Err(EvalError::Interrupted) } else { Ok(()) }
    });
    progress.finish();
    let was_interrupted = matches!(embedded, Err(EvalError::Interrupted));
    if ranks.any(was_interrupted)? {
        return Err(EvalError::Interrupted.into());
    }
    let own = embedded?;
    let all = MirroredEmbeddings {
        original: ranks.gather_f32(&own.original)?,
        mirrored: ranks.gather_f32(&own.mirrored)?,
    };
    let judged = match ranks.is_first() {
        true => Some(Score::new(name, &set.judge(&all, &Options::default())?.report)),
        false => None,
    };
    let judged = ranks.of_first(judged)?;
    Ok(judged.expect("the first rank has judged"))
}
