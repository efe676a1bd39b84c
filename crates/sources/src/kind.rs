//! The kinds of input.

use clap::ValueEnum;

/// How `pack` may be told to read its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputKind {
    /// A folder with one folder of images per identity.
    Folder,
    /// `MXNet` RecordIO: .rec files, or a folder of them.
    #[value(help = "MXNet RecordIO: .rec files, or a folder of them")]
    Recordio,
    /// A list of images with their labels: lines `path<TAB>label`, CSV, or .lst.
    List,
    /// `WebDataset` shards: .tar, .tar.gz or .tar.zst.
    #[value(help = "WebDataset shards: .tar, .tar.gz or .tar.zst")]
    Tar,
    /// Tables with images, as Hugging Face stores them: .parquet or .arrow.
    Parquet,
    /// A verification pack of `InsightFace`.
    #[value(help = "A verification pack of InsightFace")]
    Bin,
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
            InputKind::Bin => "a verification pack",
        }
    }
}
