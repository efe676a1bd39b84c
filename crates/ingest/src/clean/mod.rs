//! `pfc-ingest clean`: findings about a data set, as decisions beside it.
//!
//! [`work`] is what all passes see; [`files`] holds the passes that look at images, [`identities`]
//! those that compare embeddings, [`counts`] those that count. Each pass sees what those before it
//! decided.

mod counts;
mod error;
mod files;
pub mod identities;
mod options;
mod summary;
mod work;

use anyhow::Context;
use pfc_cli::{Outcome, print_json};
use pfc_shard::{
    Dataset,
    decisions::{Decision, DecisionLog, RunInfo},
};

pub use error::CleanError;
pub use options::{CleanArgs, Pass};
use summary::Summary;
pub use summary::{brief, tally};
pub use work::Work;

use crate::IngestError;

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
    let view = log.view(&dataset)?;
    let pool = args.threads.pool()?;
    let before = (dataset.len() - view.n_dropped(), view);
    let mut work = Work::new(&args.dataset, &dataset, before.1, quiet)?;
    let n_before = work.n_identities_seen();
    let decisions = pool.install(|| decide(args, &passes, &mut work))?;
    let mut summary = Summary::new(&passes, &decisions, &work.notes);
    summary.images = [before.0, work.n_rows_kept()];
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

/// Every pass in the one order in which they make sense.
fn decide(
    args: &CleanArgs,
    passes: &[Pass],
    work: &mut Work<'_>,
) -> Result<Vec<Decision>, IngestError> {
    let mut all = Vec::new();
    let signatures = match passes.iter().any(|pass| pass.needs_images()) {
        true => Some(files::signatures(work)?),
        false => None,
    };
    let embeddings = match passes.iter().any(|pass| pass.needs_embeddings()) {
        true => Some(args.embeddings(work)?),
        false => None,
    };
    for pass in passes {
        let (signatures, embeddings) = (signatures.as_deref(), embeddings.as_ref());
        let found = match (pass, signatures, embeddings) {
            (Pass::Exact, Some(signatures), _) => files::exact(work, signatures),
            (Pass::Near, Some(signatures), _) => files::near(work, signatures, &args.near)?,
            (Pass::Small | Pass::Blurred | Pass::Blank | Pass::Aspect, Some(signatures), _) => {
                files::flags(work, signatures, *pass, &args.flags)
            }
            (Pass::Labels, _, Some(embeddings)) => {
                identities::labels(work, embeddings, &args.bounds)?
            }
            (Pass::Outliers, _, Some(embeddings)) => {
                identities::outliers(work, embeddings, &args.bounds)?
            }
            (Pass::Merges, _, Some(embeddings)) => {
                identities::merges(work, embeddings, &args.bounds)?
            }
            (Pass::Overlap, _, Some(embeddings)) => {
                let probes = args.probes(embeddings.dim())?;
                identities::overlap(work, embeddings, &probes, &args.bounds)?
            }
            (Pass::Few, ..) => counts::few(work, args.min_images.unwrap_or(1)),
            (Pass::Many, ..) => counts::many(work, args.max_images.unwrap_or(u64::MAX))?,
            _ => unreachable!("what a pass needs was made above"),
        };
        work.apply(&found)?;
        all.extend(found);
    }
    Ok(all)
}
