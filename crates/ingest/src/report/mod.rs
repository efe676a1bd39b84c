//! `pfc-ingest report`: a data set and what cleaning found in it, as one page.

mod examples;
mod figures;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use pfc_cli::{Format, Outcome, print_json, units};
use pfc_report::Page;
use serde::Serialize;

use crate::{IngestError, decisions, output};

/// Write a page about a data set and what cleaning found in it.
///
/// One HTML file with everything in it: images per identity, sizes, sharpness and brightness before
/// and after, what was decided and why, by which bounds, and examples of each finding side by side,
/// the strongest first. It holds pictures of the people in the data set: treat it as you treat them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pfc-ingest report data
  pfc-ingest report data -o report.html --examples 10 --force")]
pub struct ReportArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// File to write
    #[arg(short, long, alias = "output", value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Examples of each finding
    #[arg(long, value_name = "N", default_value_t = 24,
          value_parser = clap::value_parser!(u64).range(0..=1000))]
    examples: u64,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Written<'a> {
    file: &'a PathBuf,
    bytes: usize,
    runs: usize,
    examples: usize,
}

/// Runs the command.
pub fn run(args: &ReportArgs) -> anyhow::Result<Outcome> {
    let dir = args.dataset.display();
    let written = write(args).with_context(|| format!("cannot report on `{dir}`"))?;
    if args.format.json {
        print_json(&written)?;
        return Ok(Outcome::Clean);
    }
    use std::io::Write;
    let (file, size) = (args.out.display(), units::bytes(written.bytes as u64));
    writeln!(pfc_cli::stdout(), "{file}: {size}, {} examples", written.examples)?;
    Ok(Outcome::Clean)
}

fn write(args: &ReportArgs) -> Result<Written<'_>, IngestError> {
    output::check_file(&args.out, args.force)?;
    let (runs, dataset, log) = decisions::read(&args.dataset)?;
    dataset.preload()?;
    let view = log.state(&dataset)?;
    // `.` and `data/..` have names too.
    let folder = args.dataset.canonicalize().unwrap_or_else(|_| args.dataset.clone());
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut page = Page::new(&format!("{name}: what is in it"));
    let sizes = figures::sizes(&dataset, &view)?;
    figures::write_counts(&mut page, &dataset, &view, &sizes);
    // Pictures first: they say more than the bounds by which they were found.
    let examples = examples::write(&mut page, &dataset, &runs, args.examples as usize)?;
    figures::write(&mut page, &dataset, &view, &sizes)?;
    figures::write_runs(&mut page, &runs);
    let html = page.finish();
    pfc_durable::write(&args.out, html.as_bytes())?;
    Ok(Written { file: &args.out, bytes: html.len(), runs: runs.len(), examples })
}
