//! `pfc-train export`: a model for other programs, checked before it is handed over.

mod arcface_torch;
mod centres;

use std::path::{Path, PathBuf};

use anyhow::Context;
use pfc_cli::{Format, Hinted, Outcome, Replace, interrupt, print_json, print_table, table};
use pfc_durable::DurableError;
use pfc_model::{
    Backbone, Embed, Embedder, EmbedderOptions, ModelError, OnnxError, checkpoint, export, weights,
};
use serde::Serialize;
use tch::Device;

use crate::TrainError;

/// Faces on which an exported model is compared with its original.
const N_FACES: usize = 4;
const FACE_BYTES: usize = 112 * 112 * 3;

/// Ends an export where a signal has asked for it; what it has written has no name yet.
///
/// * `done`, `total`: centres
fn go_on(done: u64, total: u64) -> Result<(), TrainError> {
    match interrupt::requested() {
        true => Err(TrainError::Interrupted { done, total }),
        false => Ok(()),
    }
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum To {
    /// A graph with input `data`, any batch; normalisations folded
    #[value(help = "A graph with input `data`, any batch, normalisations folded")]
    Onnx,
    /// A state dict that `load_state_dict` of `arcface_torch` takes with strict=True
    #[value(help = "A state dict that arcface_torch loads with strict=True")]
    Pth,
    /// The same state dict as safetensors
    Safetensors,
    /// A recorded program for libtorch, any batch
    Torchscript,
    /// A checkpoint folder of ours, from weights of others
    #[value(help = "A checkpoint folder, from weights of other programs")]
    Ckpt,
    /// A folder with the `checkpoint_gpu_k.pt` of each rank, from which `arcface_torch`'s
    /// `train_v2.py` resumes
    #[value(
        help = "A folder of checkpoint_gpu_k.pt, from which arcface_torch's train_v2.py resumes"
    )]
    ArcfaceTorch,
}

/// Write a model for other programs, and compare the file's embeddings with the original's
///
/// The model is a checkpoint, or a state dict of InsightFace as .pth, .pt or .safetensors. The largest
/// difference between an embedding number of the original and of the file is printed.
///
/// With --to arcface-torch it is the checkpoint of a run, and network, centres, optimizer and learning
/// rate are written.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  pfc-train export runs/a/last.ckpt --to onnx
  pfc-train export runs/a/last.ckpt --to onnx --embed-preprocessing --fp16 --out small.onnx
  pfc-train export runs/a/last.ckpt --to pth --out model.pt
  pfc-train export glint360k_r50/backbone.pth --to ckpt --out r50.ckpt
  pfc-train export runs/a/last.ckpt --centres --to safetensors --out centres.safetensors
  pfc-train export runs/a/last.ckpt --centres --to pth --ranks 8 --out centres
  pfc-train export runs/a/last.ckpt --to arcface-torch --ranks 8 --out work_dirs/ms1mv3_r50")]
pub struct ExportArgs {
    /// Checkpoint, or weights as .pth, .pt or .safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// What to write
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: To,
    /// File or folder to write [default: that of the model with another ending]
    #[arg(short, long, value_name = "PATH")]
    out: Option<PathBuf>,
    #[command(flatten)]
    replace: Replace,
    /// Let the ONNX graph take pixels of 0 to 255 and normalise them itself
    #[arg(long)]
    embed_preprocessing: bool,
    /// Keep numbers in half precision; ONNX computes in it too
    #[arg(long)]
    fp16: bool,
    /// Attention heads of a transformer that is none of the named ones
    #[arg(long, value_name = "N")]
    heads: Option<i64>,
    /// Write the class centres instead, not normalised: a matrix `centres.weight` as safetensors, or as
    /// pth a folder with the `softmax_fc_gpu_0.pt` of each of `arcface_torch`'s ranks
    #[arg(long, conflicts_with_all = ["embed_preprocessing", "fp16", "heads"])]
    centres: bool,
    /// Ranks of `arcface_torch` that the centres are for
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    ranks: u16,
    /// Where the run's `head.centres = { file = … }` is now, if it was moved
    #[arg(long, value_name = "DIR")]
    centres_in: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// What was written.
#[derive(Debug, Serialize)]
struct ExportResult {
    file: String,
    bytes: u64,
    network: Option<String>,
    embedding: i64,
    /// Between a number of an embedding of the original and of the file; absent if not checked.
    max_difference: Option<f64>,
    /// The smallest cosine between an embedding of the original and of the file.
    min_cosine: Option<f64>,
}

/// Runs `pfc-train export`.
///
/// # Errors
///
/// [`ModelError`] with context.
pub fn export(args: &ExportArgs) -> anyhow::Result<Outcome> {
    check_options(args)?;
    if args.centres {
        return centres::export(args);
    }
    if args.to == To::ArcfaceTorch {
        return arcface_torch::export(args);
    }
    let context = || format!("cannot export `{}`", args.model.display());
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.model, args.to));
    if args.to != To::Ckpt {
        args.replace.check(&out).with_context(context)?;
    }
    let options = weights::OpenOptions { heads: args.heads, ..weights::OpenOptions::default() };
    let loaded = weights::open(&args.model, Device::Cpu, options).with_context(context)?;
    loaded.notes.iter().for_each(|note| pfc_cli::tell(note));
    let network = loaded.network;
    let embedding = loaded.backbone.embedding();
    let faces = faces();
    let expected = loaded.backbone.embed(&faces, N_FACES)?;
    write(args, &out, loaded).with_context(context)?;
    let found = embeddings_of(args, &out, &faces)?;
    let found = found.as_deref();
    let report = ExportResult {
        file: out.display().to_string(),
        bytes: size(&out)?,
        network: network.map(|network| network.to_string()),
        embedding,
        max_difference: found.map(|found| max_difference(found, &expected)),
        min_cosine: found.map(|found| min_cosine(found, &expected, embedding as usize)),
    };
    print(args, &report)?;
    Ok(Outcome::Clean)
}

