//! Lists of the images that a command left out, each with its reason: two columns between tabs.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::EvalError;

/// The list of the images without a row, a feature or the like. It is there only if there are some.
#[derive(Debug)]
pub(super) struct LeftOutList {
    path: PathBuf,
    header: String,
}

impl LeftOutList {
    /// The list at `path`, of images that have no `what`, before it is written.
    ///
    /// # Errors
    ///
    /// [`EvalError::Output`] if another file is called so, which stays as it is.
    pub(super) fn at(path: PathBuf, what: &str) -> Result<LeftOutList, EvalError> {
        let list = LeftOutList { path, header: format!("image without a {what}\treason\n") };
        match list.is_ours() {
            Ok(Some(false)) => Err(EvalError::Output {
                problem: "the list of the images left out is written there, and this is another file",
                hint: format!("move {} away, or choose another output", list.path.display()),
                path: list.path,
            }),
            Ok(_) => Ok(list),
            Err(error) => Err(EvalError::io("read", &list.path)(error)),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the names and reasons of the images left out; without any, removes the list of an earlier
    /// run.
    ///
    /// # Errors
    ///
    /// [`EvalError::Durable`] if it cannot be written or removed.
    pub(super) fn write(&self, left_out: &[(String, String)]) -> Result<(), EvalError> {
        if left_out.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(EvalError::io("remove", &self.path)(error))
                }
                _ => Ok(()),
            };
        }
        let plain = |text: &str| text.replace(char::is_control, " ");
        let lines = left_out.iter().map(|(name, reason)| {
            let (name, reason) = (plain(name), plain(reason));
            format!("{name}\t{reason}\n")
        });
        let text: String = std::iter::once(self.header.clone()).chain(lines).collect();
        Ok(pfc_durable::write(&self.path, text.as_bytes())?)
    }

    /// Whether what lies there is such a list; nothing if nothing does.
    fn is_ours(&self) -> io::Result<Option<bool>> {
        let mut start = Vec::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(_) if self.path.is_dir() => return Ok(Some(false)),
            Ok(file) => file.take(self.header.len() as u64).read_to_end(&mut start)?,
        };
        Ok(Some(start == self.header.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_replaces_itself_and_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("left-out.tsv");
        let list = || LeftOutList::at(path.clone(), "row");
        list().unwrap().write(&[("a\tb.jpg".into(), "it is\ncut".into())]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "image without a row\treason\na b.jpg\tit is cut\n");
        list().unwrap().write(&[]).unwrap();
        assert!(!path.exists());
        list().unwrap().write(&[]).unwrap();
        for other in ["my notes\n", "", "image without a"] {
            std::fs::write(&path, other).unwrap();
            let error = list().unwrap_err();
            assert!(error.to_string().contains("this is another file"), "{error}");
            assert!(error.hint().unwrap().starts_with("move "));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(list().is_err());
    }
}
