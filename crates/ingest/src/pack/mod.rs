//! `pfc-ingest pack`: a folder of face crops becomes a data set.

pub mod help;
mod output;
mod pipeline;
mod prepare;
pub mod quarantine;
mod summary;

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use pfc_cli::{Format, Outcome, print_json};
use pfc_shard::{DEFAULT_SHARD_BYTES, DatasetSpec, ImageSize};

use crate::{
    IngestError,
    image::{Fit, Limits},
    landmarks::{LandmarkFormat, LandmarkTable},
    source::{self, InputOptions, Source},
    threads::Threads,
    units,
};
use output::Output;
pub use output::check_apart;
use pipeline::Job;
use prepare::Recipe;
use summary::Summary;

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
    /// What to do with an image that is not square
    #[arg(long, value_enum, default_value_t)]
    fit: Fit,
    /// Order of the rows: shuffled once for all, or identity after identity
    #[arg(long, value_enum, default_value_t)]
    order: Order,
    /// Seed of the random order
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Size at which a shard is closed and the next begun
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_SHARD_BYTES >> 20,
          value_parser = clap::value_parser!(u64).range(1..=1024))]
    shard_mib: u64,
    /// Cut each face out by its landmarks: a list as `align` reads it, by the paths below RAW
    #[arg(long, value_name = "FILE")]
    landmarks: Option<PathBuf>,
    /// Order of the numbers in the list of landmarks, if it has no header
    #[arg(long, value_enum, default_value_t, requires = "landmarks")]
    landmark_format: LandmarkFormat,
    /// Pixels of the largest image to decode; larger ones are quarantined
    #[arg(long, value_name = "N", default_value_t = 50_000_000)]
    max_pixels: u64,
    /// Replace the data set that OUT holds, once the new one is complete
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    format: Format,
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
    if summary.quarantined > 0 {
        let images = units::of(summary.quarantined, "image");
        let list = args.out.join(quarantine::FILE);
        tracing::warn!("{images} left out; the reasons are in {}", list.display());
    }
    if summary.identities_without_images > 0 {
        let n = summary.identities_without_images;
        tracing::warn!("identities without a readable image, whose labels stay unused: {n}");
    }
    Ok(Outcome::Clean)
}

fn pack(args: &PackArgs, quiet: bool) -> anyhow::Result<Summary> {
    let started = std::time::Instant::now();
    let output = Output::open(&args.raw, &args.out, args.force)?;
    let pool = args.threads.pool()?;
    let scratch = output.scratch()?;
    let source = pool.install(|| source::open(&args.raw, &args.input, &scratch, quiet))?;
    tracing::info!("{} images listed in {:.1?}", source.index().len(), started.elapsed());
    let landmarks = args.read_landmarks()?;
    let job = Job { landmarks, ..args.job() };
    let spec = args.spec(&*source, job.landmarks.as_ref());
    let packed = pool.install(|| pipeline::run(&job, &*source, output.path(), spec, quiet));
    let mut summary = match packed {
        Ok(summary) => summary,
        Err(error) => {
            output.discard();
            return Err(error.into());
        }
    };
    output.commit()?;
    summary.finish(started.elapsed());
    Ok(summary)
}

impl PackArgs {
    fn job(&self) -> Job {
        let recipe = Recipe {
            side: self.size,
            quality: self.quality,
            fit: self.fit,
            limits: Limits { pixels_max: self.max_pixels },
        };
        Job { recipe, order: self.order, seed: self.seed, landmarks: None }
    }

    fn read_landmarks(&self) -> Result<Option<LandmarkTable>, IngestError> {
        let read = |path: &PathBuf| LandmarkTable::read(path, self.landmark_format);
        self.landmarks.as_ref().map(read).transpose()
    }

    fn spec(&self, source: &dyn Source, landmarks: Option<&LandmarkTable>) -> DatasetSpec {
        let list = self.landmarks.iter().zip(landmarks);
        let list = list.map(|(path, table)| format!("{} {}", path.display(), table.checksum()));
        DatasetSpec {
            image_size: ImageSize::square(self.size),
            seed: self.seed,
            shard_bytes: self.shard_mib << 20,
            sources: std::iter::once(source.name()).chain(list).collect(),
            tool: concat!("pfc-ingest ", env!("CARGO_PKG_VERSION")).into(),
            arguments: self.content_arguments(),
        }
    }

    /// The arguments that decide the content; not the output, nor the number of threads.
    fn content_arguments(&self) -> Vec<String> {
        let word = |value: &dyn ValueName| value.name();
        let mut arguments = vec!["pack".to_owned()];
        let mut option = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
        option("size", self.size.to_string());
        option("quality", self.quality.to_string());
        option("fit", word(&self.fit));
        option("order", word(&self.order));
        option("seed", self.seed.to_string());
        option("shard-mib", self.shard_mib.to_string());
        option("max-pixels", self.max_pixels.to_string());
        if let Some(landmarks) = &self.landmarks {
            option("landmarks", landmarks.display().to_string());
            option("landmark-format", word(&self.landmark_format));
        }
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

/// A job that was stopped by the user.
fn interrupted(done: u64, total: u64) -> IngestError {
    IngestError::Interrupted { done, total }
}
