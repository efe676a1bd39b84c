//! `pfc-eval megaface`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pfc_cli::{Outcome, Progress};
use pfc_metrics::{roc::Far, verification::fuse_mirrored};
use pfc_model::Embed;

use super::{
    model::ModelArgs,
    pairs::parse_far,
    protocol::{self, BootstrapArgs},
    table::{interval, percent, rate},
};
use crate::{
    EvalError,
    faces::Faces,
    megaface::{self, Gallery, MegaFaceReport, MegaFaceSet, Noises, ProbeList, Store, read_noises},
    plot::{Axis, Chart, Legend, PlotPath, Series, Shape},
    verification::Figure,
};

/// Images that the network takes in one go.
const BATCH: usize = 256;

/// Distractors that are cleaned between two looks at Ctrl-C.
const PIECE: usize = 4096;

/// Judge a model on MegaFace, with the files of its devkit
#[derive(Debug, Clone, clap::Args)]
pub struct MegaFaceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Rank every probe's mates among the distractors; TAR at small FAR
    ///
    /// For each ordered pair of images of one person, the rank is the number of distractors strictly
    /// nearer to the first than the second. Ranks and thresholds are those of a computation in f64.
    #[command(after_help = "\
Noisy images are replaced as `remove_noises.py` does, in memory: a noisy probe by the sum of its
person's clean probes (plus noise of at most 0.001, which here depends on the path alone), a noisy
distractor by one that is far from everything.

Example:
  pfc-eval megaface score --probes out/facescrub --distractors out/megaface --suffix _r100.bin \\
    --probe-list templatelists/facescrub_features_list.json --galleries templatelists \\
    --probe-noises data/facescrub_noises.txt --distractor-noises data/megaface_noises.txt")]
    Score(Box<ScoreArgs>),
    /// Write the features of the images of a list, for the devkit or for `score`
    ///
    /// The embeddings of an image and its mirror image are added and divided by the norm. Images
    /// whose feature is there are skipped, so an interrupted run resumes.
    #[command(after_help = "\
Example:
  pfc-eval megaface embed --model r100.ckpt --images megaface_images --list data/megaface_lst \\
    --out out/megaface --suffix _r100.bin")]
    Embed(EmbedArgs),
    /// Write cleaned features of one more number, as `remove_noises.py` does
    ///
    /// The same command again goes on where an interrupted one stopped.
    Clean(CleanArgs),
}

/// Which features, and which of them are noisy.
#[derive(Debug, Clone, clap::Args)]
struct SetArgs {
    /// Folder of the probes' features
    #[arg(long, value_name = "FOLDER")]
    probes: PathBuf,
    /// Folder of the distractors' features
    #[arg(long, value_name = "FOLDER")]
    distractors: PathBuf,
    /// What follows the image's path in the name of its feature: `_ALGORITHM.bin`
    #[arg(long, value_name = "SUFFIX")]
    suffix: String,
    /// List of the probes: the devkit's `facescrub_features_list.json`, or a line per image
    #[arg(long, value_name = "FILE")]
    probe_list: PathBuf,
    /// Lists of distractors: files, or the devkit's folder of `megaface_features_list.json_SIZE_SET`
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    galleries: Vec<PathBuf>,
    /// List of noisy probes, `facescrub_noises.txt`
    #[arg(long, value_name = "FILE")]
    probe_noises: Option<PathBuf>,
    /// List of noisy distractors, `megaface_noises.txt`
    #[arg(long, value_name = "FILE")]
    distractor_noises: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
struct ScoreArgs {
    #[command(flatten)]
    set: SetArgs,
    /// False accept rates to read TAR at; memory grows with the largest (16 bytes a false accept)
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', default_value = "1e-6,1e-5,1e-4,1e-3", value_parser = parse_far)]
    far: Vec<Far>,
    /// Ranks of the CMC curve
    #[arg(long, value_name = "N", default_value_t = 100)]
    ranks: usize,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    /// Draw the CMC curves to this SVG or PNG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PlotPath>,
    #[command(flatten)]
    format: pfc_cli::Format,
}

#[derive(Debug, Clone, clap::Args)]
struct EmbedArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder of aligned images, 112×112
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// List of image paths below it: lines, or the devkit's JSON
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    /// Folder for the features
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// What follows the image's path in the name of its feature: `_ALGORITHM.bin`
    #[arg(long, value_name = "SUFFIX")]
    suffix: String,
}

