//! `pfc-ingest review`: exports open questions as a table with contact sheets, and imports the answers as
//! decisions.

mod case;
mod export;
mod import;
mod page;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use pfc_cli::{Format, Outcome, print_json, units::of};

use self::import::Imported;
use crate::clean::MARGIN;

/// Export uncertain findings for review, and import the answers.
///
/// `export` writes each open question once, as a line of review.csv with contact sheets. A person writes
/// one of the words in `answers` into the column `answer`, and leaves the others empty; or opens review.html,
/// where keys answer, and which downloads the table with the answers:
///
/// keep: the images stay where they are. drop: they are left out. relabel: they belong to the target
/// identity. merge: the two identities are one person. different: they are different people, and are
/// never joined.
///
/// `import` takes the answers as decisions, which change the data set for every reader and stand
/// against later runs of `clean`. A table may be imported again with other answers; the last one
/// stands. `decisions undo` takes a run back.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pfc-ingest review export data review
  pfc-ingest review export data review --reason same_person --limit 100
  pfc-ingest review export data review --html      # and review/review.html, to answer in a browser
  pfc-ingest review import data review/review.csv")]
pub struct ReviewArgs {
    #[command(subcommand)]
    command: ReviewCommand,
}

#[derive(Debug, Subcommand)]
enum ReviewCommand {
    /// Write open questions as a table with contact sheets
    #[command(after_help = "Examples:
  pfc-ingest review export data review
  pfc-ingest review export data review --reason same_person --limit 100 --html")]
    Export(ExportReviewArgs),
    /// Take the answers in such a table as decisions
    #[command(after_help = "Examples:
  pfc-ingest review import data review/review.csv")]
    Import(ImportReviewArgs),
}

#[derive(Debug, Args)]
struct ExportReviewArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// Folder to make
    out: PathBuf,
    /// Only findings with this reason
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Also export decisions within this distance of their threshold
    #[arg(long, value_name = "COSINE", default_value_t = MARGIN, value_parser = pfc_cli::number::within(0.0..=2.0f32))]
    margin: f32,
    /// Maximum number of questions; those closest to the threshold are kept
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Also write review.html, a page of all questions: keys answer them, and it downloads review.csv with
    /// the answers
    #[arg(long)]
    html: bool,
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

/// Runs the command.
pub fn run(args: &ReviewArgs) -> anyhow::Result<Outcome> {
    use std::io::Write;
    let mut out = pfc_cli::stdout();
    match &args.command {
        ReviewCommand::Export(args) => {
            let dir = args.dataset.display();
            let exported = export::export(args)
                .with_context(|| format!("cannot export questions about `{dir}`"))?;
            match args.format.json {
                true => print_json(&exported)?,
                false => writeln!(
                    out,
                    "{}: {} on {}{}",
                    args.out.display(),
                    of(exported.questions as u64, "question"),
                    of(exported.sheets as u64, "sheet"),
                    match exported.left_out {
                        0 => String::new(),
                        n => format!("; {n} more are open, --limit exports more"),
                    }
                )?,
            }
        }
        ReviewCommand::Import(args) => {
            let file = args.answers.display();
            let imported =
                import::import(args).with_context(|| format!("cannot import `{file}`"))?;
            match args.format.json {
                true => print_json(&imported)?,
                false => writeln!(out, "{}", told(&imported))?,
            }
        }
    }
    Ok(Outcome::Clean)
}

/// The result, in one line.
fn told(imported: &Imported) -> String {
    let Imported { run, answers, known, open } = imported;
    let open = of(*open as u64, "question");
    match (run, answers) {
        (_, 0) => format!("no answers in the table, {open} left open; nothing was written"),
        (None, n) => {
            let answers = of(*n as u64, "answer");
            format!("{answers}, all imported before, {open} left open; nothing was written")
        }
        (Some(run), n) => {
            let answers = of(*n as u64, "answer");
            let known =
                if *known > 0 { format!(" ({known} imported before)") } else { String::new() };
            format!("run {run:03}: {answers}{known}, {open} left open")
        }
    }
}
