//! `pfc-ingest detect`: photographs with identities become aligned faces, by a detector.
//!
//! Pictures are worked on chunk by chunk, in the order of the source. A chunk counts once its crops are written
//! and its record is in the journal, so that a command that was killed goes on.

mod chunk;
mod journal;
mod record;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use pfc_cli::{
    Format, Outcome, Progress, interrupt, print_json, print_table, table,
    units::{self, count},
};
use pfc_detect::{Choice, SearchArgs};
use pfc_onnx::{OnnxModel, OpenOptions};
use pfc_sources::{InputOptions, Source};
use serde::Serialize;

use crate::{
    IngestError, crops::CropArgs, loss::LossArgs, output, pack::quarantine, threads::Threads,
};
use chunk::{Names, Recipe, Take, chunks};
use journal::Journal;
use record::{ChunkRecord, JobRecord};

/// Find the faces of photographs and cut them out, aligned.
///
/// RAW is whatever `pack` reads: a folder with a folder of photographs for each person, a list, an archive. The
/// detector is an ONNX file that you bring; which one it is, is told by its outputs: SCRFD and RetinaFace with
/// five landmarks, YuNet, CenterFace. Of each picture one face is taken, or all with `--face all`, turned,
/// scaled and shifted as `align` does it, and written to OUT/NAME/. OUT/faces.csv says of each crop where it
/// was found: box, landmarks, score, pose, sharpness. Pictures without a face, and what cannot be read, are
/// listed with the reason in OUT/quarantine.jsonl.
///
/// A picture is scaled down to --detect-size and looked at as a whole; where that shows no face, in tiles of
/// twice the resolution, up to --detect-levels, and at last at half the size. `--face all` looks at all levels.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest detect photos faces --detector face_detection_yunet_2023mar.onnx
  pfc-ingest detect photos faces --detector det_10g.onnx --min-face 40 --max-yaw 60
  pfc-ingest detect photos faces --detector yunet.onnx --face nearest --model sface.onnx
  pfc-ingest detect groups.zip faces --detector det_10g.onnx --face all --detect-levels 4
  pfc-ingest pack faces data

A command that was stopped or killed goes on where it was when it is run again. The same input,
options and model give the same bytes on any number of threads. To pack without files in between:
`pfc-ingest pack photos data --detector FILE.onnx`. Where models come from, and under which
licences, is in docs/photographs.md: read them, as several are for research only.")]
pub struct DetectArgs {
    /// Folder, file, pattern of files, or `-` for a list on standard input
    raw: PathBuf,
    /// Folder to make
    out: PathBuf,
    /// Network that finds faces and five landmarks of each
    #[arg(long, value_name = "FILE.onnx")]
    detector: PathBuf,
    #[command(flatten)]
    search: SearchArgs,
    /// Which faces of a picture are taken
    #[arg(long, value_enum, default_value_t)]
    face: FaceOption,
    /// Network that embeds faces, to tell who is who for `--face nearest`
    #[arg(long, value_name = "FILE.onnx", required_if_eq("face", "nearest"))]
    model: Option<PathBuf>,
    #[command(flatten)]
    input: InputOptions,
    #[command(flatten)]
    crops: CropArgs,
    /// Drop what an interrupted command has done, and begin anew
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    output: Format,
}

/// The `--face` option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum FaceOption {
    /// The largest.
    #[default]
    Largest,
    /// The one nearest the middle of the picture.
    Central,
    /// The one most like the person's faces in the other pictures, by --model.
    Nearest,
    /// All of them, the largest first: NAME/1.jpg, NAME/1.face2.jpg, ….
    All,
}

/// Counts of a finished run, as `--json` prints them.
#[derive(Debug, Default, Serialize)]
struct Summary {
    pictures: u64,
    faces: u64,
    quarantined: u64,
    /// Pictures that gave no face, by reason.
    reasons: BTreeMap<String, u64>,
    skipped: u64,
    detector: String,
    provider: &'static str,
    seconds: f64,
    /// Of those that were worked on just now.
    pictures_per_second: f64,
}

/// Runs the command.
pub fn run(args: &DetectArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let raw = args.raw.display();
    let summary =
        detect(args, quiet).with_context(|| format!("cannot find the faces of `{raw}`"))?;
    if args.output.json {
        print_json(&summary)?;
    } else {
        print(&summary)?;
    }
    if summary.quarantined > 0 {
        let pictures = units::of(summary.quarantined, "picture");
        let list = args.out.join(quarantine::FILE);
        tracing::warn!("{pictures} without a face; the reasons are in {}", list.display());
    }
    Ok(args.loss.judge(summary.pictures - summary.quarantined, summary.quarantined))
}

