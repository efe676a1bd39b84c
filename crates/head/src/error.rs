//! What can go wrong in the head, and the way out.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_durable::DurableError;
use pfc_model::ModelError;
use pfc_rows::sampling::SampleError;
use tch::TchError;

use super::{centres::row::NotFinite, comm::CommError};

/// A step, a load or a configuration that the head refused.
///
/// The operation that returns it says whether centres may have moved, as
/// [`Head::begin_step`](crate::Head::begin_step) does. After a load that was refused the head may hold a part
/// of what it was to load, and can only be loaded again.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// A configuration value is out of its bounds.
    #[error("head.{field} is {}, but has to be {}", number(*value), HeadError::bounds(*least, *most))]
    Config {
        /// Key in the configuration, below `head`.
        field: &'static str,
        /// What it is.
        value: f64,
        /// The least it may be.
        least: f64,
        /// The most it may be.
        most: f64,
    },
    /// An optimizer that needs a gradient to move a row, with a rule that moves all rows.
    #[error("head.update is dense, which is exact for SGD alone")]
    DenseOptimizer,
    /// The filter leaves a negative out by its cosine, but with sub-centres it is a class that a
    /// negative stands for.
    #[error("head.interclass_filter does not go with the sub-centres of head.margin")]
    FilteredSubCentres,
    /// The file of the centres is not the one that is needed.
    #[error("{}: {problem}", path.display())]
    CentreFile {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the centres is lost, or does not hold what was written to it.
    #[error("{}: {problem}", path.display())]
    CentresDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// The folder of the centres belongs to a process that is still there.
    #[error("{}: another process is using the centres", path.display())]
    CentresInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The disk has no room for rows that are used for the first time.
    #[error(
        "{}: {free} bytes are free, but {n_new} centres that are used for the first time need {needed}",
        path.display()
    )]
    DiskFull {
        /// The folder of the centres.
        path: PathBuf,
        /// How many centres.
        n_new: u64,
        /// Free bytes of its file system.
        free: u64,
        /// Bytes that they take.
        needed: u64,
    },
    /// The user or the group may not have more of the disk.
    #[error(
        "{}: the disk quota is used up, but {n_new} centres that are used for the first time need \
         {needed} bytes",
        path.display()
    )]
    QuotaFull {
        /// The folder of the centres.
        path: PathBuf,
        /// How many centres.
        n_new: u64,
        /// Bytes that they take.
        needed: u64,
    },
    /// The operating system refused, most often a file of the centres.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The rank's batch does not have the shape of the head, or the labels are not one a row.
    #[error("step {step}: the batch is {found}, but the head takes {expected}")]
    BatchShape {
        /// Training step.
        step: u64,
        /// What was given.
        found: String,
        /// What is taken.
        expected: String,
    },
    /// A label that is no class.
    #[error(
        "step {step}: row {row} of rank {rank} has label {label}, but the head has {classes} classes"
    )]
    LabelOutOfRange {
        /// Training step.
        step: u64,
        /// Rank whose batch it is.
        rank: usize,
        /// Row in that rank's batch.
        row: usize,
        /// The label.
        label: i64,
        /// Number of classes.
        classes: u64,
    },
    /// An embedding holds a NaN or an infinity.
    #[error("step {step}: the embedding of row {row} of rank {rank} is not finite")]
    EmbeddingNotFinite {
        /// Training step.
        step: u64,
        /// Rank whose batch it is.
        rank: usize,
        /// Row in that rank's batch.
        row: usize,
    },
    /// The loss came out as NaN or infinity.
    #[error("step {step}: the loss is {loss}")]
    LossNotFinite {
        /// Training step.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A sampler broke its promise.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The machine does not grant the memory for the centres.
    #[error(
        "{rows} centres of {row_bytes} bytes, optimizer state included, do not fit into memory"
    )]
    Memory {
        /// Rows of this rank.
        rows: usize,
        /// Bytes of a row.
        row_bytes: usize,
    },
    /// The system does not grant the threads that work on the centres.
    #[error("cannot start {n_threads} threads for the head")]
    Threads {
        /// How many were asked for.
        n_threads: i32,
        /// The system's reason.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
    /// A saved state does not belong to this head.
    #[error("head state `{name}`: {problem}")]
    State {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of saved centres cannot be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A saved centre that is no direction.
    #[error(
        "{origin}: the {part} of centre {centre}, in row {row}, holds {value}, but has to be finite"
    )]
    CentreNotFinite {
        /// The file, or what stands for it.
        origin: String,
        /// `weight` or `optimizer state`.
        part: &'static str,
        /// Its number among all, sub-centres counted.
        centre: u64,
        /// Its row in the file.
        row: u64,
        /// NaN or infinite.
        value: f32,
    },
    /// The head is gone before a save had all of its rows.
    #[error("the run ended before its centres were saved")]
    SaveAbandoned,
    /// A collective among the ranks failed.
    #[error("step {step}: the ranks cannot exchange {what}")]
    Comm {
        /// Training step.
        step: u64,
        /// The values that it was to combine.
        what: &'static str,
        /// Which rank, and why.
        #[source]
        source: CommError,
    },
    /// libtorch refused an operation, most often for want of memory.
    #[error("libtorch cannot {op}")]
    Torch {
        /// What it was asked to do.
        op: &'static str,
        /// Its reason.
        #[source]
        source: TchError,
    },
}

impl HeadError {
    /// Turns a libtorch error into one that names the operation; for `map_err`.
    pub(super) fn torch(op: &'static str) -> impl FnOnce(TchError) -> HeadError {
        move |source| HeadError::Torch { op, source }
    }

    /// Turns a failed collective into one that names the step; for `map_err`.
    pub(super) fn comm(step: u64, what: &'static str) -> impl FnOnce(CommError) -> HeadError {
        move |source| HeadError::Comm { step, what, source }
    }

