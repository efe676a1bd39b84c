//! The folders and files that commands make.

use std::path::Path;

use pfc_durable::{Access, AtomicDir, OwnedDir, check_apart, sweep};
use pfc_sources::exists;

use crate::IngestError;

/// Claims the folder `out` for this process, requires that it is absent or empty and apart from all
/// that is read, and makes a folder that is called `out` once committed. What a killed command left
/// for the same `out` is removed.
///
/// # Errors
///
/// [`IngestError::Folder`].
pub fn begin(inputs: &[&Path], out: &Path) -> Result<AtomicDir, IngestError> {
    Ok(claim(inputs, out)?.begin()?)
}

/// As [`begin`], but without a folder so far.
///
/// # Errors
///
/// [`IngestError::Folder`].
pub fn claim(inputs: &[&Path], out: &Path) -> Result<OwnedDir, IngestError> {
    inputs.iter().try_for_each(|input| check_apart(input, out))?;
    let owned = OwnedDir::claim(out, Access::Alone)?;
    owned.check_free()?;
    Ok(owned)
}

/// Requires that the file `out` is absent, or may be replaced, and removes what killed commands left
/// of it.
///
/// # Errors
///
/// [`IngestError::FileExists`], or [`IngestError::Durable`] if something cannot be removed.
pub fn check_file(out: &Path, force: bool) -> Result<(), IngestError> {
    if !force && exists(out)? {
        return Err(IngestError::FileExists { path: out.to_path_buf() });
    }
    Ok(sweep(out)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_nothing_and_an_empty_folder_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("full/empty")).unwrap();
        fs::write(path("file"), "").unwrap();
        for free in ["missing", "full/empty", "a/b/out"] {
            claim(&[], &path(free)).unwrap();
        }
        for taken in ["full", "file"] {
            let error = claim(&[], &path(taken)).unwrap_err();
            assert!(error.to_string().ends_with("already exists and is not empty"), "{error}");
        }
        assert!(claim(&[&path("full")], &path("full/empty")).is_err());
        assert!(!path("a").exists());
    }

    #[test]
    fn a_file_is_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        check_file(&path, false).unwrap();
        fs::write(&path, "").unwrap();
        fs::write(dir.path().join(".a.png.abcdef.tmp"), "").unwrap();
        assert!(matches!(check_file(&path, false), Err(IngestError::FileExists { .. })));
        check_file(&path, true).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
