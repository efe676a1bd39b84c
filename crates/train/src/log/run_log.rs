//! What a run logs while it goes: lines on standard error, JSON lines, TensorBoard.

use std::{
    collections::HashSet,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use pfc_cli::{Progress, tell, units::duration};
use pfc_model::memory_in_use;
use tch::Device;

use crate::{
    TrainError,
    data::{loader::Replaced, plan::StepPlan},
    log::{
        Score,
        journal::{Journal, StartRecord},
        metrics::{EpochRecord, EvalRecord, MetricsFile, Record, TrainRecord},
        tally::Tally,
        tensorboard::EventFile,
    },
    ranks::{Ranks, launch},
    run_folder::RunFolder,
    step::{CosineCounts, NotFinite, StepFigures},
};

/// How a run is logged.
#[derive(Debug, Clone, Copy)]
pub struct RunLogSpec {
    /// Which images make up which step.
    pub plan: StepPlan,
    /// Steps finished before this start.
    pub n_done: u64,
    /// Steps between two lines.
    pub every_steps: u64,
    /// Also write an event file.
    pub tensorboard: bool,
    /// Nothing on standard error.
    pub quiet: bool,
}

/// The log of one start of a run.
#[derive(Debug)]
pub struct RunLog {
    spec: RunLogSpec,
    /// On the first rank only; the others write nothing.
    metrics: Option<MetricsFile>,
    events: Option<EventFile>,
    journal: Option<Journal>,
    events_dir: PathBuf,
    progress: Progress,
    /// Sums since the last line and since the epoch began.
    pub tally: Tally,
    clock: Clock,
    /// The last step for which verification was reported.
    evaluated: Option<u64>,
    /// What was measured before this start, with the steps finished by then.
    kept_scores: Vec<(u64, Vec<Score>)>,
    /// Images that could not be loaded; on the first rank only.
    unreadable: Option<Unreadable>,
    /// On a GPU, which it is, and what does the work on centres.
    gpu: Option<(Device, String)>,
}

/// Where the time of the steps since the last line went.
#[derive(Debug, Default)]
struct Clock {
    n_steps: u64,
    elapsed: Duration,
    waited: Duration,
    head_ms: f64,
    comm_ms: f64,
    saved: Duration,
}

impl RunLog {
    /// Opens the files of the run in `folder`; what they hold of steps after `n_done` is dropped.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn open(folder: &RunFolder, spec: RunLogSpec, tally: Tally) -> Result<RunLog, TrainError> {
        let (metrics, kept) = MetricsFile::open(&folder.metrics(), spec.n_done)?;
        let scores = kept.into_iter().filter_map(|record| match record {
            Record::Eval(EvalRecord { step, score, .. }) => Some((step, vec![score])),
            _ => None,
        });
        let kept_scores: Vec<(u64, Vec<Score>)> = scores.collect();
        let evaluated = kept_scores.last().map(|(step, _)| *step);
        let events_dir = folder.tensorboard();
        let events = if spec.tensorboard {
            let file = EventFile::create(&events_dir, first_step_to_forget(spec.n_done));
            Some(file.map_err(TrainError::io("write", &events_dir))?)
        } else {
            None
        };
        let progress = Progress::new("train", "steps", spec.plan.n_steps(), spec.quiet);
        progress.add(spec.n_done);
        let clock = Clock::default();
        let metrics = Some(metrics);
        Ok(RunLog {
            spec,
            metrics,
            events,
            journal: Some(Journal::open(&folder.log())?),
            events_dir,
            progress,
            tally,
            clock,
            evaluated,
            kept_scores,
            unreadable: Some(Unreadable::open(&folder.unreadable())?),
            gpu: None,
        })
    }

    /// The log of the other ranks, which counts and prints nothing.
    #[must_use]
    pub fn silent(spec: RunLogSpec, tally: Tally) -> RunLog {
        RunLog {
            spec: RunLogSpec { quiet: true, ..spec },
            metrics: None,
            events: None,
            journal: None,
            events_dir: PathBuf::new(),
            progress: Progress::new("train", "steps", spec.plan.n_steps(), true),
            tally,
            clock: Clock::default(),
            evaluated: None,
            kept_scores: Vec::new(),
            unreadable: None,
            gpu: None,
        }
    }

    /// Has every line of figures say from now on how much memory of a GPU is in use, and what does the
    /// work on centres there; on a CPU there is nothing to say.
    pub fn computes_on(&mut self, device: Device, head_operations: &str) {
        self.gpu = device.is_cuda().then(|| (device, head_operations.to_owned()));
    }

    /// What was measured before this start, with the steps finished by then.
    pub fn kept_scores(&self) -> &[(u64, Vec<Score>)] {
        &self.kept_scores
    }

    /// Whether nothing goes to standard error.
    pub fn is_quiet(&self) -> bool {
        self.spec.quiet
    }

    /// Takes over from the first rank which step was measured last.
    ///
    /// # Errors
    ///
    /// [`TrainError::Ranks`].
    pub fn agree(&mut self, ranks: &Ranks) -> Result<(), TrainError> {
        self.evaluated = ranks.of_first(self.evaluated)?;
        Ok(())
    }

    /// Whether the figures of verification after `step` are written.
    pub fn has_evaluated(&self, step: u64) -> bool {
        self.evaluated == Some(step)
    }

    /// Prints a sentence to standard error, unless the log is quiet, and keeps it in `train.log`.
    pub fn say(&mut self, text: &str) {
        self.keep(text);
        say(self.spec.quiet, &self.progress, text);
    }

    /// Keeps a sentence that was printed already in `train.log`.
    pub fn keep(&mut self, text: &str) {
        if let Some(journal) = &mut self.journal {
            journal.add(text);
        }
    }

    /// Keeps what this start runs on, and its configuration for TensorBoard; on the first rank only.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn started(
        &mut self,
        folder: &RunFolder,
        start: &StartRecord,
        config: &str,
    ) -> Result<(), TrainError> {
        if self.journal.is_some() {
            start.append(&folder.starts())?;
        }
        let Some(events) = &mut self.events else { return Ok(()) };
        // Markdown takes lines that are indented for text as it is.
        let text: String = config.lines().map(|line| format!("    {line}\n")).collect();
        let written = events.text(start.step, "config", &text);
        written.map_err(TrainError::io("write", &self.events_dir))
    }

    /// Counts a step that took `elapsed`, of which `waited` for data; writes a line when one is due.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn step(
        &mut self,
        n_done: u64,
        figures: &StepFigures,
        elapsed: Duration,
        waited: Duration,
    ) -> Result<(), TrainError> {
        self.tally.add(figures);
        if let Some(NotFinite { what, in_a_row }) = figures.not_finite {
            self.say(&format!(
                "warning: step {n_done} is left out, {in_a_row} in a row so far: {what} is not finite"
            ));
        }
        self.clock.n_steps += 1;
        self.clock.elapsed += elapsed;
        self.clock.waited += waited;
        self.clock.head_ms += figures.head_ms;
        self.clock.comm_ms += figures.comm_ms;
        self.progress.add(1);
        if !n_done.is_multiple_of(self.spec.every_steps) && n_done != self.spec.plan.n_steps() {
            return Ok(());
        }
        let record = self.record(n_done, figures);
        let n_left = self.spec.plan.n_steps().saturating_sub(n_done);
        let steps_per_s = record.images_per_s / self.spec.plan.batch_size as f64;
        self.say(&train_line(&record, self.spec.plan.n_steps(), n_left as f64 / steps_per_s));
        self.progress.note(bar_note(&record));
        let mut scalars = scalars_of(&record);
        scalars.push(("train/head_lr".to_owned(), figures.head_lr));
        self.write(Record::Train(record))?;
        self.scalars(n_done, scalars)?;
        self.cosines(n_done, &figures.cosines)
    }

    /// Counts images that could not be loaded in the step to come, on whichever rank, and lists them in
    /// `unreadable.jsonl`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn replaced(&mut self, images: &[Replaced]) -> Result<(), TrainError> {
        self.tally.add_replaced(images.len() as u64);
        let Some(list) = &mut self.unreadable else { return Ok(()) };
        let mut lines = Vec::new();
        for image in images {
            if list.add(image)? {
                let Replaced { row, by, reason } = image;
                lines.push(format!("warning: row {by} takes the place of row {row}: {reason}"));
            }
        }
        lines.iter().for_each(|line| self.say(line));
        Ok(())
    }

    /// The figures of the steps since the last line, whose count begins again.
    fn record(&mut self, n_done: u64, figures: &StepFigures) -> TrainRecord {
        let clock = std::mem::take(&mut self.clock);
        let means = self.tally.window.take();
        let seconds = clock.elapsed.as_secs_f64();
        TrainRecord {
            step: n_done,
            epoch: self.epochs(n_done),
            loss: means.loss,
            grad_norm: means.grad_norm,
            lr: figures.lr,
            cavg: means.cavg,
            images_per_s: (clock.n_steps * self.spec.plan.batch_size) as f64 / seconds,
            data_wait: clock.waited.as_secs_f64() / seconds,
            head_ms: clock.head_ms / clock.n_steps as f64,
            comm_ms: clock.comm_ms / clock.n_steps as f64,
            peak_memory_mib: peak_memory_mib(),
            gpu_memory_mib: self.gpu.as_ref().and_then(|(device, _)| gpu_memory_mib(*device)),
            head_operations: self.gpu.as_ref().map(|(_, operations)| operations.clone()),
            save_ms: clock.saved.as_secs_f64() * 1e3,
            loss_scale: figures.loss_scale,
            n_skipped: means.n_skipped,
            n_not_finite: means.n_not_finite,
            n_replaced: means.n_replaced,
        }
    }

    /// Writes the mean loss of the epoch that `n_done` steps complete.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn epoch(&mut self, n_done: u64) -> Result<(), TrainError> {
        let epoch = self.spec.plan.epoch_of(n_done);
        let mean_loss = self.tally.epoch.take().loss;
        let n_epochs = self.spec.plan.n_epochs().ceil();
        self.say(&format!("epoch {epoch}/{n_epochs}  mean loss {}", shown(mean_loss, 3)));
        self.write(Record::Epoch(EpochRecord { step: n_done, epoch, mean_loss }))?;
        let scalar = mean_loss.map(|loss| ("train/epoch_loss".to_owned(), loss));
        self.scalars(n_done, scalar.into_iter().collect())
    }

    /// Writes the figures of verification after `n_done` steps.
    ///
    /// # Errors
    ///
    /// [`TrainError::Durable`].
    pub fn eval(&mut self, n_done: u64, scores: Vec<Score>) -> Result<(), TrainError> {
        let epoch = self.epochs(n_done);
        for score in scores {
            self.say(&eval_line(n_done, &score));
            let tag = |name: &str| format!("eval/{}/{name}", score.set);
            let mut scalars =
                vec![(tag("accuracy"), score.accuracy), (tag("mean_norm"), score.mean_norm)];
            scalars.extend(score.auc.map(|auc| (tag("auc"), auc)));
            self.write(Record::Eval(EvalRecord { step: n_done, epoch, score }))?;
            self.scalars(n_done, scalars)?;
        }
        self.evaluated = Some(n_done);
        Ok(())
    }

    /// Counts time for which saving held up the steps.
    pub fn saved(&mut self, elapsed: Duration) {
        self.clock.saved += elapsed;
    }

    /// Takes the progress bar off the screen.
    pub fn finish(&self) {
        self.progress.finish();
    }

    fn epochs(&self, n_done: u64) -> f64 {
        n_done as f64 / self.spec.plan.steps_per_epoch() as f64
    }

    fn write(&mut self, record: Record) -> Result<(), TrainError> {
        self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.write(&record))
    }

    /// The cosines of this step's images with the centres of their own classes, for TensorBoard.
    fn cosines(&mut self, step: u64, counts: &CosineCounts) -> Result<(), TrainError> {
        let Some(events) = &mut self.events else { return Ok(()) };
        if counts.0.iter().all(|n| *n == 0) {
            return Ok(());
        }
        let written = events.histogram(step, "train/cosines", (-1.0, 1.0), &counts.0);
        written.map_err(TrainError::io("write", &self.events_dir))
    }

    fn scalars(&mut self, step: u64, scalars: Vec<(String, f64)>) -> Result<(), TrainError> {
        let Some(events) = &mut self.events else { return Ok(()) };
        events.scalars(step, &scalars).map_err(TrainError::io("write", &self.events_dir))
    }
}

