//! Where images come from. A source is indexed first, which fixes labels and order; images are then
//! read in any order from many threads.

mod bin;
mod catalogue;
mod choose;
mod file;
mod folder;
pub mod fuzzing;
mod index;
mod input_error;
mod list;
mod names;
mod recordio;
mod shards;
mod spool;
mod table;
mod tar;

use std::io::{self, Write};

use pfc_image::{ImageError, align::AlignError};

use bin::BinSource;
pub use choose::{InputOptions, open};
pub use file::read_file;
pub use folder::FolderSource;
pub use index::Index;
pub use input_error::InputError;
use list::ListSource;
pub use recordio::RecordSource;
use spool::Spool;
use table::TableSource;
use tar::TarSource;

use crate::IngestError;

/// A collection of images with identities.
pub trait Source: Sync {
    /// How the user named it, for the manifest.
    fn name(&self) -> String;

    /// Identities and images, in the order of the source.
    fn index(&self) -> &Index;

    /// What image `entry` is called in messages and in the data set.
    fn path(&self, entry: u64) -> String {
        self.index().path(entry)
    }

    /// The five points of image `entry`, where the source states them: x and y of the left eye, the
    /// right eye, the nose and the corners of the mouth, in pixels.
    fn landmarks(&self, _entry: u64) -> Option<list::Landmarks> {
        None
    }

    /// Writes what tells this input from another, so that a pack that goes on sees whether it has
    /// changed: the names of all identities and images, and more where that is at hand.
    ///
    /// # Errors
    ///
    /// That of `out`.
    fn write_names(&self, mut out: &mut dyn Write) -> io::Result<()> {
        self.index().write_names(&mut out)
    }

    /// The bytes of image `entry`, for `entry` below [`Index::len`].
    ///
    /// # Errors
    ///
    /// [`Reject`] if this one image cannot be had; others may.
    fn read(&self, entry: u64) -> Result<Vec<u8>, Reject>;

    /// What was met while indexing and is not among the entries.
    fn left_out(&self) -> &[LeftOut];
}

/// Writes the paths and sizes of a source whose index names identities alone.
fn write_paths(
    source: &dyn Source,
    n_bytes: impl Fn(u64) -> u64,
    mut out: &mut dyn Write,
) -> io::Result<()> {
    source.index().write_names(&mut out)?;
    for entry in 0..source.index().len() {
        let path = source.path(entry);
        out.write_all(&(path.len() as u64).to_le_bytes())?;
        out.write_all(path.as_bytes())?;
        out.write_all(&n_bytes(entry).to_le_bytes())?;
    }
    Ok(())
}

/// The error of a source called `name` without a usable entry.
fn nothing(name: &str, left_out: &[LeftOut]) -> IngestError {
    match left_out.first() {
        None => InputError::NoImages { path: name.to_owned() }.into(),
        Some(LeftOut { source, reject }) => IngestError::NothingUsable {
            path: name.into(),
            n: left_out.len() as u64,
            example: format!("{source}: {reject}"),
        },
    }
}

/// Something in the source that is no entry.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// Path in the source; characters that are not UTF-8 are replaced.
    pub source: String,
    /// Why.
    pub reject: Reject,
}

/// Why something is not packed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reject {
    /// It is another kind of file: nothing is lost.
    #[error("not an image, by name and content")]
    OtherFile,
    /// An image that belongs to nobody.
    #[error("the image lies in no identity folder")]
    NoIdentity,
    /// An image whose identity is not said, or not in a way that is understood.
    #[error("{0}")]
    NoLabel(String),
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
    #[error("the file's name is not valid UTF-8")]
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
    /// A path that is absolute or climbs out of its folder.
    #[error("the path leads out of the folder")]
    OutsidePath,
    /// Another line is about the same image.
    #[error("another line before it makes the same file")]
    ListedTwice,
    /// Nobody knows where the face is.
    #[error("no landmarks are listed for it")]
    NoLandmarks,
    /// The landmarks make no face.
    #[error(transparent)]
    Landmarks(#[from] AlignError),
    /// What the file holds is of no use.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl Reject {
    /// A short fixed word for the reason, to count and filter by.
    pub fn reason(&self) -> &'static str {
        match self {
            Reject::OtherFile => "other_file",
            Reject::NoIdentity => "no_identity",
            Reject::NoLabel(_) => "no_label",
            Reject::NoImage => "no_image",
            Reject::SecondImage => "second_image",
            Reject::Unreadable(_) => "unreadable",
            Reject::BrokenLink => "broken_link",
            Reject::NameNotUtf8 => "name_not_utf8",
            Reject::Missing => "missing",
            Reject::OutsidePath => "outside_path",
            Reject::ListedTwice => "listed_twice",
            Reject::NoLandmarks => "no_landmarks",
            Reject::Landmarks(_) => "landmarks",
            Reject::TooManyBytes { .. } | Reject::Image(ImageError::TooManyPixels { .. }) => {
                "too_large"
            }
            Reject::Image(ImageError::Empty) => "empty",
            Reject::Image(ImageError::NotAnImage) => "not_an_image",
            Reject::Image(ImageError::Unsupported(_)) => "unsupported",
            Reject::Image(ImageError::Truncated) => "truncated",
            Reject::Image(ImageError::Corrupt(_)) => "corrupt",
        }
    }

    /// Whether it was never meant as an image of someone, so that leaving it out loses nothing.
    pub fn is_skip(&self) -> bool {
        matches!(self, Reject::OtherFile | Reject::NoIdentity)
    }
}

impl From<io::Error> for Reject {
    fn from(error: io::Error) -> Reject {
        Reject::Unreadable(error.to_string())
    }
}
