//! Finding the newest save of a run that is whole, and going on from it.
//!
//! Nothing in the run's folder is touched until a checkpoint has been restored on every rank. Only
//! then are newer ones set aside, so that their steps can be saved again.

use std::path::{Path, PathBuf};

use pfc_head::{HeadError, shards};
use pfc_model::{
    ModelError,
    checkpoint::{BACKBONE, Checkpoint, DataIdentity, Progress},
};
use serde::{Deserialize, Serialize};

use super::{Checkpointer, OPTIMIZER, TRAINED, TrainerState, changes::changes, describe};
use crate::{
    DamagedAt, TrainError,
    config::{CentrePlace, Config},
    log::tally::Tally,
    step::Trainer,
};

/// What a run goes on from.
#[derive(Debug)]
pub struct Resumed {
    /// The reporter's sums.
    pub tally: Tally,
    /// Checkpoints that are newer than the one that was restored, and why they are passed over.
    passed_over: Vec<(PathBuf, PassedOver)>,
}

/// Why a checkpoint is not gone on from; the end of the name that it gets.
#[derive(Debug, Clone, Copy)]
enum PassedOver {
    /// It is damaged.
    Damaged,
    /// An older one was asked for.
    Newer,
}

impl PassedOver {
    fn ending(self) -> &'static str {
        match self {
            PassedOver::Damaged => "damaged",
            PassedOver::Newer => "newer",
        }
    }
}

/// What one rank found in a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Found {
    Whole,
    /// Bytes that were read prove it, in words.
    Damaged(String),
    /// It could not be looked at, and why.
    Unknown(String),
}

