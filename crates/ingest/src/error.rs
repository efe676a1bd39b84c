//! The errors of all commands, with those of `pack` and `merge` and those of `export`.

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
};

use parquet::errors::ParquetError;
use pfc_binpack::PackError as BinError;
use pfc_clean::CleanError;
use pfc_cli::units;
use pfc_detect::DetectError;
use pfc_durable::{DurableError, FolderError};
use pfc_embeddings::EmbeddingError;
use pfc_findings::FindingsError;
use pfc_image::{ImageError, ImageSize};
use pfc_onnx::OnnxError;
use pfc_recordio::RecordError;
use pfc_shard::ShardError;
use pfc_sources::{SourceError, landmarks::LandmarkError};

/// An input that cannot be read or an output that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The folder to write is in use, holds something, or lies in the input.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The file to write is there already.
    #[error("{}: already exists", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// No identity of the data set has this name.
    #[error("{place}: the data set has no identity `{name}`")]
    NoSuchIdentity {
        /// The option, or file and line, that names it.
        place: String,
        /// The name asked for.
        name: String,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// A label beyond the last.
    #[error("label {label} is out of range ({})", match n_identities {
        1 => "1 identity".into(),
        n => format!("{n} identities"),
    })]
    NoSuchLabel {
        /// The label asked for.
        label: u32,
        /// Identities of the data set.
        n_identities: u32,
    },
    /// Images that are too large to be drawn on a sheet.
    #[error("images of {size} pixels are too large for a sheet")]
    SheetTooLarge {
        /// The size of all images.
        size: ImageSize,
    },
    /// Rows beyond the last.
    #[error("row {start} is out of range ({})", units::of(*n_rows, "row"))]
    NoSuchRows {
        /// The first row asked for.
        start: u64,
        /// Rows of the data set.
        n_rows: u64,
    },
    /// The folder to write holds a finished data set.
    #[error("{}: already holds a data set", path.display())]
    DatasetExists {
        /// The folder.
        path: PathBuf,
        /// Whether the command can replace it.
        may_force: bool,
    },
    /// The data set to be replaced has decisions, which nothing could bring back.
    #[error("{}: holds decisions about the data set that is to be replaced", path.display())]
    DecisionsKept {
        /// Their folder.
        path: PathBuf,
    },
    /// More identities than 32-bit labels can number.
    #[error("{n} identities are more than a data set can hold")]
    TooManyIdentities {
        /// Identity folders found.
        n: usize,
    },
    /// Not one image could be used.
    #[error("{}: {}", path.display(), units::none_can(*n, "image", "read"))]
    NothingUsable {
        /// The input.
        path: PathBuf,
        /// Images tried.
        n: u64,
        /// The first image and its reason.
        example: String,
    },
    /// There is no memory for an image.
    #[error("`{image}` cannot be decoded now")]
    Memory {
        /// Where the image comes from.
        image: String,
        /// What was asked for.
        #[source]
        source: ImageError,
    },
    /// A data set without rows.
    #[error("the data set holds no images")]
    NothingToMeasure,
    /// The threads cannot be started.
    #[error("cannot start {}", if *n == 0 { "a thread per core".into() } else { pfc_cli::units::of(*n as u64, "thread") })]
    Threads {
        /// Threads asked for; 0 for one per core.
        n: usize,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The user stopped it.
    #[error("interrupted after {done} of {total} images")]
    Interrupted {
        /// Images done.
        done: u64,
        /// Images in all.
        total: u64,
    },
    /// A pack that cannot go on, or parts that cannot be joined.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A selection that cannot be made, or a format that cannot hold it.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A data set could not be read or written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A log of findings that cannot be read, applied or written.
    #[error(transparent)]
    Findings(#[from] FindingsError),
    /// A RecordIO file could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A verification pack could not be read.
    #[error(transparent)]
    Bin(#[from] BinError),
    /// The input cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A detector that cannot be used.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// A network to embed with that cannot be used.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A list of landmarks could not be understood.
    #[error(transparent)]
    Landmarks(#[from] LandmarkError),
    /// Options that do not fit together.
    #[error("{what}")]
    Options {
        /// Which.
        what: String,
        /// What to give instead.
        hint: Cow<'static, str>,
    },
    /// A data set that a pass of `clean` cannot be run on.
    #[error(transparent)]
    Clean(#[from] CleanError),
    /// Embeddings that cannot be had, or are not those of the data set.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingError),
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl IngestError {
    /// Turns an I/O error into one that names `op` and `path`; for `map_err`.
    pub fn at(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IngestError {
        move |source| DurableError::at(op, path)(source).into()
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        use IngestError::*;
        let hint = match self {
            Folder(source) => return source.hint(),
            FileExists { path } => {
                format!("choose another name, or give --force to replace {}", path.display())
            }
            NoSuchIdentity { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            NoSuchIdentity { nearest: None, .. } => {
                "names are those of the folders that were packed, with `/` between them".into()
            }
            NoSuchLabel { n_identities, .. } => {
                format!("labels run from 0 to {}", u64::from(*n_identities).saturating_sub(1))
            }
            SheetTooLarge { .. } => "a sheet takes up to 1 GiB of pixels".into(),
            NoSuchRows { n_rows, .. } => {
                format!("rows run from 0 to {}", n_rows.saturating_sub(1))
            }
            DatasetExists { path, may_force: true } => format!(
                "choose another folder, or give --force to replace {} once the new one is complete",
                path.display()
            ),
            DatasetExists { path, may_force: false } => {
                format!("choose another folder, or remove {} first", path.display())
            }
            DecisionsKept { path } => format!(
                "apply them with `pfc-ingest compact`, pack into another folder, or move {} to \
                 another place if they are not wanted any more: they are about the rows of the old \
                 data set alone",
                path.display()
            ),
            TooManyIdentities { .. } => format!("a data set holds up to {} identities", u32::MAX),
            NothingUsable { example, .. } => format!("the first one: {example}"),
            Memory { source, .. } => return source.hint(),
            Threads { .. } => {
                "this user or container may not start so many: give a smaller number with --threads \
                 where the command has that option, or raise the limit (`ulimit -u`, or that of the \
                 container)"
                    .into()
            }
            NothingToMeasure => "a measurement needs some".into(),
            Interrupted { .. } => {
                "run the same command again; nothing half-written was left behind".into()
            }
            Pack(source) => return source.hint(),
            Export(source) => return source.hint(),
            Shard(source) => return source.hint(),
            Findings(source) => return source.hint(),
            Record(source) => return source.hint(),
            Bin(source) => return source.hint(),
            Source(source) => return source.hint(),
            Detect(source) => return source.hint(),
            Onnx(source) => return source.hint(),
            Landmarks(source) => return source.hint(),
            Options { hint, .. } => hint.clone().into_owned(),
            Clean(source) => return source.hint(),
            Embeddings(source) => return source.hint(),
            Durable(source) => return source.hint(),
        };
        Some(hint)
    }
}

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
    /// What should say whose an unfinished folder is proves nothing.
    #[error(
        "{}: is not a job that pfc wrote, or is damaged, so that it does not show whose the folder is",
        path.display()
    )]
    NotAJob {
        /// The file.
        path: PathBuf,
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
    #[error("no part has {shards} of {n_shards} ({of})")]
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
            NotAJob { path } => {
                let folder = path.ancestors().nth(2).unwrap_or(path);
                format!(
                    "choose another folder; if {} holds an unfinished pack and nothing that you want, \
                     remove it and begin anew",
                    folder.display()
                )
            }
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
                    Some(limit) if source.source.kind() == io::ErrorKind::FileTooLarge => {
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

/// A selection that cannot be made, or a format that cannot hold it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A list of names without any.
    #[error("{}: names no identity", path.display())]
    NoNames {
        /// The list.
        path: PathBuf,
    },
    /// Nothing is left after selection.
    #[error("nothing to export: none of {n_rows} images is selected")]
    NothingSelected {
        /// Rows of the data set.
        n_rows: u64,
    },
    /// More pairs asked for than the selected images have.
    #[error(
        "{n_pairs} pairs ask for {wanted} of {sort} in a group of {people} people, which has {found}"
    )]
    TooFewPairs {
        /// Pairs in all.
        n_pairs: u64,
        /// Pairs of the sort that a group must give.
        wanted: u64,
        /// `one person` or `two people`.
        sort: &'static str,
        /// People of the group.
        people: usize,
        /// Pairs that it has.
        found: u128,
    },
    /// A line of a list of pairs.
    #[error("{}: line {line}: {problem}", path.display())]
    PairsFile {
        /// The list.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A Parquet file could not be written.
    #[error("{}: cannot write", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        #[source]
        source: ParquetError,
    },
}

impl ExportError {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        use ExportError::*;
        let hint = match self {
            NoNames { .. } => "write one name a line".into(),
            NothingSelected { .. } => {
                "an image must pass --identity, --identities, --label and --split together".into()
            }
            TooFewPairs { .. } => "ask for fewer pairs, or select more images".into(),
            PairsFile { .. } => {
                "a line is `PATH PATH 1` for one person and `PATH PATH 0` for two, \
                                 where PATH is the source of an image; or the list is LFW's \
                                 pairs.txt"
                    .into()
            }
            Parquet { path, source } => {
                let ParquetError::External(source) = source else { return None };
                let source = source.downcast_ref::<io::Error>()?.kind().into();
                return DurableError { op: "write", path: path.clone(), source }.hint();
            }
        };
        Some(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_as_such() {
        let error =
            IngestError::at("write", Path::new("out/a.jpg"))(io::ErrorKind::StorageFull.into());
        assert_eq!(error.to_string(), "out/a.jpg: cannot write");
        assert!(error.hint().unwrap().starts_with("the disk that holds out/a.jpg is full"));
    }
}
