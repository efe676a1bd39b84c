//! `pfc-ingest compact`: a new data set with all decisions applied.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use pfc_cli::{Format, Outcome, Progress, interrupt, print_json, print_table, table, units::count};
use pfc_findings::{DecisionLog, Run, RunInfo, View, carried};
use pfc_shard::{
    DEFAULT_SHARD_BYTES, Dataset, DatasetSpec, DatasetWriter, Detections, IdentityNames, Step,
    write_detections,
};
use serde::Serialize;

use crate::{IngestError, TOOL, lineage, output, quality};

/// Write a new data set with all decisions applied.
///
/// Rows that were left out are not written; the others keep their order and their bytes. Labels are numbered
/// again without gaps. A merged identity has all names; a new identity has the name of the one that it came
/// from, with the first free `#split-N`. Suspicions are not applied. Answers given in `review` are written to
/// OUT, so that later runs of `clean` on it honour them, and so are detections and measures of quality. The
/// checksum of every shard is verified. OUT appears
/// once it is complete; DATASET stays as it is.
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
    /// Decisions of people that later runs of `clean` on the new data set honour.
    answers_carried_over: usize,
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
    let log = DecisionLog::open(&args.dataset)?;
    let runs = log.runs()?;
    let lineage = lineage::of(dataset.manifest(), &runs)?;
    let state = log.state(&dataset)?;
    let view = View::new(dataset, &state)?.checked();
    let out = unfinished.path();
    write_found(&args.dataset, &view, out)?;
    write(&view, lineage, out, quiet)?;
    quality::carry(&args.dataset, &view, out)?;
    let n_carried = carry(&runs, &view, out)?;
    unfinished.commit()?;
    Ok(Summary {
        images: view.len(),
        images_before: view.manifest().rows,
        identities: view.n_identities(),
        identities_before: view.manifest().n_identities,
        runs: runs.len(),
        answers_carried_over: n_carried,
    })
}

fn write(view: &View, lineage: Vec<Step>, out: &Path, quiet: bool) -> Result<(), IngestError> {
    let manifest = view.manifest();
    let mut spec = DatasetSpec {
        image_size: manifest.image_size,
        seed: manifest.seed,
        shard_bytes: DEFAULT_SHARD_BYTES,
        sources: manifest.sources.clone(),
        tool: TOOL.into(),
        arguments: manifest.arguments.clone(),
        lineage,
    };
    spec.lineage.push(Step {
        command: "compact".into(),
        tool: TOOL.into(),
        arguments: Vec::new(),
        rows: view.len(),
        n_identities: Some(view.n_identities()),
        effect: String::new(),
        of: String::new(),
    });
    let mut writer = DatasetWriter::create(out, spec)?;
    let total = view.len();
    let progress = Progress::new("compact", "images", total, quiet);
    for place in 0..total {
        if place % 4096 == 0 && interrupt::requested() {
            return Err(IngestError::Interrupted { done: place, total });
        }
        let face = view.get(place)?;
        face.check(view.row(place))?;
        writer.push(face)?;
        progress.add(1);
    }
    progress.finish();
    let people = view.people();
    let mut names = IdentityNames::default();
    (0..people.len()).for_each(|label| names.push(people.names(label)));
    writer.finish(names)?;
    Ok(())
}

/// Copies where the faces were found, if that is known.
fn write_found(from: &Path, view: &View, out: &Path) -> Result<(), IngestError> {
    let Some(found) = Detections::open(from, view.manifest())? else { return Ok(()) };
    let rows = (0..view.len()).map(|place| Ok(found.get(view.row(place))?));
    write_detections(out, view.len(), rows)
}

/// Writes what people decided to the log of the new data set, where it still matters; returns how
/// many decisions that are.
fn carry(runs: &[Run], view: &View, out: &Path) -> Result<usize, IngestError> {
    let decisions = carried(runs, view)?;
    if decisions.is_empty() {
        return Ok(0);
    }
    let mut log = DecisionLog::open(out)?;
    let info = RunInfo {
        dataset: log.dataset(),
        tool: TOOL.into(),
        command: "compact".into(),
        arguments: vec!["answers carried over".into()],
        notes: serde_json::json!({}),
    };
    log.append(&info, &decisions)?;
    Ok(decisions.len())
}