#[derive(Debug, Clone, clap::Args)]
struct CleanArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Folder for the cleaned features, in facescrub/ and megaface/
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Runs `pfc-eval megaface`.
///
/// # Errors
///
/// [`EvalError`] with context.
pub fn megaface(args: &MegaFaceArgs, quiet: bool) -> anyhow::Result<Outcome> {
    match &args.command {
        Command::Score(args) => score(args, quiet).context("cannot judge on MegaFace"),
        Command::Embed(args) => embed(args, quiet).context("cannot make features for MegaFace"),
        Command::Clean(args) => clean(args, quiet).context("cannot clean features of MegaFace"),
    }?;
    Ok(Outcome::Clean)
}

impl SetArgs {
    fn open(&self) -> Result<MegaFaceSet, EvalError> {
        let mut files = Vec::new();
        for path in &self.galleries {
            if path.is_dir() {
                files.extend(Gallery::find(path)?);
            } else {
                files.push(path.clone());
            }
        }
        let store = |root: &Path| Store { root: root.to_owned(), suffix: self.suffix.clone() };
        let names = |list: &Option<PathBuf>| {
            list.as_deref().map_or_else(|| Ok(Default::default()), read_noises)
        };
        let noisy = self.probe_noises.is_some() || self.distractor_noises.is_some();
        let noises = Noises {
            probes: names(&self.probe_noises)?,
            distractors: names(&self.distractor_noises)?,
        };
        Ok(MegaFaceSet {
            probes: ProbeList::read(&self.probe_list)?,
            probe_store: store(&self.probes),
            distractor_store: store(&self.distractors),
            galleries: files.iter().map(|file| Gallery::read(file)).collect::<Result<_, _>>()?,
            noises: noisy.then_some(noises),
        })
    }
}

fn asked_to_stop() -> Result<(), EvalError> {
    if pfc_cli::interrupt::requested() { Err(EvalError::Interrupted) } else { Ok(()) }
}

fn score(args: &ScoreArgs, quiet: bool) -> anyhow::Result<()> {
    let set = args.set.open()?;
    let options = megaface::Options {
        fars: args.far.clone(),
        n_ranks: args.ranks.max(1),
        bootstrap: args.bootstrap.get(),
    };
    let n_distractors: usize = set.galleries.iter().map(|gallery| gallery.paths.len()).sum();
    let progress = Progress::new("compare", "distractors", n_distractors as u64, quiet);
    let report = megaface::judge(&set, &options, |n| {
        progress.add(n as u64);
        asked_to_stop()
    });
    progress.finish();
    let report = report?;
    if !report.incomplete.is_empty() {
        tracing::warn!("not the complete MegaFace: {}", report.incomplete.join(", "));
    }
    if let Some(path) = &args.plot {
        cmc(&report).write(path)?;
    }
    if args.format.json {
        protocol::print_json("megaface", args.set.probes.display().to_string(), &report)?;
    } else {
        print(&report)?;
    }
    Ok(())
}

fn embed(args: &EmbedArgs, quiet: bool) -> anyhow::Result<()> {
    let embedder = args.model.open()?;
    let dim = embedder.embedding();
    let images = Gallery::read(&args.list)?.paths;
    let store = Store { root: args.out.clone(), suffix: args.suffix.clone() };
    let progress = Progress::new("embed", "images", images.len() as u64, quiet);
    for batch in images.chunks(BATCH) {
        let missing: Vec<&String> = batch.iter().filter(|image| !store.has(image, dim)).collect();
        let path = |i: usize| args.images.join(missing[i]);
        let read = |i: usize| std::fs::read(path(i)).map_err(EvalError::io("read", &path(i)));
        let faces = Faces::load(missing.len(), read, |i| path(i).display().to_string())?;
        let embeddings = embedder.embed_with_mirror(&faces.rgb(0..faces.len()), faces.len())?;
        let fused = fuse_mirrored(&embeddings.original, &embeddings.mirrored, dim)?;
        for (image, row) in missing.iter().zip(fused.chunks_exact(dim)) {
            let row: Vec<f32> = row.iter().map(|&value| value as f32).collect();
            store.write(image, &row)?;
        }
        progress.add(batch.len() as u64);
        asked_to_stop()?;
    }
    progress.finish();
    Ok(())
}