fn check_options(args: &ExportArgs) -> anyhow::Result<()> {
    if args.centres && !matches!(args.to, To::Pth | To::Safetensors) {
        let hint = "use --to safetensors, or --to pth for arcface_torch";
        return Err(Hinted::new("centres are a matrix, not a network", hint).into());
    }
    let is_of_ranks = args.to == To::ArcfaceTorch || args.centres && args.to == To::Pth;
    if args.ranks > 1 && !is_of_ranks {
        let hint = "leave it out, or write the files of arcface_torch with --to arcface-torch";
        let message = "--ranks belongs to --to arcface-torch and --centres --to pth";
        return Err(Hinted::new(message, hint).into());
    }
    if args.centres_in.is_some() && !(args.centres || args.to == To::ArcfaceTorch) {
        let hint = "leave it out: a network has no centres";
        let message = "--centres-in belongs to --centres and --to arcface-torch";
        return Err(Hinted::new(message, hint).into());
    }
    if args.embed_preprocessing && args.to != To::Onnx {
        return Err(Hinted::new(
            "--embed-preprocessing belongs to --to onnx",
            "other formats hold the network alone, which takes (x − 127.5) / 127.5",
        )
        .into());
    }
    if args.fp16 && matches!(args.to, To::Torchscript | To::Ckpt | To::ArcfaceTorch) {
        return Err(Hinted::new(
            "--fp16 belongs to --to onnx, pth and safetensors",
            "leave it out, or choose one of these",
        )
        .into());
    }
    Ok(())
}

fn default_out(model: &Path, to: To) -> PathBuf {
    let ending = match to {
        To::Onnx => "onnx",
        To::Pth => "pth",
        To::Safetensors => "safetensors",
        To::Torchscript => "torchscript.pt",
        To::Ckpt => "ckpt",
        To::ArcfaceTorch => "arcface_torch",
    };
    model.with_extension(ending)
}

fn write(args: &ExportArgs, out: &Path, loaded: weights::Loaded) -> Result<(), ModelError> {
    let network = loaded.network;
    let spec = loaded.spec();
    let backbone: Backbone = loaded.backbone;
    match args.to {
        To::Pth => export::pth(out, &backbone, args.fp16),
        To::Safetensors => export::safetensors(out, &backbone, args.fp16),
        To::Torchscript => export::torchscript(out, &backbone.into_inference()),
        To::Onnx => {
            let options = export::OnnxOptions {
                embed_preprocessing: args.embed_preprocessing,
                half: args.fp16,
                network,
            };
            export::onnx(out, &backbone.into_inference(), options)
        }
        To::Ckpt => {
            let spec = spec.ok_or_else(|| ModelError::UnknownArchitecture {
                origin: args.model.display().to_string(),
                reason: "a checkpoint states its network by name, and this one has none".to_owned(),
            })?;
            let mut writer = checkpoint::Writer::create(out)?;
            writer.backbone(&backbone)?;
            writer.finish(spec, None).map(drop)
        }
        To::ArcfaceTorch => unreachable!("it is written by a function of its own"),
    }
}

/// What the written file gives; `None`, with a warning, where nothing here can run it.
fn embeddings_of(
    args: &ExportArgs,
    out: &Path,
    faces: &[u8],
) -> Result<Option<Vec<f32>>, ModelError> {
    // A program among these was written by this command a moment ago.
    let options =
        EmbedderOptions { heads: args.heads, trust_code: true, ..EmbedderOptions::default() };
    match Embedder::open_with(out, &options) {
        Ok(embedder) => embedder.embed(faces, N_FACES).map(Some),
        Err(ModelError::Onnx(error @ OnnxError::Runtime { .. })) => {
            tracing::warn!("{}: written, but not checked: {error}", out.display());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Pixels that differ from face to face; any will do to compare two networks.
fn faces() -> Vec<u8> {
    let pixel = |i: usize| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
    let smooth = |i: usize| {
        let (row, column) = (i / 336 % 112, i / 3 % 112);
        (row * 2 + column + i / FACE_BYTES * 40) as u8 / 2 + pixel(i) / 4
    };
    (0..N_FACES * FACE_BYTES).map(smooth).collect()
}

fn max_difference(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

fn min_cosine(a: &[f32], b: &[f32], dim: usize) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let rows = a.chunks_exact(dim).zip(b.chunks_exact(dim));
    rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).fold(1.0, f64::min)
}

fn size(out: &Path) -> Result<u64, ModelError> {
    // Of a checkpoint, the weights alone.
    let file = if out.is_dir() { out.join(checkpoint::BACKBONE) } else { out.to_owned() };
    Ok(file.metadata().map_err(DurableError::at("read", &file))?.len())
}

fn print(args: &ExportArgs, report: &ExportResult) -> anyhow::Result<()> {
    if args.format.json {
        print_json(report)?;
        return Ok(());
    }
    let number = |value: Option<f64>, text: fn(f64) -> String| {
        value.map_or_else(|| "not checked".to_owned(), text)
    };
    let mut out = table(["file", "MB", "network", "embedding", "max difference", "min cosine"]);
    out.add_row([
        report.file.clone(),
        format!("{:.1}", report.bytes as f64 / 1e6),
        report.network.clone().unwrap_or_else(|| "unnamed".to_owned()),
        report.embedding.to_string(),
        number(report.max_difference, |value| format!("{value:.2e}")),
        number(report.min_cosine, |value| format!("{value:.7}")),
    ]);
    print_table(&out)?;
    Ok(())
}
