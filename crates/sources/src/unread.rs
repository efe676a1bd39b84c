//! Why a foreign file is not read: what is wrong with it, or a fault of the system, which says nothing
//! of the file.

use std::{fmt, io, path::Path};

use arrow_schema::ArrowError;
use parquet::errors::ParquetError;
use pfc_durable::{DurableError, faults::is_of_system};

/// What keeps a file from being read.
#[derive(Debug)]
pub enum Unread {
    /// What is wrong with the file, in a few words.
    Wrong(String),
    /// The system failed. The same file may be read later.
    System(io::Error),
}

impl Unread {
    /// The error of the file at `path`.
    ///
    /// * `wrong`: makes one of what is wrong with the file
    pub fn at<E: From<DurableError>>(self, path: &Path, wrong: impl FnOnce(String) -> E) -> E {
        match self {
            Unread::Wrong(what) => wrong(what),
            Unread::System(source) => DurableError::at("read", path)(source).into(),
        }
    }

    /// Says more of what is wrong with the file.
    pub fn within(self, place: &str) -> Unread {
        match self {
            Unread::Wrong(what) => Unread::Wrong(format!("{place}{what}")),
            system => system,
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Wrong(what) => f.write_str(what),
            Unread::System(error) => error.fmt(f),
        }
    }
}

impl From<String> for Unread {
    fn from(what: String) -> Unread {
        Unread::Wrong(what)
    }
}

impl From<&str> for Unread {
    fn from(what: &str) -> Unread {
        Unread::Wrong(what.to_owned())
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Unread {
        match is_of_system(&error) {
            true => Unread::System(error),
            false => Unread::Wrong(error.to_string()),
        }
    }
}

impl From<ArrowError> for Unread {
    fn from(error: ArrowError) -> Unread {
        match error {
            ArrowError::IoError(_, error) => error.into(),
            error => {
                let text = error.to_string();
                match ["lz4", "zstd"].into_iter().find(|codec| is_compressed(&text, codec)) {
                    Some(codec) => Unread::Wrong(format!(
                        "it is Arrow {COMPRESSED_ARROW} ({codec}), which is not read"
                    )),
                    None => Unread::Wrong(text),
                }
            }
        }
    }
}

/// What is said of a file of Arrow whose columns are compressed. They are not read, as a few bytes of them may
/// ask for any memory; Parquet says how much its columns take.
pub const COMPRESSED_ARROW: &str = "with compressed columns";

/// Whether the library of Arrow says so, which is built without `codec`.
fn is_compressed(text: &str, codec: &str) -> bool {
    text.contains(&format!("{codec} IPC decompression requires the {codec} feature"))
}

impl From<ParquetError> for Unread {
    fn from(error: ParquetError) -> Unread {
        match error {
            ParquetError::External(error) => match error.downcast::<io::Error>() {
                Ok(error) => (*error).into(),
                Err(error) => Unread::Wrong(format!("External: {error}")),
            },
            error => Unread::Wrong(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_system_says_nothing_of_the_file() {
        let no_descriptors = || io::Error::from_raw_os_error(24);
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let system: [Unread; 3] = [
            no_descriptors().into(),
            ArrowError::IoError("x".into(), no_descriptors()).into(),
            ParquetError::External(Box::new(no_descriptors())).into(),
        ];
        for unread in system {
            assert!(matches!(unread.within("row group 3: "), Unread::System(_)));
        }
        let wrong: [Unread; 4] = [
            cut().into(),
            ArrowError::IoError("x".into(), cut()).into(),
            ArrowError::ParseError("x".into()).into(),
            ParquetError::EOF("x".into()).into(),
        ];
        for unread in wrong {
            let text = unread.within("row group 3: ").to_string();
            assert!(text.starts_with("row group 3: "), "{text}");
        }
    }
}
