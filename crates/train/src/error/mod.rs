//! Why a run could not start or go on.

mod load;

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_c10d::C10dError;
use pfc_durable::{DurableError, FolderError};
use pfc_findings::FindingsError;
use pfc_head::HeadError;
use pfc_model::ModelError;
use pfc_shard::ShardError;
use pfc_verify::VerifyError;

pub use load::LoadError;

use crate::config::{BadValue, ConfigError};

/// Why a run could not start or go on. What had been saved stays whole.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A value of the configuration is out of its bounds.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// The data set cannot be opened.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The decisions beside the data set cannot be applied.
    #[error(transparent)]
    Findings(#[from] FindingsError),
    /// An image cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The network refused, or a checkpoint.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The head refused.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// A verification set cannot be read or judged.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The ranks cannot meet or exchange something.
    #[error(transparent)]
    Ranks(#[from] C10dError),
    /// The same, while the run goes on.
    #[error("after step {n_done}: {error}")]
    RanksAfter {
        /// Steps finished.
        n_done: u64,
        /// Which rank, and why.
        error: C10dError,
    },
    /// A file cannot be written whole.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A folder may not be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The operating system refused.
    #[error("{}: cannot {op}", path.display())]
    Io {
        /// What was being done.
        op: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The data set's images have another size than networks take.
    #[error("{}: images are {found} pixels, but networks take {expected}", path.display())]
    ImageSize {
        /// The data set.
        path: PathBuf,
        /// Its size.
        found: pfc_shard::ImageSize,
        /// The size taken.
        expected: pfc_shard::ImageSize,
    },
    /// The data set does not fill one batch.
    #[error(
        "{}: {n_images} images do not fill a batch of {batch_size}", path.display()
    )]
    TooFewImages {
        /// The data set.
        path: PathBuf,
        /// Its images.
        n_images: u64,
        /// Images of a batch.
        batch_size: u64,
    },
    /// The data set has fewer than two identities.
    #[error("{}: {n_identities} identities, but a softmax needs two", path.display())]
    TooFewIdentities {
        /// The data set.
        path: PathBuf,
        /// Its identities.
        n_identities: u32,
    },
    /// The folder holds a run already.
    #[error("{}: already holds a run", path.display())]
    RunExists {
        /// The folder.
        path: PathBuf,
    },
    /// Another process trains in the folder.
    #[error("{}: another process is training in this folder", path.display())]
    RunInUse {
        /// The folder.
        path: PathBuf,
    },
    /// Every checkpoint of the run is damaged.
    #[error("{}: none of the {n_checkpoints} checkpoints is whole", path.display())]
    NoWholeCheckpoint {
        /// The folder of checkpoints.
        path: PathBuf,
        /// How many there are.
        n_checkpoints: usize,
    },
    /// The run had saved checkpoints, and there is none any more.
    #[error("{}: holds a run without its checkpoints: {trace}", path.display())]
    CheckpointsGone {
        /// The run's folder.
        path: PathBuf,
        /// What shows that there were some.
        trace: String,
    },
    /// Another rank could not look at a checkpoint.
    #[error("rank {rank} cannot go on: {reason}")]
    UnreadableElsewhere {
        /// That rank.
        rank: usize,
        /// What it says.
        reason: String,
    },
    /// The checkpoint lies after the last step of this run.
    #[error("{}: was saved after step {step}, but this run has {n_steps} steps", path.display())]
    BeyondTheEnd {
        /// The checkpoint.
        path: PathBuf,
        /// Steps that were finished.
        step: u64,
        /// Steps of this run.
        n_steps: u64,
    },
    /// The checkpoint was written by a run that differs where it must not.
    #[error("{}: was written with {key} {found}, but this run has {expected}", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        key: String,
        /// In the checkpoint.
        found: String,
        /// In this run.
        expected: String,
    },
    /// The checkpoint was written by a run on another data set.
    #[error(
        "{}: was written by a run on {found}, but data.path is {}, which holds {expected}",
        path.display(), data.display()
    )]
    OtherData {
        /// The checkpoint.
        path: PathBuf,
        /// The data set of this run.
        data: PathBuf,
        /// Where that of the checkpoint was.
        before: PathBuf,
        /// What the checkpoint says of its data set.
        found: String,
        /// What this run's holds.
        expected: String,
    },
    /// libtorch does not compute as `train.deterministic` and `model.tf32` have it.
    #[error("libtorch cannot compute as `train.deterministic` and `model.tf32` have it: {0}")]
    Compute(String),
    /// A thread that writes a checkpoint cannot be started.
    #[error("cannot start a thread to write a checkpoint")]
    Thread(#[source] io::Error),
    /// The ranks were started with different data or configurations.
    #[error("rank {rank} was started differently from rank 0: {difference}")]
    RanksDiffer {
        /// This rank.
        rank: usize,
        /// What differs, and how.
        difference: String,
    },
    /// The centres to begin with have updates that were put off.
    #[error("{}: was saved between two scheduled checkpoints, with centres to catch up", path.display())]
    UnfinishedCentres {
        /// The checkpoint.
        path: PathBuf,
    },
    /// Batch normalisation would see fewer than two images.
    #[error(
        "batches of {batch_size} images on {world} ranks in {n_parts} parts leave less than 2 for one"
    )]
    TooManyParts {
        /// Ranks.
        world: usize,
        /// Parts that each of them computes its images in.
        n_parts: usize,
        /// Images of a batch.
        batch_size: u64,
    },
    /// More steps in a row than the run bears were not finite.
    #[error("{error}, after {n} steps in a row that were left out for the like")]
    TooManyLeftOut {
        /// Steps left out before.
        n: u64,
        /// What was not finite.
        error: Box<TrainError>,
    },
    /// The backbone's gradient is not finite.
    #[error("step {step}: the gradient of `{parameter}` is not finite (loss {loss})")]
    GradientNotFinite {
        /// The step, from 1.
        step: u64,
        /// The first parameter concerned.
        parameter: String,
        /// The loss of the step.
        loss: f64,
    },
}

