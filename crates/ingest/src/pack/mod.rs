//! `pfc-ingest pack`: a folder of face crops becomes a data set.

pub mod help;
pub mod journal;
pub mod output;
mod pipeline;
mod plan;
pub mod quarantine;
pub mod resume;
mod space;
pub mod summary;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
    time::Instant,
};

use anyhow::Context;
use clap::ValueEnum;
use pfc_cli::{Format, Outcome, print_json, units};
use pfc_detect::{DetectorArgs, Finder};
use pfc_durable::Access;
use pfc_image::{Fit, Limits};
use pfc_shard::{Checksum, DEFAULT_SHARD_BYTES, DatasetSpec, ImageSize, NAME_BYTES_MAX};
use pfc_sources::{AlignOptions, Alignment, InputOptions, Source};

use crate::{IngestError, PackError, loss::LossArgs, threads::Threads};
use journal::Journal;
use output::{Existing, Output};
use pipeline::{Job, Recipe, Validate};
use plan::ShardSize;
use resume::Standing;
pub use space::{Space, explain_no_space};
use summary::Summary;
pub use summary::name_shards;
use worker::Worker;

/// Pack face crops into a data set.
#[derive(Debug, clap::Args)]
#[command(after_help = help::AFTER)]
pub struct PackArgs {
    /// Folder, file, pattern of files, or `-` for a list on standard input
    raw: PathBuf,
    /// Folder to write the data set to
    out: PathBuf,
    #[command(flatten)]
    input: InputOptions,
    /// Width and height of the packed images, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 112,
          value_parser = clap::value_parser!(u16).range(8..=1024))]
    size: u16,
    /// Quality of images that must be encoded anew; 100 is best
    #[arg(long, value_name = "1-100", default_value_t = 95,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// What to do with an image that is not square; other programs crop as well
    #[arg(long, value_enum, default_value_t)]
    fit: FitOption,
    /// Order of the rows: shuffled once for all, or identity after identity
    #[arg(long, value_enum, default_value_t)]
    order: Order,
    /// Seed of the random order
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Approximate size of a shard
    ///
    /// All shards but the last have the same number of images, which is computed from a sample of 256.
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_SHARD_BYTES >> 20,
          value_parser = clap::value_parser!(u64).range(1..=1024))]
    shard_mib: u64,
    /// Images per shard, counting those that are left out; replaces --shard-mib
    #[arg(long, value_name = "N", conflicts_with = "shard_mib",
          value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    shard_rows: Option<u64>,
    #[command(flatten)]
    alignment: AlignOptions,
    #[command(flatten)]
    detector: DetectorArgs,
    /// Pixels of the largest image to decode; larger ones are quarantined
    #[arg(long, value_name = "N", default_value_t = 50_000_000)]
    max_pixels: u64,
    /// How much of an image that keeps its bytes is checked
    #[arg(long, value_enum, default_value_t)]
    validate: Validate,
    #[command(flatten)]
    loss: LossArgs,
    /// Replace the data set that OUT holds, once the new one is complete
    #[arg(long)]
    force: bool,
    /// Drop what an interrupted pack has done, and begin anew
    #[arg(long)]
    restart: bool,
    /// Pack the share I of N alone, I from 0; `pfc-ingest merge` joins them
    #[arg(long, value_name = "I/N", conflicts_with_all = ["force", "restart"])]
    worker: Option<Worker>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    format: Format,
}

/// The `--fit` option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum FitOption {
    /// Cut the longer side down to the middle.
    #[default]
    Crop,
    /// Fill the shorter side up with black.
    Pad,
    /// Scale the longer side down to the shorter one, which distorts the image.
    Stretch,
}

impl From<FitOption> for Fit {
    fn from(option: FitOption) -> Fit {
        match option {
            FitOption::Crop => Fit::Crop,
            FitOption::Pad => Fit::Pad,
            FitOption::Stretch => Fit::Stretch,
        }
    }
}

