//! What can be wrong with a data set, said so that the user knows where and what to do.

use std::path::PathBuf;

use arrow_schema::ArrowError;
use pfc_durable::{DurableError, faults::is_of_system};
use pfc_image::ImageError;

use crate::{
    ImageSize,
    format::{FORMAT, MANIFEST_FILE},
    hash::Checksum,
};

/// A data set that cannot be read or written. Rows are counted from 0.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The folder has no manifest.
    #[error("{}: no data set here: {MANIFEST_FILE} is missing", dir.display())]
    NotADataset {
        /// The folder that was opened.
        dir: PathBuf,
    },
    /// The folder already holds a finished data set.
    #[error("{}: holds a finished data set, which is never overwritten", dir.display())]
    AlreadyExists {
        /// The folder that was to be written.
        dir: PathBuf,
    },
    /// The manifest is not JSON, or lacks a field.
    #[error("{}: cannot be parsed", path.display())]
    ManifestSyntax {
        /// The manifest.
        path: PathBuf,
        /// Line, column and what was expected there.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest is not the text that was written.
    #[error("{}: is not as it was written: its checksum is another one", path.display())]
    ManifestDamaged {
        /// The manifest.
        path: PathBuf,
    },
    /// The manifest contradicts itself.
    #[error("{}: contradicts itself: {what}", path.display())]
    BadManifest {
        /// The manifest.
        path: PathBuf,
        /// The contradiction.
        what: String,
    },
    /// A file of another version of the format.
    #[error("{}: is of format {found}, this program reads format {FORMAT}", path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// A file that the manifest lists does not exist.
    #[error("{}: is missing, but the manifest lists it", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A file is longer or shorter than listed.
    #[error("{}: has {found} bytes, but the manifest lists {expected}", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The size in the manifest.
        expected: u64,
    },
    /// A file's bytes are not those that were written.
    #[error("{}: has checksum {found}, but the manifest lists {expected}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Its checksum.
        found: Checksum,
        /// The checksum in the manifest.
        expected: Checksum,
    },
    /// The table of detections is not as it was written.
    #[error("{}: is no table of the detections of {n_rows} rows, or not whole", path.display())]
    Detections {
        /// The file.
        path: PathBuf,
        /// Rows of the data set.
        n_rows: u64,
    },
    /// The measures of quality are not as they were written, or of other rows.
    #[error("{}: are no measures of this data set: {what}", path.display())]
    Quality {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A column that the measures of quality have not.
    #[error("{}: has no column `{name}`, but {measures}", path.display())]
    NoSuchMeasure {
        /// The table.
        path: PathBuf,
        /// The column asked for.
        name: String,
        /// Those that there are.
        measures: String,
    },
    /// A data set whose quality nobody has measured.
    #[error("{}: its quality has not been measured", dir.display())]
    NotMeasured {
        /// The data set.
        dir: PathBuf,
    },
    /// A file's structure is broken, or it is no Arrow file at all.
    #[error("{}: is not a whole Arrow file: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The first thing found wrong.
        what: String,
    },
    /// A file's columns are not those of the format.
    #[error("{}: has the columns ({found}), expected ({expected})", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Names and types found.
        found: String,
        /// Names and types of the format.
        expected: String,
    },
    /// A file has more or fewer rows than listed.
    #[error("{}: has {found} rows, but the manifest lists {expected}", path.display())]
    RowCount {
        /// The file.
        path: PathBuf,
        /// Its rows.
        found: u64,
        /// The rows in the manifest.
        expected: u64,
    },
    /// A row of an identity that does not exist.
    #[error(
        "{}: row {row} has label {label}, but the manifest lists {n_identities} identities",
        path.display()
    )]
    LabelOutOfRange {
        /// The file.
        path: PathBuf,
        /// The row in this file.
        row: u64,
        /// Its label.
        label: u32,
        /// Labels are below this.
        n_identities: u32,
    },
    /// Rows and table of identities contradict one another.
    #[error("row {row} has label {label}, of which the table of identities counts fewer rows")]
    Uncounted {
        /// The row in the data set.
        row: u64,
        /// Its label.
        label: u32,
    },
    /// An identity has more or fewer rows than the table of identities says.
    #[error("identity {label} (`{name}`) has {expected} images in the table, but {found} rows")]
    Counts {
        /// The identity.
        label: u32,
        /// Its first name.
        name: String,
        /// Rows with this label.
        found: u64,
        /// Images in the table.
        expected: u64,
    },
    /// A row of another size than the data set's.
    #[error("{}: row {row} is {found} pixels, but images are {expected}", path.display())]
    RowSize {
        /// The file.
        path: PathBuf,
        /// The row in this file.
        row: u64,
        /// Its size.
        found: ImageSize,
        /// The size of all images.
        expected: ImageSize,
    },
    /// An image or source name too long to be a face crop's.
    #[error("{}: row {row} has {what} of {bytes} bytes, the limit is {max}", path.display())]
    RowTooLarge {
        /// The file being written.
        path: PathBuf,
        /// The row that was refused.
        row: u64,
        /// `an image` or `a source`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A row beyond the last.
    #[error("there is no row {row}: the data set has {n_rows} rows")]
    NoSuchRow {
        /// The row asked for.
        row: u64,
        /// Rows of the data set.
        n_rows: u64,
    },
    /// A row whose image gives no pixels.
    #[error("row {row} of the data set, `{face}`, cannot be decoded")]
    Undecodable {
        /// The row of the data set.
        row: u64,
        /// Where its image came from.
        face: String,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// A row whose image has not the bytes that were packed.
    #[error("row {row}, `{face}`, is not as it was packed: its image does not match its hash")]
    DamagedImage {
        /// The row of the data set.
        row: u64,
        /// Where its image came from.
        face: String,
    },
    /// Rows were written with a label that got no name.
    #[error("{}: label {label} is used, but only {n_identities} identities are named", dir.display())]
    UnnamedLabel {
        /// The data set being finished.
        dir: PathBuf,
        /// The largest such label.
        label: u32,
        /// Number of names given.
        n_identities: u32,
    },
    /// Two identities of one name, or one without any.
    #[error("{}: {what}", path.display())]
    IdentityName {
        /// The table of identities.
        path: PathBuf,
        /// Which labels and which name.
        what: String,
    },
    /// The arguments of a writer make no sense.
    #[error("{}: cannot be written: {what}", path.display())]
    BadSpec {
        /// The data set or file to be written.
        path: PathBuf,
        /// The argument and its bounds.
        what: String,
    },
    /// The Arrow library refused to write.
    #[error("{}: cannot write", path.display())]
    Arrow {
        /// The file.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: ArrowError,
    },
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl ShardError {
    /// Whether this is a fact about one image, which can be left out, and no fault of the data set or
    /// of the system.
    pub fn is_of_image(&self) -> bool {
        matches!(self, ShardError::Undecodable { source, .. } if !source.is_of_system())
    }

    /// Whether the system failed, which says nothing of the data set.
    pub fn is_of_system(&self) -> bool {
        match self {
            ShardError::Durable(error) => is_of_system(&error.source),
            ShardError::Undecodable { source, .. } => source.is_of_system(),
            _ => false,
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        use ShardError::*;
        let again = "restore the file from a copy, or pack the data set again";
        let hint = match self {
            NotADataset { dir } => format!(
                "give the folder that `pfc-ingest pack` wrote; it writes {MANIFEST_FILE} last, so if \
                 {} comes from an interrupted pack, run that again",
                dir.display()
            ),
            AlreadyExists { dir } => {
                format!("choose another folder, or remove {} first", dir.display())
            }
            ManifestSyntax { .. } | BadManifest { .. } | ManifestDamaged { .. } => {
                "the manifest was edited or damaged: restore it from a copy, or pack again".into()
            }
            UnsupportedFormat { .. } => {
                "use the version of pfc that wrote it, or pack the data set again with this one"
                    .into()
            }
            MissingFile { .. } => format!("the copy of the data set is incomplete: {again}"),
            FileSize { found, expected, .. } if found < expected => {
                format!("the file was cut short, as by an interrupted copy: {again}")
            }
            FileSize { .. }
            | Checksum { .. }
            | Malformed { .. }
            | RowCount { .. }
            | Detections { .. }
            | Uncounted { .. }
            | Counts { .. } => {
                format!("`pfc-ingest verify` lists everything that is damaged; {again}")
            }
            Quality { .. } => {
                "`pfc-ingest quality DATASET --force` measures again; it replaces what is there"
                    .into()
            }
            NoSuchMeasure { .. } => {
                "norm and fiqa take a network: see `pfc-ingest quality --help`".into()
            }
            NotMeasured { dir } => {
                format!("`pfc-ingest quality {}` measures it", dir.display())
            }
            Schema { .. } => format!("another program wrote this file in place of ours: {again}"),
            LabelOutOfRange { n_identities: 0, .. } => "the data set has no identities".into(),
            LabelOutOfRange { n_identities, .. } => format!(
                "labels run from 0 to {}; `pfc-ingest verify` lists every bad row",
                n_identities - 1
            ),
            RowSize { expected, .. } => {
                format!("all images of a data set have one size: {expected}")
            }
            RowTooLarge { .. } => "a face crop is far smaller: is the input the right one?".into(),
            NoSuchRow { n_rows: 0, .. } => "the data set is empty".into(),
            NoSuchRow { n_rows, .. } => format!("rows run from 0 to {}", n_rows - 1),
            Undecodable { source, .. } if source.is_of_system() => return source.hint(),
            Undecodable { .. } => {
                "`pfc-ingest clean` leaves images out that cannot be decoded; `pfc-ingest verify \
                 --decode` lists them"
                    .into()
            }
            DamagedImage { .. } => {
                format!("`pfc-ingest verify` lists everything that is damaged; {again}")
            }
            UnnamedLabel { .. } => "name every label, from 0 to the largest used".into(),
            IdentityName { .. } => "give every identity a name of its own".into(),
            BadSpec { .. } | Arrow { .. } => return None,
            Durable(source) => return source.hint(),
        };
        Some(hint)
    }
}