impl TrainError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TrainError {
        let path = path.to_path_buf();
        move |source| TrainError::Io { op, path, source }
    }

    /// The same, with the number of steps that were finished where it does not say a step.
    pub(crate) fn after(self, n_done: u64) -> TrainError {
        match self {
            TrainError::Ranks(error) => TrainError::RanksAfter { n_done, error },
            other => other,
        }
    }

    /// What is not finite, if that is the fault.
    pub(crate) fn not_finite(&self) -> Option<&'static str> {
        match self {
            TrainError::GradientNotFinite { .. } => Some("gradient"),
            TrainError::Head(HeadError::EmbeddingNotFinite { .. }) => Some("embeddings"),
            TrainError::Head(HeadError::LossNotFinite { .. }) => Some("loss"),
            _ => None,
        }
    }

    /// Whether every rank ends with it at the same place of the same step.
    pub(crate) fn is_on_every_rank(&self) -> bool {
        matches!(
            self,
            TrainError::GradientNotFinite { .. }
                | TrainError::TooManyLeftOut { .. }
                | TrainError::Head(
                    HeadError::EmbeddingNotFinite { .. }
                        | HeadError::LabelOutOfRange { .. }
                        | HeadError::LossNotFinite { .. }
                )
        )
    }

    /// The way out, for the causes that have a common one.
    pub fn hint(&self) -> Option<String> {
        match self {
            TrainError::Config(error) => error.hint(),
            TrainError::Value(error) => error.hint(),
            TrainError::Shard(error) => error.hint(),
            TrainError::Findings(error) => error.hint(),
            TrainError::Load(error) => error.hint(),
            TrainError::Model(error) => error.hint(),
            TrainError::Head(error) => error.hint(),
            TrainError::Verify(error) => error.hint(),
            TrainError::Durable(error) => error.hint(),
            TrainError::Folder(error) => error.hint(),
            TrainError::Ranks(error) | TrainError::RanksAfter { error, .. } => error.hint(),
            TrainError::Io { source, path, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                Some(format!(
                    "the disk that holds {} is full: free space and run the same command with \
                     `--resume`; checkpoints already there are whole",
                    path.display()
                ))
            }
            TrainError::Io { .. }
            | TrainError::Thread(_)
            | TrainError::Compute(_)
            | TrainError::TooFewIdentities { .. } => None,
            TrainError::ImageSize { .. } => Some(
                "`pfc-ingest pack` without another size makes images of the size taken".to_owned(),
            ),
            TrainError::TooFewImages { n_images, .. } => {
                Some(format!("lower `train.batch_size` to at most {n_images}"))
            }
            TrainError::RunExists { .. } => Some(
                "`--resume` continues it; `--out` names another folder for a new run".to_owned(),
            ),
            TrainError::RunInUse { .. } => {
                Some("wait for it to end, or choose another folder with `--out`".to_owned())
            }
            TrainError::NoWholeCheckpoint { .. } => Some(
                "the messages above say what is wrong with each; start again in another folder \
                 with `--out`"
                    .to_owned(),
            ),
            TrainError::OtherRun { key, .. } if key.starts_with("decisions") => Some(
                "take back what was decided since with `pfc-ingest decisions undo`, set \
                 data.as_packed as it was, or start another run with `--out`"
                    .to_owned(),
            ),
            TrainError::OtherData { data, before, .. } if data == before => Some(
                "the data set there was replaced since the run began: put the former one back, or start \
                 another run with `--out`"
                    .to_owned(),
            ),
            TrainError::OtherData { before, .. } => Some(format!(
                "set data.path to the data set that the run began with, which was `{}`, or start another \
                 run with `--out`",
                before.display()
            )),
            TrainError::CheckpointsGone { path, .. } => Some(format!(
                "put the checkpoints back into `{0}/checkpoints` (a name that ends in `.damaged-1` \
                 without that ending), or begin another run with `--out`",
                path.display()
            )),
            TrainError::UnreadableElsewhere { .. } => Some(
                "nothing in the run's folder was changed: mend the cause and run it again"
                    .to_owned(),
            ),
            TrainError::BeyondTheEnd { step, .. } => Some(format!(
                "raise `train.epochs` or `train.steps` so that the run has at least {step} steps, or \
                 start another run with `--out`"
            )),
            TrainError::OtherRun { key, found, .. } => Some(format!(
                "a run goes on with the values it began with: set {key} back to {found}, or start \
                 another run with `--out`"
            )),
            TrainError::RanksDiffer { .. } => {
                Some("start every rank with the same arguments on the same data set".to_owned())
            }
            TrainError::UnfinishedCentres { .. } => Some(
                "begin with a checkpoint that was saved on schedule, or at the end of a run"
                    .to_owned(),
            ),
            TrainError::TooManyParts { world, n_parts, .. } => Some(format!(
                "raise `train.batch_size` to at least {}",
                2 * world.saturating_mul(*n_parts)
            )),
            TrainError::TooManyLeftOut { error, .. } => error.hint(),
            TrainError::GradientNotFinite { .. } => Some(
                "training has diverged and the weights were not moved: resume from the last \
                 checkpoint with a lower `optim.lr`, a longer `optim.warmup_epochs` or \
                 `model.precision = \"f32\"`"
                    .to_owned(),
            ),
        }
    }
}
