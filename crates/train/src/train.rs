//! A run from the first to the last step.

use std::{path::Path, sync::Arc, time::Instant};

use pfc_cli::{interrupt, tell};
use pfc_eval::EvalError;
use pfc_shard::{Dataset, ImageSize};
use tch::Device;

use crate::{
    TrainError,
    checkpoint::{Keeper, check_same_config},
    config::Config,
    init,
    loader::{Loader, LoaderSpec},
    plan::Plan,
    ranks::Ranks,
    report::{Report, ReportSpec, resume_command},
    run_folder::{RunFolder, Start},
    step::Trainer,
    verify::Verifier,
};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// After its last step.
    Finished,
    /// The user asked to stop; a checkpoint was saved.
    Interrupted,
}

/// Data that a run was checked against.
#[derive(Debug)]
pub struct Checked {
    /// The data set.
    pub dataset: Arc<Dataset>,
    /// Its steps.
    pub plan: Plan,
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
    let dataset = Dataset::open(&path)?;
    let (found, expected) = (dataset.manifest().image_size, ImageSize::FACE);
    if found != expected {
        return Err(TrainError::ImageSize { path, found, expected });
    }
    let (n_images, batch_size) = (dataset.len(), config.train.batch_size as u64);
    if n_images < batch_size {
        return Err(TrainError::TooFewImages { path, n_images, batch_size });
    }
    let n_identities = dataset.n_identities();
    if n_identities < 2 {
        return Err(TrainError::TooFewIdentities { path, n_identities });
    }
    config.head_config(n_identities).validate()?;
    let plan = Plan { n_images, batch_size, epochs: config.train.epochs, seed: config.train.seed };
    Ok(Checked { dataset: Arc::new(dataset), plan })
}

/// Trains in `folder` until the last step or Ctrl-C. Every rank calls it with the same arguments; the
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
    check_same_config(config, ranks)?;
    let Checked { dataset, plan } = check(config)?;
    check_ranks(&plan, config.train.accumulate, ranks)?;
    let verifier = Verifier::open(&config.eval)?;
    let folder = open_folder(folder, start, config, ranks)?;
    set_threads(config.train.threads);
    if config.train.device(ranks.local_rank())?.is_cuda() {
        // Batches all have one shape, for which cuDNN finds its fastest kernels in the first step.
        tch::Cuda::cudnn_set_benchmark(true);
    }

    let mut trainer = Trainer::new(config, &plan, dataset.n_identities(), ranks)?;
    let keeper = Keeper::new(&folder, config, &plan, &dataset, ranks)?;
    let tally = match start {
        Start::Fresh => None,
        Start::Resume => keeper.resume(&mut trainer, &mut |text| {
            if ranks.is_first() {
                tell(&format!("warning: {text}"));
            }
        })?,
    };
    let begun = match tally {
        Some(_) => None,
        None => init::begin(&config.init, &mut trainer, &dataset)?,
    };
    let spec = report_spec(config, plan, trainer.n_done, quiet);
    let mut report = if ranks.is_first() {
        Report::open(&folder, spec, tally.unwrap_or_default())?
    } else {
        Report::silent(spec, tally.unwrap_or_default())
    };
    report.agree(ranks)?;
    report.say(&opening(config, &dataset, &plan, ranks, trainer.n_done));
    if let Some(begun) = begun {
        report.say(&begun);
    }
    let spec = loader_spec(config, plan, ranks, trainer.n_done);
    let loader = Loader::start(Arc::clone(&dataset), spec)?;
    let measure = Measure { config, plan: &plan, verifier: &verifier, ranks };
    let mut run = Run { measure, trainer, keeper, report };
    if let Err(error) = run.steps(loader) {
        run.keeper.rescue(&error, &mut run.trainer.head);
        return Err(error.after(run.trainer.n_done));
    }
    run.report.finish();
    // The first rank, where the others look for news of failures, must not be gone before them.
    ranks.meet()?;
    if run.trainer.n_done == plan.n_steps() {
        return Ok(Ended::Finished);
    }
    if ranks.is_first() {
        tell(&stopped(&folder, &run.trainer, &plan));
    }
    Ok(Ended::Interrupted)
}

/// The parts of a run that its steps move. The trainer is dropped before the keeper, which waits for
/// threads that wait for the trainer.
struct Run<'a> {
    measure: Measure<'a>,
    trainer: Trainer,
    keeper: Keeper<'a>,
    report: Report,
}

