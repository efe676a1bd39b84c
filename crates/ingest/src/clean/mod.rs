//! `pfc-ingest clean`: findings about a data set, as decisions beside it.
//!
//! The passes are those of `pfc-clean`; here are their options and order, what they read, and how
//! their findings are logged and printed. Each pass sees what those before it decided. What a stopped
//! comparison of centres has done is kept in a file beside the data set.

mod options;
mod summary;

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use anyhow::Context;
use pfc_clean::{
    Work, counts,
    files::{self, Flag},
    identities::{self, Keeper, Standing},
};
use pfc_cli::{Outcome, print_json};
use pfc_durable::{DurableError, faults::is_of_system};
use pfc_findings::{Action, Decision, DecisionLog, Question, Questions, RunInfo};
use pfc_shard::{
    Dataset,
    sealed::{self, SealedError},
};

use crate::{IngestError, QualityBound, TOOL};
use summary::Summary;

pub use options::{CleanArgs, Pass, cosine};
pub use summary::{bounds, brief, tally};

/// How near to its bound a decision may be to be asked about nevertheless, in cosine, unless
/// `review export` says another distance.
pub const MARGIN: f32 = 0.03;

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
        let asked = Questions::of(&log.runs()?, &dataset, &log.state(&dataset)?)?;
        let is_asked = |question: &&Question| question.is_open && question.is_unsure(MARGIN);
        summary.open = asked.all().iter().filter(is_asked).count() as u64;
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
            (Pass::Quality, ..) => beyond_bounds(work, &args.quality()?),
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

/// Drops the images of which a measure lies beyond its bounds, by the first such bound; pinned ones stay.
fn beyond_bounds(work: &mut Work<'_>, bounds: &[(QualityBound, Vec<f32>)]) -> Vec<Decision> {
    let of_row = |row: u64| {
        if work.state.is_dropped(row) || work.state.is_pinned(row) {
            return None;
        }
        bounds.iter().find_map(|(bound, values)| {
            let value = *values.get(row as usize)?;
            let end = bound.broken_by(value)?;
            let reason = format!("quality_{}", bound.column);
            let drop = Decision::new(row, work.own_label(row), Action::Drop, &reason);
            Some(drop.scored(value, end))
        })
    };
    let found: Vec<Decision> = (0..work.dataset.len()).filter_map(of_row).collect();
    let unknown = |(bound, values): &(QualityBound, Vec<f32>)| {
        let n = values.iter().filter(|value| value.is_nan()).count();
        (bound.column.clone(), n.into())
    };
    let unknown: serde_json::Map<String, serde_json::Value> = bounds.iter().map(unknown).collect();
    work.notes.insert("quality".to_owned(), serde_json::json!({ "not_measured": unknown }));
    found
}

/// Images that cannot be decoded are of no use to anybody, whichever pass came upon them.
fn leave_out_undecodable(work: &mut Work<'_>, rows: &[u64]) -> Result<Vec<Decision>, IngestError> {
    let left = rows.iter().filter(|row| !work.state.is_dropped(**row));
    let drop = |row: &u64| Decision::new(*row, work.own_label(*row), Action::Drop, "undecodable");
    let found: Vec<Decision> = left.map(drop).collect();
    work.apply(&found)?;
    Ok(found)
}

/// Keeps what is done in a sealed file.
#[derive(Debug)]
pub struct PartFile {
    path: PathBuf,
}

impl PartFile {
    /// In the folder of a data set.
    pub fn beside(dataset: &Path) -> PartFile {
        PartFile { path: dataset.join(".centres.part") }
    }
}

impl Keeper for PartFile {
    fn load(&self) -> Result<Option<Standing>, Box<dyn Error + Send + Sync>> {
        match sealed::read(&self.path) {
            Err(SealedError::Io(error)) if is_of_system(&error) => {
                Err(DurableError::at("read", &self.path)(error).into())
            }
            // A damaged file is as good as none.
            left => Ok(left.unwrap_or_default()),
        }
    }

    fn save(&self, standing: &Standing) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(sealed::write(&self.path, standing)?)
    }

    fn remove(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DurableError::at("remove", &self.path)(error).into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let part = PartFile::beside(folder.path());
        assert!(part.load().unwrap().is_none());
        part.remove().unwrap();
        let text = r#"{"key":"0","done":2,"pairs":[]}"#;
        let standing: Standing = serde_json::from_str(&text.replace("\"0\"", &key())).unwrap();
        part.save(&standing).unwrap();
        assert!(part.load().unwrap().is_some());
        let written = std::fs::read_to_string(&part.path).unwrap();
        std::fs::write(&part.path, written.replacen('2', "3", 1)).unwrap();
        assert!(part.load().unwrap().is_none());
        part.remove().unwrap();
        assert!(!part.path.exists());
    }

    /// A checksum as JSON.
    fn key() -> String {
        serde_json::to_string(&pfc_shard::Checksum(7)).unwrap()
    }
}