impl Checkpointer<'_> {
    /// Puts `trainer` where the newest whole checkpoint has it; `None` for a run that has saved none.
    ///
    /// * `from`: the step of the only checkpoint to go on from, instead of the newest
    ///
    /// A damaged checkpoint is passed over, with a warning handed to `warn`. Call
    /// [`set_aside`](Checkpointer::set_aside) once the run is sure to go on. A checkpoint that a rank cannot
    /// look at, for want of memory, of open files, or because a disk does not answer, ends the run: the
    /// same command may find it whole.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] for such a checkpoint and one of a newer format,
    /// [`TrainError::NoWholeCheckpoint`], [`TrainError::NoSuchCheckpoint`],
    /// [`TrainError::CheckpointsGone`] for a run that has lost all it had saved,
    /// [`TrainError::DamagedCentres`] for centres in files that are damaged, and [`TrainError::OtherData`] or [`TrainError::OtherRun`] if the checkpoint belongs
    /// to other data, another network or another order of images.
    pub fn resume(
        &self,
        trainer: &mut Trainer,
        from: Option<u64>,
        warn: &mut dyn FnMut(String),
    ) -> Result<Option<Resumed>, TrainError> {
        let mut all = self.ranks.of_first(self.folder.list_checkpoints()?)?;
        let mut passed_over = Vec::new();
        if let Some(from) = from {
            let newer = all.iter().take_while(|(step, _)| *step > from);
            passed_over.extend(newer.map(|(_, path)| (path.clone(), PassedOver::Newer)));
            let steps = all.iter().map(|(step, _)| *step).collect();
            all.retain(|(step, _)| *step == from);
            if all.is_empty() {
                let path = self.folder.checkpoints();
                return Err(TrainError::NoSuchCheckpoint { path, step: from, steps });
            }
        }
        for (step, path) in &all {
            let opened = self.open_whole(*step, path, trainer);
            let own = match &opened {
                Ok(_) => Found::Whole,
                Err(error) if is_damage(error) => Found::Damaged(error.to_string()),
                Err(error) => Found::Unknown(error.to_string()),
            };
            let fails_here = matches!(own, Found::Unknown(_));
            let found = self.ranks.gather(own)?;
            if fails_here {
                return opened.map(|_| None);
            }
            let mut complaint = None;
            for (rank, found) in found.into_iter().enumerate() {
                match found {
                    Found::Whole => {}
                    Found::Damaged(reason) => complaint = complaint.or(Some(reason)),
                    Found::Unknown(reason) => {
                        return Err(TrainError::UnreadableElsewhere { rank, reason });
                    }
                }
            }
            match (opened, complaint) {
                (Ok(checkpoint), None) => {
                    let tally = self.restore(path, &checkpoint, trainer, warn);
                    let tally = tally.map_err(|error| self.not_restored(*step, path, error))?;
                    return Ok(Some(Resumed { tally, passed_over }));
                }
                (Err(error), None) => return Err(error),
                (_, Some(complaint)) => {
                    let path_text = path.display();
                    warn(format!("{path_text} is damaged, trying the one before: {complaint}"));
                    passed_over.push((path.clone(), PassedOver::Damaged));
                }
            }
        }
        match all.len() {
            0 => self.never_saved().map(|()| None),
            n_checkpoints => {
                let path = self.folder.checkpoints();
                Err(TrainError::NoWholeCheckpoint { path, n_checkpoints })
            }
        }
    }

    /// Refuses a folder whose run had saved checkpoints, none of which is there any more.
    fn never_saved(&self) -> Result<(), TrainError> {
        let trace = self.ranks.of_first(self.folder.trace_of_lost_checkpoints()?)?;
        match trace {
            None => Ok(()),
            Some(trace) => {
                Err(TrainError::CheckpointsGone { path: self.folder.path().to_path_buf(), trace })
            }
        }
    }

    /// Adds the step of the checkpoint to go back to, if damaged centres are why `step` cannot be restored.
    fn not_restored(&self, step: u64, path: &Path, error: TrainError) -> TrainError {
        let at = DamagedAt::Restore(path.to_path_buf());
        self.damaged_centres(error, at, |found| found < step)
    }

    /// Adds to an error of a step which checkpoint to go back to, if damaged centres are its cause.
    #[must_use]
    pub fn with_way_out(&self, error: TrainError) -> TrainError {
        let newest = self.checkpoint_steps().first().copied().unwrap_or(0);
        self.damaged_centres(error, DamagedAt::Step, |found| found < newest)
    }

    fn damaged_centres(
        &self,
        error: TrainError,
        at: DamagedAt,
        is_older: impl Fn(u64) -> bool,
    ) -> TrainError {
        match error {
            TrainError::Head(source @ HeadError::CentresDamaged { .. }) => {
                let older = self.checkpoint_steps().into_iter().find(|step| is_older(*step));
                TrainError::DamagedCentres { at, older, source: Box::new(source) }
            }
            other => other,
        }
    }

    /// Steps of the checkpoints that are there, newest first; none where they cannot be listed.
    fn checkpoint_steps(&self) -> Vec<u64> {
        let all = self.folder.list_checkpoints().unwrap_or_default();
        all.into_iter().map(|(step, _)| step).collect()
    }

    /// Moves what [`resume`](Checkpointer::resume) passed over out of the way, without losing what a person
    /// might still want of it. For every rank to call once all have restored.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`], [`TrainError::Ranks`].
    pub fn set_aside(
        &self,
        resumed: &Resumed,
        warn: &mut dyn FnMut(String),
    ) -> Result<(), TrainError> {
        self.ranks.meet()?;
        if self.ranks.is_first() {
            for (path, why) in &resumed.passed_over {
                let aside = set_aside(path, *why)?;
                warn(format!("{} is now {}", path.display(), aside.display()));
            }
        }
        Ok(self.ranks.meet()?)
    }

    /// Opens a checkpoint, compares the checksums of the files that this rank is going to read, and
    /// whether its manifest agrees with itself and its name.
    fn open_whole(
        &self,
        step: u64,
        path: &Path,
        trainer: &Trainer,
    ) -> Result<Checkpoint, TrainError> {
        let checkpoint = Checkpoint::open(path)?;
        let progress = checkpoint.manifest().progress.as_ref();
        let memory = progress.and_then(|p| TrainerState::deserialize(&p.trainer).ok());
        let (Some(progress), Some(memory)) = (progress, memory) else {
            return Err(inconsistent(path, "its manifest does not say how far a run was"));
        };
        if progress.step != step {
            let reason = format!("its name says step {step}, its manifest step {}", progress.step);
            return Err(inconsistent(path, &reason));
        }
        self.check_same_run(path, progress, &memory.config)?;
        self.check_place(path, progress)?;
        let mut names = vec![BACKBONE.to_owned(), OPTIMIZER.to_owned()];
        names.extend(checkpoint.has(TRAINED).then(|| TRAINED.to_owned()));
        names.extend(shards::names_for(&trainer.head.range(), world_of(progress)));
        for name in &names {
            checkpoint.verify_file(name)?;
        }
        Ok(checkpoint)
    }

    /// Whether step, epoch and place within it belong together and within the run.
    fn check_place(&self, path: &Path, progress: &Progress) -> Result<(), TrainError> {
        let Progress { step, epoch, epoch_position, .. } = *progress;
        let expected = (self.plan.epoch_of(step), self.plan.position_of(step));
        if (epoch, epoch_position) != expected {
            let reason = format!(
                "its manifest has step {step} at image {epoch_position} of epoch {epoch}, but that \
                 step is at image {} of epoch {}",
                expected.1, expected.0
            );
            return Err(inconsistent(path, &reason));
        }
        let n_steps = self.plan.n_steps();
        if step > n_steps {
            return Err(TrainError::BeyondTheEnd { path: path.to_path_buf(), step, n_steps });
        }
        Ok(())
    }

    fn restore(
        &self,
        path: &Path,
        checkpoint: &Checkpoint,
        trainer: &mut Trainer,
        warn: &mut dyn FnMut(String),
    ) -> Result<Tally, TrainError> {
        let progress = checkpoint.manifest().progress.as_ref();
        let memory = progress.and_then(|p| TrainerState::deserialize(&p.trainer).ok());
        let (Some(progress), Some(memory)) = (progress, memory) else {
            return Err(inconsistent(path, "its manifest does not say how far a run was"));
        };
        for change in changes(&memory.config, self.config) {
            warn(format!("the run goes on with another configuration: {change}"));
        }
        let origin = |file: &str| path.join(file).display().to_string();
        let trained = if checkpoint.has(TRAINED) { TRAINED } else { BACKBONE };
        trainer.backbone.load_state_dict(&origin(trained), &checkpoint.tensors(trained)?)?;
        if let Some(ema) = &trainer.ema {
            ema.backbone().load_state_dict(&origin(BACKBONE), &checkpoint.tensors(BACKBONE)?)?;
        }
        trainer.optimizer.load_state(&origin(OPTIMIZER), &checkpoint.tensors(OPTIMIZER)?)?;
        trainer.head.recall_loss(&memory.loss);
        if let (Some(scale), Some(state)) = (&mut trainer.loss_scale, memory.loss_scale) {
            scale.restore(state);
        }
        trainer.left_out.recall(memory.left_out_in_a_row);
        let mut centres =
            shards::open(|name| checkpoint.file(name), &trainer.head.range(), world_of(progress))?;
        let folder = match &memory.config.head.centres {
            CentrePlace::File(folder) => Some(folder.as_path()),
            CentrePlace::Auto | CentrePlace::Host | CentrePlace::Device => None,
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
        let is_same_set = then.checksum == now.checksum;
        if is_same_set && then.decisions != now.decisions {
            let text = |data: &DataIdentity| {
                let DataIdentity { n_images, n_identities, decisions, .. } = data;
                let decisions = decisions.as_deref().unwrap_or("none");
                format!("{n_images} images of {n_identities} identities, checksum {decisions}")
            };
            let key = "decisions about data.path that leave";
            return Err(other_run(path, key, text(then), text(now)));
        }
        if is_same_set && then.weights != now.weights {
            let text = |data: &DataIdentity| data.weights.clone().unwrap_or("none".to_owned());
            return Err(other_run(path, "data.weights", text(then), text(now)));
        }
        if then != now {
            return Err(TrainError::OtherData {
                path: path.to_path_buf(),
                data: self.config.data.path.clone(),
                before: config.data.path.clone(),
                found: describe(then),
                expected: describe(now),
            });
        }
        for ((key, then), (_, now)) in config.fixed().into_iter().zip(self.config.fixed()) {
            if then != now {
                return Err(other_run(path, key, then, now));
            }
        }
        Ok(())
    }
}

