//! Why an entry of a source is left out, and why reading stops altogether.

use std::{io, path::Path};

use pfc_durable::faults::is_of_system;
use pfc_image::LeadsOut;

use crate::error::SourceError;

/// Why the bytes of one entry cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A fact about this entry, which is left out; others may be read.
    #[error(transparent)]
    Reject(#[from] Reject),
    /// A fault of the system, or a source that is gone. It says nothing of the entry, which may be read
    /// later: whoever works on the source has to stop.
    #[error(transparent)]
    Fault(#[from] SourceError),
}

impl ReadError {
    /// What an I/O error at `path` means, where the source itself is one file.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
        let path = path.to_path_buf();
        move |error| match is_of_system(&error) || error.kind() == io::ErrorKind::NotFound {
            true => SourceError::at("read", &path)(error).into(),
            false => Reject::Unreadable(error.to_string()).into(),
        }
    }
}

/// Why something is not packed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reject {
    /// It is another kind of file: nothing is lost.
    #[error("not an image, by name and content")]
    OtherFile,
    /// A system's own file or folder, such as `.DS_Store` or `__MACOSX`, with all that is in it.
    #[error("a file or folder of the system, by its name")]
    SystemFile,
    /// An image that belongs to nobody.
    #[error("the image lies in no identity folder")]
    NoIdentity,
    /// An image whose identity is not said, or not in a way that is understood.
    #[error("{0}")]
    NoLabel(String),
    /// A line of a list that cannot be understood.
    #[error("{0}")]
    BadLine(String),
    /// A stretch of a damaged file that holds no readable entry.
    #[error("{0}")]
    Damaged(String),
    /// A sample or a row without an image.
    #[error("there is no image in it")]
    NoImage,
    /// A sample has one image.
    #[error("its sample, the members whose names agree up to the first dot, has an image already")]
    SecondImage,
    /// The file cannot be read.
    #[error("cannot read: {0}")]
    Unreadable(String),
    /// A link that leads nowhere.
    #[error("the link leads to no file")]
    BrokenLink,
    /// Names are stored as UTF-8.
    #[error("its name is not valid UTF-8")]
    NameNotUtf8,
    /// More bytes than any image has.
    #[error("the file has {bytes} bytes, more than the {bytes_max} allowed")]
    TooManyBytes {
        /// Size of the file.
        bytes: u64,
        /// Most bytes allowed.
        bytes_max: u64,
    },
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// A path that leads out of the folder which all images of the list lie in.
    #[error(transparent)]
    OutsidePath(#[from] LeadsOut),
    /// Nobody knows where the face is.
    #[error("no landmarks are listed for it")]
    NoLandmarks,
}

impl Reject {
    /// A short fixed word for the reason, to count and filter by.
    pub fn reason(&self) -> &'static str {
        match self {
            Reject::OtherFile => "other_file",
            Reject::SystemFile => "system_file",
            Reject::NoIdentity => "no_identity",
            Reject::BadLine(_) => "bad_line",
            Reject::Damaged(_) => "damaged",
            Reject::NoLabel(_) => "no_label",
            Reject::NoImage => "no_image",
            Reject::SecondImage => "second_image",
            Reject::Unreadable(_) => "unreadable",
            Reject::BrokenLink => "broken_link",
            Reject::NameNotUtf8 => "name_not_utf8",
            Reject::Missing => "missing",
            Reject::TooManyBytes { .. } => "too_large",
            Reject::OutsidePath(_) => "outside_path",
            Reject::NoLandmarks => "no_landmarks",
        }
    }

    /// Whether it was never meant as an image of someone, so that leaving it out loses nothing.
    pub fn is_skip(&self) -> bool {
        matches!(self, Reject::OtherFile | Reject::SystemFile | Reject::NoIdentity)
    }
}
