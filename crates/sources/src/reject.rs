//! Why an entry of a source is left out.

use std::io;

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
    #[error("its sample has an image already")]
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
        }
    }

    /// Whether it was never meant as an image of someone, so that leaving it out loses nothing.
    pub fn is_skip(&self) -> bool {
        matches!(self, Reject::OtherFile | Reject::SystemFile | Reject::NoIdentity)
    }
}

impl From<io::Error> for Reject {
    fn from(error: io::Error) -> Reject {
        Reject::Unreadable(error.to_string())
    }
}
