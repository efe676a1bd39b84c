//! Finding the newest save of a run that is whole, and going on from it.

use std::{
    io,
    path::{Path, PathBuf},
};

use pfc_head::{Placement, shards};
use pfc_model::{
    ModelError,
    checkpoint::{BACKBONE, Checkpoint, DataIdentity, Progress},
};
use serde::Deserialize;

use super::{Keeper, Memory, OPTIMIZER, TRAINED, changes::changes};
use crate::{TrainError, config::Config, step::Trainer, tally::Tally};

impl Keeper<'_> {
    /// Puts `trainer` where the newest whole checkpoint has it; `None` if there is no checkpoint.
    ///
    /// A damaged checkpoint is passed over, with a warning handed to `warn`, and set aside so that
    /// the run can write that step again. One that the system does not let a rank read is not.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`], [`TrainError::NoWholeCheckpoint`], and [`TrainError::OtherRun`] if the checkpoint belongs to
    /// other data, another network or another order of images.
    pub fn resume(
        &self,
        trainer: &mut Trainer,
        warn: &mut dyn FnMut(String),
    ) -> Result<Option<Tally>, TrainError> {
        let all = self.ranks.of_first(self.folder.list_checkpoints()?)?;
        for (_, path) in &all {
            let opened = self.open_whole(path, trainer);
            if let Err(error) = &opened
                && !is_damage(error)
            {
                return opened.map(|_| None).map_err(TrainError::from);
            }
            let complaint = opened.as_ref().err().map(ToString::to_string);
            let complaint = self.ranks.gather(complaint)?.into_iter().flatten().next();
            match (opened, complaint) {
                (Ok(checkpoint), None) => {
                    return self.restore(path, &checkpoint, trainer, warn).map(Some);
                }
                (Err(error), None) => return Err(error.into()),
                (_, Some(complaint)) => {
                    let path_text = path.display();
                    warn(format!("{path_text} is damaged, trying the one before: {complaint}"));
                    if self.ranks.is_first() {
                        set_aside(path)?;
                    }
                    self.ranks.meet()?;
                }
            }
        }
        if all.is_empty() {
            return Ok(None);
        }
        let path = self.folder.checkpoints();
        Err(TrainError::NoWholeCheckpoint { path, n_checkpoints: all.len() })
    }

    /// Opens a checkpoint and compares the checksums of the files that this rank is going to read.
    fn open_whole(&self, path: &Path, trainer: &Trainer) -> Result<Checkpoint, ModelError> {
        let checkpoint = Checkpoint::open(path)?;
        let mut names = vec![BACKBONE.to_owned(), OPTIMIZER.to_owned()];
        names.extend(checkpoint.has(TRAINED).then(|| TRAINED.to_owned()));
        if let Some(progress) = &checkpoint.manifest().progress {
            names.extend(shards::names_for(&trainer.head.range(), world_of(progress)));
        }
        for name in &names {
            checkpoint.verify_file(name)?;
        }
        Ok(checkpoint)
    }

    fn restore(
        &self,
        path: &Path,
        checkpoint: &Checkpoint,
        trainer: &mut Trainer,
        warn: &mut dyn FnMut(String),
    ) -> Result<Tally, TrainError> {
        let progress = checkpoint.manifest().progress.as_ref();
        let memory = progress.and_then(|p| Memory::deserialize(&p.trainer).ok());
        let (Some(progress), Some(memory)) = (progress, memory) else {
            return Err(other_run(path, "the progress of a run", "none", "to go on from it"));
        };
        self.check_same_run(path, progress, &memory.config)?;
        for change in changes(&memory.config, self.config) {
            warn(format!("the run goes on with another configuration: {change}"));
        }
        let origin = |file: &str| path.join(file).display().to_string();
        let trained = if checkpoint.has(TRAINED) { TRAINED } else { BACKBONE };
        trainer.backbone.load_state_dict(&origin(trained), &checkpoint.tensors(trained)?)?;
        if let Some(average) = &trainer.average {
            average
                .backbone()
                .load_state_dict(&origin(BACKBONE), &checkpoint.tensors(BACKBONE)?)?;
        }
        trainer.optimizer.load_state(&origin(OPTIMIZER), &checkpoint.tensors(OPTIMIZER)?)?;
        trainer.head.recall_loss(&memory.loss);
        if let (Some(scale), Some(state)) = (&mut trainer.loss_scale, memory.loss_scale) {
            scale.recall(state);
        }
        let mut centres =
            shards::open(|name| checkpoint.file(name), &trainer.head.range(), world_of(progress))?;
        let folder = match &memory.config.head.centres {
            Placement::File(folder) => Some(folder.as_path()),
            Placement::Host | Placement::Device => None,
        };
        trainer.head.load(&mut centres, folder)?;
        trainer.n_done = progress.step;
        Ok(memory.tally)
    }

    fn check_same_run(
        &self,
        path: &Path,
        progress: &Progress,
        config: &Config,
    ) -> Result<(), TrainError> {
        let (then, now) = (&progress.data, &self.data);
        if then != now {
            let text = |data: &DataIdentity| {
                let DataIdentity { n_images, n_identities, checksum } = data;
                format!("{n_images} images of {n_identities} identities, checksum {checksum}")
            };
            return Err(other_run(path, "data.path with", text(then), text(now)));
        }
        for ((key, then), (_, now)) in config.fixed().into_iter().zip(self.config.fixed()) {
            if then != now {
                return Err(other_run(path, key, then, now));
            }
        }
        Ok(())
    }
}

/// Whether the checkpoint is to blame, and not the way to it.
fn is_damage(error: &ModelError) -> bool {
    let ModelError::Io { source, .. } = error else { return true };
    !matches!(
        source.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::StaleNetworkFileHandle
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// Ranks that wrote a checkpoint; at least 1, whatever the manifest says.
fn world_of(progress: &Progress) -> usize {
    progress.world_size.max(1) as usize
}

/// Moves a damaged checkpoint out of the way without losing what a person might still want of it.
fn set_aside(path: &Path) -> Result<(), TrainError> {
    let numbered = |n: u32| PathBuf::from(format!("{}.damaged-{n}", path.display()));
    let free = (1..).map(numbered).find(|path| !path.exists());
    let aside = free.expect("numbers do not run out");
    std::fs::rename(path, &aside).map_err(TrainError::io("rename", path))
}

fn other_run(
    path: &Path,
    key: &str,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> TrainError {
    TrainError::OtherRun {
        path: path.to_path_buf(),
        key: key.to_owned(),
        found: found.into(),
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_cannot_be_reached_is_not_damaged() {
        let error = |kind: io::ErrorKind| ModelError::Io {
            op: "read",
            path: PathBuf::new(),
            source: io::Error::from(kind),
        };
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::StaleNetworkFileHandle] {
            assert!(!is_damage(&error(kind)), "{kind}");
        }
        assert!(is_damage(&error(io::ErrorKind::NotFound)));
        assert!(is_damage(&error(io::ErrorKind::UnexpectedEof)));
    }

    #[test]
    fn a_damaged_checkpoint_is_set_aside_under_a_free_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step-00000001.ckpt");
        for n in 1..=2 {
            std::fs::create_dir(&path).unwrap();
            set_aside(&path).unwrap();
            assert!(dir.path().join(format!("step-00000001.ckpt.damaged-{n}")).exists());
        }
    }
}
