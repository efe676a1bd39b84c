//! A run from the first to the last step.

pub(crate) mod estimate;
pub mod evaluate;
pub mod init;
pub(crate) mod room;
mod settle;

use std::{path::Path, time::Instant};

use pfc_c10d::Compute;
use pfc_cli::{
    interrupt::{self, Signal},
    tell, units,
};
use pfc_findings::View;
use pfc_model::libtorch::guarded;
use pfc_shard::ShardError;

pub use crate::run_folder::Start;

use self::{
    evaluate::{Measured, Verifier},
    room::Seat,
    settle::settle,
};
use crate::{
    TrainError,
    checkpoint::{Checkpointer, check_same_config},
    config::{BadValue, Config, TrainConfig},
    data::{
        loader::{Loader, LoaderSpec},
        plan::StepPlan,
        source::Source,
    },
    log::{
        StartRecord,
        run_log::{RunLog, RunLogSpec, resume_command},
    },
    ranks::Ranks,
    run_folder::RunFolder,
    step::{Trainer, compiled},
};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// After its last step.
    Finished,
    /// A signal asked one of the ranks to stop; a checkpoint was saved.
    Stopped(Signal),
}

/// Data that a run was checked against.
#[derive(Debug)]
pub struct Checked {
    /// Its images.
    pub source: Source,
    /// Its steps.
    pub plan: StepPlan,
}

/// Opens the data set and refuses what cannot be trained, before anything large is allocated.
///
/// # Errors
///
/// [`TrainError::Value`], [`TrainError::Shard`], [`TrainError::ImageSize`],
/// [`TrainError::TooFewImages`], [`TrainError::TooFewIdentities`].
pub fn check(config: &Config) -> Result<Checked, TrainError> {
    config.validate()?;
    let path = config.data.path.clone();
    let source = Source::open(&config.data)?;
    let (n_images, batch_size) = (source.len(), config.train.batch_size as u64);
    if n_images < batch_size {
        return Err(TrainError::TooFewImages { path, n_images, batch_size });
    }
    let n_identities = source.n_identities();
    if n_identities < 2 {
        return Err(TrainError::TooFewIdentities { path, n_identities });
    }
    config.head_config(n_identities).validate()?;
    let TrainConfig { epochs, steps, seed, .. } = config.train;
    let plan = StepPlan { n_images, batch_size, epochs, steps, seed };
    let warmup = config.optim.warmup_epochs;
    let bound = format!("from 0 to the {} epochs that train.steps makes", plan.n_epochs());
    BadValue::unless(warmup <= plan.n_epochs(), "optim.warmup_epochs", warmup, bound)?;
    Ok(Checked { source, plan })
}

/// Opens and compares what a run does before its first step, for ranks that are yet to be started on this
/// machine, so that what it would refuse is refused now. Returns the configuration with every choice made,
/// and a sentence for each.
///
/// * `seats`: the ranks of this machine, at least one
///
/// # Errors
///
/// Those of [`train`] before its first step.
pub(crate) fn foresee(
    config: &Config,
    checked: &Checked,
    seats: &[Seat],
) -> Result<(Config, Vec<String>), TrainError> {
    guarded("look at what the run begins with", || {
        let Checked { source, plan } = checked;
        let (config, notes) = settle::foresee(config, source.n_identities(), seats)?;
        if let Some(view) = source.dataset() {
            check_labels(view)?;
        }
        let world = seats.first().map_or(1, |seat| seat.world);
        check_ranks(plan, config.train.accumulate, world)?;
        for seat in seats {
            let device = config.train.device(seat.local_rank)?;
            compiled::packages(&config, plan, [seat.rank, seat.world], device)?;
        }
        Verifier::open(&config.eval)?;
        init::check(&config, source)?;
        Ok((config, notes))
    })
}

/// Trains in `folder` until the last step or a signal. Every rank calls it with the same arguments; the
/// first one writes and reports.
///
/// # Errors
///
/// Any [`TrainError`]; what was saved before stays whole. If one rank fails, all do.
pub fn train(
    config: &Config,
    folder: &Path,
    start: Start,
    ranks: &Ranks,
    quiet: bool,
) -> Result<Ended, TrainError> {
    guarded("train", || train_unguarded(config, folder, start, ranks, quiet))
}

