//! Saving a run whole, while it goes on.
//!
//! A save has three parts. Every rank copies the network and its optimizer, and marks the centres that
//! it has to write; a thread of every rank writes them, while the head copies those that a step is about
//! to move; and once all have, which the ranks ask each other along with the steps, a thread of the
//! first rank makes the checkpoint visible.

pub(crate) mod centres;
mod changes;
#[cfg(test)]
mod power_cut;
mod publish;
mod resume;
mod saved_run;
mod snapshot;

use std::thread::JoinHandle;

use pfc_head::Head;
use pfc_model::{
    allocator,
    checkpoint::{DataIdentity, Progress, Writer},
};
use serde::{Deserialize, Serialize};

use crate::{
    TrainError,
    config::{CentrePlace, Config},
    data::plan::StepPlan,
    log::{Score, tally::Tally},
    optim::loss_scale::ScaleState,
    ranks::Ranks,
    run_folder::RunFolder,
    step::Trainer,
};
use changes::changes;
use publish::Publisher;
pub(crate) use saved_run::SavedRun;
use snapshot::{Failed, Files, Snapshot, Whole, files_of};

/// The network as it is trained, where the one that is measured and exported is a mean.
pub(crate) const TRAINED: &str = "trained.safetensors";
/// What the optimizer remembers of the backbone's parameters.
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";

/// What the trainer itself has to remember, beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainerState {
    tally: Tally,
    config: Config,
    /// Of the loss function, which few have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    loss: Vec<f64>,
    /// Of a network that computes in f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_scale: Option<ScaleState>,
    /// Steps left out one after the other up to here.
    #[serde(default, skip_serializing_if = "is_zero")]
    left_out_in_a_row: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Saves and restores one run. Every rank has one and calls the same methods.
#[derive(Debug)]
pub struct Checkpointer<'a> {
    folder: &'a RunFolder,
    config: &'a Config,
    plan: &'a StepPlan,
    ranks: &'a Ranks,
    data: DataIdentity,
    under_way: UnderWay,
    /// Step and accuracy of every measurement of the set that `checkpoint.best` names.
    scores: Vec<(u64, f64)>,
    /// A checkpoint that the first rank could not write. Its folder stays until the run has ended:
    /// other ranks may be writing into it, and would blame that it is gone.
    unfinished: Option<Writer>,
}

/// A save that is under way.
#[derive(Debug, Default)]
enum UnderWay {
    #[default]
    Nothing,
    /// This rank writes its files.
    Writing(JoinHandle<Result<Files, Box<Failed>>>),
    /// They are there; other ranks may not be as far.
    Written(Box<Files>),
    /// All are there, and the first rank makes the checkpoint visible.
    Publishing(JoinHandle<Result<(), TrainError>>),
}

/// Refuses a rank that was started with another configuration than rank 0: it would train something
/// else. Every rank calls it, before any collective that depends on the configuration.
///
/// # Errors
///
/// [`TrainError::RanksDiffer`] with the first key that differs, [`TrainError::Ranks`].
pub fn check_same_config(config: &Config, ranks: &Ranks) -> Result<(), TrainError> {
    let mut first = ranks.of_first(config.clone())?;
    // Machines may have other numbers of cores, and the data in another place.
    first.train.threads = config.train.threads;
    first.data.path.clone_from(&config.data.path);
    match changes(&first, config).into_iter().next() {
        Some(difference) => Err(TrainError::RanksDiffer { rank: ranks.rank(), difference }),
        None => Ok(()),
    }
}

