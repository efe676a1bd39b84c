//! Saving a run whole, and finding the newest save that is.

use std::path::{Path, PathBuf};

use pfc_model::{
    ModelError,
    checkpoint::{BACKBONE, Checkpoint, DataIdentity, Progress, Writer},
};
use pfc_shard::{Dataset, MANIFEST_FILE, hash::content_hash};
use serde::{Deserialize, Serialize};

use crate::{
    TrainError,
    config::{BadValue, Config},
    metrics::{self, EvalRecord, Record},
    plan::Plan,
    ranks::Ranks,
    run_folder::RunFolder,
    shards,
    step::Trainer,
    tally::Tally,
    verify::EvalConfig,
};

/// The network as it is trained, where the one that is measured and exported is a mean.
const TRAINED: &str = "trained.safetensors";
/// What the optimizer remembers of the backbone's parameters.
const OPTIMIZER: &str = "optimizer.safetensors";

/// Section `[checkpoint]`: when the run is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; 0 saves after every epoch. The end, and Ctrl-C, always save.
    pub every_steps: u64,
    /// Checkpoints to keep, the newest ones; at least 1. With 2 or more, one may be damaged.
    pub keep: usize,
    /// The set of `[eval]` by whose accuracy one more checkpoint is kept, and `best.ckpt` points at
    /// it; empty keeps none. Only measured steps that are saved count.
    pub best: String,
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig { every_steps: 0, keep: 3, best: String::new() }
    }
}

impl CheckpointConfig {
    /// Refuses to keep none, and a best of a set that there is not.
    ///
    /// # Errors
    ///
    /// [`BadValue`].
    pub fn validate(&self, eval: &EvalConfig) -> Result<(), BadValue> {
        BadValue::unless(self.keep > 0, "checkpoint.keep", 0, "1 or more")?;
        let is_known = self.best.is_empty() || eval.sets.iter().any(|set| set.name == self.best);
        let bound = "empty or the name of one of eval.sets";
        BadValue::unless(is_known, "checkpoint.best", format!("`{}`", self.best), bound)
    }
}

/// What the trainer itself has to remember, beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    tally: Tally,
    config: Config,
    /// Of the loss function, which few have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    loss: Vec<f64>,
}

/// Saves and restores one run. Every rank has one and calls the same methods.
#[derive(Debug)]
pub struct Keeper<'a> {
    folder: &'a RunFolder,
    config: &'a Config,
    plan: &'a Plan,
    ranks: &'a Ranks,
    data: DataIdentity,
}

