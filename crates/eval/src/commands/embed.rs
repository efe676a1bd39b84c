//! Images to a file of embeddings, part by part.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::Context;
use pfc_cli::{Outcome, Progress};
use pfc_detect::DetectorArgs;
use pfc_embeddings::{
    EmbeddingError,
    cache::{self, Cache, Kept, Key, LeftOut, divide},
    sink::{self, FeatureFormat, Part},
};
use pfc_findings::Reading;
use pfc_model::{Embed, Embedder};
use pfc_sources::{AlignOptions, InputOptions};
use serde::Serialize;

use super::{left_out::LeftOutList, model::ModelArgs, protocol::asked_to_stop};
use crate::{
    EvalError,
    faces::warn_of_changes,
    images::{Images, Opening},
};

/// Images between two looks at the clock and at Ctrl-C, at least: a model that takes more in a pass is
/// given them.
const BATCH: usize = 128;

/// The array of a part that is kept.
const NAMES: [&str; 1] = ["embs"];

/// What becomes of the embedding of an image's mirror image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mirror {
    /// Added to that of the image, as the verification protocols do.
    Sum,
    /// Kept beside it.
    Keep,
    /// Not made, which halves the work.
    None,
}

/// Embed images: a data set, or anything that `pfc-ingest pack` reads
///
/// Rows are in the order of the input, those of a folder by their paths, not normalised. Images are
/// found, named and labelled as by `pfc-ingest pack`, but identities are not needed: images may lie
/// anywhere in a folder, a list may hold one path a line, and samples, rows and records may lack labels.
/// An image that cannot be read has no row: it is counted, listed with its reason in
/// OUT.left-out.tsv, and the exit code is 1; --names lists the images that have rows. Finished parts
/// are kept in OUT.parts until the file is whole, so that an interrupted run goes on where it stopped,
/// also where files were added, removed or repaired since. A file that is there already is replaced
/// only with --force.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  pfc-eval embed faces faces.npy --model run.ckpt
  pfc-eval embed data faces.arrow --model w600k_r50.onnx --mirror none
  pfc-eval embed train.rec faces.safetensors --model model.pt --mirror keep
  pfc-eval embed list.txt faces.npy --root photos --model run.ckpt --names faces.txt
  pfc-eval embed photos faces.arrow --landmarks landmarks.txt --model run.ckpt
  pfc-eval embed data faces.npy --model run.ckpt --labels labels.txt && \\
      pfc-eval nn --features faces.npy --labels labels.txt
  pfc-eval embed photos faces.arrow --detector face_detection_yunet_2023mar.onnx --model run.ckpt")]
