//! The folder of a run: who may write to it, and what is where.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use pfc_durable::{
    FolderError,
    watch::{Done, tell},
};

use crate::TrainError;

/// Held locked by the process that trains in the folder; empty.
const LOCK: &str = "run.lock";

/// What the file says that a run without checkpoints has.
const UNSAVED_TEXT: &str =
    "This run has not saved a checkpoint yet: its command begins it again.\n";

/// A run's folder, held by this process, and the ranks it trains with, until dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The operating system releases the lock even if the process is killed. The first rank alone
    /// holds it.
    _lock: Option<File>,
}

/// Whether a folder may already hold a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It may not.
    Fresh,
    /// It may, and that run is continued.
    Resume,
    /// It does, and that run is continued from its checkpoint of this step.
    ResumeFrom(u64),
}

impl RunFolder {
    /// Makes the folder if need be, and takes hold of it. What it holds is left as it is until
    /// [`begin`](RunFolder::begin).
    ///
    /// # Errors
    ///
    /// [`TrainError::RunExists`] for [`Start::Fresh`] in a folder that holds a run,
    /// [`TrainError::RunInUse`] if another process trains in it, [`TrainError::Durable`].
    pub fn open(path: &Path, start: Start) -> Result<RunFolder, TrainError> {
        fs::create_dir_all(path).map_err(TrainError::io("create", path))?;
        let lock_path = path.join(LOCK);
        let lock = File::options().append(true).create(true).open(&lock_path);
        let lock = lock.map_err(TrainError::io("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::RunInUse { path: path.to_path_buf() });
            }
            Err(TryLockError::Error(source)) => {
                return Err(TrainError::io("lock", &lock_path)(source));
            }
        }
        let folder = RunFolder { path: path.to_path_buf(), _lock: Some(lock) };
        if start == Start::Fresh {
            folder.check_fresh()?;
        }
        Ok(folder)
    }

    /// Refuses a folder in which a new run may not begin. A folder that is not there is fine.
    ///
    /// # Errors
    ///
    /// [`TrainError::RunExists`] if it holds a run, [`TrainError::Folder`] if it holds files of others, and
    /// [`TrainError::Durable`].
    pub fn check_fresh(&self) -> Result<(), TrainError> {
        if self.holds_a_run()? {
            return Err(TrainError::RunExists { path: self.path.clone() });
        }
        self.check_ours()
    }

    /// Refuses a folder in which a new run would write over files of others. Files of other names may
    /// lie there, and are left alone.
    fn check_ours(&self) -> Result<(), TrainError> {
        // A run that was killed before its first checkpoint is begun again.
        if self.unsaved().exists() {
            return Ok(());
        }
        let named = [self.config(), self.log(), self.starts(), self.unreadable()];
        let mut names: Vec<PathBuf> = named.into_iter().filter(|path| path.exists()).collect();
        for folder in [self.tensorboard(), self.checkpoints()] {
            names.extend(entries(&folder)?);
        }
        let lock = self.path.join(LOCK);
        names.extend(lock.metadata().is_ok_and(|meta| meta.len() > 0).then_some(lock));
        if names.is_empty() {
            return Ok(());
        }
        names.sort();
        let below = |path: &PathBuf| path.strip_prefix(&self.path).unwrap_or(path).to_path_buf();
        let names = names.iter().map(below).collect();
        Err(FolderError::Foreign { folder: self.path.clone(), names }.into())
    }

    /// Makes the folder that of this run, once it is known to be: removes what a killed process was
    /// writing and writes the configuration.
    ///
    /// * `resumed`: whether the run goes on from a checkpoint; else it has none yet, which a file says
    ///   until [`has_saved`](RunFolder::has_saved)
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn begin(&self, config: &str, resumed: bool) -> Result<(), TrainError> {
        let checkpoints = self.checkpoints();
        fs::create_dir_all(&checkpoints).map_err(TrainError::io("create", &checkpoints))?;
        self.remove_litter()?;
        match resumed {
            true => self.has_saved()?,
            false => {
                // Figures of a start that never saved, perhaps with another configuration.
                remove_if_there(&self.metrics())?;
                remove_if_there(&self.starts())?;
                pfc_durable::write(&self.unsaved(), UNSAVED_TEXT.as_bytes())?;
            }
        }
        Ok(pfc_durable::write(&self.config(), config.as_bytes())?)
    }

