//! The folder that a command makes.

use std::{fs, path::Path};

use pfc_durable::AtomicDir;

use crate::IngestError;

/// Checks that `out` is missing or an empty folder; before any work, since otherwise only the last
/// step would fail.
///
/// # Errors
///
/// [`IngestError::OutputExists`].
pub fn check_free(out: &Path) -> Result<(), IngestError> {
    let is_free = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        // A link that leads nowhere is something.
        Err(_) => fs::symlink_metadata(out).is_err(),
    };
    if is_free { Ok(()) } else { Err(IngestError::OutputExists { path: out.to_path_buf() }) }
}

/// A folder to fill, which is called `out` once committed; the folders above are made.
///
/// # Errors
///
/// [`IngestError`] if they cannot be made or written to.
pub fn begin(out: &Path) -> Result<AtomicDir, IngestError> {
    make_parent(out)?;
    Ok(AtomicDir::create(out)?)
}

/// Makes the folders above `out`.
///
/// # Errors
///
/// [`IngestError`] if they cannot be made.
pub fn make_parent(out: &Path) -> Result<(), IngestError> {
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(pfc_durable::create_dir_all(parent)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nothing_and_an_empty_folder_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(check_free(&path("missing")).is_ok());
        fs::create_dir_all(path("full/empty")).unwrap();
        fs::write(path("file"), "").unwrap();
        assert!(check_free(&path("full/empty")).is_ok());
        for taken in ["full", "file"] {
            assert!(matches!(check_free(&path(taken)), Err(IngestError::OutputExists { .. })));
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(path("missing"), path("link")).unwrap();
            assert!(check_free(&path("link")).is_err());
        }
    }

    #[test]
    fn the_folders_above_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b/out");
        begin(&out).unwrap().commit().unwrap();
        assert!(out.is_dir());
    }
}