fn train_unguarded(
    config: &Config,
    folder: &Path,
    start: Start,
    ranks: &Ranks,
    quiet: bool,
) -> Result<Ended, TrainError> {
    check_same_config(config, ranks)?;
    let Checked { source, plan } = check(config)?;
    let (config, notes) = settle(config, source.n_identities(), ranks)?;
    let config = &config;
    if ranks.is_first() && !quiet {
        notes.iter().for_each(|note| tell(note));
    }
    if let Some(view) = source.dataset().filter(|_| ranks.is_first()) {
        check_labels(view)?;
    }
    check_ranks(&plan, config.train.accumulate, ranks.world())?;
    let verifier = Verifier::open(&config.eval)?;
    let folder = open_folder(folder, start, ranks)?;
    set_threads(config.train.threads)?;
    if config.train.device(ranks.local_rank())?.is_cuda() {
        let compute =
            Compute { deterministic: config.train.deterministic, tf32: config.model.tf32 };
        compute.set().map_err(TrainError::Compute)?;
    }

    room::check(config, &plan, source.n_identities(), &folder, ranks)?;
    let mut trainer = Trainer::new(config, &plan, source.n_identities(), ranks)?;
    let data = source.identity(&config.data)?;
    let mut checkpointer = Checkpointer::new(&folder, config, &plan, data, ranks)?;
    let mut warn = |text: String| {
        if ranks.is_first() {
            tell(&format!("warning: {text}"));
        }
    };
    let resumed = match start {
        Start::Fresh => None,
        Start::Resume => checkpointer.resume(&mut trainer, None, &mut warn)?,
        Start::ResumeFrom(step) => checkpointer.resume(&mut trainer, Some(step), &mut warn)?,
    };
    let begun = match resumed {
        Some(_) => None,
        None => {
            trainer.head.check_free()?;
            init::begin(&config.init, &mut trainer, &source)?
        }
    };
    // From here on the folder is known to be that of this run, and is written to.
    match &resumed {
        Some(resumed) => checkpointer.set_aside(resumed, &mut warn)?,
        None => ranks.meet()?,
    }
    if ranks.is_first() {
        folder.begin(&config.to_toml(), resumed.is_some())?;
    }
    let tally = resumed.map(|resumed| resumed.tally).unwrap_or_default();
    let spec = log_spec(config, plan, trainer.n_done, quiet);
    let mut log = if ranks.is_first() {
        RunLog::open(&folder, spec, tally)?
    } else {
        RunLog::silent(spec, tally)
    };
    log.kept_scores().iter().for_each(|(step, score)| checkpointer.measured(*step, score));
    log.agree(ranks)?;
    let device = config.train.device(ranks.local_rank())?;
    let begun_at = StartRecord::now(trainer.n_done, device, config.train.threads, ranks.world());
    log.started(&folder, &begun_at, &config.to_toml())?;
    notes.iter().for_each(|note| log.keep(note));
    let notice = source.dataset().and_then(|view| view.notice("data.as_packed = true"));
    if let Some(notice) = notice {
        log.say(&format!("{}: {notice}", config.data.path.display()));
    }
    log.say(&opening(config, &source, &plan, ranks, trainer.n_done));
    log.computes_on(device, trainer.head.operations());
    if device.is_cuda() {
        log.say(&format!("centres are moved by {}", trainer.head.operations()));
    }
    if let Some(begun) = begun {
        log.say(&begun);
    }
    let place = (ranks.rank(), ranks.world());
    let spec = LoaderSpec::of_run(config, plan, place, device);
    let loader = Loader::start(source, LoaderSpec { first_step: trainer.n_done, ..spec })?;
    let measure = Measure { config, plan: &plan, verifier: &verifier, ranks };
    let mut run = Run { measure, trainer, checkpointer, log };
    ranks.stop_between_steps();
    // What libtorch throws in a step, no memory above all, ends this rank as any error does.
    if let Err(error) = guarded("take a step", || run.steps(loader)) {
        run.log.finish();
        run.log.keep(&format!("the run ends after step {}: {error}", run.trainer.n_done));
        run.checkpointer.rescue(&error, &mut run.trainer.head);
        let error = run.checkpointer.with_way_out(error);
        return Err(error.after(run.trainer.n_done));
    }
    run.log.finish();
    // One rank may have heard the signal alone. Also, the first rank, where the others look for news
    // of failures, must not be gone before them.
    let signals = ranks.gather(interrupt::signal().map(Signal::number))?;
    if run.trainer.n_done == plan.n_steps() {
        run.log.keep("finished");
        return Ok(Ended::Finished);
    }
    let stopped = stopped(&folder, &run.trainer, &plan);
    run.log.keep(&stopped);
    if ranks.is_first() {
        tell(&stopped);
    }
    let signal = signals.into_iter().flatten().find_map(Signal::from_number);
    Ok(Ended::Stopped(signal.unwrap_or(Signal::INTERRUPT)))
}

