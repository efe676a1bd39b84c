//! What stops a pack half-way, or keeps its parts from being joined.

use std::path::PathBuf;

use pfc_cli::units;
use pfc_durable::DurableError;

/// A pack that cannot go on, or parts that cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The folder holds the beginning of another pack.
    #[error("{}: an unfinished pack of another job: {}", out.display(), differences.join("; "))]
    JobDiffers {
        /// The folder to write.
        out: PathBuf,
        /// What is not the same.
        differences: Vec<String>,
        /// Whether one of several workers met it.
        by_worker: bool,
    },
    /// A file of the journal is not as it was written.
    #[error("{}: is damaged", path.display())]
    DamagedJournal {
        /// The file.
        path: PathBuf,
    },
    /// The user stopped it.
    #[error(
        "interrupted: {done} of {total} images are done and kept, in {}",
        units::of(*shards, "finished shard")
    )]
    Interrupted {
        /// Images in finished shards.
        done: u64,
        /// Images to be packed.
        total: u64,
        /// Finished shards.
        shards: u64,
    },
    /// The disk is full, or a limit is reached.
    #[error("{}: no space for about {} more bytes", path.display(), units::count(*bytes_wanted))]
    NoSpace {
        /// The file that did not fit.
        path: PathBuf,
        /// What it takes, estimated.
        bytes_wanted: u64,
        /// What all that is left to write takes, estimated.
        bytes_left: u64,
        /// Shards that are done.
        shards: u64,
        /// Shards in all.
        shards_total: u64,
        /// The system's refusal.
        #[source]
        source: DurableError,
    },
    /// An identity's name that no data set holds.
    #[error("the name of an identity has {bytes} bytes, at most {max} are possible: `{start}…`")]
    LongName {
        /// How it begins.
        start: String,
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A folder to be merged that no worker wrote.
    #[error("{}: holds no part of a pack: journal/job.json is missing", path.display())]
    NotAPart {
        /// The folder.
        path: PathBuf,
    },
    /// Parts of different jobs.
    #[error(
        "{}: is no part of the same job as {}: {}",
        part.display(), first.display(), differences.join("; ")
    )]
    PartDiffers {
        /// A part.
        part: PathBuf,
        /// The part it was compared with.
        first: PathBuf,
        /// What is not the same.
        differences: Vec<String>,
    },
    /// Shards that two parts have.
    #[error("{} and {} both hold {shards}", first.display(), second.display())]
    DoubledShards {
        /// A part.
        first: PathBuf,
        /// Another part.
        second: PathBuf,
        /// Which.
        shards: String,
    },
    /// Shards that no part has.
    #[error("{shards} of {n_shards} are in no part ({of})")]
    MissingShards {
        /// Which.
        shards: String,
        /// Shards in all.
        n_shards: u64,
        /// The workers whose they are, as far as is known.
        of: String,
    },
    /// Shards whose files are not as they were written.
    #[error("{}: {}", path.display(), faults.join("; "))]
    DamagedShards {
        /// The part.
        path: PathBuf,
        /// What is wrong with the first ones.
        faults: Vec<String>,
    },
}

impl PackError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        use PackError::*;
        Some(match self {
            JobDiffers { out, by_worker: true, .. } => format!(
                "give all workers the same input and options; to begin anew, remove {}",
                out.display()
            ),
            JobDiffers { out, .. } => format!(
                "go on with the input and options it was begun with, choose another folder, or \
                 give --restart to drop what is done in {} and begin anew",
                out.display()
            ),
            DamagedJournal { .. } => {
                "give --restart to begin anew; of a worker's part, remove the \
                 folder and run the worker again"
                    .into()
            }
            Interrupted { .. } => "run the same command again: it goes on from there".into(),
            NoSpace { path, bytes_left, shards, shards_total, source, .. } => {
                let kept =
                    format!("{shards} of {} are done and kept", units::of(*shards_total, "shard"));
                match source.hint() {
                    Some(limit) if source.source.kind() == std::io::ErrorKind::FileTooLarge => {
                        format!("{limit}; {kept}")
                    }
                    _ => format!(
                        "free about {} on the disk that holds {} for what is left, then run the \
                         same command again: {kept}",
                        units::bytes(*bytes_left),
                        path.display()
                    ),
                }
            }
            LongName { .. } => "give the identity a shorter name".into(),
            NotAPart { .. } => {
                "give the folders that `pfc-ingest pack RAW OUT --worker I/N` wrote".into()
            }
            PartDiffers { .. } => {
                "merge the parts of one job: the same input, options and version for all workers"
                    .into()
            }
            DoubledShards { .. } => "give each part once".into(),
            MissingShards { .. } => {
                "run those workers, again where they were stopped, and give all parts".into()
            }
            DamagedShards { .. } => {
                "run the worker of this part again: it keeps what is whole and packs the rest anew"
                    .into()
            }
        })
    }
}
