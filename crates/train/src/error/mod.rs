//! Why a run could not start or go on.

mod load;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use pfc_c10d::C10dError;
use pfc_durable::{DurableError, FolderError};
use pfc_findings::FindingsError;
use pfc_head::HeadError;
use pfc_model::ModelError;
use pfc_shard::ShardError;
use pfc_verify::VerifyError;

pub use load::{BadWeights, LoadError};

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
    /// The ranks cannot meet, or a collective failed.
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
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A folder may not be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
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
    /// Measures that images cannot be drawn by.
    #[error("data.weights is {key}, by which no images can be drawn")]
    Weights {
        /// The value.
        key: String,
        /// Why not.
        #[source]
        source: BadWeights,
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
    /// The run has no checkpoint of the step that it is to go on from.
    #[error("{}: has no checkpoint of step {step}", path.display())]
    NoSuchCheckpoint {
        /// The folder of checkpoints.
        path: PathBuf,
        /// The step that was asked for.
        step: u64,
        /// The steps of those that are there, newest first.
        steps: Vec<u64>,
    },
    /// Centres in files are damaged.
    #[error("{at}")]
    DamagedCentres {
        /// When that was found.
        at: DamagedAt,
        /// The step of the checkpoint before the newest, if there is one.
        older: Option<u64>,
        /// Which file, and where in it.
        #[source]
        source: Box<HeadError>,
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
        /// The reason that it gives.
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
    /// The machine does not have the memory that the run is going to take.
    #[error(
        "{}{} for centres, {} for the network, {} for batches and {} for a save, {} in all, but {} of \
         memory are available",
        if *n_ranks == 1 {
            "the run takes ".to_owned()
        } else {
            format!("{n_ranks} ranks of one machine take ")
        },
        in_units(*rows), in_units(*network), in_units(*batches), in_units(*save),
        in_units(rows + network + batches + save), in_units(*free)
    )]
    NoMemory {
        /// Ranks on the machine.
        n_ranks: usize,
        /// Bytes of centres and their optimizer state.
        rows: u64,
        /// Bytes of the network, its gradients and its optimizer.
        network: u64,
        /// Bytes of the images that are made ahead of the steps.
        batches: u64,
        /// Bytes that a save takes beside them.
        save: u64,
        /// Bytes that the machine has.
        free: u64,
    },
    /// A card does not have the memory that its rank is going to take of it.
    #[error(
        "rank {rank} takes {} of its card for centres and {} for the network, {} in all, but {} are free \
         there",
        in_units(*rows), in_units(*network), in_units(rows + network), in_units(*free)
    )]
    NoCardMemory {
        /// The rank.
        rank: usize,
        /// Bytes of centres and their optimizer state.
        rows: u64,
        /// Bytes of the network, its gradients and its optimizer.
        network: u64,
        /// Bytes that are free on the card.
        free: u64,
    },
    /// A disk does not have the room that the run is going to take.
    #[error(
        "{}: the run needs {} more of this disk, of which {} are free",
        path.display(), in_units(*needed), in_units(*free)
    )]
    NoDisk {
        /// The folder that takes most of it.
        path: PathBuf,
        /// Bytes that are still needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// libtorch does not compute as `train.deterministic` and `model.tf32` have it.
    #[error("libtorch cannot compute as `train.deterministic` and `model.tf32` have it: {0}")]
    Compute(String),
    /// A signal stopped an export.
    #[error("interrupted after {done} of {total} centres")]
    Interrupted {
        /// Centres of the file being written that were done.
        done: u64,
        /// Centres in all.
        total: u64,
    },
    /// A thread cannot be started, to compute with or to write a checkpoint.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The ranks were started with different data or configurations.
    #[error("rank {rank} was started differently from rank 0: {difference}")]
    RanksDiffer {
        /// This rank.
        rank: usize,
        /// What differs, and how.
        difference: String,
    },
    /// Batch normalisation would see fewer than two images of a micro-batch.
    #[error(
        "batches of {batch_size} images on {world} ranks in {n_micro_batches} micro-batches leave \
         fewer than 2 images to one"
    )]
    TooManyMicroBatches {
        /// Ranks.
        world: usize,
        /// Micro-batches of each rank, `train.accumulate`.
        n_micro_batches: usize,
        /// Images of a batch.
        batch_size: u64,
    },
    /// The trained network's embeddings cannot be compared.
    #[error("after step {n_done}, the last: `{set}` cannot be measured: {reason}")]
    Unmeasurable {
        /// Steps finished, all of the run.
        n_done: u64,
        /// The set of `[eval]`.
        set: String,
        /// Of which image the embedding is unusable, and why.
        reason: String,
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

/// When damaged centres in files were found.
#[derive(Debug)]
pub enum DamagedAt {
    /// When this checkpoint was restored.
    Restore(PathBuf),
    /// When a step read a row.
    Step,
}

impl fmt::Display for DamagedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DamagedAt::Restore(path) => {
                write!(f, "{}: its centres in files are damaged", path.display())
            }
            DamagedAt::Step => f.write_str("a centre in a file is damaged"),
        }
    }
}

