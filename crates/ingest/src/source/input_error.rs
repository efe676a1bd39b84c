//! What is wrong with an input of `pack`, where in it, and what to do.

use std::path::PathBuf;

use super::choose::InputKind;
use crate::IngestError;

/// An input that cannot be read as what it is said, or seems, to be.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Neither name nor content is known.
    #[error("{}: neither its name nor its first bytes say what it is", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing of this name.
    #[error("{}: there is no such file or folder", path.display())]
    NotThere {
        /// The path given.
        path: PathBuf,
    },
    /// Options, names and bytes say different things.
    #[error("{}: {what}", path.display())]
    Contradiction {
        /// The file or folder.
        path: PathBuf,
        /// What says what.
        what: String,
    },
    /// `--root` for something that is no list.
    #[error("--root is the folder of the images of a list, and this is {}", kind.describe())]
    RootWithoutList {
        /// What it is.
        kind: InputKind,
    },
    /// A folder without files of the kind.
    #[error("{}: no {what} in it", path.display())]
    NoShards {
        /// The folder.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Files that a pattern names and that are not there.
    #[error("{pattern}: {n_missing} of its {n} files are missing, first {}", first.display())]
    MissingShards {
        /// The pattern.
        pattern: String,
        /// How many are missing.
        n_missing: usize,
        /// How many it names.
        n: usize,
        /// The first missing one.
        first: PathBuf,
    },
    /// A pattern that cannot be expanded.
    #[error("{pattern}: {problem}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why not.
        problem: String,
    },
    /// A line of a list.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The list.
        path: String,
        /// Line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The bytes of a tar file.
    #[error("{}: byte {offset}: {problem}", path.display())]
    Tar {
        /// The file.
        path: PathBuf,
        /// Where in it, once unpacked.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// A Parquet or Arrow file.
    #[error("{}: {problem}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A number and two names for it.
    #[error("{path}: label {label} is given to `{first}` and to `{second}`")]
    LabelOfTwo {
        /// The source.
        path: String,
        /// The label.
        label: u64,
        /// One identity.
        first: String,
        /// Another.
        second: String,
    },
    /// An image that does not go with the others.
    #[error("{place}: {problem}")]
    Clash {
        /// Where the image is listed.
        place: String,
        /// Why not.
        problem: String,
    },
    /// A source without images.
    #[error("{path}: holds no images")]
    NoImages {
        /// The source.
        path: String,
    },
    /// The user stopped it.
    #[error("interrupted while {path} was listed")]
    Interrupted {
        /// The source.
        path: String,
    },
}

impl InputError {
    /// That the image listed at `place` does not go with the others.
    pub fn clash(place: &str, problem: String) -> IngestError {
        InputError::Clash { place: place.to_owned(), problem }.into()
    }

    /// The way out.
    pub fn hint(&self) -> String {
        match self {
            InputError::Unknown { .. } => {
                "say what it is with --from: recordio, list, tar, parquet or bin; or give a folder \
                 with one sub-folder of images per identity, as in faces/NAME/1.jpg"
                    .into()
            }
            InputError::NotThere { .. } => "is the path right?".into(),
            InputError::Contradiction { .. } => {
                "say with --from how it is to be read, or give another path".into()
            }
            InputError::RootWithoutList { .. } => "leave out --root, or give a list".into(),
            InputError::NoShards { path, .. } => format!(
                "files in sub-folders are not looked for: give the folder that holds them, one file, \
                 or a pattern in quotes such as '{}/train-{{0000..0127}}.tar'",
                path.display()
            ),
            InputError::MissingShards { .. } => {
                "is the download complete, and are the numbers of the pattern right?".into()
            }
            InputError::Pattern { .. } => {
                "a pattern names files by ranges and choices, as in 'train-{0000..0127}.tar' or \
                 '{train,val}.parquet'"
                    .into()
            }
            InputError::Line { .. } => {
                "a list has lines `path<TAB>label`, or a header with the columns path and label or \
                 identity, and perhaps x1,y1 to x5,y5"
                    .into()
            }
            InputError::Tar { .. } => {
                "WebDataset's shards are read: .tar, .tar.gz or .tar.zst; is the copy complete?"
                    .into()
            }
            InputError::Table { .. } => {
                "an image table has a column `image` of encoded bytes, or of {bytes, path} as Hugging \
                 Face writes it, and a column `label` or `identity` of integers or text"
                    .into()
            }
            InputError::LabelOfTwo { .. } | InputError::Clash { .. } => {
                "where a label and an identity are both given, each label belongs to one identity"
                    .into()
            }
            InputError::NoImages { .. } => "is it the right file, and is the copy complete?".into(),
            InputError::Interrupted { .. } => {
                "run the same command again; no data set was left behind".into()
            }
        }
    }
}