pub struct EmbedArgs {
    /// Data set, folder of images, list of image paths, .rec, .bin, .tar, .parquet or .arrow
    input: PathBuf,
    /// File to write: .npy, .arrow (with names and labels) or .safetensors (`embs`, `embs_f`)
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    images: InputOptions,
    #[command(flatten)]
    align: AlignOptions,
    #[command(flatten)]
    detector: DetectorArgs,
    /// What becomes of the embedding of each mirrored image
    #[arg(long, value_enum, default_value = "sum")]
    mirror: Mirror,
    /// Also write the name of each row's image to this file, one a line
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Also write who is on each row's image to this file, one a line, as `pfc-eval nn --labels` takes it
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Replace OUT, and the files of --names and --labels, where they are there already
    #[arg(long)]
    force: bool,
    /// Read a data set as it was packed: do not apply the decisions beside it
    #[arg(long)]
    as_packed: bool,
    #[command(flatten)]
    format: pfc_cli::Format,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Report {
    out: String,
    model: String,
    images: usize,
    dim: usize,
    mirror: String,
    /// Images that could not be read, and have no row.
    left_out: usize,
    /// Images that an earlier, interrupted run had embedded.
    resumed: usize,
}

/// Runs `pfc-eval embed`.
///
/// # Errors
///
/// [`EvalError`] with context.
pub fn embed(args: &EmbedArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let format = FeatureFormat::of(&args.out)?;
    if args.mirror == Mirror::Keep && format == FeatureFormat::Npy {
        let reason = "an .npy holds one array, and --mirror keep makes two";
        return Err(EmbeddingError::Output { path: args.out.clone(), reason }.into());
    }
    let context = || format!("cannot embed `{}`", args.input.display());
    let list = check_outputs(args).with_context(context)?;
    let reading = Reading::from_switch(args.as_packed);
    let (input, align, scratch) = (&args.images, &args.align, folder_of(&args.out));
    let detector = Some(&args.detector);
    let opening = Opening { input, align, detector, reading, scratch, quiet };
    let images = Images::open(&args.input, &opening).with_context(context)?;
    if let Some(notice) = images.notice("--as-packed") {
        tracing::warn!("{}: {notice}", args.input.display());
    }
    let embedder = args
        .model
        .open()
        .with_context(|| format!("cannot open the model `{}`", args.model.model.display()))?;
    // Before the work: where the first image has a label, the others have one as a rule.
    if let Some(path) = args.labels.as_ref().filter(|_| !images.is_empty()) {
        label(&images, 0, path).with_context(context)?;
    }
    pfc_durable::sweep(&args.out)?;
    let job = Job::new(args, &images, &embedder).with_context(context)?;
    let progress = Progress::new("embed", "images", images.len() as u64, quiet);
    let made = job.make_parts(&progress);
    progress.finish();
    let Made { n_kept, left_out } = made.with_context(context)?;
    if left_out.len() == images.len() {
        return Err(job.nothing_readable(&left_out)).with_context(context);
    }
    job.write(&args.out, &left_out)?;
    if let Some(path) = &args.names {
        let mut text = String::new();
        for i in with_rows(0..images.len(), &left_out) {
            text += &images.name(i)?;
            text.push('\n');
        }
        pfc_durable::write(path, text.as_bytes())?;
    }
    if let Some(path) = &args.labels {
        let mut text = String::new();
        for i in with_rows(0..images.len(), &left_out) {
            text += &format!("{}\n", label(&images, i, path)?);
        }
        pfc_durable::write(path, text.as_bytes())?;
    }
    let n_left_out = job.list_left_out(&list, &left_out)?;
    let done = Done { rows: images.len() - left_out.len(), left_out: n_left_out, resumed: n_kept };
    report(args, &job, &done)?;
    job.cache.remove()?;
    warn_of_changes("embed", &images.changes());
    if n_left_out == 0 {
        return Ok(Outcome::Clean);
    }
    tracing::warn!("{n_left_out} images cannot be read and have no row: {}", list.path().display());
    Ok(Outcome::Findings)
}

/// Who is on image `i`, as the file of --labels has it.
fn label(images: &Images, i: usize, path: &Path) -> Result<u64, EvalError> {
    let unknown = || EvalError::Output {
        path: path.to_owned(),
        problem: "is to say who is on each image, and the input does not tell that",
        hint: "leave --labels out, or embed a data set, a folder per person or a list with labels"
            .to_owned(),
    };
    images.label(i)?.ok_or_else(unknown)
}

/// Looks at the files that will be written before any work is done; gives the list of what is left out.
///
/// A run that was stopped at its very end has written some of them and may write them again.
fn check_outputs(args: &EmbedArgs) -> Result<LeftOutList, EvalError> {
    let goes_on = beside(&args.out, ".parts").exists();
    let had_written = goes_on && args.out.exists();
    check_output(&args.out, &args.input, args.force || goes_on)?;
    let list = LeftOutList::at(beside(&args.out, ".left-out.tsv"), "row")?;
    let is_out = |path: &PathBuf| path == &args.out || path == list.path();
    for (path, is_taken, problem) in [
        (
            &args.names,
            args.names.as_ref().is_some_and(is_out),
            "is to hold the names and something else as well",
        ),
        (
            &args.labels,
            args.labels
                .as_ref()
                .is_some_and(|path| is_out(path) || args.names.as_ref() == Some(path)),
            "is to hold the labels and something else as well",
        ),
    ] {
        let Some(path) = path else { continue };
        check_output(path, &args.input, args.force || had_written)?;
        if is_taken {
            return Err(EvalError::Output {
                path: path.clone(),
                problem,
                hint: "give --names and --labels a file of their own".to_owned(),
            });
        }
    }
    Ok(list)
}

fn check_output(path: &Path, input: &Path, may_replace: bool) -> Result<(), EvalError> {
    let refuse = |problem, hint| Err(EvalError::Output { path: path.to_owned(), problem, hint });
    let folder = folder_of(path);
    if !folder.is_dir() {
        let hint = format!("make the folder {}, or choose another", folder.display());
        return refuse("the folder that it is to lie in is not there", hint);
    }
    if path.is_dir() {
        return refuse(
            "is a folder, and a file is to be written",
            "choose another name".to_owned(),
        );
    }
    if !path.exists() {
        return Ok(());
    }
    let lies_in = match (path.canonicalize(), input.canonicalize()) {
        (Ok(path), Ok(input)) => path.starts_with(input),
        _ => false,
    };
    match (lies_in, may_replace) {
        (true, _) => refuse("is a file of the input", "choose another name".to_owned()),
        (false, true) => Ok(()),
        (false, false) => {
            let hint = "choose another name, or give --force to replace it".to_owned();
            refuse("already exists", hint)
        }
    }
}

/// The folder that a file lies in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// `OUT` and more: a file that belongs to it.
fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut path = out.as_os_str().to_owned();
    path.push(ending);
    PathBuf::from(path)
}