/// The parts of a run that its steps move. The trainer is dropped before the checkpointer, which waits for
/// threads that wait for the trainer.
struct Run<'a> {
    measure: Measure<'a>,
    trainer: Trainer,
    checkpointer: Checkpointer<'a>,
    log: RunLog,
}

impl Run<'_> {
    /// Every step that is left, until the last or until any rank is asked to stop.
    fn steps(&mut self, mut loader: Loader) -> Result<(), TrainError> {
        let Run { measure, trainer, checkpointer, log } = self;
        let Measure { config, plan, ranks, .. } = *measure;
        let Then { mut stop, mut refused } = measure.if_due(trainer, checkpointer, log)?;
        while trainer.n_done < plan.n_steps() && !stop {
            let started = Instant::now();
            // The ranks must agree on the last step, and on when all have written their part of a
            // checkpoint; the answers come while the step is computed.
            let mut batch = loader.next_batch()?;
            let own =
                [interrupt::requested(), checkpointer.is_writing()?, !batch.replaced.is_empty()];
            let flags = ranks.start_any(own)?;
            let figures = trainer.step(&batch)?;
            let replaced = std::mem::take(&mut batch.replaced);
            loader.recycle(batch);
            let [asked_to_stop, any_writes, any_replaced] = flags.wait()?;
            stop = asked_to_stop;
            if any_replaced {
                log.replaced(&ranks.gather(replaced)?.concat())?;
            }

            let n_done = trainer.n_done;
            log.step(n_done, &figures, started.elapsed(), loader.take_waited())?;
            if plan.completes_epoch(n_done) {
                log.epoch(n_done)?;
            }
            if !stop {
                Then { stop, refused } = measure.if_due(trainer, checkpointer, log)?;
            }
            let started = Instant::now();
            if !any_writes {
                checkpointer.publish()?;
            }
            let scheduled = is_due(config.checkpoint.every_steps, plan, n_done);
            if scheduled || stop {
                checkpointer.save(trainer, &log.tally, scheduled)?;
            }
            log.saved(started.elapsed());
        }
        checkpointer.settle(&mut trainer.head)?;
        // All of the run is saved by now.
        refused.map_or(Ok(()), Err)
    }
}

