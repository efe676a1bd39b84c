//! The kinds of input.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// How `pack` may be told to read its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputKind {
    /// A folder with one folder of images per identity.
    Folder,
    /// `MXNet` RecordIO: .rec files, or a folder of them.
    #[value(help = "MXNet RecordIO: .rec files, or a folder of them")]
    Recordio,
    /// A list of images with their labels: lines `path<TAB>label`, CSV, .lst, or lines of JSON.
    List,
    /// `WebDataset` shards or identity folders in tar files, plain or compressed.
    #[value(
        help = "WebDataset shards or identity folders: .tar, .tar.gz, .tar.zst, .tar.bz2, .tar.xz"
    )]
    Tar,
    /// Identity folders in .zip archives.
    Zip,
    /// Tables with images, as Hugging Face stores them: .parquet or .arrow.
    Parquet,
    /// A verification pack of `InsightFace`.
    #[value(help = "A verification pack of InsightFace")]
    Bin,
    /// `TFRecord` files of tf.train.Example.
    #[value(name = "tfrecord", help = "TFRecord files of tf.train.Example")]
    TfRecord,
    /// An LMDB database: a folder with data.mdb, or its file.
    Lmdb,
    /// A data set of `MosaicML` Streaming: a folder with index.json and .mds files.
    #[value(help = "A data set of MosaicML Streaming: a folder with index.json and .mds files")]
    Mds,
    /// A data set of `LitData`: a folder with index.json and chunks.
    #[value(name = "litdata", help = "A data set of LitData: a folder with index.json and chunks")]
    LitData,
}

impl InputKind {
    /// What it is, for a message.
    pub fn describe(self) -> &'static str {
        match self {
            InputKind::Folder => "a folder of identities",
            InputKind::Recordio => "RecordIO",
            InputKind::List => "a list",
            InputKind::Tar => "tar",
            InputKind::Parquet => "Parquet or Arrow",
            InputKind::Zip => "zip",
            InputKind::Bin => "a verification pack",
            InputKind::TfRecord => "TFRecord",
            InputKind::Lmdb => "LMDB",
            InputKind::Mds => "MDS",
            InputKind::LitData => "LitData",
        }
    }
}

/// What is to be read, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The path given, or what lies in it.
    pub path: PathBuf,
    /// What it is.
    pub kind: InputKind,
    /// Those of its files that are read; all if empty.
    pub files: Vec<PathBuf>,
}

impl Look {
    /// All of `path`.
    pub fn of(path: &Path, kind: InputKind) -> Look {
        Look { path: path.to_path_buf(), kind, files: Vec::new() }
    }
}
