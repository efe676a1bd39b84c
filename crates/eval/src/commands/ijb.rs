//! `pfc-eval ijbb` and `pfc-eval ijbc`.

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use pfc_cli::{Outcome, Progress};
use pfc_embeddings::{cache::LeftOut, write};
use pfc_metrics::{ijb::Pooling, roc::Far};
use pfc_model::Embed;
use pfc_report::chart::{self, PlotPath};

use super::{
    ijb_table,
    pairs::parse_far,
    protocol::{BootstrapArgs, CurveArgs, asked_to_stop},
    require::RequireArgs,
    source::{Source, SourceArgs},
};
use crate::{
    EvalError,
    document::{Document, Findings},
    ijb::{self, Benchmark, Embedded, IjbReport, IjbSet},
};

const AFTER_HELP: &str = "\
Faces become templates as in the reference: embedding of the face plus that of its mirror image,
times the detector's score, mean over the frames of a video, sum over the media, norm 1.
The reference spells its options as letters, and its two scripts give N opposite meanings:

  option here           eval_ijbc.py   ijb_evals.py
  (default)             N1 D1 F2       N0 D1 F1
  --no-flip             F1             F0
  --unit-norm-faces     N0             N1
  --no-detector-score   D0             D0
  --unit-norm-media     –              –

TAR is read in two ways. `nearest` is what papers print: where the FAR of scikit-learn's curve is
nearest to the one asked for, which may be above it. `TAR` is where at most that share of the
impostor pairs is accepted.

Examples:
  pfc-eval ijbc --data IJBC --model run.ckpt --cache ijbc-features
  pfc-eval ijbc --data IJBC --features embeddings.safetensors --all-options
  pfc-eval ijbb --data IJBB --features e.npy --no-flip --json > ijbb.json";

/// Judge a model on IJB-C: 1:1 verification and 1:N search of templates
///
/// The data folder holds `meta` (`ijbc_name_5pts_score.txt`, `ijbc_face_tid_mid.txt`,
/// `ijbc_template_pair_label.txt` and, for 1:N, `ijbc_1N_*.csv`) and `loose_crop` with the faces,
/// which only a model needs.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct IjbcArgs {
    #[command(flatten)]
    args: IjbArgs,
}

/// Judge a model on IJB-B: 1:1 verification and 1:N search of templates
///
/// As `pfc-eval ijbc`, with lists that are called ijbb_… and galleries S1 and S2.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct IjbbArgs {
    #[command(flatten)]
    args: IjbArgs,
}

/// What both take.
#[derive(Debug, Clone, clap::Args)]
struct IjbArgs {
    /// Folder with `meta` and `loose_crop`
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    #[command(flatten)]
    source: SourceArgs,
    /// Leave out the embedding of the mirror image
    #[arg(long)]
    no_flip: bool,
    /// Divide each face by its norm; else the norm, which falls with image quality, weighs it
    #[arg(long)]
    unit_norm_faces: bool,
    /// Do not weigh faces by the detector's score
    #[arg(long)]
    no_detector_score: bool,
    /// Divide the mean of each video by its norm, which the reference does not
    #[arg(long)]
    unit_norm_media: bool,
    /// A 1:1 table for each of the eight combinations of the three options of the reference
    #[arg(long, conflicts_with_all = ["no_flip", "unit_norm_faces", "no_detector_score"])]
    all_options: bool,
    /// False accept rates to read TAR at
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', default_value = "1e-6,1e-5,1e-4,1e-3,1e-2,1e-1", value_parser = parse_far)]
    far: Vec<Far>,
    /// Only 1:1
    #[arg(long)]
    no_search: bool,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    /// Write the score of every pair, in the order of the list, as float64 to this .npy file
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Write the model's embeddings to this .safetensors file
    #[arg(long, value_name = "FILE", requires = "model")]
    save_features: Option<PathBuf>,
    #[command(flatten)]
    curves: CurveArgs,
    /// Draw the CMC curves of the 1:N search to this SVG or PNG file
    #[arg(long, value_name = "FILE", conflicts_with = "no_search")]
    cmc: Option<PlotPath>,
    #[command(flatten)]
    require: RequireArgs,
    #[command(flatten)]
    format: pfc_cli::Format,
}

/// Runs `pfc-eval ijbc`.
///
/// # Errors
///
/// [`EvalError`] with context.
pub fn ijbc(args: &IjbcArgs, quiet: bool) -> anyhow::Result<Outcome> {
    run(&args.args, Benchmark::IjbC, quiet)
}

/// Runs `pfc-eval ijbb`.
///
/// # Errors
///
/// [`EvalError`] with context.
pub fn ijbb(args: &IjbbArgs, quiet: bool) -> anyhow::Result<Outcome> {
    run(&args.args, Benchmark::IjbB, quiet)
}