/// Warns of labels that cannot be those that were written. What else may be damaged, `pfc-ingest
/// verify` finds.
fn check_labels(dataset: &View) -> Result<(), TrainError> {
    match dataset.dataset().check_counts() {
        Err(error @ ShardError::Counts { .. }) => {
            tell(&format!(
                "warning: the data set is damaged: {error}; `pfc-ingest verify` tells more"
            ));
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Normalisation needs two images in every micro-batch of every rank.
fn check_ranks(plan: &StepPlan, n_micro_batches: usize, world: usize) -> Result<(), TrainError> {
    let batch_size = plan.batch_size;
    if plan.images_of_rank(world - 1, world) / n_micro_batches < 2 {
        return Err(TrainError::TooManyMicroBatches { world, n_micro_batches, batch_size });
    }
    Ok(())
}

/// The folder, which the first rank makes and takes hold of for all.
fn open_folder(path: &Path, start: Start, ranks: &Ranks) -> Result<RunFolder, TrainError> {
    let folder = match ranks.is_first() {
        true => RunFolder::open(path, start)?,
        false => RunFolder::of_other_rank(path),
    };
    ranks.meet()?;
    Ok(folder)
}

/// Whether something done every so many steps, 0 for every epoch, is due after `n_done` of them.
fn is_due(every_steps: u64, plan: &StepPlan, n_done: u64) -> bool {
    let is_last = n_done == plan.n_steps();
    is_last
        || match every_steps {
            0 => plan.completes_epoch(n_done),
            n => n_done.is_multiple_of(n),
        }
}

/// Measures the model during training.
#[derive(Clone, Copy)]
struct Measure<'a> {
    config: &'a Config,
    plan: &'a StepPlan,
    verifier: &'a Verifier,
    ranks: &'a Ranks,
}

impl Measure<'_> {
    /// Measures the model where that is due, unless a run that was stopped here already had.
    ///
    /// A network whose embeddings cannot be compared is no reason to end a run that has steps left: deep
    /// ones overflow before their normalisations have seen images. A finished one is refused.
    fn if_due(
        &self,
        trainer: &Trainer,
        checkpointer: &mut Checkpointer<'_>,
        log: &mut RunLog,
    ) -> Result<Then, TrainError> {
        let n_done = trainer.n_done;
        let due = n_done == 0 || is_due(self.config.eval.every_steps, self.plan, n_done);
        if !due || self.verifier.is_empty() || log.has_evaluated(n_done) {
            return Ok(Then::default());
        }
        match self.verifier.run(trainer.measured(), self.ranks, log.is_quiet())? {
            Measured::Scores(scores) => {
                checkpointer.measured(n_done, &scores);
                log.eval(n_done, scores).map(|()| Then::default())
            }
            // The run is saved next, and measured when it is resumed.
            Measured::Interrupted => Ok(Then { stop: true, refused: None }),
            Measured::Unusable { set, reason } if n_done < self.plan.n_steps() => {
                let why = match n_done {
                    0 => {
                        "; an untrained network may do that, until its normalisations have seen \
                          images"
                    }
                    _ => "",
                };
                log.say(&format!("warning: step {n_done}: `{set}` is not measured: {reason}{why}"));
                Ok(Then::default())
            }
            Measured::Unusable { set, reason } => {
                let refused = TrainError::Unmeasurable { n_done, set, reason };
                Ok(Then { stop: false, refused: Some(refused) })
            }
        }
    }
}

/// What a run does after a measurement.
#[derive(Default)]
struct Then {
    /// It is saved and ends, as any rank was asked to stop.
    stop: bool,
    /// It is saved and fails.
    refused: Option<TrainError>,
}

fn set_threads(n: usize) -> Result<(), TrainError> {
    tch::set_num_threads(n as i32);
    pfc_cli::start_threads(n).map_err(|error| TrainError::Thread(std::io::Error::other(error)))
}

fn log_spec(config: &Config, plan: StepPlan, n_done: u64, quiet: bool) -> RunLogSpec {
    let every_steps = config.log.every_steps;
    RunLogSpec { plan, n_done, every_steps, tensorboard: config.log.tensorboard, quiet }
}

fn opening(
    config: &Config,
    source: &Source,
    plan: &StepPlan,
    ranks: &Ranks,
    n_done: u64,
) -> String {
    let head = config.head_config(source.n_identities());
    let made_up = if source.dataset().is_none() { "made-up " } else { "" };
    let resumed =
        if n_done > 0 { format!(", going on after step {n_done}") } else { String::new() };
    let among = match ranks.world() {
        1 => String::new(),
        world => format!(" among {world} ranks"),
    };
    format!(
        "{} on {} {made_up}images of {} identities, {} centres per step, {} of {} in \
         {}{among}{resumed}",
        config.model.network,
        plan.n_images,
        source.n_identities(),
        head.rows_per_step(),
        units::of(plan.n_steps(), "step"),
        plan.batch_size,
        plan.epochs(),
    )
}

fn stopped(folder: &RunFolder, trainer: &Trainer, plan: &StepPlan) -> String {
    let (n_done, n_steps) = (trainer.n_done, plan.n_steps());
    let command = resume_command(folder.path());
    format!("stopped after step {n_done} of {n_steps}; to go on:\n  {command}")
}