/// The list of images that could not be loaded, one JSON object a line, each row once.
#[derive(Debug)]
struct Unreadable {
    path: PathBuf,
    rows: HashSet<u64>,
}

impl Unreadable {
    /// Opens the list, and keeps what an earlier start of the run wrote to it.
    fn open(path: &Path) -> Result<Unreadable, TrainError> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            text => text.map_err(TrainError::io("read", path))?,
        };
        let lines = text.split(|byte| *byte == b'\n');
        let row = |line: &[u8]| Some(serde_json::from_slice::<Replaced>(line).ok()?.row);
        Ok(Unreadable { path: path.to_owned(), rows: lines.filter_map(row).collect() })
    }

    /// Adds an image. Returns whether it is new.
    fn add(&mut self, image: &Replaced) -> Result<bool, TrainError> {
        if !self.rows.insert(image.row) {
            return Ok(false);
        }
        let mut line = serde_json::to_vec(image).expect("numbers and text become JSON");
        line.push(b'\n');
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(&line))
            .map_err(TrainError::io("write", &self.path))?;
        Ok(true)
    }
}

/// The scalars of a record for TensorBoard, by tag.
fn scalars_of(record: &TrainRecord) -> Vec<(String, f64)> {
    let means = [
        ("train/loss", record.loss),
        ("train/grad_norm", record.grad_norm),
        ("train/cavg", record.cavg),
        ("train/loss_scale", record.loss_scale),
    ];
    let means = means.into_iter().filter_map(|(tag, value)| Some((tag, value?)));
    let always = [
        ("train/lr", record.lr),
        ("speed/images_per_s", record.images_per_s),
        ("speed/data_wait", record.data_wait),
        ("speed/head_ms", record.head_ms),
        ("speed/comm_ms", record.comm_ms),
        ("speed/peak_memory_mib", record.peak_memory_mib),
        ("speed/save_ms", record.save_ms),
    ];
    means.chain(always).map(|(tag, value)| (tag.to_owned(), value)).collect()
}

