//! Images to a file of embeddings, part by part.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::Context;
use pfc_cli::{Outcome, Progress};
use pfc_findings::Reading;
use pfc_model::{Embed, Embedder};
use serde::Serialize;

use super::{model::ModelArgs, protocol::asked_to_stop};
use crate::{
    EvalError,
    features::{
        cache::{Cache, Key, PART},
        sink::{self, FeatureFormat, Part},
    },
    images::Images,
};

/// Images between two looks at the clock and at Ctrl-C.
const BATCH: usize = 128;

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

/// Embed images: a folder, a list, a data set, a .rec or a .bin
///
/// Rows are in the order of the input, not normalised. Finished parts are kept in OUT.parts until
/// the file is whole, so that an interrupted run goes on where it stopped.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  pfc-eval embed faces faces.npy --model run.ckpt
  pfc-eval embed data faces.arrow --model w600k_r50.onnx --mirror none
  pfc-eval embed train.rec faces.safetensors --model model.pt --mirror keep
  pfc-eval embed list.txt faces.npy --root photos --model run.ckpt --names faces.txt")]
pub struct EmbedArgs {
    /// Folder of images, data set, .rec, .bin, or list of image paths
    input: PathBuf,
    /// File to write: .npy, .arrow (with names and labels) or .safetensors (`embs`, `embs_f`)
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Folder that the paths of a list start from [default: that of the list]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// What becomes of the embedding of each mirrored image
    #[arg(long, value_enum, default_value = "sum")]
    mirror: Mirror,
    /// Also write the name of each row's image to this file, one a line
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
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
    /// Rows that an earlier, interrupted run had made.
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
        return Err(EvalError::Output { path: args.out.clone(), reason }.into());
    }
    let context = || format!("cannot embed `{}`", args.input.display());
    let reading = Reading::from_switch(args.as_packed);
    let images =
        Images::open_as(&args.input, args.root.as_deref(), reading).with_context(context)?;
    if let Some(notice) = images.notice("--as-packed") {
        tracing::warn!("{}: {notice}", args.input.display());
    }
    let embedder = args
        .model
        .open()
        .with_context(|| format!("cannot open the model `{}`", args.model.model.display()))?;
    let job = Job::new(args, &images, &embedder).with_context(context)?;
    let progress = Progress::new("embed", "images", images.len() as u64, quiet);
    let resumed = job.make_parts(&progress);
    progress.finish();
    let resumed = resumed.with_context(context)?;
    job.write(&args.out)?;
    if let Some(path) = &args.names {
        let names: Result<Vec<String>, EvalError> =
            (0..images.len()).map(|i| images.name(i)).collect();
        pfc_durable::write(path, (names?.join("\n") + "\n").as_bytes())?;
    }
    job.cache.remove()?;
    report(args, &job, resumed)?;
    Ok(Outcome::Clean)
}

struct Job<'a> {
    images: &'a Images,
    embedder: &'a Embedder,
    mirror: Mirror,
    dir: PathBuf,
    cache: Cache,
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
        let mut dir = args.out.clone().into_os_string();
        dir.push(".parts");
        let dir = PathBuf::from(dir);
        let key = Key {
            format: 1,
            model: format!("{} {mirror:?}", embedder.fingerprint()),
            faces: images.fingerprint()?,
            n_faces: images.len(),
            dim: width,
        };
        let cache = Cache::open(&dir, key)?;
        Ok(Job { images, embedder, mirror, dir, cache, width })
    }

    fn parts(&self) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let n = self.images.len();
        (0..n).step_by(PART).map(move |start| start..(start + PART).min(n)).enumerate()
    }

    /// Makes the parts that are not kept yet; how many rows were.
    fn make_parts(&self, progress: &Progress) -> Result<usize, EvalError> {
        let mut n_kept = 0;
        for (part, range) in self.parts() {
            if self.cache.rows(part, range.len()).is_some() {
                n_kept += range.len();
                progress.add(range.len() as u64);
                continue;
            }
            let mut rows = Vec::with_capacity(range.len() * self.width);
            for start in range.clone().step_by(BATCH) {
                let batch = start..(start + BATCH).min(range.end);
                let n = batch.len();
                rows.extend(self.rows(&self.images.rgb(batch)?, n)?);
                progress.add(n as u64);
                asked_to_stop()?;
            }
            self.cache.put_rows(part, &rows)?;
        }
        Ok(n_kept)
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

    fn write(&self, out: &Path) -> Result<(), EvalError> {
        let is_mirrored = self.mirror == Mirror::Keep;
        let shape = [self.images.len(), self.embedder.embedding()];
        sink::write(out, shape, is_mirrored, || {
            self.parts().map(|(part, range)| self.part(part, range))
        })
    }

    fn part(&self, part: usize, range: Range<usize>) -> Result<Part, EvalError> {
        let kept = self.cache.rows(part, range.len());
        let rows = kept.ok_or_else(|| EvalError::Features {
            path: self.dir.clone(),
            reason: format!("part {part} was changed while the run went on"),
        })?;
        let names = range.clone().map(|i| self.images.name(i)).collect::<Result<_, _>>()?;
        let labels = range.map(|i| self.images.label(i)).collect::<Result<_, _>>()?;
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

fn report(args: &EmbedArgs, job: &Job<'_>, resumed: usize) -> anyhow::Result<()> {
    let report = Report {
        out: args.out.display().to_string(),
        model: args.model.model.display().to_string(),
        images: job.images.len(),
        dim: job.embedder.embedding(),
        mirror: format!("{:?}", job.mirror).to_lowercase(),
        resumed,
    };
    if args.format.json {
        pfc_cli::print_json(&report)?;
        return Ok(());
    }
    let mut table = pfc_cli::table(["file", "images", "dim", "mirror", "resumed"]);
    table.add_row([
        report.out,
        report.images.to_string(),
        report.dim.to_string(),
        report.mirror,
        report.resumed.to_string(),
    ]);
    pfc_cli::print_table(&table)?;
    Ok(())
}