impl TrainError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TrainError {
        move |source| DurableError::at(op, path)(source).into()
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
            TrainError::GradientNotFinite { .. } => Some("the gradient"),
            TrainError::Head(HeadError::EmbeddingNotFinite { .. }) => Some("an embedding"),
            TrainError::Head(HeadError::LossNotFinite { .. }) => Some("the loss"),
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
            TrainError::Folder(error) => error.hint(),
            TrainError::Ranks(error) | TrainError::RanksAfter { error, .. } => error.hint(),
            TrainError::Durable(error)
                if error.source.kind() == io::ErrorKind::StorageFull =>
            {
                Some(format!(
                    "the disk that holds {} is full: free space and run the same command with \
                     `--resume`; checkpoints already there are whole",
                    error.path.display()
                ))
            }
            TrainError::Durable(error) => error.hint(),
            TrainError::Thread(_)
            | TrainError::Compute(_)
            | TrainError::TooFewIdentities { .. } => None,
            TrainError::Interrupted { .. } => Some(
                "run the same command again; nothing half-written was left behind".to_owned(),
            ),
            TrainError::NoMemory { .. } => Some(
                "keep the centres in files with `head.centres = { file = \"FOLDER\" }`, halve them \
                 with `head.weights = \"bf16\"` and `head.state = \"bf16\"`, or spread them over \
                 more machines; `--set train.check_room=false` starts the run all the same"
                    .to_owned(),
            ),
            TrainError::NoCardMemory { .. } => Some(
                "keep the centres in memory with `head.centres = \"host\"`, halve them with \
                 `head.weights = \"bf16\"` and `head.state = \"bf16\"`, or spread them over more cards; \
                 `--set train.check_room=false` starts the run all the same"
                    .to_owned(),
            ),
            TrainError::NoDisk { .. } => Some(
                "free space, choose another disk with `--out` or `head.centres`, or lower \
                 `checkpoint.keep`; `--set train.check_room=false` starts the run all the same"
                    .to_owned(),
            ),
            TrainError::ImageSize { .. } => Some(
                "`pfc-ingest pack` without another size makes images of the size taken".to_owned(),
            ),
            TrainError::Weights { .. } => Some(
                "draw by a measure that grows with quality from 0, such as sharpness, norm or fiqa; see \
                 docs/quality.md".to_owned(),
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
            TrainError::NoSuchCheckpoint { steps, .. } => Some(match steps[..] {
                [] => "it holds none: begin the run without `--resume-from`".to_owned(),
                _ => {
                    let steps: Vec<String> = steps.iter().map(u64::to_string).collect();
                    format!("`--resume-from` takes one of {}", steps.join(", "))
                }
            }),
            TrainError::DamagedCentres { at, older, .. } => Some(way_out(at, *older)),
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
            TrainError::TooManyMicroBatches { world, n_micro_batches, .. } => Some(format!(
                "raise `train.batch_size` to at least {}",
                2 * world.saturating_mul(*n_micro_batches)
            )),
            TrainError::TooManyLeftOut { error, .. } => error.hint(),
            TrainError::Unmeasurable { .. } => Some(
                "the checkpoint is saved, but the network that it holds cannot be used: training has \
                 diverged, or was too short for the running statistics of its normalisations; train \
                 longer, or again with a lower `optim.lr`"
                    .to_owned(),
            ),
            TrainError::GradientNotFinite { .. } => Some(
                "training has diverged and the weights were not moved: resume from the last \
                 checkpoint with a lower `optim.lr`, a longer `optim.warmup_epochs` or \
                 `model.precision = \"f32\"`"
                    .to_owned(),
            ),
        }
    }
}

/// How a run goes on whose centres in files are damaged.
fn way_out(at: &DamagedAt, older: Option<u64>) -> String {
    let bring_back = "bring the file back, if a copy of the folder was made at that checkpoint or \
                      another machine has it";
    let first = match at {
        DamagedAt::Restore(_) => bring_back.to_owned(),
        DamagedAt::Step => {
            format!(
                "`--resume` goes on from the newest checkpoint; if it ends so again, {bring_back}"
            )
        }
    };
    match older {
        Some(step) => format!(
            "{first}; or run the same command with `--resume-from {step}`: that checkpoint needs \
             other copies of all rows that have moved since"
        ),
        None => format!("{first}; there is no older checkpoint to go back to"),
    }
}

/// `7 KiB`, `12 MiB` or `3.4 GiB`, for a number of bytes.
pub(crate) fn in_units(bytes: u64) -> String {
    match bytes as f64 / 1024.0 {
        kib if kib < 1024.0 => format!("{kib:.0} KiB"),
        kib if kib < 1_048_576.0 => format!("{:.0} MiB", kib / 1024.0),
        kib => format!("{:.1} GiB", kib / 1_048_576.0),
    }
}
