//! Why a list of landmarks is not read.

use std::path::PathBuf;

use pfc_durable::DurableError;

/// A list that cannot be made sense of. Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum LandmarkError {
    /// Nothing but blank lines and comments.
    #[error("{}: lists no landmarks", path.display())]
    Empty {
        /// The list.
        path: PathBuf,
    },
    /// A line with more or fewer fields than the others, or than any known layout.
    #[error("{}: line {line} has {found} fields, expected {expected}", path.display())]
    Fields {
        /// The list.
        path: PathBuf,
        /// The line.
        line: u64,
        /// Its fields.
        found: usize,
        /// How many there should be.
        expected: String,
    },
    /// A coordinate that is none.
    #[error("{}: line {line}: `{text}` is not a number", path.display())]
    Number {
        /// The list.
        path: PathBuf,
        /// The line.
        line: u64,
        /// What it says in place of a number.
        text: String,
    },
    /// A line that is no text.
    #[error("{}: line {line} is not valid UTF-8", path.display())]
    NotUtf8 {
        /// The list.
        path: PathBuf,
        /// The line.
        line: u64,
    },
    /// A line beyond the bound.
    #[error("{}: line {line} is longer than {bytes_max} bytes", path.display())]
    LongLine {
        /// The list.
        path: PathBuf,
        /// The line.
        line: u64,
        /// Most bytes allowed.
        bytes_max: u64,
    },
    /// A header without the columns needed.
    #[error("{}: its header names no column for {missing}", path.display())]
    Header {
        /// The list.
        path: PathBuf,
        /// What is not there.
        missing: String,
    },
    /// No known order of the numbers makes faces of them.
    #[error(
        "{}: its points make no face in any known order (off by {residual:.0} pixels of 112)",
        path.display()
    )]
    NoFace {
        /// The list.
        path: PathBuf,
        /// Of the best order, the median distance from the template.
        residual: f64,
    },
    /// One image, two faces.
    #[error("{}: lines {first} and {second} give `{image}` different landmarks", path.display())]
    Twice {
        /// The list.
        path: PathBuf,
        /// The image.
        image: String,
        /// One line.
        first: u64,
        /// The other.
        second: u64,
    },
    /// The user stopped it.
    #[error("interrupted after {done} images of the list of landmarks")]
    Interrupted {
        /// Images read.
        done: u64,
    },
    /// The operating system refused.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl LandmarkError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        use LandmarkError::*;
        let hint = match self {
            Empty { .. } => "is it the right file, and whole?",
            Fields { .. } => {
                "a line is `path x1 y1 … x5 y5`, with tabs or blanks or as CSV, or one of the \
                 layouts of --landmark-format; a path with blanks needs a tab after it"
            }
            Number { .. } => "is a path with blanks in it? then put a tab after it, or use CSV",
            NotUtf8 { .. } => "`iconv` converts it",
            LongLine { .. } => "is it a list of landmarks?",
            Header { .. } => {
                "columns are called image, x1, y1, … x5, y5, or left_eye_x, left_eye_y, \
                 right_eye_x, … nose_x, … mouth_left_x, … mouth_right_x, …"
            }
            NoFace { .. } => {
                "if the landmarks are right, say their order with --landmark-format; the points are \
                 left eye, right eye, nose, left and right corner of the mouth, as seen in the image"
            }
            Twice { .. } => "leave one of the lines",
            Interrupted { .. } => {
                "run the same command again; nothing half-written was left behind"
            }
            Durable(source) => return source.hint(),
        };
        Some(hint.to_owned())
    }
}
