//! `pfc-ingest compact`: a new data set with all decisions applied.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use pfc_cli::{Format, Outcome, Progress, interrupt, print_json, print_table, table};
use pfc_shard::{
    DEFAULT_SHARD_BYTES, Dataset, DatasetSpec, DatasetWriter, Face, IdentityNames,
    decisions::{DecisionLog, View},
};
use serde::Serialize;

use crate::{IngestError, clean::TOOL, output, units::count};

/// Write a new data set with all decisions applied.
///
/// Rows that were left out are gone, the others keep their order and their bytes. Labels are
/// numbered anew without gaps; a merged identity has all names, a new one the name of the identity
/// it came from. Suspicions are not applied. OUT appears once it is complete; DATASET stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pfc-ingest clean data && pfc-ingest compact data data-clean
  pfc-ingest compact data data-clean --json && pfc-ingest verify data-clean")]
pub struct CompactArgs {
    /// Folder of the data set
    dataset: PathBuf,
    /// Folder to make
    out: PathBuf,
    #[command(flatten)]
    format: Format,
}

/// What was written, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Summary {
    images: u64,
    images_before: u64,
    identities: u32,
    identities_before: u32,
    runs: usize,
}

/// Runs the command.
pub fn run(args: &CompactArgs, quiet: bool) -> anyhow::Result<Outcome> {
    let dir = args.dataset.display();
    let summary = compact(args, quiet).with_context(|| format!("cannot compact `{dir}`"))?;
    if args.format.json {
        print_json(&summary)?;
        return Ok(Outcome::Clean);
    }
    let mut rows = table(["", "before", "after"]);
    let (images, before) = (count(summary.images), count(summary.images_before));
    rows.add_row(["images".to_owned(), before, images]);
    let [before, after] = [summary.identities_before, summary.identities].map(|n| count(n.into()));
    rows.add_row(["identities".to_owned(), before, after]);
    print_table(&rows)?;
    Ok(Outcome::Clean)
}

fn compact(args: &CompactArgs, quiet: bool) -> Result<Summary, IngestError> {
    let unfinished = output::begin(&[&args.dataset], &args.out)?;
    let dataset = Dataset::open(&args.dataset)?;
    dataset.preload()?;
    let log = DecisionLog::open(&args.dataset)?;
    let view = log.view(&dataset)?;
    let labels = NewLabels::of(&dataset, &view)?;
    write(&dataset, &view, &labels, unfinished.path(), log.len(), quiet)?;
    unfinished.commit()?;
    Ok(Summary {
        images: dataset.len() - view.n_dropped(),
        images_before: dataset.len(),
        identities: labels.names.len(),
        identities_before: dataset.n_identities(),
        runs: log.len(),
    })
}

fn write(
    dataset: &Dataset,
    view: &View,
    labels: &NewLabels,
    out: &Path,
    n_runs: usize,
    quiet: bool,
) -> Result<(), IngestError> {
    let manifest = dataset.manifest();
    let mut arguments = manifest.arguments.clone();
    arguments.push(format!("compact: {n_runs} runs of decisions"));
    let spec = DatasetSpec {
        image_size: manifest.image_size,
        seed: manifest.seed,
        shard_bytes: DEFAULT_SHARD_BYTES,
        sources: manifest.sources.clone(),
        tool: TOOL.into(),
        arguments,
    };
    let mut writer = DatasetWriter::create(out, spec)?;
    let total = dataset.len();
    let progress = Progress::new("compact", "images", total, quiet);
    for row in 0..total {
        if row % 4096 == 0 && interrupt::requested() {
            return Err(IngestError::Interrupted { done: row, total });
        }
        let face = dataset.get(row)?;
        if let Some(label) = view.label(row, face.label).and_then(|old| labels.new_of(old)) {
            writer.push(Face { label, ..face })?;
        }
        progress.add(1);
    }
    progress.finish();
    writer.finish(labels.names.clone())?;
    Ok(())
}

/// Labels without gaps, in the order of the old ones.
struct NewLabels {
    new: Vec<Option<u32>>,
    names: IdentityNames,
}

impl NewLabels {
    fn of(dataset: &Dataset, view: &View) -> Result<NewLabels, IngestError> {
        let n = view.n_identities() as usize;
        let mut seen = vec![false; n];
        // Where the first row of a new identity was before: it is named after that.
        let mut born: Vec<Option<u32>> = vec![None; n];
        for (row, label) in (0..).zip(dataset.labels()?) {
            if let Some(new) = view.label(row, label) {
                seen[new as usize] = true;
                born[new as usize].get_or_insert(label);
            }
        }
        let mut followers: Vec<Vec<u32>> = vec![Vec::new(); n];
        for (from, to) in view.merges() {
            followers[to as usize].push(from);
        }
        let mut labels = NewLabels { new: vec![None; n], names: IdentityNames::default() };
        for old in (0..n as u32).filter(|old| seen[*old as usize]) {
            labels.new[old as usize] = Some(labels.names.len());
            let all = [old].into_iter().chain(followers[old as usize].iter().copied());
            let names: Vec<String> =
                all.flat_map(|label| names(dataset, label, born[old as usize])).collect();
            labels.names.push(names);
        }
        Ok(labels)
    }

    fn new_of(&self, old: u32) -> Option<u32> {
        self.new.get(old as usize).copied().flatten()
    }
}

/// The names of a label, or one for a new identity.
fn names(dataset: &Dataset, label: u32, born: Option<u32>) -> Vec<String> {
    let n_old = dataset.n_identities();
    match label < n_old {
        true => dataset.identities().names(label).map(str::to_owned).collect(),
        false => {
            let from = born.map_or("", |from| dataset.identities().name(from));
            vec![format!("{from}#split-{}", label - n_old)]
        }
    }
}