impl Run<'_> {
    /// Every step that is left, until the last or until any rank is asked to stop.
    fn steps(&mut self, mut loader: Loader) -> Result<(), TrainError> {
        let Run { measure, trainer, keeper, report } = self;
        let Measure { config, plan, ranks, .. } = *measure;
        let mut stop = measure.if_due(trainer, report)?;
        while trainer.n_done < plan.n_steps() && !stop {
            let started = Instant::now();
            // The ranks must agree on the last step, and on when all have written their part of a
            // checkpoint; the answers come while the step is computed.
            let vote = ranks.ask([interrupt::requested(), keeper.is_writing()?])?;
            let batch = loader.next_batch()?;
            let figures = trainer.step(&batch)?;
            loader.recycle(batch);
            let [asked_to_stop, any_writes] = vote.count()?;
            stop = asked_to_stop;

            let n_done = trainer.n_done;
            report.step(n_done, &figures, started.elapsed(), loader.take_waited())?;
            if plan.completes_epoch(n_done) {
                report.epoch(n_done)?;
            }
            stop = stop || measure.if_due(trainer, report)?;
            let started = Instant::now();
            if !any_writes {
                keeper.publish()?;
            }
            let scheduled = is_due(config.checkpoint.every_steps, plan, n_done);
            if scheduled || stop {
                keeper.save(trainer, &report.tally, scheduled)?;
            }
            report.saved(started.elapsed());
        }
        keeper.settle(&mut trainer.head)
    }
}

/// Normalisation needs two images in every part of every rank.
fn check_ranks(plan: &Plan, n_parts: usize, ranks: &Ranks) -> Result<(), TrainError> {
    let (world, batch_size) = (ranks.world(), plan.batch_size);
    if plan.images_of_rank(world - 1, world) / n_parts < 2 {
        return Err(TrainError::TooManyParts { world, n_parts, batch_size });
    }
    Ok(())
}

/// The folder, which the first rank makes and takes hold of for all.
fn open_folder(
    path: &Path,
    start: Start,
    config: &Config,
    ranks: &Ranks,
) -> Result<RunFolder, TrainError> {
    let folder = if ranks.is_first() {
        let folder = RunFolder::open(path, start)?;
        pfc_durable::write(&folder.config(), config.to_toml().as_bytes())?;
        folder
    } else {
        RunFolder::of_other_rank(path)
    };
    ranks.meet()?;
    Ok(folder)
}

/// Whether something done every so many steps, 0 for every epoch, is due after `n_done` of them.
fn is_due(every_steps: u64, plan: &Plan, n_done: u64) -> bool {
    let is_last = n_done == plan.n_steps();
    is_last
        || match every_steps {
            0 => plan.completes_epoch(n_done),
            n => n_done.is_multiple_of(n),
        }
}

/// Measures the model on the way.
#[derive(Clone, Copy)]
struct Measure<'a> {
    config: &'a Config,
    plan: &'a Plan,
    verifier: &'a Verifier,
    ranks: &'a Ranks,
}

impl Measure<'_> {
    /// Measures it where that is due, unless a run that was stopped here already had. Whether any
    /// rank was asked to stop meanwhile.
    fn if_due(&self, trainer: &Trainer, report: &mut Report) -> Result<bool, TrainError> {
        let n_done = trainer.n_done;
        let due = n_done == 0 || is_due(self.config.eval.every_steps, self.plan, n_done);
        if !due || self.verifier.is_empty() || report.has_evaluated(n_done) {
            return Ok(false);
        }
        match self.verifier.run(trainer.measured(), self.ranks) {
            Ok(scores) => report.eval(n_done, scores).map(|()| false),
            // The run is saved next, and measured when it is resumed.
            Err(TrainError::Eval(EvalError::Interrupted)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn set_threads(n: usize) {
    tch::set_num_threads(n as i32);
    // Fails where a test has set it before, in the same process.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(n).build_global();
}

fn report_spec(config: &Config, plan: Plan, n_done: u64, quiet: bool) -> ReportSpec {
    let every_steps = config.log.every_steps;
    ReportSpec { plan, n_done, every_steps, tensorboard: config.log.tensorboard, quiet }
}

fn loader_spec(config: &Config, plan: Plan, ranks: &Ranks, first_step: u64) -> LoaderSpec {
    let device = config.train.device(ranks.local_rank()).unwrap_or(Device::Cpu);
    let n_threads = config.data.n_threads(device.is_cuda());
    let (n_ahead, mirror) = (config.data.batches_ahead, config.data.mirror);
    let (rank, world) = (ranks.rank(), ranks.world());
    LoaderSpec { plan, rank, world, first_step, n_threads, n_ahead, mirror, device }
}

fn opening(config: &Config, dataset: &Dataset, plan: &Plan, ranks: &Ranks, n_done: u64) -> String {
    let head = config.head_config(dataset.n_identities());
    let resumed =
        if n_done > 0 { format!(", going on after step {n_done}") } else { String::new() };
    let among = match ranks.world() {
        1 => String::new(),
        world => format!(" among {world} ranks"),
    };
    format!(
        "{} on {} images of {} identities, {} centres a step, {} steps of {} in {} \
         epochs{among}{resumed}",
        config.model.network,
        plan.n_images,
        dataset.n_identities(),
        head.rows_per_step(),
        plan.n_steps(),
        plan.batch_size,
        plan.epochs,
    )
}

fn stopped(folder: &RunFolder, trainer: &Trainer, plan: &Plan) -> String {
    let (n_done, n_steps) = (trainer.n_done, plan.n_steps());
    let command = resume_command(folder.path());
    format!("stopped after step {n_done} of {n_steps}; to go on:\n  {command}")
}