/// Whether bytes that were read prove the checkpoint damaged; never for a fault of the way to them.
fn is_damage(error: &TrainError) -> bool {
    matches!(error, TrainError::Model(error) if error.is_damage())
}

/// A manifest that contradicts itself.
fn inconsistent(path: &Path, reason: &str) -> TrainError {
    let (path, reason) = (path.to_path_buf(), reason.to_owned());
    ModelError::NotACheckpoint { path, reason }.into()
}

/// Ranks that wrote a checkpoint; at least 1, whatever the manifest says.
fn world_of(progress: &Progress) -> usize {
    progress.world_size.max(1) as usize
}

/// Gives a checkpoint a name that no run reads.
fn set_aside(path: &Path, why: PassedOver) -> Result<PathBuf, TrainError> {
    let numbered = |n: u32| PathBuf::from(format!("{}.{}-{n}", path.display(), why.ending()));
    let free = (1..).map(numbered).find(|path| !path.exists());
    let aside = free.expect("numbers do not run out");
    std::fs::rename(path, &aside).map_err(TrainError::io("rename", path))?;
    Ok(aside)
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
    use pfc_durable::DurableError;

    use super::*;

    #[test]
    fn only_bytes_that_were_read_make_a_checkpoint_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backbone.safetensors");
        let error = |source: std::io::Error| {
            TrainError::from(ModelError::from(DurableError::at("open", &path)(source)))
        };
        // EPERM, ENOENT of a folder that is gone (below), EIO, EAGAIN, ENOMEM, EACCES, EBUSY, ENFILE,
        // EMFILE, ENOSPC, EROFS, ENOLCK, ELOOP, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENETDOWN,
        // ECONNRESET, ESTALE, EREMOTEIO, EDQUOT, ENOTCONN, EBADF, EINVAL.
        for code in [
            1, 5, 11, 12, 13, 16, 23, 24, 28, 30, 37, 40, 110, 113, 101, 100, 104, 116, 121, 122,
            107, 9, 22,
        ] {
            let error = error(std::io::Error::from_raw_os_error(code));
            assert!(!is_damage(&error), "error {code}: {error:?}");
        }
        assert!(is_damage(&error(std::io::ErrorKind::NotFound.into())));
        assert!(is_damage(&error(std::io::ErrorKind::UnexpectedEof.into())));
        let elsewhere = dir.path().join("gone/backbone.safetensors");
        let gone = DurableError::at("open", &elsewhere)(std::io::ErrorKind::NotFound.into());
        let gone = ModelError::from(gone);
        assert!(!is_damage(&gone.into()), "the whole folder is gone");
        let newer = ModelError::Format { path: path.clone(), found: 2, supported: 1 };
        assert!(!is_damage(&newer.into()));
        let full = ModelError::Memory { op: "read a tensor", reason: String::new() };
        assert!(!is_damage(&full.into()));
        assert!(is_damage(&ModelError::ManifestDamaged { path }.into()));
    }

    #[test]
    fn a_damaged_checkpoint_is_set_aside_under_a_free_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("step-00000001.ckpt");
        for n in 1..=2 {
            std::fs::create_dir(&path).unwrap();
            set_aside(&path, PassedOver::Damaged).unwrap();
            assert!(dir.path().join(format!("step-00000001.ckpt.damaged-{n}")).exists());
        }
    }
}
