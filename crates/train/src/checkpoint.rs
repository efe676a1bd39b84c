//! Saving a run whole, and finding the newest save that is.

use std::path::{Path, PathBuf};

use pfc_model::checkpoint::{Checkpoint, DataIdentity, Progress, Writer};
use pfc_shard::{Dataset, MANIFEST_FILE, hash::content_hash};
use serde::{Deserialize, Serialize};

use crate::{
    TrainError,
    config::{BadValue, Config},
    plan::Plan,
    run_folder::RunFolder,
    step::Trainer,
    tally::Tally,
};

/// Velocities of the backbone's parameters.
const OPTIMIZER: &str = "optimizer.safetensors";
/// Class centres, their momentum, and the updates that they have yet to take, if any.
const CENTRES: &str = "centres.safetensors";

/// Section `[checkpoint]`: when the run is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; 0 saves after every epoch. The end, and Ctrl-C, always save.
    pub every_steps: u64,
    /// Checkpoints to keep, the newest ones; at least 1. With 2 or more, one may be damaged.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig { every_steps: 0, keep: 3 }
    }
}

impl CheckpointConfig {
    /// Refuses to keep none.
    ///
    /// # Errors
    ///
    /// [`BadValue`].
    pub fn validate(&self) -> Result<(), BadValue> {
        BadValue::unless(self.keep > 0, "checkpoint.keep", 0, "1 or more")
    }
}

/// What the trainer itself has to remember, beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    tally: Tally,
    config: Config,
}

/// Saves and restores one run.
#[derive(Debug)]
pub struct Keeper<'a> {
    folder: &'a RunFolder,
    config: &'a Config,
    plan: &'a Plan,
    data: DataIdentity,
}

