//! What went wrong, told without Python, and as a Python exception.

use std::{error::Error, io, path::PathBuf};

use pfc_binpack::PackError;
use pfc_durable::DurableError;
use pfc_findings::FindingsError;
use pfc_image::ImageError;
use pfc_metrics::MetricError;
use pfc_onnx::OnnxError;
use pfc_recordio::RecordError;
use pfc_rows::sampling::SampleError;
use pfc_shard::ShardError;
use pyo3::PyErr;

mod classes {
    pyo3::import_exception!(pfc._errors, PfcError);
    pyo3::import_exception!(pfc._errors, PfcValueError);
    pyo3::import_exception!(pfc._errors, PfcIndexError);
    pyo3::import_exception!(pfc._errors, PfcOSError);
    pyo3::import_exception!(pfc._errors, PfcFileNotFoundError);
}

/// Which exception it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `PfcError` alone: a fault of ours, or of a library.
    Other,
    /// A value, or the content of a file, that is not what it should be.
    Value,
    /// A number beyond the last.
    Index,
    /// What the operating system refused, with its code where there is one.
    System { code: Option<i32>, path: Option<PathBuf> },
    /// Something that is not there.
    Missing { path: Option<PathBuf> },
}

/// A message with its way out. It needs no Python, so that any thread can make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A bad value.
    pub fn value(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { kind: Kind::Value, message: message.into(), hint: Some(hint.into()) }
    }

    /// A number beyond the last of `len`.
    pub fn index(what: &str, index: i64, len: usize) -> Failure {
        let hint = match len {
            0 => format!("there are no {what}s"),
            _ => format!("{what}s run from 0 to {}, or from -{len} to -1", len - 1),
        };
        let message = format!("there is no {what} {index} among {len}");
        Failure { kind: Kind::Index, message, hint: Some(hint) }
    }

    /// Something that is not there.
    pub fn missing(message: impl Into<String>, hint: impl Into<String>, path: PathBuf) -> Failure {
        let kind = Kind::Missing { path: Some(path) };
        Failure { kind, message: message.into(), hint: Some(hint.into()) }
    }

    /// What is no fault of the caller.
    pub fn other(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { kind: Kind::Other, message: message.into(), hint: Some(hint.into()) }
    }

    /// The same with what was being done before it.
    #[must_use]
    pub fn context(self, before: &str) -> Failure {
        Failure { message: format!("{before}: {}", self.message), ..self }
    }

    /// The same with other words in message and hint, such as arguments in place of options.
    #[must_use]
    pub fn reworded(self, reword: impl Fn(&str) -> String) -> Failure {
        let (message, hint) = (reword(&self.message), self.hint.map(|hint| reword(&hint)));
        Failure { message, hint, ..self }
    }
}

impl From<Failure> for PyErr {
    fn from(Failure { kind, message, hint }: Failure) -> PyErr {
        match kind {
            Kind::Other => classes::PfcError::new_err((message, hint)),
            Kind::Value => classes::PfcValueError::new_err((message, hint)),
            Kind::Index => classes::PfcIndexError::new_err((message, hint)),
            Kind::System { code, path } => {
                classes::PfcOSError::new_err((message, hint, code, path))
            }
            Kind::Missing { path } => {
                const ENOENT: i32 = 2;
                classes::PfcFileNotFoundError::new_err((message, hint, Some(ENOENT), path))
            }
        }
    }
}

/// An error of a library of ours.
pub trait Told: Error + Sized + 'static {
    /// What to do about it.
    fn way_out(&self) -> Option<String>;

    /// What the operating system refused, where a variant hides it from the causes.
    fn refused(&self) -> Option<&DurableError> {
        None
    }

    /// Which exception it is, if the system did not cause it.
    fn class(&self) -> Kind {
        Kind::Value
    }
}

impl<E: Told> From<E> for Failure {
    fn from(error: E) -> Failure {
        let refused = error.refused().and_then(|refused| of_system(refused));
        let kind = refused.or_else(|| of_system(&error)).unwrap_or_else(|| error.class());
        Failure { kind, message: chain(&error), hint: error.way_out() }
    }
}

/// The error and its causes in a line; a cause that the message before it repeats counts once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// What the operating system refused, if that is the cause.
fn of_system(error: &(dyn Error + 'static)) -> Option<Kind> {
    let mut path = None;
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(durable) = cause.downcast_ref::<DurableError>() {
            path = Some(durable.path.clone());
        }
        if let Some(source) = cause.downcast_ref::<io::Error>() {
            return Some(match source.kind() {
                io::ErrorKind::NotFound => Kind::Missing { path },
                _ => Kind::System { code: source.raw_os_error(), path },
            });
        }
        if let Some(ImageError::Memory { .. }) = cause.downcast_ref() {
            const ENOMEM: i32 = 12;
            return Some(Kind::System { code: Some(ENOMEM), path });
        }
        next = cause.source();
    }
    None
}

impl Told for ShardError {
    fn way_out(&self) -> Option<String> {
        self.hint()
    }

    fn class(&self) -> Kind {
        match self {
            ShardError::NotADataset { dir } => Kind::Missing { path: Some(dir.clone()) },
            ShardError::MissingFile { path } => Kind::Missing { path: Some(path.clone()) },
            ShardError::NoSuchRow { .. } => Kind::Index,
            _ => Kind::Value,
        }
    }

    fn refused(&self) -> Option<&DurableError> {
        match self {
            ShardError::Durable(error) => Some(error),
            _ => None,
        }
    }
}

impl Told for FindingsError {
    fn way_out(&self) -> Option<String> {
        self.hint()
    }

    fn class(&self) -> Kind {
        match self {
            FindingsError::Shard(error) => error.class(),
            _ => Kind::Value,
        }
    }

    fn refused(&self) -> Option<&DurableError> {
        match self {
            FindingsError::Shard(error) => error.refused(),
            FindingsError::Durable(error) => Some(error),
            _ => None,
        }
    }
}

impl Told for RecordError {
    fn way_out(&self) -> Option<String> {
        self.hint()
    }

    fn class(&self) -> Kind {
        match self {
            RecordError::NoSuchRecord { .. } => Kind::Index,
            _ => Kind::Value,
        }
    }

    fn refused(&self) -> Option<&DurableError> {
        match self {
            RecordError::Durable(error) => Some(error),
            _ => None,
        }
    }
}

impl Told for PackError {
    fn way_out(&self) -> Option<String> {
        self.hint()
    }

    fn refused(&self) -> Option<&DurableError> {
        match self {
            PackError::Durable(error) => Some(error),
            PackError::NotAPack { .. } => None,
        }
    }
}

impl Told for OnnxError {
    fn way_out(&self) -> Option<String> {
        self.hint()
    }

    fn class(&self) -> Kind {
        match self {
            OnnxError::Runtime { .. } | OnnxError::Run { .. } => Kind::Other,
            _ => Kind::Value,
        }
    }
}

impl Told for MetricError {
    fn way_out(&self) -> Option<String> {
        self.hint()
    }
}

impl Told for ImageError {
    fn way_out(&self) -> Option<String> {
        self.hint()
    }
}

impl Told for SampleError {
    fn way_out(&self) -> Option<String> {
        Some(
            "give the head a sampler whose rows are whole numbers from 0, strictly ascending, with those of \
             the batch among them"
                .to_owned(),
        )
    }
}