/// TensorBoard forgets this step too; figures of the last finished one are kept. Those of step 0 are
/// measured again unless there are some.
fn first_step_to_forget(n_done: u64) -> u64 {
    n_done + u64::from(n_done > 0)
}

/// `VmHWM` of `/proc/self/status`.
fn peak_memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

fn gpu_memory_mib(device: Device) -> Option<f64> {
    memory_in_use(device).map(|bytes| bytes as f64 / f64::from(1 << 20))
}

/// Prints a line to standard error, clear of the progress bar.
fn say(quiet: bool, progress: &Progress, text: &str) {
    if !quiet {
        progress.suspend(|| tell(text));
    }
}

/// What stands after the figures of the progress bar.
fn bar_note(record: &TrainRecord) -> String {
    format!("loss {}  {} img/s", shown(record.loss, 3), speed(record.images_per_s))
}

/// Images a second: with a decimal where there are few.
fn speed(images_per_s: f64) -> String {
    let decimals = if images_per_s < 100.0 { 1 } else { 0 };
    format!("{images_per_s:.decimals$}")
}

fn train_line(record: &TrainRecord, n_steps: u64, seconds_left: f64) -> String {
    let TrainRecord { step, loss, grad_norm, cavg, images_per_s, .. } = record;
    let scale = record.loss_scale.map_or(String::new(), |scale| {
        let skipped = match record.n_skipped {
            0 => String::new(),
            n => format!(" ({n} skipped)"),
        };
        format!("  scale {scale}{skipped}")
    });
    let not_finite = match record.n_not_finite {
        0 => String::new(),
        n => format!("  {n} not finite"),
    };
    let replaced = match record.n_replaced {
        0 => String::new(),
        n => format!("  {n} unreadable"),
    };
    let speed = speed(*images_per_s);
    let width = n_steps.to_string().len();
    format!(
        "step {step:>width$}/{n_steps}  loss {}  grad_norm {}  lr {}  cavg {}{scale}{not_finite}{replaced}  \
         {speed} img/s  data {:.1}%  {} left",
        shown(*loss, 3),
        shown(*grad_norm, 2),
        learning_rate(record.lr),
        shown(*cavg, 3),
        record.data_wait * 100.0,
        duration(seconds_left),
    )
}

