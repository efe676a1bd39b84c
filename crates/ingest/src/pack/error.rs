//! What stops a pack half-way, or keeps its parts from being joined.

use std::path::PathBuf;

use pfc_durable::DurableError;

use super::journal::{self, JobRecord, Journal};
use crate::{IngestError, units};

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
    #[error("{}: holds no part of a pack: {}/{} is missing", path.display(), journal::DIR, journal::JOB_FILE)]
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

/// Says of a write that failed for want of space what it was about.
pub fn explain_no_space(error: IngestError, space: impl FnOnce() -> Space) -> IngestError {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match into_durable(error) {
        Ok(source)
            if matches!(source.source.kind(), StorageFull | QuotaExceeded | FileTooLarge) =>
        {
            let Space { shard_bytes, list_bytes, bytes_left, shards, shards_total } = space();
            let path = source.path.clone();
            let is_shard = path.extension().is_some_and(|e| e == "arrow")
                && path.file_name().is_some_and(|name| name != pfc_shard::IDENTITIES_FILE);
            let bytes_wanted = if is_shard { shard_bytes } else { list_bytes };
            PackError::NoSpace { path, bytes_wanted, bytes_left, shards, shards_total, source }
                .into()
        }
        Ok(source) => source.into(),
        Err(error) => error,
    }
}

/// What a pack takes on disk, estimated, and how far it is.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    pub shard_bytes: u64,
    /// Of the lists beside the shards.
    pub list_bytes: u64,
    /// Of all that is not written yet.
    pub bytes_left: u64,
    pub shards: u64,
    pub shards_total: u64,
}

impl Space {
    /// Of a pack under way.
    pub fn of(journal: &Journal) -> Space {
        let done = (0..journal.n_shards()).filter(|index| journal.shard(*index).is_some()).count();
        let job = journal.job();
        let images_done = (done as u64).saturating_mul(job.shard_images).min(job.images);
        Space {
            bytes_left: Space::bytes_of(job, job.images - images_done),
            shards: done as u64,
            ..Space::of_none(job)
        }
    }

    /// Of one that has not begun.
    pub fn of_none(job: &JobRecord) -> Space {
        let shard_images = job.shard_images.min(job.images);
        Space {
            shard_bytes: shard_images.saturating_mul(job.row_bytes),
            list_bytes: Space::bytes_of(job, 0),
            bytes_left: Space::bytes_of(job, job.images),
            shards: 0,
            shards_total: job.n_shards(),
        }
    }

    /// Of so many images and the lists.
    fn bytes_of(job: &JobRecord, images: u64) -> u64 {
        // What the table of identities takes besides the names.
        let table = job.identities.saturating_mul(24);
        let lists = job.labels_list.bytes.saturating_add(job.left_out_list.bytes);
        images.saturating_mul(job.row_bytes).saturating_add(lists).saturating_add(table)
    }
}

fn into_durable(error: IngestError) -> Result<DurableError, IngestError> {
    use pfc_shard::ShardError;
    match error {
        IngestError::Durable(source) | IngestError::Shard(ShardError::Durable(source)) => {
            Ok(source)
        }
        IngestError::Io { op, path, source }
        | IngestError::Shard(ShardError::Io { op, path, source }) => {
            Ok(DurableError { op, path, source })
        }
        other => Err(other),
    }
}

/// Numbers as people write them: `shard 3`, `shards 1-4, 9`. At most a dozen ranges.
pub fn name_shards(shards: &[u64]) -> String {
    const RANGES_MAX: usize = 12;
    let ranges: Vec<&[u64]> = shards.chunk_by(|a, b| *b == a + 1).collect();
    let name = |range: &&[u64]| match range {
        [] => String::new(),
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
    };
    let mut names: Vec<String> = ranges.iter().take(RANGES_MAX).map(name).collect();
    if ranges.len() > RANGES_MAX {
        names.push("...".into());
    }
    let noun = if shards.len() == 1 { "shard" } else { "shards" };
    format!("{noun} {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_named_in_ranges() {
        assert_eq!(name_shards(&[3]), "shard 3");
        assert_eq!(name_shards(&[1, 2, 3, 9, 11, 12]), "shards 1-3, 9, 11-12");
        let even: Vec<u64> = (0..100).step_by(2).collect();
        assert!(name_shards(&even).ends_with("20, 22, ..."));
    }

    #[test]
    fn a_write_that_fails_for_another_reason_stays_as_it_is() {
        let error = IngestError::at("write", "a".as_ref())(std::io::ErrorKind::NotFound.into());
        let space = || unreachable!("it is not for want of space");
        assert_eq!(explain_no_space(error, space).to_string(), "a: cannot write");
    }
}
