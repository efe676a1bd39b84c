//! Folders that features are written to, and what says whose features are in them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use pfc_durable::{Access, OwnedDir, create_dir_all};
use pfc_shard::sealed::{self, SealedError};
use serde::{Deserialize, Serialize};

use crate::EvalError;

/// Beside the features: what made those of each suffix.
const JOB_FILE: &str = "features.job";

/// A folder of features, which no other process writes meanwhile. It grows in place, so that a run that was
/// stopped goes on, and lists of one model can be added one after the other.
#[derive(Debug)]
pub struct FeatureFolder {
    owned: OwnedDir,
}

/// What [`JOB_FILE`] holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Job {
    /// What made the features of a suffix.
    made_by: BTreeMap<String, String>,
}

impl FeatureFolder {
    /// Claims `out`, which is absent, empty or begun by an earlier run, and notes what makes its features.
    ///
    /// * `suffix`: of the names of the features
    /// * `made_by`: what they depend on, such as the fingerprint of a model
    ///
    /// # Errors
    ///
    /// [`EvalError::Folder`] if somebody else's files are in it or another command is at work there,
    /// [`EvalError::Output`] if its features of this suffix were made by something else, or
    /// [`EvalError::Durable`].
    pub fn claim(out: &Path, suffix: &str, made_by: &str) -> Result<FeatureFolder, EvalError> {
        let owned = OwnedDir::claim(out, Access::Alone)?;
        let path = owned.path().join(JOB_FILE);
        let mut job: Job = match sealed::read(&path) {
            Ok(Some(job)) => job,
            Ok(None) => {
                // A run that was killed before it noted anything leaves no more.
                owned.check_ours(|entry| entry.is_temporary())?;
                Job::default()
            }
            Err(SealedError::Io(error)) => return Err(EvalError::io("read", &path)(error)),
            Err(SealedError::Damaged) => {
                return Err(refused(
                    path,
                    "is damaged, so that it is unknown what made these features",
                ));
            }
        };
        match job.made_by.insert(suffix.to_owned(), made_by.to_owned()) {
            Some(before) if before == made_by => {}
            Some(_) => {
                return Err(refused(
                    path,
                    "says that another model made the features of this suffix",
                ));
            }
            None => {
                create_dir_all(owned.path())?;
                pfc_durable::sweep_all(owned.path())?;
                sealed::write(&path, &job)?;
            }
        }
        Ok(FeatureFolder { owned })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.owned.path()
    }
}

fn refused(path: PathBuf, problem: &'static str) -> EvalError {
    let folder = path.parent().unwrap_or(Path::new(".")).display();
    let hint =
        format!("choose another --out or --suffix, or remove {folder} and all features in it");
    EvalError::Output { path, problem, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_on_for_what_made_it_alone_and_takes_other_suffixes() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let claim = |suffix, made_by| FeatureFolder::claim(&out, suffix, made_by).map(drop);
        claim("_a.bin", "model 1").unwrap();
        claim("_a.bin", "model 1").unwrap();
        claim("_b.bin", "model 2").unwrap();
        let problem = claim("_a.bin", "model 2").unwrap_err();
        assert!(problem.to_string().contains("another model"), "{problem}");
        assert!(problem.hint().unwrap().contains("--suffix"));
        claim("_a.bin", "model 1").unwrap();
        std::fs::write(out.join(JOB_FILE), "{}").unwrap();
        let problem = claim("_a.bin", "model 1").unwrap_err();
        assert!(problem.to_string().contains("is damaged"), "{problem}");
    }

    #[test]
    fn a_folder_with_files_of_others_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join(".features.job.abcdef.tmp"), "half").unwrap();
        FeatureFolder::claim(&out, "_a.bin", "model").map(drop).unwrap();
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
        std::fs::remove_file(out.join(JOB_FILE)).unwrap();
        std::fs::write(out.join("1.jpg_a.bin"), "of another program").unwrap();
        let problem = FeatureFolder::claim(&out, "_a.bin", "model").unwrap_err();
        assert!(matches!(problem, EvalError::Folder(_)), "{problem}");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
    }
}