/// A mean, or a dash for one of no steps.
pub(super) fn shown(mean: Option<f64>, decimals: usize) -> String {
    mean.map_or_else(|| "–".to_owned(), |mean| format!("{mean:.decimals$}"))
}

fn learning_rate(lr: f64) -> String {
    if lr == 0.0 || lr >= 1e-3 { format!("{lr:.4}") } else { format!("{lr:.2e}") }
}

fn eval_line(step: u64, score: &Score) -> String {
    let spread = score.std.map_or(String::new(), |std| format!(" ± {std:.4}"));
    let auc = score.auc.map_or(String::new(), |auc| format!("  auc {auc:.4}"));
    let Score { set, accuracy, threshold, .. } = score;
    format!(
        "eval at step {step}  {set}  accuracy {accuracy:.4}{spread}{auc}  threshold {threshold:.2}"
    )
}

/// How to go on with a run, as a command; ranks that others started are for these to start again.
pub fn resume_command(folder: &Path) -> String {
    let folder = folder.display();
    let options = launch::options();
    format!("pfc-train run {folder}/config.toml --out {folder} --resume{options}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_figures_that_a_trainer_looks_for() {
        let record = TrainRecord {
            step: 1200,
            epoch: 0.2,
            loss: Some(13.4071),
            grad_norm: Some(2.314),
            lr: 0.0982,
            cavg: Some(0.31),
            images_per_s: 8412.4,
            data_wait: 0.031,
            head_ms: 2.0,
            comm_ms: 0.0,
            peak_memory_mib: 0.0,
            gpu_memory_mib: None,
            head_operations: None,
            save_ms: 0.0,
            loss_scale: None,
            n_skipped: 0,
            n_not_finite: 0,
            n_replaced: 0,
        };
        assert_eq!(
            train_line(&record, 58000, 7534.0),
            "step  1200/58000  loss 13.407  grad_norm 2.31  lr 0.0982  cavg 0.310  8412 img/s  \
             data 3.1%  2h05m left"
        );
        let half = TrainRecord { loss_scale: Some(32768.0), n_skipped: 2, ..record.clone() };
        let line = train_line(&half, 1200, 0.0);
        assert!(line.contains("  cavg 0.310  scale 32768 (2 skipped)  8412 img/s"), "{line}");
        let odd = TrainRecord { n_not_finite: 1, n_replaced: 3, ..record.clone() };
        let line = train_line(&odd, 1200, 0.0);
        assert!(line.contains("  cavg 0.310  1 not finite  3 unreadable  8412 img/s"), "{line}");
        let none = TrainRecord { loss: None, grad_norm: None, cavg: None, ..odd };
        let line = train_line(&none, 1200, 0.0);
        assert!(
            line.contains("  loss –  grad_norm –  lr 0.0982  cavg –  1 not finite  "),
            "{line}"
        );
        let tags = scalars_of(&none);
        assert!(tags.iter().all(|(tag, _)| tag == "train/lr" || tag.starts_with("speed/")));
        let slow = TrainRecord { images_per_s: 46.25, lr: 2.5e-4, ..record };
        let line = train_line(&slow, 1200, 0.0);
        assert!(line.contains("  lr 2.50e-4  "), "{line}");
        assert!(line.ends_with("  46.2 img/s  data 3.1%  0s left"), "{line}");
    }

    #[test]
    fn a_set_without_folds_or_curve_shows_what_it_has() {
        let score = Score {
            set: "lfw".into(),
            accuracy: 0.8265,
            std: None,
            auc: Some(0.91234),
            threshold: 1.234,
            mean_norm: 20.0,
        };
        assert_eq!(
            eval_line(74, &score),
            "eval at step 74  lfw  accuracy 0.8265  auc 0.9123  threshold 1.23"
        );
        let folds = Score { std: Some(0.0123), auc: None, ..score };
        assert!(eval_line(74, &folds).contains("accuracy 0.8265 ± 0.0123  threshold"));
    }

    #[test]
    fn a_resumed_run_keeps_the_figures_of_the_step_that_it_goes_on_after() {
        assert_eq!([0, 300].map(first_step_to_forget), [0, 301]);
    }
}
