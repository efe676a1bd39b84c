//! What is wrong with an input, where in it, and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_binpack::PackError as BinError;
use pfc_durable::DurableError;
use pfc_recordio::{Fault, RecordError};

use crate::{kind::InputKind, landmarks::LandmarkError, unread::COMPRESSED_ARROW};

/// An input that cannot be read as what it is said, or seems, to be.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
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
    /// A source without images.
    #[error("{path}: holds no images")]
    NoImages {
        /// The source.
        path: String,
    },
    /// A folder below which there is no image.
    #[error("{}: no image is in it; {seen}", path.display())]
    NoImagesBelow {
        /// The folder.
        path: PathBuf,
        /// What it holds instead.
        seen: String,
    },
    /// Not one image of a source could be used.
    #[error("{path}: {}", pfc_cli::units::none_can(*n, "image", "read"))]
    NothingUsable {
        /// The source.
        path: String,
        /// Images tried.
        n: u64,
        /// The first image and its reason.
        example: String,
    },
    /// Nothing says whom any of a source's images shows.
    #[error("{path}: {}: {why}", pfc_cli::units::none_can(*n, "image", "assigned to an identity"))]
    Unlabelled {
        /// The source.
        path: String,
        /// Its images.
        n: u64,
        /// What is missing.
        why: &'static str,
    },
    /// The user stopped it.
    #[error("interrupted while {path} was listed")]
    Interrupted {
        /// The source.
        path: String,
    },
    /// The input is not there.
    #[error("{}: there is no such folder", path.display())]
    NoSuchFolder {
        /// The path given.
        path: PathBuf,
    },
    /// The input is a file.
    #[error("{}: is a file, not a folder of identities", path.display())]
    NotAFolder {
        /// The path given.
        path: PathBuf,
    },
    /// No folder below the input holds images.
    #[error("{}: no identity folder with images in it; {seen}", path.display())]
    NoIdentities {
        /// The folder searched.
        path: PathBuf,
        /// What it holds instead.
        seen: String,
        /// Images that lie directly in it.
        n_loose: u64,
        /// A file beside them that may say who is on them.
        list: Option<String>,
    },
    /// A folder with images lies in another one.
    #[error(
        "`{inner}` lies inside `{outer}`, and both hold images, so that it is unclear which is the identity"
    )]
    NestedIdentity {
        /// The outer identity folder, relative to the input.
        outer: String,
        /// The inner one.
        inner: String,
    },
    /// More of something than a data set holds.
    #[error("{path}: {what} are more than a data set can hold")]
    TooMany {
        /// The source.
        path: String,
        /// What, and the bound.
        what: String,
    },
    /// An `.idx` file that belongs to another `.rec` file, or to another state of this one.
    #[error(
        "{}: at {n_missing} of the {n} places that its .idx file lists no record begins: it is the \
         index of another file, or this one is damaged",
        path.display()
    )]
    ForeignIndex {
        /// The `.rec` file.
        path: PathBuf,
        /// Images that are not where they are said to be.
        n_missing: u64,
        /// Images that the index lists.
        n: u64,
    },
    /// An index that does not list images which its file holds.
    #[error(
        "{}: its .idx file does not list {n_unlisted} of its images, the first of which begins at byte \
         {offset}",
        path.display()
    )]
    ShortIndex {
        /// The `.rec` file.
        path: PathBuf,
        /// Images that the index does not list.
        n_unlisted: u64,
        /// Where the first of them begins.
        offset: u64,
    },
    /// An index that lists records of identities, but not the record that says so.
    #[error(
        "{}: its .idx file does not list record 0, which begins at byte {offset} and says which records \
         are images",
        path.display()
    )]
    IndexWithoutFirst {
        /// The `.rec` file.
        path: PathBuf,
        /// Where record 0 begins.
        offset: u64,
    },
    /// `--salvage` for something else than RecordIO or tar.
    #[error("--salvage reads what is left of damaged .rec and tar files, and this is {}", kind.describe())]
    SalvageOfOther {
        /// What it is.
        kind: InputKind,
    },
    /// An option for something that it says nothing about.
    #[error("{option} is for {what}, and this is {}", kind.describe())]
    OptionOfOther {
        /// The option.
        option: &'static str,
        /// What it is for.
        what: &'static str,
        /// What it is.
        kind: InputKind,
    },
    /// A format that is known and not read.
    #[error("{}: is {what}", path.display())]
    OtherFormat {
        /// The file or folder.
        path: PathBuf,
        /// Its name.
        what: String,
        /// What to do instead.
        way_out: String,
    },
    /// A folder whose images lie below it, in more than one place or way.
    #[error("{}: holds no identity folders, but {}", path.display(), seen.join(", "))]
    Below {
        /// The folder.
        path: PathBuf,
        /// What was seen in it.
        seen: Vec<String>,
        /// What to give instead, for example.
        example: PathBuf,
    },
    /// A data set with several splits, none of which is asked for.
    #[error("{}: holds the splits {}", path.display(), splits.join(" and "))]
    Splits {
        /// The folder.
        path: PathBuf,
        /// What they are called.
        splits: Vec<String>,
        /// Whether several can be read as one.
        are_joined: bool,
    },
    /// A split that is not there.
    #[error("{}: there is no split `{wanted}`", path.display())]
    NoSplit {
        /// The folder.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        splits: Vec<String>,
    },
    /// A file of another program that is not whole, or of a kind that is not read.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A link leads back to a folder that it lies in.
    #[error("{}: is a link back to {}, so the folder has no end", path.display(), ancestor.display())]
    FolderLoop {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        ancestor: PathBuf,
    },
    /// A folder of the images is another than it was when they were listed.
    #[error("{}: the folder that the images lie in is gone", path.display())]
    Gone {
        /// The folder.
        path: PathBuf,
    },
    /// A RecordIO file could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A verification pack could not be read.
    #[error(transparent)]
    Bin(#[from] BinError),
    /// A list of landmarks could not be understood.
    #[error(transparent)]
    Landmarks(#[from] LandmarkError),
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl SourceError {
    /// Turns an I/O error into one that names `op` and `path`; for `map_err`.
    pub(crate) fn at(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SourceError {
        move |source| DurableError::at(op, path)(source).into()
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            SourceError::Unknown { .. } => {
                "say what it is with --from: recordio, list, tar, zip, parquet, bin, tfrecord or lmdb; \
                 or give a folder with one sub-folder of images per identity, as in faces/NAME/1.jpg"
                    .into()
            }
            SourceError::Gone { .. } => {
                "was it unmounted or renamed? put it back and run the same command again: it goes on \
                 where it was, and no image was left out for it"
                    .into()
            }
            SourceError::NotThere { .. } => "is the path right?".into(),
            SourceError::Contradiction { .. } => {
                "say with --from how it is to be read, or give another path".into()
            }
            SourceError::RootWithoutList { .. } => "leave out --root, or give a list".into(),
            SourceError::NoShards { path, .. } => format!(
                "files in sub-folders are not looked for: give the folder that holds them, one file, \
                 or a pattern in quotes such as '{}/train-{{0000..0127}}.tar'",
                path.display()
            ),
            SourceError::MissingShards { .. } => {
                "is the download complete, and is the pattern right?".into()
            }
            SourceError::Pattern { .. } => {
                "a pattern names files by ranges, choices and wild cards, as in \
                 'train-{0000..0127}.tar', '{train,val}.parquet' or 'part_*.rec'"
                    .into()
            }
            SourceError::Line { .. } => {
                "a list has lines `path<TAB>label`, or a header with the columns path and label or \
                 identity, and perhaps x1,y1 to x5,y5; --columns image=NAME,label=NAME names others, \
                 or their numbers where there is no header"
                    .into()
            }
            SourceError::Tar { .. } => {
                "is the copy complete? If there is no better one, --salvage packs the samples that \
                 are whole and lists the damage"
                    .into()
            }
            SourceError::Table { problem, .. } => table_hint(problem),
            SourceError::NoImages { .. } => "is it the right file, and is the copy complete?".into(),
            SourceError::NoImagesBelow { .. } => {
                "a folder is searched for images at any depth, told by name or content; other inputs \
                 are a data set, .rec, .tar, .parquet, .arrow and .bin files, and lists of paths"
                    .into()
            }
            SourceError::Interrupted { .. } => {
                "run the same command again; no data set was left behind".into()
            }
            SourceError::NothingUsable { example, .. } => format!("the first one: {example}"),
            SourceError::Unlabelled { .. } => {
                "pack a list of the images with their labels, or a folder with one sub-folder of images \
                 per identity"
                    .into()
            }
            SourceError::NoSuchFolder { .. } => "is the path right?".into(),
            SourceError::NotAFolder { .. } => {
                "give a folder with one sub-folder of images per identity, as in faces/NAME/1.jpg, \
                 or say with --from what the file is"
                    .into()
            }
            SourceError::NoIdentities { path, n_loose: 0, .. } => format!(
                "put the images of each identity in a folder of its own, as in {}/NAME/1.jpg",
                path.display()
            ),
            SourceError::NoIdentities { path, n_loose, list: Some(list), .. } => {
                let list = path.join(list);
                format!(
                    "{n_loose} images lie directly in {}, and {} may say who is on them: pack that list",
                    path.display(),
                    list.display()
                )
            }
            SourceError::NoIdentities { path, n_loose, list: None, .. } => format!(
                "{n_loose} images lie directly in {0}: put those of each identity in a folder of \
                 its own, as in {0}/NAME/1.jpg, or give the folder above",
                path.display()
            ),
            SourceError::NestedIdentity { outer, .. } => format!(
                "an identity is a folder of images without further identities in it: move the \
                 images that lie directly in `{outer}` to a folder of their own"
            ),
            SourceError::TooMany { .. } => "split the input into several data sets".into(),
            SourceError::ForeignIndex { path, .. } => format!(
                "fetch the right .idx file, or move {} away: the .rec file is then walked through; \
                 --salvage ignores it as well, and lists what is damaged",
                path.with_extension("idx").display()
            ),
            SourceError::ShortIndex { path, .. } | SourceError::IndexWithoutFirst { path, .. } => format!(
                "fetch the whole .idx file, or move {} away, and every image is found without it; \
                 --salvage ignores it as well, and lists what is damaged",
                path.with_extension("idx").display()
            ),
            SourceError::SalvageOfOther { .. } => "leave out --salvage".into(),
            SourceError::OptionOfOther { option, .. } => format!("leave out {option}"),
            SourceError::OtherFormat { way_out, .. } => way_out.clone(),
            SourceError::Below { example, .. } => {
                format!("give one of them, such as {}", example.display())
            }
            SourceError::Splits { splits, are_joined: false, .. } => {
                format!("--split {} takes one of them", splits.first().map_or("", String::as_str))
            }
            SourceError::Splits { splits, are_joined: true, .. } => format!(
                "--split {} takes one of them, and --split {} joins them",
                splits.first().map_or("", String::as_str),
                splits.join(",")
            ),
            SourceError::NoSplit { splits, .. } if splits.is_empty() => {
                "leave out --split: nothing in it is called as splits are".into()
            }
            SourceError::NoSplit { splits, .. } => format!("it has {}", splits.join(" and ")),
            SourceError::Damaged { problem, .. } => damaged_hint(problem),
            SourceError::FolderLoop { path, .. } => format!("remove the link {}", path.display()),
            SourceError::Durable(source) => return source.hint(),
            SourceError::Record(source) => return record_hint(source),
            SourceError::Bin(source) => return source.hint(),
            SourceError::Landmarks(source) => return source.hint(),
        })
    }
}

/// The way out of a damaged RecordIO file, in the words of the command line.
fn record_hint(error: &RecordError) -> Option<String> {
    let hint = error.hint()?;
    Some(match error {
        // What is no RecordIO file has no whole records.
        RecordError::Damaged { offset: 0, fault: Fault::NoMagic { .. }, .. } => hint,
        RecordError::Damaged { .. } | RecordError::IndexOffset { .. } => {
            format!("{hint}; or pack what is whole with --salvage, which lists the damage")
        }
        RecordError::IndexSyntax { .. } | RecordError::DuplicateKey { .. } => {
            format!("{hint}; --salvage ignores it as well")
        }
        _ => hint,
    })
}

/// What is wrong may be the columns, or that a file is not what it should be.
fn damaged_hint(problem: &str) -> String {
    if problem.contains("column") {
        return "--columns image=NAME,label=NAME says which is what".into();
    }
    "is the copy complete? If it is, the program that wrote it can write the images to folders, one per \
     identity, or to a list"
        .into()
}

/// What is wrong with a table may be its columns, or that it is not what it should be.
fn table_hint(problem: &str) -> String {
    // It speaks of columns as well.
    if problem.contains(COMPRESSED_ARROW) {
        return "write it without compression, as `pyarrow.feather.write_feather(table, path, \
                compression=\"uncompressed\")` does, or as Parquet, which may be compressed"
            .into();
    }
    if problem.contains("column") {
        return "an image table has a column `image` of encoded bytes, or of {bytes, path} as Hugging \
                Face writes it, or of paths that start at --root, and a column `label` or `identity` of numbers or text; --columns \
                image=NAME,label=NAME names others"
            .into();
    }
    for codec in ["BROTLI", "brotli", "LZO", "lzo"] {
        if problem.contains(codec) {
            return "it is compressed in a way that is not read: write it with snappy, gzip, zstd, \
                    lz4 or uncompressed, as `pq.write_table(table, path, compression=\"zstd\")` does"
                .into();
        }
    }
    "is the copy complete? A file of Git LFS that was not fetched holds a few lines of text".into()
}