/// In which order rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Order {
    /// A shuffle of all images by the seed, so that reading forwards is already random.
    #[default]
    Random,
    /// By identity, then by file name or place in the file.
    Source,
}

/// Runs the command.
pub fn run(args: &PackArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let raw = args.raw.display();
    let summary = pack(args, quiet).with_context(|| format!("cannot pack `{raw}`"))?;
    if args.format.json {
        print_json(&summary)?;
    } else {
        summary.print()?;
    }
    warn(&summary, args.worker.is_some(), &args.out);
    for sentence in summary.changes.sentences(ImageSize::square(args.size), args.fit.into()) {
        tracing::warn!("{sentence}");
    }
    Ok(args.loss.judge(summary.images, summary.quarantined))
}

/// Says what was left out.
pub fn warn(summary: &Summary, is_part: bool, out: &Path) {
    let images = units::of(summary.quarantined, "image");
    match summary.quarantined {
        0 => {}
        _ if is_part => tracing::warn!("{images} left out; `merge` lists the reasons"),
        _ => {
            let list = out.join(quarantine::FILE);
            tracing::warn!("{images} left out; the reasons are in {}", list.display());
        }
    }
    if let Some(n @ 1..) = summary.identities_without_images {
        tracing::warn!("identities without a readable image, whose labels stay unused: {n}");
    }
}

fn pack(args: &PackArgs, quiet: bool) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let access = if args.worker.is_some() { Access::Shared } else { Access::Alone };
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let output = Output::claim(&args.raw, &args.out, access, existing)?;
    let pool = args.threads.pool()?;
    let scratch = output.scratch()?;
    let source = pool.install(|| pfc_sources::open(&args.raw, &args.input, &scratch, quiet))?;
    check_names(&*source)?;
    tracing::info!("{} images listed in {:.1?}", source.index().len(), started.elapsed());
    let job = args.job(pool.current_num_threads())?;
    if let Some(notice) = job.alignment.notice(&*source) {
        tracing::warn!("{notice}");
    }
    let spec = args.spec(&*source, &job);
    let record = pool.install(|| plan::plan(&job, &*source, spec, args.shard_size()))?;
    let (output, finished) = output.finished(&record, existing)?;
    let (mut summary, n_new) = match finished {
        Some(summary) => (summary, 0),
        None => {
            let dir = output.path().to_path_buf();
            if args.restart {
                journal::restart(&dir)?;
            }
            let open = Journal::open(&dir, record.clone(), &*source, access);
            let journal = open.map_err(|e| explain_no_space(e, || Space::of_none(&record)))?;
            match pool.install(|| pack_into(&journal, args.worker, &job, &*source, quiet)) {
                Err(error @ IngestError::NothingUsable { .. }) => {
                    output.discard()?;
                    return Err(error.into());
                }
                Err(error) => {
                    return Err(explain_no_space(error, || Space::of(&journal)).into());
                }
                Ok(packed) => packed,
            }
        }
    };
    if args.worker.is_none() {
        output.commit()?;
    }
    summary.finish(started.elapsed(), n_new);
    Ok(summary)
}

/// Refuses names that could not be written at the end.
fn check_names(source: &dyn Source) -> Result<(), IngestError> {
    match source.index().identities().find(|name| name.len() > NAME_BYTES_MAX) {
        None => Ok(()),
        Some(name) => Err(PackError::LongName {
            start: name.chars().take(40).collect(),
            bytes: name.len(),
            max: NAME_BYTES_MAX,
        }
        .into()),
    }
}