/// The images of `range` that are not left out; `left_out` is ascending.
fn with_rows(range: Range<usize>, left_out: &[LeftOut]) -> impl Iterator<Item = usize> {
    range.filter(|i| left_out.binary_search_by_key(i, |image| image.index).is_err())
}

/// What making the parts gave.
struct Made {
    /// Images of parts that were kept.
    n_kept: usize,
    /// By number among all images.
    left_out: Vec<LeftOut>,
}

struct Job<'a> {
    images: &'a Images,
    embedder: &'a Embedder,
    mirror: Mirror,
    dir: PathBuf,
    cache: Cache,
    parts: Vec<cache::Part>,
    /// Numbers of a kept row: twice an embedding's where mirrored ones are kept beside.
    width: usize,
}

impl<'a> Job<'a> {
    fn new(
        args: &EmbedArgs,
        images: &'a Images,
        embedder: &'a Embedder,
    ) -> Result<Job<'a>, EvalError> {
        let mirror = args.mirror;
        let width = embedder.embedding() * if mirror == Mirror::Keep { 2 } else { 1 };
        let dir = beside(&args.out, ".parts");
        let key = Key::new(format!("{} {mirror:?}", embedder.fingerprint()), width);
        let cache = Cache::open(&dir, key)?;
        let parts = divide(&images.stamps()?);
        Ok(Job { images, embedder, mirror, dir, cache, parts, width })
    }

    /// Makes the parts that are not kept yet.
    fn make_parts(&self, progress: &Progress) -> Result<Made, EvalError> {
        let mut made = Made { n_kept: 0, left_out: Vec::new() };
        for part in &self.parts {
            let start = part.range.start;
            let found = cache::kept(&self.cache, part, NAMES, |i| self.images.is_readable(i))?;
            let left_out = match found {
                Some(kept) => {
                    made.n_kept += part.range.len();
                    progress.add(part.range.len() as u64);
                    kept.left_out
                }
                None => {
                    let kept = self.make(part, progress)?;
                    self.cache.put(part, NAMES, &kept)?;
                    kept.left_out
                }
            };
            let of_all = |image: LeftOut| LeftOut { index: start + image.index, ..image };
            made.left_out.extend(left_out.into_iter().map(of_all));
        }
        Ok(made)
    }

    fn make(&self, part: &cache::Part, progress: &Progress) -> Result<Kept<1>, EvalError> {
        let start = part.range.start;
        let mut rows = Vec::with_capacity(part.range.len() * self.width);
        let mut all_left_out = Vec::new();
        let size = self.embedder.batch_size().max(BATCH);
        for first in part.range.clone().step_by(size) {
            let batch = first..(first + size).min(part.range.end);
            let n = batch.len();
            let (pixels, left_out) = self.images.rgb(batch)?;
            if left_out.len() < n {
                rows.extend(self.rows(&pixels, n - left_out.len())?);
            }
            let of_part = |image: LeftOut| LeftOut { index: image.index - start, ..image };
            all_left_out.extend(left_out.into_iter().map(of_part));
            progress.add(n as u64);
            asked_to_stop()?;
        }
        Ok(Kept { arrays: [rows], left_out: all_left_out })
    }

    fn nothing_readable(&self, left_out: &[LeftOut]) -> EvalError {
        let first = left_out.first();
        let name = first.and_then(|image| self.images.name(image.index).ok()).unwrap_or_default();
        let reason = first.map_or("", |image| &image.reason);
        EvalError::NothingReadable {
            path: self.images.path().to_owned(),
            n: left_out.len(),
            example: format!("{name}: {reason}"),
        }
    }

    /// Lists the images without rows; how many they are, with those that could not even be listed.
    fn list_left_out(&self, list: &LeftOutList, left_out: &[LeftOut]) -> Result<usize, EvalError> {
        let of_images = left_out
            .iter()
            .map(|LeftOut { index, reason }| Ok((self.images.name(*index)?, reason.clone())));
        let mut all = of_images.collect::<Result<Vec<_>, EvalError>>()?;
        let not_listed = self.images.not_listed().into_iter();
        all.extend(not_listed.map(|image| (image.source.clone(), image.reject.to_string())));
        list.write(&all)?;
        Ok(all.len())
    }

    fn rows(&self, rgb: &[u8], n: usize) -> Result<Vec<f32>, EvalError> {
        if self.mirror == Mirror::None {
            return Ok(self.embedder.embed(rgb, n)?);
        }
        let both = self.embedder.embed_with_mirror(rgb, n)?;
        if self.mirror == Mirror::Sum {
            let pairs = both.original.iter().zip(&both.mirrored);
            return Ok(pairs.map(|(a, b)| a + b).collect());
        }
        let dim = self.width / 2;
        let pairs = both.original.chunks_exact(dim).zip(both.mirrored.chunks_exact(dim));
        Ok(pairs.flat_map(|(a, b)| [a, b].concat()).collect())
    }

    fn write(&self, out: &Path, left_out: &[LeftOut]) -> Result<(), EvalError> {
        let is_mirrored = self.mirror == Mirror::Keep;
        let shape = [self.images.len() - left_out.len(), self.embedder.embedding()];
        sink::write(out, shape, is_mirrored, || {
            self.parts.iter().map(|part| self.part(part, left_out))
        })
    }

    fn part(&self, part: &cache::Part, left_out: &[LeftOut]) -> Result<Part, EvalError> {
        let kept = self.cache.get(part, NAMES)?;
        let Kept { arrays: [rows], .. } = kept.ok_or_else(|| EmbeddingError::InPlace {
            path: self.dir.clone(),
            reason: "a part was changed while the run went on".into(),
        })?;
        let images = || with_rows(part.range.clone(), left_out);
        let names = images().map(|i| self.images.name(i)).collect::<Result<_, _>>()?;
        let labels = images().map(|i| self.images.label(i)).collect::<Result<_, _>>()?;
        if self.mirror != Mirror::Keep {
            return Ok(Part { names, labels, rows, mirrored: None });
        }
        let (mut original, mut mirrored) = (Vec::new(), Vec::new());
        for row in rows.chunks_exact(self.width) {
            let (a, b) = row.split_at(self.width / 2);
            original.extend(a);
            mirrored.extend(b);
        }
        Ok(Part { names, labels, rows: original, mirrored: Some(mirrored) })
    }
}

/// What came of the images.
struct Done {
    rows: usize,
    /// Images without a row, among them those that have no number because they could not be listed.
    left_out: usize,
    /// Images of parts that an interrupted run had made.
    resumed: usize,
}

fn report(args: &EmbedArgs, job: &Job<'_>, done: &Done) -> anyhow::Result<()> {
    let report = Report {
        out: args.out.display().to_string(),
        model: args.model.model.display().to_string(),
        images: done.rows,
        dim: job.embedder.embedding(),
        mirror: format!("{:?}", job.mirror).to_lowercase(),
        left_out: done.left_out,
        resumed: done.resumed,
    };
    if args.format.json {
        pfc_cli::print_json(&report)?;
        return Ok(());
    }
    let mut table = pfc_cli::table(["file", "images", "left out", "dim", "mirror", "resumed"]);
    table.add_row([
        report.out,
        report.images.to_string(),
        report.left_out.to_string(),
        report.dim.to_string(),
        report.mirror,
        report.resumed.to_string(),
    ]);
    pfc_cli::print_table(&table)?;
    Ok(())
}
