//! `pfc-train verify`: every byte of a checkpoint against its checksums, and every number that has to be finite.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pfc_cli::{Format, Outcome, Progress, print_json, print_text, units};
use pfc_head::HeadError;
use pfc_model::{
    Backbone, ModelError, check_finite,
    checkpoint::{BACKBONE, Checkpoint, MANIFEST},
};
use serde::Serialize;
use tch::Device;

use crate::{
    TrainError,
    checkpoint::{
        OPTIMIZER, SavedRun, TRAINED,
        centres::{CHUNK_ROWS, Centres},
    },
};

pub(crate) const HELP: &str = "\
Examples:
  pfc-train verify runs/a/last.ckpt
  pfc-train verify runs/a/last.ckpt --json

Exit codes: 0 the checkpoint is whole, 1 it is damaged, 2 it could not be examined.";

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Checkpoint, a folder that ends in .ckpt
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// Where the run's `head.centres = { file = … }` is now, if it was moved
    #[arg(long, value_name = "DIR")]
    centres_in: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// What was examined, and what is wrong with it.
#[derive(Debug, Default, Serialize)]
struct Examined {
    clean: bool,
    /// Steps that the run had taken; absent where weights alone are kept.
    step: Option<u64>,
    files: u64,
    /// Of these files.
    bytes: u64,
    /// Centres that were read.
    centres: u64,
    /// Each names its file.
    findings: Vec<String>,
}

/// Runs `pfc-train verify`.
pub(crate) fn verify(args: &VerifyArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let examined = args
        .examine(quiet)
        .with_context(|| format!("cannot verify `{}`", args.checkpoint.display()))?;
    if args.format.json {
        print_json(&examined)?;
    } else {
        print_text(examined.text())?;
    }
    Ok(if examined.clean { Outcome::Clean } else { Outcome::Findings })
}

impl VerifyArgs {
    fn examine(&self, quiet: bool) -> Result<Examined, TrainError> {
        let mut examined = Examined::default();
        if let Some(checkpoint) = examined.note(open(&self.checkpoint)?)? {
            let has_whole_centres = examine_files(&checkpoint, &mut examined)?;
            examined.step = checkpoint.manifest().progress.as_ref().map(|progress| progress.step);
            if examined.step.is_some() && has_whole_centres {
                self.examine_centres(checkpoint, &mut examined, quiet)?;
            }
        }
        examined.clean = examined.findings.is_empty();
        Ok(examined)
    }

    /// Reads every centre, of a checkpoint that a run wrote, until one is damaged.
    fn examine_centres(
        &self,
        checkpoint: Checkpoint,
        examined: &mut Examined,
        quiet: bool,
    ) -> Result<(), TrainError> {
        let run = SavedRun::of(checkpoint, &self.checkpoint)?;
        let opened = Centres::of_run(&run, self.centres_in.as_deref());
        let Some(mut centres) = examined.note(opened)? else { return Ok(()) };
        let n_rows = centres.n_rows();
        let progress = Progress::new("verify", "centres", n_rows, quiet);
        for first in (0..n_rows).step_by(CHUNK_ROWS as usize) {
            let rows = first..(first + CHUNK_ROWS).min(n_rows);
            let n_read = rows.end - rows.start;
            if examined.note(centres.read(rows))?.is_none() {
                break;
            }
            examined.centres += n_read;
            progress.add(n_read);
        }
        progress.finish();
        Ok(())
    }
}

/// The checkpoint, or what is wrong with it.
///
/// # Errors
///
/// [`TrainError::Model`] where there is none.
fn open(path: &Path) -> Result<Result<Checkpoint, TrainError>, TrainError> {
    match Checkpoint::open(path) {
        Err(error @ ModelError::NotACheckpoint { .. }) if !path.join(MANIFEST).is_file() => {
            Err(error.into())
        }
        opened => Ok(opened.map_err(TrainError::from)),
    }
}

/// Whether the files of the centres are what the manifest says.
fn examine_files(checkpoint: &Checkpoint, examined: &mut Examined) -> Result<bool, TrainError> {
    let mut has_whole_centres = true;
    for entry in &checkpoint.manifest().files {
        let name = entry.name.as_str();
        let is_whole = examined.note(examine_file(checkpoint, name).map_err(TrainError::from))?;
        let is_of_network = [BACKBONE, TRAINED, OPTIMIZER].contains(&name);
        has_whole_centres &= is_of_network || is_whole.is_some();
        examined.files += 1;
        examined.bytes += entry.size;
    }
    if !checkpoint.has(BACKBONE) {
        examined.note(checkpoint.verify_file(BACKBONE).map_err(TrainError::from))?;
    }
    Ok(has_whole_centres)
}

/// Compares a file's checksum and, of a network and its optimizer, reads the numbers. Those of the centres are
/// read with the rows that they belong to.
fn examine_file(checkpoint: &Checkpoint, name: &str) -> Result<(), ModelError> {
    if ![BACKBONE, TRAINED, OPTIMIZER].contains(&name) {
        return checkpoint.verify_file(name);
    }
    let tensors = checkpoint.tensors(name)?;
    let origin = checkpoint.path().join(name).display().to_string();
    if name == OPTIMIZER {
        return tensors.iter().try_for_each(|(key, tensor)| check_finite(&origin, key, tensor));
    }
    let spec = &checkpoint.manifest().backbone;
    Backbone::from_state_dict(spec, Device::Cpu, &origin, &tensors).map(drop)
}

impl Examined {
    /// Notes a fault of the checkpoint, of which nothing is given back.
    ///
    /// # Errors
    ///
    /// Any other error: the checkpoint could not be examined.
    fn note<T>(&mut self, found: Result<T, TrainError>) -> Result<Option<T>, TrainError> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_fault(&error) => {
                self.findings.push(format!("{:#}", anyhow::Error::from(error)));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A line for each fault, and one that sums up.
    fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            text += finding;
            text.push('\n');
        }
        let verdict = match self.findings.len() {
            0 => "whole".to_owned(),
            n => units::of(n as u64, "fault"),
        };
        let Examined { step, files, bytes, centres, .. } = self;
        let step = step.map_or_else(String::new, |step| format!(" of step {step}"));
        let (files, bytes) = (units::of(*files, "file"), units::bytes(*bytes));
        let centres = units::of(*centres, "centre");
        text + &format!("{verdict}: {files}{step} in {bytes} and {centres} examined\n")
    }
}

/// Whether an error says that bytes are not those that the checkpoint needs, or hold what no run goes on from;
/// anything else says nothing about them.
fn is_fault(error: &TrainError) -> bool {
    match error {
        TrainError::Model(error) | TrainError::Head(HeadError::Model(error)) => {
            error.is_damage() || is_unusable(error)
        }
        TrainError::Head(error) => matches!(
            error,
            HeadError::CentreFile { .. }
                | HeadError::CentresDamaged { .. }
                | HeadError::CentreNotFinite { .. }
                | HeadError::State { .. }
        ),
        _ => false,
    }
}

fn is_unusable(error: &ModelError) -> bool {
    matches!(
        error,
        ModelError::NotFinite { .. }
            | ModelError::NegativeVariance { .. }
            | ModelError::MissingTensor { .. }
            | ModelError::UnexpectedTensor { .. }
            | ModelError::TensorShape { .. }
            | ModelError::TensorKind { .. }
    )
}
