//! `pfc-ingest review`: asking people about what is not sure.

mod export;
mod import;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use pfc_cli::{Format, Outcome, print_json};
use serde::{Deserialize, Serialize};

/// Ask somebody about what cleaning is not sure of.
///
/// `export` writes suspicions, and decisions close to their bound, as a table with contact sheets;
/// in its column `answer` somebody writes keep, drop, relabel (the image is the target's) or merge
/// (both identities are one person), and leaves the rest empty. `import` takes the answers as
/// decisions, which later runs of `clean` respect and `decisions undo` takes back.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pfc-ingest review export data review
  pfc-ingest review export data review --reason same_person --limit 100
  pfc-ingest review import data review/review.csv")]
pub struct ReviewArgs {
    #[command(subcommand)]
    command: ReviewCommand,
}

#[derive(Debug, Subcommand)]
enum ReviewCommand {
    /// Write a table and contact sheets of what is not sure
    Export(ExportReviewArgs),
    /// Take the answers of such a table as decisions
    Import(ImportReviewArgs),
}

#[derive(Debug, Args)]
struct ExportReviewArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// Folder to make
    out: PathBuf,
    /// Those with this reason alone
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Decisions too whose cosine is so close to its bound
    #[arg(long, value_name = "COSINE", default_value_t = 0.03, value_parser = pfc_cli::number::within(0.0..=2.0f32))]
    margin: f32,
    /// Most cases to ask about; of more, those nearest to their bounds
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct ImportReviewArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// The table with answers
    answers: PathBuf,
    #[command(flatten)]
    format: Format,
}

/// A line of the table.
#[derive(Debug, Serialize, Deserialize)]
struct Case {
    case: usize,
    answer: String,
    suggestion: String,
    reason: String,
    score: Option<f32>,
    threshold: Option<f32>,
    identity: String,
    source: String,
    target_identity: Option<String>,
    partner_source: Option<String>,
    sheet: String,
    row: u64,
    label: u32,
    target: Option<u32>,
    partner: Option<u64>,
}

/// Runs the command.
pub fn run(args: &ReviewArgs) -> anyhow::Result<Outcome> {
    use std::io::Write;
    let mut out = pfc_cli::stdout();
    match &args.command {
        ReviewCommand::Export(args) => {
            let dir = args.dataset.display();
            let exported =
                export::export(args).with_context(|| format!("cannot export cases of `{dir}`"))?;
            match args.format.json {
                true => print_json(&exported)?,
                false => writeln!(
                    out,
                    "{}: {} cases on {} sheets",
                    args.out.display(),
                    exported.cases,
                    exported.sheets
                )?,
            }
        }
        ReviewCommand::Import(args) => {
            let file = args.answers.display();
            let imported =
                import::import(args).with_context(|| format!("cannot import `{file}`"))?;
            match args.format.json {
                true => print_json(&imported)?,
                false => writeln!(
                    out,
                    "run {:03}: {} answers, {} cases left open",
                    imported.run, imported.answers, imported.open
                )?,
            }
        }
    }
    Ok(Outcome::Clean)
}