fn run(args: &IjbArgs, benchmark: Benchmark, quiet: bool) -> anyhow::Result<Outcome> {
    let context =
        || format!("cannot evaluate `{}` on `{}`", args.source.name(), args.data.display());
    let started = Instant::now();
    let mut set = IjbSet::open(&args.data, benchmark).with_context(context)?;
    tracing::info!("lists read in {:.3} s", started.elapsed().as_secs_f64());
    let differences = set.differences();
    if !differences.is_empty() {
        let (name, found) = (benchmark.facts().name, differences.join(", "));
        tracing::warn!("{}: not the complete {name}: {found}", args.data.display());
    }
    let mut outcome = Outcome::Clean;
    let source = match args.source.model() {
        None => args.source.files()?,
        Some(model) => {
            let embedder = model
                .open()
                .with_context(|| format!("cannot open the model `{}`", model.model.display()))?;
            let cache = args.source.cache.as_deref();
            let cache = cache.map(|dir| (dir, embedder.fingerprint().to_owned()));
            let progress = Progress::new("embed", "faces", set.faces.names.len() as u64, quiet);
            let embeddings = ijb::embed(&set, &embedder, cache, |n| {
                progress.add(n as u64);
                asked_to_stop()
            });
            progress.finish();
            let dim = embedder.embedding();
            let (embeddings, left_out) = embeddings.with_context(context)?;
            if !left_out.is_empty() {
                leave_out(&mut set, &left_out).with_context(context)?;
                outcome = Outcome::Findings;
            }
            Source::Memory { embeddings, dim }
        }
    };
    let (original, mirrored) = source.rows()?;
    if let Some(path) = &args.save_features {
        let shape = [original.len(), original.dim()];
        let mut arrays = vec![("embs", shape, original.data())];
        arrays.extend(mirrored.map(|rows| ("embs_f", shape, rows.data())));
        write::safetensors(path, &arrays)?;
    }
    let started = Instant::now();
    let embedded = Embedded { original, mirrored };
    let judged = ijb::judge(&set, &embedded, &args.options()).with_context(context)?;
    tracing::info!("templates and pairs scored in {:.3} s", started.elapsed().as_secs_f64());
    match output(args, benchmark, &judged)? {
        Outcome::Clean => Ok(outcome),
        unmet => Ok(unmet),
    }
}

/// Takes faces that cannot be read out of the set, and names them.
fn leave_out(set: &mut IjbSet, left_out: &[LeftOut]) -> Result<(), EvalError> {
    for LeftOut { index, reason } in left_out {
        tracing::warn!("{}: left out: {reason}", set.faces.names[*index]);
    }
    let n = left_out.len();
    tracing::warn!("the figures are without {n} faces, which cannot be read");
    let faces: Vec<usize> = left_out.iter().map(|face| face.index).collect();
    set.faces.leave_out(&faces)
}

impl IjbArgs {
    fn options(&self) -> ijb::Options {
        let pooling = Pooling {
            flip: !self.no_flip,
            unit_norm_faces: self.unit_norm_faces,
            detector_score: !self.no_detector_score,
            unit_norm_media: self.unit_norm_media,
        };
        let mut poolings = vec![pooling];
        if self.all_options {
            // The order of the reference's own loop, default first.
            poolings = (0..8)
                .map(|i| Pooling {
                    flip: i & 4 == 0,
                    unit_norm_faces: i & 2 != 0,
                    detector_score: i & 1 == 0,
                    ..pooling
                })
                .collect();
        }
        ijb::Options {
            poolings,
            fars: self.far.clone(),
            bootstrap: self.bootstrap.get(),
            one_to_n: !self.no_search,
            ..ijb::Options::default()
        }
    }
}

fn output(args: &IjbArgs, benchmark: Benchmark, judged: &ijb::Judged) -> anyhow::Result<Outcome> {
    let report = &judged.report;
    if let Some(path) = &args.scores {
        write::npy(path, &judged.scores)?;
    }
    draw(args, report)?;
    let findings = Findings::Ijb(Box::new(judged.report.clone()));
    let outcome = args.require.check(&findings);
    if args.format.json {
        let model = args.source.name();
        pfc_cli::print_json(&Document::new(benchmark.prefix(), model.as_ref(), findings))?;
    } else {
        ijb_table::print(report)?;
    }
    Ok(outcome?)
}

fn draw(args: &IjbArgs, report: &IjbReport) -> Result<(), EvalError> {
    let labels: Vec<String> =
        report.one_to_one.iter().map(|table| ijb::pooling(&table.pooling)).collect();
    let curves: Vec<chart::Curve<'_>> = labels
        .iter()
        .zip(&report.one_to_one)
        .map(|(label, table)| table.curve(label, report.n_impostor))
        .collect();
    let first = report.one_to_one.first();
    args.curves.draw(&curves, first.and_then(|table| table.histogram.as_ref()))?;
    if let Some(to) = &args.cmc {
        let galleries = report.one_to_n.iter().flat_map(|search| &search.galleries);
        let cmcs: Vec<(&str, &[f64])> =
            galleries.map(|gallery| (gallery.name.as_str(), &gallery.cmc[..])).collect();
        chart::cmc(chart::PROBES_FOUND, &cmcs).write(to)?;
    }
    Ok(())
}