impl<'a> Keeper<'a> {
    /// A keeper of the run in `folder` on `dataset`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Io`] if the data set's manifest cannot be read, [`TrainError::RanksDiffer`] if
    /// another rank has other data or another configuration.
    pub fn new(
        folder: &'a RunFolder,
        config: &'a Config,
        plan: &'a Plan,
        dataset: &Dataset,
        ranks: &'a Ranks,
    ) -> Result<Keeper<'a>, TrainError> {
        let manifest = config.data.path.join(MANIFEST_FILE);
        let bytes = std::fs::read(&manifest).map_err(TrainError::io("read", &manifest))?;
        let data = DataIdentity {
            n_images: dataset.len(),
            n_identities: dataset.n_identities().into(),
            checksum: format!("{:032x}", content_hash(&bytes)),
        };
        let keeper = Keeper { folder, config, plan, ranks, data };
        keeper.check_same_everywhere()?;
        Ok(keeper)
    }

    /// Ranks that were started with different arguments would train something else.
    fn check_same_everywhere(&self) -> Result<(), TrainError> {
        let own = (self.data.clone(), self.config.clone());
        let (data, mut config) = self.ranks.of_first(own)?;
        // Machines may have other numbers of cores, and the data in another place.
        config.train.threads = self.config.train.threads;
        config.data.path.clone_from(&self.config.data.path);
        let rank = self.ranks.rank();
        if data != self.data {
            let difference = format!("{:?}, not {:?}", self.data, data);
            return Err(TrainError::RanksDiffer { rank, difference });
        }
        match changes(&config, self.config).into_iter().next() {
            Some(difference) => Err(TrainError::RanksDiffer { rank, difference }),
            None => Ok(()),
        }
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
        let mut writer = self.begin(step)?;
        let folder = writer.as_ref().map(|writer| writer.folder().to_path_buf());
        let Some(folder) = self.ranks.of_first(folder)? else {
            return Ok(());
        };
        let state = trainer.head.checkpoint(scheduled)?;
        let place = (self.ranks.rank(), self.ranks.world());
        let written = shards::write(&folder, place, &state)?;
        if let Some(writer) = &mut writer {
            writer.backbone(trainer.measured())?;
            if trainer.average.is_some() {
                writer.tensors(TRAINED, &trainer.backbone.state_dict())?;
            }
            writer.tensors(OPTIMIZER, &trainer.optimizer.state())?;
        }
        let all_written = self.ranks.gather(written)?;
        if let Some(mut writer) = writer {
            all_written.iter().for_each(|file| file.add_to(&mut writer));
            writer.finish(self.config.model.spec(), Some(self.progress(trainer, tally)))?;
            self.folder.point_last_at(step)?;
            let best = self.best()?;
            if let Some(best) = best {
                self.folder.point_best_at(best)?;
            }
            self.prune(best)?;
        }
        // Only what is safe may replace what was.
        self.ranks.meet()?;
        Ok(trainer.head.checkpointed()?)
    }

    /// The checkpoint to write, on the first rank; `None` on the others, and if it is there already.
    fn begin(&self, step: u64) -> Result<Option<Writer>, TrainError> {
        let path = self.folder.checkpoint(step);
        if !self.ranks.is_first() || path.exists() {
            return Ok(None);
        }
        Ok(Some(Writer::create(&path)?))
    }

    fn progress(&self, trainer: &Trainer, tally: &Tally) -> Progress {
        let step = trainer.n_done;
        let loss = trainer.head.loss_memory();
        let memory = Memory { tally: *tally, config: self.config.clone(), loss };
        Progress {
            step,
            epoch: self.plan.epoch_of(step),
            epoch_position: self.plan.position_of(step),
            world_size: self.ranks.world() as u32,
            data: self.data.clone(),
            trainer: serde_json::to_value(memory).expect("numbers and names become JSON"),
        }
    }

    /// The step of the checkpoint that did best on the set in question, the earliest of equals.
    fn best(&self) -> Result<Option<u64>, TrainError> {
        let name = &self.config.checkpoint.best;
        if name.is_empty() {
            return Ok(None);
        }
        let saved: Vec<u64> =
            self.folder.list_checkpoints()?.into_iter().map(|(step, _)| step).collect();
        let mut best: Option<(u64, f64)> = None;
        for record in metrics::read(&self.folder.metrics())? {
            let Record::Eval(EvalRecord { step, score, .. }) = record else { continue };
            let counts = score.set == *name && saved.contains(&step);
            if counts && best.is_none_or(|(_, accuracy)| score.accuracy > accuracy) {
                best = Some((step, score.accuracy));
            }
        }
        Ok(best.map(|(step, _)| step))
    }

    /// Removes all but the newest checkpoints and the best.
    fn prune(&self, best: Option<u64>) -> Result<(), TrainError> {
        let all = self.folder.list_checkpoints()?;
        let old = all.iter().skip(self.config.checkpoint.keep);
        for (_, path) in old.filter(|(step, _)| Some(*step) != best) {
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
        let all = self.ranks.of_first(self.folder.list_checkpoints()?)?;
        for (_, path) in &all {
            let opened = self.open_whole(path, trainer);
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
        let centres = shards::read(checkpoint, &trainer.head.range(), world_of(progress))?;
        trainer.head.load_state(&centres)?;
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
