//! Errors of lists of landmarks.

use std::path::PathBuf;

use pfc_durable::DurableError;

/// A line that gives no image its landmarks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
    /// The image that it is about, where that can be told.
    pub image: Option<String>,
}

/// A list that cannot be understood. Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum LandmarkError {
    /// Nothing but blank lines and comments.
    #[error("{}: lists no landmarks", path.display())]
    Empty {
        /// The list.
        path: PathBuf,
    },
    /// A first line with more or fewer fields than any known layout.
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
    /// A list without a line that can be understood.
    #[error("{}: {}", path.display(), pfc_cli::units::none_can(*n, "line", "understood"))]
    NoLine {
        /// The list.
        path: PathBuf,
        /// Its lines.
        n: u64,
        /// The first one, and what is wrong with it.
        example: String,
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
            NoLine { example, .. } => {
                return Some(format!(
                    "the first one: {example}; a line is `path x1 y1 … x5 y5` in UTF-8, with tabs or \
                     blanks or as CSV, and a path with blanks needs a tab after it"
                ));
            }
            Header { .. } => {
                "columns are called image, x1, y1, … x5, y5, or left_eye_x, left_eye_y, \
                 right_eye_x, … nose_x, … mouth_left_x, … mouth_right_x, …"
            }
            NoFace { .. } => {
                "if the landmarks are right, say their order with --landmark-format; the points are \
                 left eye, right eye, nose, left and right corner of the mouth, as seen in the image"
            }
            Interrupted { .. } => {
                "run the same command again; nothing half-written was left behind"
            }
            Durable(source) => return source.hint(),
        };
        Some(hint.to_owned())
    }
}