impl<'a> Checkpointer<'a> {
    /// A checkpointer of the run in `folder` on `data`.
    ///
    /// # Errors
    ///
    /// [`TrainError::RanksDiffer`] if another rank has other data or another configuration.
    pub fn new(
        folder: &'a RunFolder,
        config: &'a Config,
        plan: &'a StepPlan,
        data: DataIdentity,
        ranks: &'a Ranks,
    ) -> Result<Checkpointer<'a>, TrainError> {
        let under_way = UnderWay::Nothing;
        let (scores, unfinished) = (Vec::new(), None);
        let checkpointer =
            Checkpointer { folder, config, plan, ranks, data, under_way, scores, unfinished };
        checkpointer.check_same_everywhere()?;
        Ok(checkpointer)
    }

    /// Ranks that were started on different data would train something else.
    fn check_same_everywhere(&self) -> Result<(), TrainError> {
        let data = self.ranks.of_first(self.data.clone())?;
        if data != self.data {
            let text = |data: &DataIdentity| {
                let decisions = data.decisions.as_deref();
                let decisions = decisions.map(|sum| format!(" with decisions of checksum {sum}"));
                format!("{}{}", describe(data), decisions.unwrap_or_default())
            };
            let (own, first) = (text(&self.data), text(&data));
            let path = self.config.data.path.display();
            let difference = format!("its data.path, {path}, holds {own}, not {first}");
            return Err(TrainError::RanksDiffer { rank: self.ranks.rank(), difference });
        }
        Ok(())
    }

    /// Takes note of what was measured, by which the best checkpoint is chosen.
    pub fn measured(&mut self, step: u64, scores: &[Score]) {
        let best = &self.config.checkpoint.best;
        let of_best = scores.iter().filter(|score| score.set == *best);
        self.scores.extend(of_best.map(|score| (step, score.accuracy)));
    }

    /// Saves the run as it is now. What is left to do afterwards goes on in the background, unless
    /// centres are kept in a file or the configuration says otherwise; a save that still does is
    /// waited for first.
    ///
    /// A `scheduled` one catches the centres up, as every run does at that step; any other saves
    /// them as they are, so that the run goes on as if it had not been saved. Centres that are kept
    /// in a file stay there, and the newest two checkpoints can be gone back to.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if it, or the one before it, cannot be written; older ones are then all
    /// there.
    pub fn save(
        &mut self,
        trainer: &mut Trainer,
        tally: &Tally,
        scheduled: bool,
    ) -> Result<(), TrainError> {
        self.settle(&mut trainer.head)?;
        let writer = self.begin(trainer.n_done)?;
        let folder = writer.as_ref().map(|writer| writer.folder().to_path_buf());
        let Some(folder) = self.ranks.of_first(folder)? else {
            return Ok(());
        };
        let in_files = matches!(self.config.head.centres, CentrePlace::File(_));
        let apart = !in_files && self.config.checkpoint.in_background;
        let centres = trainer.head.begin_save(scheduled)?;
        let whole = writer.map(|writer| Whole {
            writer,
            files: files_of(trainer, apart),
            progress: self.progress(trainer, tally),
        });
        let place = (self.ranks.rank(), self.ranks.world());
        let snapshot = Snapshot { folder, place, centres, whole };
        self.under_way = UnderWay::Writing(in_thread(move || snapshot.write())?);
        if apart {
            return Ok(());
        }
        self.settle(&mut trainer.head)?;
        // Only what is safe may replace what was.
        self.ranks.meet()?;
        Ok(trainer.head.checkpointed()?)
    }

    /// Whether this rank is still writing its files.
    ///
    /// # Errors
    ///
    /// Why it could not, or why the checkpoint could not be made visible.
    pub fn is_writing(&mut self) -> Result<bool, TrainError> {
        self.under_way = match std::mem::take(&mut self.under_way) {
            UnderWay::Writing(thread) if thread.is_finished() => self.written(join(thread))?,
            UnderWay::Publishing(thread) if thread.is_finished() => {
                join(thread)?;
                UnderWay::Nothing
            }
            other => other,
        };
        Ok(matches!(self.under_way, UnderWay::Writing(_)))
    }

    /// To be called on every rank once none is writing: has the checkpoint made visible, if there is
    /// one to be.
    ///
    /// # Errors
    ///
    /// [`TrainError::Ranks`] if a rank is gone.
    pub fn publish(&mut self) -> Result<(), TrainError> {
        self.under_way = match std::mem::take(&mut self.under_way) {
            UnderWay::Written(files) => {
                let Files { written, checkpoint } = *files;
                let all_written = self.ranks.gather(written)?;
                match checkpoint {
                    Some((writer, progress)) => {
                        let publisher = self.publisher();
                        UnderWay::Publishing(in_thread(move || {
                            publisher.publish(writer, &all_written, progress)
                        })?)
                    }
                    None => UnderWay::Nothing,
                }
            }
            other => other,
        };
        Ok(())
    }

    /// Waits for the save that is under way, on every rank.
    ///
    /// # Errors
    ///
    /// Why it failed.
    pub fn settle(&mut self, head: &mut Head) -> Result<(), TrainError> {
        self.under_way = match std::mem::take(&mut self.under_way) {
            UnderWay::Writing(thread) => {
                // The thread waits for what is left of the centres.
                let handed_over = head.finish_save();
                let written = self.written(join(thread));
                handed_over?;
                written?
            }
            other => other,
        };
        self.publish()?;
        match std::mem::take(&mut self.under_way) {
            UnderWay::Publishing(thread) => join(thread),
            _ => Ok(()),
        }
    }

    /// Completes what can be completed of a save before the run ends with `error`: all of it, unless
    /// other ranks are at another place.
    pub fn rescue(&mut self, error: &TrainError, head: &mut Head) {
        if self.ranks.world() == 1 || error.is_on_every_rank() {
            // The error that is already there is the one to be read.
            let _ = self.settle(head);
        }
    }

    fn written(&mut self, files: Result<Files, Box<Failed>>) -> Result<UnderWay, TrainError> {
        match files {
            Ok(files) => {
                // The copies of network, optimizer and rows are written and gone.
                allocator::give_back_freed_memory();
                Ok(UnderWay::Written(Box::new(files)))
            }
            Err(failed) => {
                let Failed { error, writer } = *failed;
                self.unfinished = writer;
                Err(error)
            }
        }
    }

    fn publisher(&self) -> Publisher {
        Publisher {
            folder: self.folder.without_lock(),
            config: self.config.checkpoint.clone(),
            backbone: self.config.model.spec(),
            scores: self.scores.clone(),
        }
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
        let loss_scale = trainer.loss_scale.map(|scale| scale.state());
        let left_out_in_a_row = trainer.left_out.in_a_row();
        let config = self.config.clone();
        let memory = TrainerState { tally: *tally, config, loss, loss_scale, left_out_in_a_row };
        Progress {
            step,
            epoch: self.plan.epoch_of(step),
            epoch_position: self.plan.position_of(step),
            world_size: self.ranks.world() as u32,
            data: self.data.clone(),
            trainer: serde_json::to_value(memory).expect("numbers and names become JSON"),
        }
    }
}

impl Drop for Checkpointer<'_> {
    /// Nobody writes into the folder once it is let go. The head is gone by then, so that a thread
    /// that waits for its rows ends.
    fn drop(&mut self) {
        match std::mem::take(&mut self.under_way) {
            UnderWay::Writing(thread) => drop(thread.join()),
            UnderWay::Publishing(thread) => drop(thread.join()),
            UnderWay::Nothing | UnderWay::Written(_) => {}
        }
    }
}

/// A data set in words.
fn describe(data: &DataIdentity) -> String {
    let DataIdentity { n_images, n_identities, checksum, .. } = data;
    format!("{n_images} images of {n_identities} identities, checksum {checksum}")
}

fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, TrainError> {
    let thread = std::thread::Builder::new().name("checkpoint".to_owned());
    thread.spawn(work).map_err(TrainError::Thread)
}

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