fn print(summary: &Summary) -> std::io::Result<()> {
    let mut table = table(["found", ""]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("pictures", count(summary.pictures));
    row("faces", count(summary.faces));
    row("pictures without a face", count(summary.quarantined));
    for (reason, n) in &summary.reasons {
        row(&format!("  {reason}"), count(*n));
    }
    row("seconds", format!("{:.1}", summary.seconds));
    row("pictures/s", count(summary.pictures_per_second as u64));
    print_table(&table)
}

fn detect(args: &DetectArgs, quiet: bool) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let owned = output::claim(&[&args.raw], &args.out)?;
    let pool = args.threads.pool()?;
    let recipe = args.recipe(pool.current_num_threads())?;
    let scratch = scratch(&args.out)?;
    let source = pool.install(|| pfc_sources::open(&args.raw, &args.input, &scratch, quiet))?;
    let mut unfinished = owned.resume()?;
    // Without a job, it is of another command, or of one that was killed at its very end.
    if args.restart || !journal::has_job(unfinished.path())? {
        unfinished = unfinished.begin_anew()?;
    }
    let job = JobRecord::of(&*source, args.content_arguments(&recipe));
    let journal = Journal::open(unfinished.path(), &args.out, job)?;
    let work = || work(&journal, &*source, &recipe, quiet);
    let (mut summary, n_now) = match pool.install(work)? {
        Some(done) => done,
        None => {
            let (path, n) = (args.raw.clone(), source.index().len());
            let example = journal.first_reason().unwrap_or_default();
            unfinished.discard()?;
            return Err(IngestError::NothingUsable { path, n, example }.into());
        }
    };
    journal.remove()?;
    unfinished.commit()?;
    summary.detector = recipe.finder.detector.family().to_string();
    summary.provider = recipe.finder.detector.provider();
    summary.seconds = started.elapsed().as_secs_f64();
    summary.pictures_per_second = n_now as f64 / summary.seconds.max(1e-9);
    Ok(summary)
}

/// A folder that exists on the disk that is written to, for temporary files.
fn scratch(out: &Path) -> Result<PathBuf, IngestError> {
    let path = std::path::absolute(out).map_err(IngestError::at("find", out))?;
    let above = path.ancestors().skip(1).find(|folder| folder.is_dir());
    Ok(above.unwrap_or(&path).to_path_buf())
}

/// Works on the chunks that are left to do, then writes the tables. Returns what was found, and how many
/// pictures were worked on; nothing if there is not one face.
fn work(
    journal: &Journal,
    source: &dyn Source,
    recipe: &Recipe,
    quiet: bool,
) -> Result<Option<(Summary, u64)>, IngestError> {
    let total = source.index().len();
    let progress = Progress::new("detect", "pictures", total, quiet);
    let mut names = Names::of(source, recipe.encoding.format);
    let (mut n_faces, mut n_now) = (0, 0);
    for (number, entries) in (0..).zip(chunks(source, &recipe.take)) {
        if interrupt::requested() {
            return Err(IngestError::Interrupted { done: entries.start, total });
        }
        let n_pictures = entries.end - entries.start;
        match journal.chunk(number)? {
            Some(record) => {
                names.replay(&record);
                progress.add(n_pictures);
                n_faces += record.faces.len() as u64;
            }
            None => {
                let folder = journal.out();
                let record = chunk::make(source, entries, recipe, &mut names, folder, &progress)?;
                n_faces += record.faces.len() as u64;
                n_now += n_pictures;
                journal.add(number, record)?;
            }
        }
        progress.note(units::of(n_faces, "face"));
    }
    progress.finish();
    let n_chunks = chunks(source, &recipe.take).count() as u64;
    if n_faces == 0 {
        return Ok(None);
    }
    let mut summary = Summary { pictures: total, ..Summary::default() };
    journal.write_tables(n_chunks, source, |record: &ChunkRecord| summary.count(record))?;
    summary.skipped = source.left_out().iter().filter(|l| l.reject.is_skip()).count() as u64;
    let not_listed = source.left_out().iter().filter(|l| !l.reject.is_skip());
    for left_out in not_listed {
        summary.pictures += 1;
        summary.add_reason(left_out.reject.reason());
    }
    names.write_table(source, journal.out())?;
    Ok(Some((summary, n_now)))
}

impl Summary {
    fn count(&mut self, record: &ChunkRecord) {
        self.faces += record.faces.len() as u64;
        for line in &record.quarantine {
            self.add_reason(line.reason());
        }
    }

    fn add_reason(&mut self, reason: &str) {
        self.quarantined += 1;
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
    }
}

impl DetectArgs {
    fn recipe(&self, n_threads: usize) -> Result<Recipe, IngestError> {
        let choice = match self.face {
            FaceOption::Central => Choice::Central,
            _ => Choice::Largest,
        };
        let finder = self.search.open(&self.detector, choice, n_threads)?;
        pfc_cli::tell(&finder.detector.describe());
        let take = match (self.face, &self.model) {
            (FaceOption::Nearest, Some(model)) => {
                let options = OpenOptions { threads: Some(n_threads), ..OpenOptions::default() };
                let model = OnnxModel::open(model, &options)?;
                model.account().lines(false).for_each(|line| pfc_cli::tell(&line));
                Take::Nearest(Box::new(model))
            }
            (FaceOption::All, _) => Take::All,
            _ => Take::One,
        };
        let (size, limits) = (self.crops.size(), self.crops.limits());
        Ok(Recipe { finder, take, size, limits, encoding: self.crops.encoding() })
    }

    /// The arguments that decide the content; not the output, nor the number of threads.
    fn content_arguments(&self, recipe: &Recipe) -> Vec<String> {
        let mut arguments = Vec::from(self.crops.content_arguments());
        arguments.push(format!("--face={:?}", self.face).to_lowercase());
        if let Take::Nearest(model) = &recipe.take {
            arguments.push(format!("--model={:032x}", model.checksum()));
        }
        arguments.extend(self.search.content_arguments(&recipe.finder));
        arguments.extend(self.input.content_arguments());
        arguments
    }
}