fn clean(args: &CleanArgs, quiet: bool) -> anyhow::Result<()> {
    let set = args.set.open()?;
    let noises = set.noises.clone().unwrap_or_default();
    let out = |name| Store { root: args.out.join(name), suffix: args.set.suffix.clone() };
    let (values, dim) = set.probe_store.read(&set.probes.paths, None)?;
    let cleaned = noises.clean_probes(&set.probes, &values, dim);
    write_missing(&out("facescrub"), &set.probes.paths, &cleaned, dim + 1)?;
    let n_distractors: usize = set.galleries.iter().map(|gallery| gallery.paths.len()).sum();
    let progress = Progress::new("clean", "distractors", n_distractors as u64, quiet);
    // Galleries share images: what one has written the next finds.
    for paths in set.galleries.iter().flat_map(|gallery| gallery.paths.chunks(PIECE)) {
        let (values, _) = set.distractor_store.read(paths, Some(dim))?;
        let cleaned = noises.clean_distractors(paths, &values, dim);
        write_missing(&out("megaface"), paths, &cleaned, dim + 1)?;
        progress.add(paths.len() as u64);
        asked_to_stop()?;
    }
    progress.finish();
    Ok(())
}

fn write_missing(
    store: &Store,
    paths: &[String],
    rows: &[f32],
    dim: usize,
) -> Result<(), EvalError> {
    for (path, row) in paths.iter().zip(rows.chunks_exact(dim)) {
        if !store.has(path, dim) {
            store.write(path, row)?;
        }
    }
    Ok(())
}

fn cmc(report: &MegaFaceReport) -> Chart {
    let points = |cmc: &[f64]| (1..).zip(cmc).map(|(k, &share)| (f64::from(k), share)).collect();
    let n_ranks = report.galleries.iter().map(|gallery| gallery.cmc.len()).max().unwrap_or(1);
    Chart {
        title: "CMC".to_owned(),
        x: Axis::log("Rank", 1.0, n_ranks.max(2) as f64),
        y: Axis::linear("Mates found", 0.0, 1.0),
        series: report
            .galleries
            .iter()
            .map(|gallery| Series {
                label: format!("{} distractors", gallery.name),
                shape: Shape::Line(points(&gallery.cmc)),
            })
            .collect(),
        legend: Legend::LowerRight,
    }
}

fn print(report: &MegaFaceReport) -> std::io::Result<()> {
    let title = if report.cleaned { "MegaFace, cleaned" } else { "MegaFace" };
    let mut table = pfc_cli::table([title, "value", "95 % interval", "notes"]);
    for gallery in &report.galleries {
        let pairs = format!("{} mate pairs of {} probes", report.n_pairs, report.n_probes);
        let name = format!("{} distractors", gallery.name);
        table.add_row([name, String::new(), String::new(), pairs]);
        let [value, interval] = share(gallery.rank1);
        table.add_row(["  rank-1".to_owned(), value, interval, String::new()]);
        if let Some(value) = gallery.cmc.get(9) {
            table.add_row(["  rank-10".to_owned(), percent(*value), String::new(), String::new()]);
        }
        for row in &gallery.tar_at_far {
            let [value, interval] = share(row.tar);
            let notes = match row.n_negatives_allowed {
                0 => format!("finer than {} negatives can measure", gallery.n_negatives),
                n => format!("rests on {n} negatives; distance < {:.4}", row.threshold),
            };
            table.add_row([format!("  TAR@FAR {}", rate(row.far)), value, interval, notes]);
        }
    }
    pfc_cli::print_table(&table)
}

fn share(share: Figure) -> [String; 2] {
    [percent(share.value), interval(share.interval)]
}
