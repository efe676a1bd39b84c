//! `pfc-ingest merge`: what several workers packed becomes one data set; or, with `--by` or `--match`, data
//! sets that have people in common do.

mod by;
mod datasets;
mod matched;
mod parts;

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
    time::Instant,
};

use anyhow::Context;
use pfc_cli::{Format, Outcome, number::positive, print_json};
use pfc_durable::{Access, OwnedDir, check_apart};
use pfc_shard::MANIFEST_FILE;

use crate::{
    IngestError,
    clean::cosine,
    loss::LossArgs,
    pack::{
        self, Space, explain_no_space,
        journal::{self, Journal},
        output::{check_unfinished, finish},
        summary::Summary,
    },
    threads::Threads,
};
use parts::Parts;

/// Join what several workers packed, or data sets with people in common.
///
/// Without --match, OUT becomes the data set that one `pack` without --worker would have written, byte for byte. The
/// parts must be of one job, complete and undamaged: every shard is read once and compared with its
/// checksum. Parts in folders of their own stay as they are; their shards are linked into OUT where
/// it is on the same file system, else copied. If it is stopped, run the same command again.
///
/// With --by name or --by label the parts are finished data sets as well, and OUT gets all rows of all
/// of them: identities of equal names, or of equal labels, become one. Labels follow the names as in
/// `pack`, or stay those that they are.
///
/// With --match embeddings the parts are finished data sets. OUT gets all rows of all of them, and
/// decisions that say which identities of different parts are one person: `decisions` shows them,
/// `compact` applies them. Parts are read as the decisions beside them leave them, and identities that
/// somebody said are different people are not joined. An image that --model cannot be shown, since it cannot be
/// decoded, is named and left out. Every shard is held against its checksum.
/// Sources and names begin with the name of the part they come from.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest merge data                       # all workers wrote to data
  pfc-ingest merge data part0 part1 part2     # each wrote to a folder of its own
  pfc-ingest merge data /scratch/*/part --json
  pfc-ingest merge both batch1 batch2 --by name
  pfc-ingest merge both ms1m asian --match embeddings --embeddings ms1m.npy --embeddings asian.npy
  pfc-ingest merge both ms1m asian --match embeddings --model r50.onnx && \\
      pfc-ingest compact both joined")]
pub struct MergeArgs {
    /// Folder of the data set
    out: PathBuf,
    /// Folders that workers wrote; none where all wrote to OUT
    parts: Vec<PathBuf>,
    /// Join data sets whose identities are called alike or have equal labels
    #[arg(long, value_name = "WHAT", group = "how", conflicts_with = "max_left_out")]
    by: Option<By>,
    /// Join data sets and the people that they have in common
    #[arg(
        long = "match",
        value_name = "BY",
        group = "how",
        requires = "by_what",
        conflicts_with = "max_left_out"
    )]
    matching: Option<Match>,
    /// Embeddings of the rows of a part; given once for each part, in the order of the parts
    #[arg(long, value_name = "FILE", requires = "matching", group = "by_what")]
    embeddings: Vec<PathBuf>,
    /// Network to embed all parts with
    #[arg(long, value_name = "FILE.onnx", requires = "matching", group = "by_what")]
    model: Option<PathBuf>,
    /// Cosine of two centres above which they are one person [default: calibrated]
    #[arg(long, value_name = "COSINE", requires = "matching", value_parser = cosine)]
    same_person: Option<f32>,
    /// Number of wrong joins that the calibrated bound may be expected to make
    #[arg(long, value_name = "N", default_value_t = 0.3, requires = "matching", value_parser = positive::<f64>)]
    false_matches: f64,
    /// Join the data sets as they were packed: do not apply the decisions beside them
    #[arg(long, requires = "how")]
    as_packed: bool,
    #[command(flatten)]
    loss: LossArgs,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    format: Format,
}

/// What identities of different data sets have in common that are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// Their names; two spellings in Unicode are one
    Name,
    /// Their labels, of one numbering in all data sets
    Label,
}

/// By what people are known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Match {
    /// By the embeddings of their images
    Embeddings,
}

/// Runs the command.
pub fn run(args: &MergeArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let out = args.out.display();
    if args.matching.is_some() {
        let pool = args.threads.pool()?;
        let joined = pool.install(|| matched::join(args, quiet));
        let joined = joined.with_context(|| format!("cannot make `{out}`"))?;
        joined.print(args.format.json)?;
        return Ok(Outcome::Clean);
    }
    if let Some(by) = args.by {
        let pool = args.threads.pool()?;
        let joined = pool.install(|| by::join(args, by, quiet));
        let joined = joined.with_context(|| format!("cannot make `{out}`"))?;
        joined.print(args.format.json)?;
        return Ok(Outcome::Clean);
    }
    let summary = merge(args, quiet).with_context(|| format!("cannot merge into `{out}`"))?;
    if args.format.json {
        print_json(&summary)?;
    } else {
        summary.print()?;
    }
    pack::warn(&summary, false, &args.out);
    Ok(args.loss.judge(summary.images, summary.quarantined))
}

fn merge(args: &MergeArgs, quiet: bool) -> Result<Summary, IngestError> {
    let started = Instant::now();
    let out = &args.out;
    let is_out = |part: &&PathBuf| !is_same(part, out);
    args.parts.iter().filter(is_out).try_for_each(|part| check_apart(part, out))?;
    // A merge that was killed at its very end leaves the locks of its parts, and nothing to do.
    for part in args.parts.iter().filter(|part| part.is_dir()).filter(is_out) {
        drop(OwnedDir::claim(part, Access::Alone));
    }
    let owned = OwnedDir::claim(out, Access::Alone)?;
    let exists = || IngestError::DatasetExists { path: out.clone(), may_force: false };
    let mut summary = match pfc_sources::exists(&out.join(MANIFEST_FILE))? {
        // An earlier run was killed between the last write and the end, or it is another data set.
        true if journal::tells_of_dataset(out)? => {
            journal::finished_any(out)?.ok_or_else(exists)?
        }
        true => return Err(exists()),
        false => {
            check_unfinished(&owned)?;
            let pool = args.threads.pool()?;
            pool.install(|| join(args, quiet))?
        }
    };
    journal::remove(out)?;
    let images = summary.images;
    summary.finish(started.elapsed(), images);
    Ok(summary)
}

/// Whether two paths lead to one folder.
fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn join(args: &MergeArgs, quiet: bool) -> Result<Summary, IngestError> {
    let parts = Parts::open(&args.out, &args.parts)?;
    let job = parts.job().clone();
    let n_images: Vec<AtomicU64> =
        std::iter::repeat_with(AtomicU64::default).take(job.identities as usize).collect();
    parts.check(&n_images, quiet)?;
    let begun;
    let journal = match parts.in_out() {
        Some(journal) => journal,
        None => {
            let open = Journal::open_like(parts.first(), &args.out);
            begun = open.map_err(|e| explain_no_space(e, || Space::of_none(&job)))?;
            &begun
        }
    };
    let n_images: Vec<u64> = n_images.into_iter().map(AtomicU64::into_inner).collect();
    let joined = parts::import(&parts, journal, quiet).and_then(|()| finish(journal, &n_images));
    joined.map_err(|e| explain_no_space(e, || Space::of(journal)))
}