impl<'a> Keeper<'a> {
    /// A keeper of the run in `folder` on `dataset`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`] if the data set's manifest cannot be read.
    pub fn new(
        folder: &'a RunFolder,
        config: &'a Config,
        plan: &'a Plan,
        dataset: &Dataset,
    ) -> Result<Keeper<'a>, TrainError> {
        let manifest = config.data.path.join(MANIFEST_FILE);
        let bytes = std::fs::read(&manifest).map_err(TrainError::io("read", &manifest))?;
        let data = DataIdentity {
            n_images: dataset.len(),
            n_identities: dataset.n_identities().into(),
            checksum: format!("{:032x}", content_hash(&bytes)),
        };
        Ok(Keeper { folder, config, plan, data })
    }

    /// Writes a checkpoint, then removes the oldest ones beyond those to keep.
    ///
    /// A `scheduled` one catches the centres up, as every run does at that step; any other saves
    /// them as they are, so that the run goes on as if it had not been saved. Centres that are kept
    /// in a file stay there, and only the newest checkpoint can be gone back to.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if it cannot be written; older ones are then all there.
    pub fn save(
        &self,
        trainer: &mut Trainer,
        tally: &Tally,
        scheduled: bool,
    ) -> Result<(), TrainError> {
        let step = trainer.n_done;
        let path = self.folder.checkpoint(step);
        if path.exists() {
            return Ok(());
        }
        let mut writer = Writer::create(&path)?;
        writer.backbone(&trainer.backbone)?;
        writer.tensors(OPTIMIZER, &trainer.sgd.state())?;
        let head = &mut trainer.head;
        writer.tensors(CENTRES, &head.checkpoint(scheduled)?)?;
        let memory = Memory { tally: *tally, config: self.config.clone() };
        let progress = Progress {
            step,
            epoch: self.plan.epoch_of(step),
            epoch_position: self.plan.position_of(step),
            world_size: 1,
            data: self.data.clone(),
            trainer: serde_json::to_value(memory).expect("numbers and names become JSON"),
        };
        writer.finish(self.config.model.spec(), Some(progress))?;
        trainer.head.checkpointed()?;
        self.folder.point_last_at(step)?;
        self.prune()
    }

    fn prune(&self) -> Result<(), TrainError> {
        for (_, path) in self.folder.list_checkpoints()?.iter().skip(self.config.checkpoint.keep) {
            // Renamed first: a half-removed folder must not look like a checkpoint.
            let doomed = self.folder.checkpoints().join(".removed.tmp");
            std::fs::rename(path, &doomed).map_err(TrainError::io("rename", path))?;
            std::fs::remove_dir_all(&doomed).map_err(TrainError::io("remove", &doomed))?;
        }
        Ok(())
    }

    /// Puts `trainer` where the newest whole checkpoint has it; `None` if there is no checkpoint.
    ///
    /// A damaged checkpoint is passed over, with a warning handed to `warn`, and set aside so that
    /// the run can write that step again.
    ///
    /// # Errors
    ///
    /// [`TrainError::NoWholeCheckpoint`], and [`TrainError::OtherRun`] if the checkpoint belongs to
    /// other data, another network or another order of images.
    pub fn resume(
        &self,
        trainer: &mut Trainer,
        warn: &mut dyn FnMut(String),
    ) -> Result<Option<Tally>, TrainError> {
        let all = self.folder.list_checkpoints()?;
        for (_, path) in &all {
            match open_whole(path) {
                Ok(checkpoint) => return self.restore(path, &checkpoint, trainer, warn).map(Some),
                Err(error) => {
                    warn(format!("{} is damaged, trying the one before: {error}", path.display()));
                    set_aside(path)?;
                }
            }
        }
        if all.is_empty() {
            return Ok(None);
        }
        let path = self.folder.checkpoints();
        Err(TrainError::NoWholeCheckpoint { path, n_checkpoints: all.len() })
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
        let backbone = pfc_model::checkpoint::BACKBONE;
        trainer.backbone.load_state_dict(&origin(backbone), &checkpoint.tensors(backbone)?)?;
        trainer.sgd.load_state(&origin(OPTIMIZER), &checkpoint.tensors(OPTIMIZER)?)?;
        trainer.head.load_state(&checkpoint.tensors(CENTRES)?)?;
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

fn open_whole(path: &Path) -> Result<Checkpoint, pfc_model::ModelError> {
    let checkpoint = Checkpoint::open(path)?;
    checkpoint.verify()?;
    Ok(checkpoint)
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

/// `optim.lr was 0.1, is 0.05` for every key whose value differs.
fn changes(then: &Config, now: &Config) -> Vec<String> {
    let (then, now) = (flat(then), flat(now));
    let mut changes = Vec::new();
    for (key, value) in &now {
        match then.iter().find(|(other, _)| other == key) {
            Some((_, old)) if old == value => {}
            Some((_, old)) => changes.push(format!("{key} was {old}, is {value}")),
            None => changes.push(format!("{key} is {value}, was not set")),
        }
    }
    let gone = then.iter().filter(|(key, _)| now.iter().all(|(other, _)| other != key));
    changes.extend(gone.map(|(key, old)| format!("{key} was {old}, is not set")));
    changes
}

/// Every value under its dotted key.
fn flat(config: &Config) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    walk(&format!("{prefix}{dot}{name}"), value, out);
                }
            }
            leaf => out.push((prefix.to_owned(), leaf.to_string())),
        }
    }
    let mut out = Vec::new();
    walk("", &serde_json::to_value(config).expect("a configuration becomes JSON"), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_value_is_named_old_and_new() {
        let then = Config::default();
        let mut now = Config::default();
        assert_eq!(changes(&then, &now), Vec::<String>::new());
        now.optim.lr = 0.05;
        now.head.margin = crate::head::Margin::Cosface { m: 0.35 };
        let expected = ["head.margin.m was 0.4, is 0.35", "optim.lr was 0.1, is 0.05"];
        assert_eq!(changes(&then, &now), expected);
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