    /// Notes that the run has a checkpoint, so that one without any has lost them.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn has_saved(&self) -> Result<(), TrainError> {
        remove_if_there(&self.unsaved())
    }

    /// What shows, in a folder without checkpoints, that its run had some; `None` if it never did.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn trace_of_lost_checkpoints(&self) -> Result<Option<String>, TrainError> {
        let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
        let mut damaged = entries(&self.checkpoints())?;
        damaged.retain(|path| name(path).contains(".ckpt.damaged-"));
        damaged.sort();
        if let Some(path) = damaged.last() {
            return Ok(Some(format!("`{}` was set aside", name(path))));
        }
        let link = self.path.join("last.ckpt");
        if link.is_symlink() {
            return Ok(Some("`last.ckpt` leads to none".to_owned()));
        }
        // A run that was stopped before its first save has figures and says that it has no more.
        let has_figures = self.metrics().exists() && !self.unsaved().exists();
        Ok(has_figures.then(|| "it has `metrics.jsonl`".to_owned()))
    }

    /// Is there from the start of a run to its first checkpoint.
    fn unsaved(&self) -> PathBuf {
        self.path.join("no-checkpoint-yet")
    }

    /// The folder that the first rank has opened, for the other ranks.
    #[must_use]
    pub fn of_other_rank(path: &Path) -> RunFolder {
        RunFolder { path: path.to_path_buf(), _lock: None }
    }

    /// The same folder, for a thread that ends before this one lets go.
    #[must_use]
    pub fn without_lock(&self) -> RunFolder {
        RunFolder { path: self.path.clone(), _lock: None }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Figures, a JSON object per line.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// What the run said, with the time of each line.
    pub fn log(&self) -> PathBuf {
        self.path.join("train.log")
    }

    /// What each start ran on, a JSON object per line.
    pub fn starts(&self) -> PathBuf {
        self.path.join("starts.jsonl")
    }

    /// Images that could not be loaded, a JSON object per line.
    pub fn unreadable(&self) -> PathBuf {
        self.path.join("unreadable.jsonl")
    }

    /// TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The checkpoint taken after `step` steps.
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step:08}.ckpt"))
    }

    /// What a checkpoint is called while it is written or removed; the next start removes what is left of
    /// it.
    pub fn unfinished_checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!(".step-{step:08}.ckpt.tmp"))
    }

    /// Every checkpoint with its step, newest first.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn list_checkpoints(&self) -> Result<Vec<(u64, PathBuf)>, TrainError> {
        let mut found: Vec<(u64, PathBuf)> = Vec::new();
        for path in entries(&self.checkpoints())? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            let step = name.strip_prefix("step-").and_then(|name| name.strip_suffix(".ckpt"));
            if let Some(step) = step.and_then(|digits| digits.parse().ok()) {
                found.push((step, path));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// Points `last.ckpt` at the checkpoint of `step`, so that scripts need not know its number.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn point_last_at(&self, step: u64) -> Result<(), TrainError> {
        self.point("last.ckpt", step)
    }

    /// Points `best.ckpt` at the checkpoint of `step`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn point_best_at(&self, step: u64) -> Result<(), TrainError> {
        self.point("best.ckpt", step)
    }

    fn point(&self, name: &str, step: u64) -> Result<(), TrainError> {
        let checkpoint = self.checkpoint(step);
        let target = checkpoint.file_name().unwrap_or(checkpoint.as_os_str());
        let target = Path::new("checkpoints").join(target);
        let link = self.path.join(name);
        let temporary = self.path.join(format!(".{name}.tmp"));
        let _ = fs::remove_file(&temporary);
        symlink(&target, &temporary).map_err(TrainError::io("create", &temporary))?;
        fs::rename(&temporary, &link).map_err(TrainError::io("rename", &link))?;
        tell(Done::Changed(&link));
        Ok(())
    }

    /// Whether a new run would lose something of one that is there: a checkpoint, or what is left of one. A
    /// run that failed or was killed before it saved any has nothing to go on from, and is begun again.
    fn holds_a_run(&self) -> Result<bool, TrainError> {
        // What has not saved yet has nothing to lose.
        if self.unsaved().exists() && self.list_checkpoints()?.is_empty() {
            return Ok(false);
        }
        let has_some = self.metrics().exists() || !self.list_checkpoints()?.is_empty();
        Ok(has_some || self.trace_of_lost_checkpoints()?.is_some())
    }

    /// Removes what a killed process was writing, by its names alone. Nobody else writes here while the
    /// lock is held.
    fn remove_litter(&self) -> Result<(), TrainError> {
        pfc_durable::sweep_all(&self.path)?;
        for name in [".last.ckpt.tmp", ".best.ckpt.tmp"] {
            let link = self.path.join(name);
            if link.is_symlink() {
                fs::remove_file(&link).map_err(TrainError::io("remove", &link))?;
            }
        }
        for path in entries(&self.checkpoints())? {
            // A checkpoint being written has a folder of its own name, and a lock.
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            let step = name.strip_prefix(".step-").and_then(|name| name.split_once('.'));
            let is_ours = step.is_some_and(|(step, ending)| {
                step.bytes().all(|byte| byte.is_ascii_digit())
                    && ["ckpt.tmp", "ckpt.lock"].contains(&ending)
            });
            if is_ours {
                let is_dir = path.is_dir() && !path.is_symlink();
                let removed =
                    if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(TrainError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

fn remove_if_there(path: &Path) -> Result<(), TrainError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(TrainError::io("remove", path))?,
    }
    tell(Done::Changed(path));
    Ok(())
}

/// What a folder holds; nothing if it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let read = || fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>();
    match read() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found.map_err(TrainError::io("read", dir)),
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_holds_a_run_is_continued_only_if_asked() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunFolder::open(dir.path(), Start::Fresh).unwrap());
        drop(RunFolder::open(dir.path(), Start::Fresh).unwrap());
        fs::write(dir.path().join("metrics.jsonl"), "").unwrap();
        let error = RunFolder::open(dir.path(), Start::Fresh).unwrap_err();
        assert!(matches!(error, TrainError::RunExists { .. }), "{error}");
        drop(RunFolder::open(dir.path(), Start::Resume).unwrap());
        // One that never saved has nothing that a new run could overwrite.
        fs::write(dir.path().join("no-checkpoint-yet"), "").unwrap();
        RunFolder::open(dir.path(), Start::Fresh).unwrap();
    }

    #[test]
    fn a_run_that_ended_before_its_first_checkpoint_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(dir.path(), Start::Fresh).unwrap();
        folder.begin("", false).unwrap();
        fs::write(folder.metrics(), "{}\n").unwrap();
        drop(folder);
        let folder = RunFolder::open(dir.path(), Start::Fresh).unwrap();
        let checkpoint = folder.checkpoint(3);
        fs::create_dir_all(&checkpoint).unwrap();
        drop(folder);
        // Killed between the two names of its first save.
        let error = RunFolder::open(dir.path(), Start::Fresh).unwrap_err();
        assert!(matches!(error, TrainError::RunExists { .. }), "{error}");
    }

    #[test]
    fn a_run_that_lost_its_checkpoints_is_told_from_one_that_never_saved() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(dir.path(), Start::Fresh).unwrap();
        let trace = || folder.trace_of_lost_checkpoints().unwrap();
        assert_eq!(trace(), None);
        folder.begin("", false).unwrap();
        fs::write(folder.metrics(), "{}\n").unwrap();
        assert_eq!(trace(), None, "killed before its first save");
        folder.has_saved().unwrap();
        folder.has_saved().unwrap();
        assert_eq!(trace().unwrap(), "it has `metrics.jsonl`");
        folder.point_last_at(7).unwrap();
        assert_eq!(trace().unwrap(), "`last.ckpt` leads to none");
        fs::create_dir(folder.checkpoints().join("step-00000007.ckpt.damaged-1")).unwrap();
        assert_eq!(trace().unwrap(), "`step-00000007.ckpt.damaged-1` was set aside");
    }

    #[test]
    fn files_of_others_are_neither_written_over_nor_removed() {
        for name in [
            "config.toml",
            "run.lock",
            "train.log",
            "tensorboard/a",
            "checkpoints/a",
            "unreadable.jsonl",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "mine").unwrap();
            let error = RunFolder::open(dir.path(), Start::Fresh).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("holds files that pfc did not write: {name}")),
                "{error}"
            );
            assert_eq!(fs::read(&path).unwrap(), b"mine");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        fs::write(dir.path().join(".thesis.tmp"), "mine").unwrap();
        let folder = RunFolder::open(dir.path(), Start::Fresh).unwrap();
        folder.begin("", false).unwrap();
        for name in ["notes.txt", ".thesis.tmp"] {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"mine");
        }
        // One that was killed before its first checkpoint is begun again.
        drop(folder);
        RunFolder::open(dir.path(), Start::Fresh).unwrap().begin("", false).unwrap();
    }

    #[test]
    fn two_runs_cannot_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let _held = RunFolder::open(dir.path(), Start::Fresh).unwrap();
        let error = RunFolder::open(dir.path(), Start::Resume).unwrap_err();
        assert!(matches!(error, TrainError::RunInUse { .. }), "{error}");
    }

    #[test]
    fn checkpoints_are_listed_newest_first_and_litter_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = dir.path().join("checkpoints");
        let litter = ".step-00000011.ckpt.tmp";
        let foreign = [".abc.tmp", ".step-x.ckpt.tmp"];
        for name in ["step-00000009.ckpt", "step-00000010.ckpt", litter, "step-x.ckpt"] {
            fs::create_dir_all(checkpoints.join(name)).unwrap();
        }
        for name in foreign {
            fs::create_dir_all(checkpoints.join(name)).unwrap();
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let folder = RunFolder::open(dir.path(), Start::Resume).unwrap();
        assert!(checkpoints.join(litter).exists(), "removed before the run was known");
        folder.begin("", true).unwrap();
        let steps: Vec<u64> =
            folder.list_checkpoints().unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [10, 9]);
        assert!(!checkpoints.join(litter).exists());
        for name in foreign {
            assert!(checkpoints.join(name).exists() && dir.path().join(name).exists(), "{name}");
        }
        folder.point_last_at(9).unwrap();
        folder.point_last_at(10).unwrap();
        let last = fs::canonicalize(dir.path().join("last.ckpt")).unwrap();
        assert_eq!(last, fs::canonicalize(folder.checkpoint(10)).unwrap());
    }
}
