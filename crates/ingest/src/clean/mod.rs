//! `pfc-ingest clean`: findings about a data set, as decisions beside it.
//!
//! The passes are those of `pfc-clean`; here are their options and order, what they read, and how
//! their findings are logged and printed. Each pass sees what those before it decided.

mod options;
mod part;
mod summary;

use anyhow::Context;
use pfc_clean::{
    Work, counts,
    files::{self, Flag},
    identities,
};
use pfc_cli::{Outcome, print_json};
use pfc_findings::{Action, Decision, DecisionLog, Questions, RunInfo};
use pfc_shard::Dataset;
use summary::Summary;

use crate::IngestError;
pub use options::{CleanArgs, Pass, cosine};
pub use part::PartFile;
pub use summary::{brief, tally};

/// Name and version of this program, for what it writes.
pub const TOOL: &str = concat!("pfc-ingest ", env!("CARGO_PKG_VERSION"));

/// Runs the command.
pub fn run(args: &CleanArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let dir = args.dataset.display();
    let summary = clean(args, quiet).with_context(|| format!("cannot clean `{dir}`"))?;
    if args.format.json {
        print_json(&summary)?;
    } else {
        summary.print()?;
    }
    Ok(Outcome::Clean)
}

fn clean(args: &CleanArgs, quiet: bool) -> Result<Summary, IngestError> {
    let passes = args.passes()?;
    let dataset = Dataset::open(&args.dataset)?;
    dataset.preload()?;
    let mut log = DecisionLog::open(&args.dataset)?;
    let state = log.state(&dataset)?;
    let known = Questions::of(&log.runs()?, &dataset, &state)?;
    let pool = args.threads.pool()?;
    let mut work = Work::new(&dataset, state, quiet)?;
    let (images_before, n_before) = (work.n_rows_kept(), work.n_identities_seen());
    let Found { decisions, n_known } = pool.install(|| decide(args, &passes, &mut work, &known))?;
    let mut summary = Summary::new(&args.dataset, &passes, &decisions, &work.notes);
    summary.known = n_known;
    summary.images = [images_before, work.n_rows_kept()];
    summary.identities = [n_before, work.n_identities_seen()];
    if !args.dry_run {
        let info = RunInfo {
            dataset: log.dataset(),
            tool: TOOL.into(),
            command: "clean".into(),
            arguments: args.stated(),
            notes: work.notes.clone().into(),
        };
        summary.run = Some(log.append(&info, &decisions)?);
    }
    Ok(summary)
}

/// What all passes found.
struct Found {
    decisions: Vec<Decision>,
    /// Suspicions that the log holds already, asked or answered; they are not logged again.
    n_known: u64,
}

/// Every pass in the one order in which they make sense.
fn decide(
    args: &CleanArgs,
    passes: &[Pass],
    work: &mut Work<'_>,
    known: &Questions,
) -> Result<Found, IngestError> {
    let (bounds, flags) = (args.bounds(), args.flags());
    let mut all = Found { decisions: Vec::new(), n_known: 0 };
    let signatures = match passes.iter().any(|pass| pass.needs_images()) {
        true => {
            let (signatures, undecodable) = files::signatures(work)?;
            all.decisions.extend(leave_out_undecodable(work, &undecodable)?);
            Some(signatures)
        }
        false => None,
    };
    let embeddings = match passes.iter().any(|pass| pass.needs_embeddings()) {
        true => {
            let (embeddings, undecodable) = args.embeddings(work)?;
            all.decisions.extend(leave_out_undecodable(work, &undecodable)?);
            Some(embeddings)
        }
        false => None,
    };
    for pass in passes {
        let (signatures, embeddings) = (signatures.as_deref(), embeddings.as_ref());
        let mut found = match (pass, signatures, embeddings) {
            (Pass::Exact, Some(signatures), _) => files::exact(work, signatures),
            (Pass::Near, Some(signatures), _) => files::near(work, signatures, &args.near())?,
            (Pass::Small, Some(signatures), _) => {
                files::flags(work, signatures, Flag::Small, &flags)
            }
            (Pass::Blurred, Some(signatures), _) => {
                files::flags(work, signatures, Flag::Blurred, &flags)
            }
            (Pass::Blank, Some(signatures), _) => {
                files::flags(work, signatures, Flag::Blank, &flags)
            }
            (Pass::Aspect, Some(signatures), _) => {
                files::flags(work, signatures, Flag::Aspect, &flags)
            }
            (Pass::Labels, _, Some(embeddings)) => identities::labels(work, embeddings, &bounds)?,
            (Pass::Outliers, _, Some(embeddings)) => {
                identities::outliers(work, embeddings, &bounds)?
            }
            (Pass::Merges, _, Some(embeddings)) => {
                identities::merges(work, embeddings, &bounds, &PartFile::beside(&args.dataset))?
            }
            (Pass::Overlap, _, Some(embeddings)) => {
                let probes = args.probes(embeddings.dim())?;
                identities::overlap(work, embeddings, &probes, &bounds)?
            }
            (Pass::Few, ..) => counts::few(work, args.min_images.unwrap_or(1)),
            (Pass::Many, ..) => counts::many(work, args.max_images.unwrap_or(u64::MAX))?,
            _ => unreachable!("what a pass needs was made above"),
        };
        let n_found = found.len();
        found.retain(|d| d.action != Action::Suspect || !known.knows(d, &work.state));
        all.n_known += (n_found - found.len()) as u64;
        work.apply(&found)?;
        all.decisions.extend(found);
    }
    Ok(all)
}

/// Images that cannot be decoded are of no use to anybody, whichever pass came upon them.
fn leave_out_undecodable(work: &mut Work<'_>, rows: &[u64]) -> Result<Vec<Decision>, IngestError> {
    let left = rows.iter().filter(|row| !work.state.is_dropped(**row));
    let drop = |row: &u64| Decision::new(*row, work.own_label(*row), Action::Drop, "undecodable");
    let found: Vec<Decision> = left.map(drop).collect();
    work.apply(&found)?;
    Ok(found)
}