    /// That a saved centre has such a number.
    pub(crate) fn centre_not_finite(
        origin: String,
        row: u64,
        centre: u64,
        number: NotFinite,
    ) -> HeadError {
        let NotFinite { part, value } = number;
        HeadError::CentreNotFinite { origin, part, centre, row, value }
    }

    /// Turns an I/O error into one that names the place; for `map_err`.
    pub(super) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HeadError {
        move |source| DurableError::at(op, path)(source).into()
    }

    /// The values from `least` to `most`, to complete "has to be". The smallest number above 0 stands for 0
    /// left out, the largest below 1 for 1 left out.
    #[must_use]
    pub fn bounds(least: f64, most: f64) -> String {
        let (above_zero, below_one) = (least == f64::MIN_POSITIVE, most == 1.0 - f64::EPSILON);
        match (above_zero, below_one) {
            (true, false) => format!("above 0 and at most {}", number(most)),
            (true, true) => "above 0 and below 1".to_owned(),
            (false, true) => format!("at least {} and below 1", number(least)),
            (false, false) => format!("from {} to {}", number(least), number(most)),
        }
    }

    /// The way out, for the causes that have a common one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            HeadError::Config { field, least, most, .. } => {
                Some(format!("set `{field}` to a value {}", HeadError::bounds(*least, *most)))
            }
            HeadError::DenseOptimizer => Some(
                "set `update = \"sparse\"`, or `optimizer = { name = \"sgd\" }`".to_owned(),
            ),
            HeadError::Model(error) => error.hint(),
            HeadError::Durable(error) => error.hint(),
            HeadError::FilteredSubCentres => Some(
                "set `interclass_filter = 0`: an image with a wrong label finds a sub-centre of its \
                 own, which is what both are for"
                    .to_owned(),
            ),
            HeadError::CentreFile { .. } => Some(
                "the folder goes with the newest two checkpoints of its run: `--resume` that run, or \
                 name another folder for the centres"
                    .to_owned(),
            ),
            HeadError::CentresDamaged { .. } => Some(
                "bring the file back, if a copy of the folder was made at that checkpoint or another \
                 machine has it; or take the checkpoint before, which needs other copies of all rows \
                 that have moved since"
                    .to_owned(),
            ),
            HeadError::CentresInUse { .. } => Some(
                "wait until it has ended; one that was killed takes some seconds to let go of its \
                 memory"
                    .to_owned(),
            ),
            HeadError::DiskFull { .. } => Some(
                "make room and resume: the last checkpoint is whole; `weights` and `state` in bf16 \
                 take half"
                    .to_owned(),
            ),
            HeadError::QuotaFull { .. } => Some(
                "`quota` shows what is used: free some of it, have it raised, or put the centres on \
                 another disk, and resume: the last checkpoint is whole"
                    .to_owned(),
            ),
            HeadError::LabelOutOfRange { classes, .. } => Some(format!(
                "labels run from 0 to {}; `pfc-ingest verify` lists every bad row of a data set",
                classes.saturating_sub(1)
            )),
            HeadError::CentreNotFinite { .. } => Some(
                "the run that wrote it has diverged: take an earlier checkpoint, as `--resume-from STEP` \
                 does"
                    .to_owned(),
            ),
            HeadError::EmbeddingNotFinite { .. } | HeadError::LossNotFinite { .. } => Some(
                "training has diverged: resume from the last checkpoint with a lower `lr`, a longer \
                 warm-up or gradient clipping"
                    .to_owned(),
            ),
            HeadError::State { name, .. } if name == "centres.in_place" => Some(
                "keep `head.centres = { file = … }` as it was; `pfc-train export CHECKPOINT --centres \
                 --to safetensors` copies centres out of it"
                    .to_owned(),
            ),
            HeadError::State { .. } => Some(
                "the checkpoint was written by a head of another size or kind: check the number of \
                 identities, `model.embedding` and `head.optimizer`"
                    .to_owned(),
            ),
            HeadError::Memory { rows, row_bytes } => Some(format!(
                "they take {} MiB; keep them in a file with `centres`, in bf16 with `weights` and \
                 `state`, or spread the classes over more ranks",
                (*rows as f64 * *row_bytes as f64 / 1_048_576.0).ceil()
            )),
            HeadError::Torch { .. } => Some(
                "if memory ran out, lower the batch size, `sample_rate` or `tile_rows`".to_owned(),
            ),
            HeadError::Threads { .. } => Some(
                "`OMP_NUM_THREADS` sets their number; `ulimit -u` shows the system's bound".to_owned(),
            ),
            HeadError::Comm { source: CommError::Group(error), .. } => error.hint(),
            HeadError::BatchShape { .. }
            | HeadError::Sample(_)
            | HeadError::Comm { .. }
            | HeadError::SaveAbandoned => None,
        }
    }
}

/// A number in few digits.
fn number(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() > 24 { format!("{value:e}") } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeadConfig;

    #[test]
    fn a_bound_is_said_in_few_digits() {
        for (scale, expected) in [
            (0.0, "head.scale is 0, but has to be above 0 and at most 10000"),
            (f64::NAN, "head.scale is NaN, but has to be above 0 and at most 10000"),
            (-1e300, "head.scale is -1e300, but has to be above 0 and at most 10000"),
        ] {
            let error = HeadConfig { scale, ..HeadConfig::new(2, 2) }.validate().unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let config = HeadConfig { momentum: 1.0, ..HeadConfig::new(2, 2) };
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "head.momentum is 1, but has to be at least 0 and below 1");
        assert_eq!(HeadError::bounds(0.0, 1.0), "from 0 to 1");
    }
}