/// Packs what is not done yet; returns also the number of images that were tried just now.
fn pack_into(
    journal: &Journal,
    worker: Option<Worker>,
    job: &Job,
    source: &dyn Source,
    quiet: bool,
) -> Result<(Summary, u64), IngestError> {
    let shards = worker.unwrap_or(Worker::ALONE).share(journal.n_shards());
    if let Some(worker) = worker {
        journal.add_worker(worker, &shards)?;
    }
    let n_images: Vec<AtomicU64> =
        std::iter::repeat_with(AtomicU64::default).take(source.index().n_identities()).collect();
    let indices: Vec<u64> = shards.clone().collect();
    let standing = resume::stand(journal, &indices, &n_images, quiet)?;
    report(&standing, &shards);
    pipeline::run(job, source, journal, &standing, &n_images, quiet)?;
    let summary = match worker {
        Some(_) => output::summarize(journal, shards.clone())?,
        None => {
            let n_images: Vec<u64> = n_images.into_iter().map(AtomicU64::into_inner).collect();
            output::finish(journal, &n_images)?
        }
    };
    let record = journal.job();
    let images = record.places(shards.end).start - record.places(shards.start).start;
    Ok((summary, images - standing.images_done))
}

/// Says what is kept of an earlier run.
fn report(standing: &Standing, shards: &std::ops::Range<u64>) {
    for fault in &standing.faults {
        tracing::warn!("{fault}: packed anew");
    }
    if standing.n_done > 0 {
        let of = units::of(shards.end - shards.start, "shard");
        tracing::warn!("going on: {} of {of} are done and whole", units::count(standing.n_done));
    }
}

impl PackArgs {
    fn job(&self, n_threads: usize) -> Result<Job, IngestError> {
        let recipe = Recipe {
            crop: pfc_image::Recipe {
                size: ImageSize::square(self.size),
                fit: self.fit.into(),
                limits: Limits { pixels_max: self.max_pixels },
            },
            quality: self.quality,
            validate: self.validate,
        };
        let alignment = self.alignment.open()?;
        if self.detector.is_given() && !matches!(alignment, Alignment::None) {
            return Err(IngestError::Options {
                what: "a detector and landmarks are both given".into(),
                hint: "leave out --detector to cut faces out by the landmarks that are known"
                    .into(),
            });
        }
        let finder = self.detector.open(n_threads)?;
        Ok(Job { recipe, order: self.order, seed: self.seed, alignment, finder })
    }

    fn shard_size(&self) -> ShardSize {
        let bytes = ShardSize::Bytes(self.shard_mib << 20);
        self.shard_rows.map_or(bytes, ShardSize::Images)
    }

    fn spec(&self, source: &dyn Source, job: &Job) -> DatasetSpec {
        let list = match (self.alignment.list(), &job.alignment) {
            (Some(path), Alignment::List(table)) => {
                Some(format!("{} {}", path.display(), Checksum(table.checksum())))
            }
            _ => None,
        };
        DatasetSpec {
            lineage: vec![],
            image_size: ImageSize::square(self.size),
            seed: self.seed,
            shard_bytes: self.shard_mib << 20,
            sources: std::iter::once(source.name()).chain(list).collect(),
            tool: crate::TOOL.into(),
            arguments: self.content_arguments(job.finder.as_ref()),
        }
    }

    /// The arguments that decide the content; not the output, nor the number of threads.
    fn content_arguments(&self, finder: Option<&Finder>) -> Vec<String> {
        let word = |value: &dyn ValueName| value.name();
        let mut arguments = vec!["pack".to_owned()];
        let mut option = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
        option("size", self.size.to_string());
        option("quality", self.quality.to_string());
        option("fit", word(&self.fit));
        option("order", word(&self.order));
        option("seed", self.seed.to_string());
        match self.shard_rows {
            Some(rows) => option("shard-rows", rows.to_string()),
            None => option("shard-mib", self.shard_mib.to_string()),
        }
        option("max-pixels", self.max_pixels.to_string());
        option("validate", word(&self.validate));
        arguments.extend(self.alignment.content_arguments());
        arguments.extend(self.detector.content_arguments(finder));
        arguments.extend(self.input.content_arguments());
        arguments
    }
}

/// The name of a value as the command line has it.
trait ValueName {
    fn name(&self) -> String;
}

impl<T: ValueEnum> ValueName for T {
    fn name(&self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }
}
