//! `pfc-ingest bench`: how fast a data set is read, beside the decoder alone.

mod stage;
mod timing;

use std::path::PathBuf;

use anyhow::Context;
use pfc_cli::{Format, Outcome, print_json, print_table, table, units::count};
use pfc_shard::{Dataset, EpochOrder};
use serde::Serialize;

use crate::IngestError;
use stage::{Input, Stage};
use timing::Rates;

/// Measure how fast a data set is read on this machine.
///
/// Reads the first images of a shuffled epoch again and again: takes their bytes from the data set,
/// decodes them too, mirrors and normalises them too, as training does. In between, the bare JPEG
/// decoder runs over copies of the same bytes in memory, and all figures are given as shares of its
/// speed in the same round. One thread first, then all.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pfc-ingest bench data
  pfc-ingest bench data --images 20000 --rounds 15 --json

Figures are medians over the rounds. Let nothing else run meanwhile.")]
pub struct BenchArgs {
    /// Folder that `pack` wrote
    dataset: PathBuf,
    /// Images to read in each round
    #[arg(long, value_name = "N", default_value_t = 4_096,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    images: u64,
    /// Number of times that everything is measured
    #[arg(long, value_name = "N", default_value_t = 7,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Threads of the multi-threaded measurements; 0 takes one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Seed of the epoch
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    format: Format,
}

/// What was measured, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    images: u64,
    /// Mean size of an encoded image.
    bytes_per_image: f64,
    rounds: u32,
    measured: Vec<Measured>,
}

/// One stage on some threads.
#[derive(Debug, Serialize)]
struct Measured {
    threads: usize,
    stage: &'static str,
    images_per_second: f64,
    images_per_second_per_thread: f64,
    /// Of the bare decoder on as many threads, median over the rounds.
    of_bare_decoder: f64,
}

/// Runs the command.
pub fn run(args: &BenchArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let dir = args.dataset.display();
    let report = bench(args, quiet).with_context(|| format!("cannot measure `{dir}`"))?;
    if args.format.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(Outcome::Clean)
}

fn bench(args: &BenchArgs, quiet: bool) -> Result<Report, IngestError> {
    let dataset = Dataset::open(&args.dataset)?;
    let order = EpochOrder::new(dataset.len(), args.seed, 0);
    let input = Input::read(&dataset, order, args.images)?;
    let all = match args.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n.min(1_024),
    };
    let mut measured = Vec::new();
    for n_threads in if all == 1 { vec![1] } else { vec![1, all] } {
        let rates = Rates::measure(&input, n_threads, args.rounds, quiet)?;
        measured.extend(Stage::ALL.map(|stage| Measured {
            threads: n_threads,
            stage: stage.name(),
            images_per_second: rates.median(stage),
            images_per_second_per_thread: rates.median(stage) / n_threads as f64,
            of_bare_decoder: rates.of_bare(stage),
        }));
    }
    let bytes_per_image = input.bytes_per_image();
    Ok(Report { images: input.len(), bytes_per_image, rounds: args.rounds, measured })
}

fn print(report: &Report) -> std::io::Result<()> {
    let mut table = table(["threads", "stage", "images/s", "per thread", "of bare decoder"]);
    for m in &report.measured {
        table.add_row([
            m.threads.to_string(),
            m.stage.to_owned(),
            count(m.images_per_second as u64),
            count(m.images_per_second_per_thread as u64),
            format!("{:.2}", m.of_bare_decoder),
        ]);
    }
    print_table(&table)?;
    use std::io::Write;
    writeln!(
        pfc_cli::stdout(),
        "\n{} images of {:.0} bytes, median of {} rounds",
        count(report.images),
        report.bytes_per_image,
        report.rounds
    )
}
