//! What joining finished data sets takes, whatever makes their identities one.

use std::path::Path;

use pfc_cli::{Progress, interrupt};
use pfc_findings::{Decision, DecisionLog, Run, State, View, carried};
use pfc_shard::{
    DEFAULT_SHARD_BYTES, Dataset, DatasetSpec, DatasetWriter, Face, IdentityNames, Permutation,
    Step,
};

use crate::{IngestError, clean::TOOL, lineage};

/// One of the data sets to join.
pub struct Part {
    /// What it is called in the new data set; no other part is called that.
    pub name: String,
    /// Its rows.
    pub view: View,
    /// What was decided about it.
    pub runs: Vec<Run>,
    /// Number of rows of the parts before it.
    pub first_row: u64,
    /// By label of the view: that of the new data set. [`Part::open`] leaves it empty.
    pub labels: Vec<u32>,
}

impl Part {
    /// Opens the data set at `dir`, which follows those of `before`, and says what decisions change; also
    /// returns the state that they leave.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if it cannot be read.
    pub fn open(
        dir: &Path,
        as_packed: bool,
        before: &[Part],
    ) -> Result<(Part, State), IngestError> {
        let (dataset, state, runs) = read(dir, as_packed)?;
        let view = View::new(dataset, &state)?;
        if let Some(notice) = view.notice("--as-packed") {
            tracing::warn!("{}: {notice}", dir.display());
        }
        let name = name(dir, before.iter().map(|part| &*part.name));
        let first_row = before.last().map_or(0, |last| last.first_row + last.view.len());
        let part = Part { name, view: view.checked(), runs, first_row, labels: Vec::new() };
        if let Some(first) = before.first() {
            check_sizes(first, &part)?;
        }
        Ok((part, state))
    }
}

/// The rows of all parts in a random order.
pub struct Rows<'a> {
    parts: &'a [Part],
    order: Permutation,
    total: u64,
}

impl Rows<'_> {
    /// Those of `parts`, each of which knows its labels.
    pub fn of(parts: &[Part]) -> Rows<'_> {
        let total = parts.iter().map(|part| part.view.len()).sum();
        let seed = parts.first().map_or(0, |part| part.view.manifest().seed);
        Rows { parts, order: Permutation::new(total, seed), total }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// The number of the part that row `i` comes from, and the row of its view.
    pub fn place(&self, i: u64) -> (usize, u64) {
        let at = self.order.apply(i);
        let part = self.parts.partition_point(|part| part.first_row <= at) - 1;
        (part, at - self.parts[part].first_row)
    }

    /// Writes them into `out`, their sources under the name of their part. Every image is compared with its
    /// checksum.
    ///
    /// * `argument`: how the command was called, for the manifest
    ///
    /// # Errors
    ///
    /// [`IngestError`] for a row that cannot be read or written, [`IngestError::Interrupted`].
    pub fn write(
        &self,
        argument: String,
        names: IdentityNames,
        out: &Path,
        quiet: bool,
    ) -> Result<(), IngestError> {
        let Some(first) = self.parts.first() else { return Ok(()) };
        let manifest = first.view.manifest();
        let spec = DatasetSpec {
            image_size: manifest.image_size,
            seed: manifest.seed,
            shard_bytes: DEFAULT_SHARD_BYTES,
            sources: self.parts.iter().map(|part| part.name.clone()).collect(),
            tool: TOOL.into(),
            arguments: vec![argument],
            lineage: lineage(self.parts)?,
        };
        let mut writer = DatasetWriter::create(out, spec)?;
        let progress = Progress::new("join", "images", self.total, quiet);
        for i in 0..self.total {
            if i % 4096 == 0 && interrupt::requested() {
                return Err(IngestError::Interrupted { done: i, total: self.total });
            }
            let (part, row) = self.place(i);
            let part = &self.parts[part];
            let face = part.view.get(row)?;
            face.check(part.view.row(row))?;
            let source = format!("{}/{}", part.name, face.source);
            let label = part.labels[face.label as usize];
            writer.push(Face { label, source: &source, ..face })?;
            progress.add(1);
        }
        progress.finish();
        writer.finish(names)?;
        Ok(())
    }

    /// What people decided about the parts, in rows and labels of the new data set.
    ///
    /// # Errors
    ///
    /// As [`carried`].
    pub fn decisions(&self) -> Result<Vec<Decision>, IngestError> {
        let mut all = Vec::new();
        for part in self.parts {
            let row = |row: u64| self.order.invert(part.first_row + row);
            let label = |label: u32| part.labels[label as usize];
            for decision in carried(&part.runs, &part.view)? {
                // A probe of a benchmark is no row.
                let is_row = decision.finding() != "benchmark_overlap";
                all.push(Decision {
                    row: row(decision.row),
                    label: label(decision.label),
                    target: decision.target.map(label),
                    partner: decision.partner.map(|other| if is_row { row(other) } else { other }),
                    ..decision
                });
            }
        }
        Ok(all)
    }
}

/// The data set at `dir`, its pages asked for, and what was decided about it.
///
/// # Errors
///
/// [`IngestError`] if it cannot be read.
fn read(dir: &Path, as_packed: bool) -> Result<(Dataset, State, Vec<Run>), IngestError> {
    let dataset = Dataset::open(dir)?;
    dataset.preload()?;
    if as_packed {
        let state = State::of(&dataset);
        return Ok((dataset, state, Vec::new()));
    }
    let log = DecisionLog::open(dir)?;
    let (state, runs) = (log.state(&dataset)?, log.runs()?);
    Ok((dataset, state, runs))
}

/// The folder's name, with a number if another one of `taken` has it too.
fn name<'a>(dir: &Path, taken: impl Iterator<Item = &'a str> + Clone) -> String {
    let name = dir.file_name().map_or("part".into(), |name| name.to_string_lossy().into_owned());
    let numbered = (1..).map(|number| format!("{name}-{number}"));
    let is_free = |name: &String| taken.clone().all(|taken| taken != name);
    std::iter::once(name.clone()).chain(numbered).find(is_free).unwrap_or(name)
}

/// Refuses data sets of images of different sizes.
///
/// # Errors
///
/// [`IngestError::Options`].
fn check_sizes(first: &Part, other: &Part) -> Result<(), IngestError> {
    let [a, b] = [first, other].map(|part| part.view.manifest().image_size);
    if a == b {
        return Ok(());
    }
    Err(IngestError::Options {
        what: format!("{} has images of {a}, {} of {b}", first.name, other.name),
        hint: "pack one of them again with the --size of the other".into(),
    })
}

/// The steps that made each part, and this one.
///
/// # Errors
///
/// As [`lineage::of`].
fn lineage(parts: &[Part]) -> Result<Vec<Step>, IngestError> {
    let mut steps = Vec::new();
    for part in parts {
        for step in lineage::of(part.view.manifest(), &part.runs)? {
            let of = match step.of.is_empty() {
                true => part.name.clone(),
                false => format!("{}/{}", part.name, step.of),
            };
            steps.push(Step { of, ..step });
        }
    }
    steps.push(Step {
        command: "merge".into(),
        tool: TOOL.into(),
        arguments: parts.iter().map(|part| part.name.clone()).collect(),
        rows: parts.iter().map(|part| part.view.len()).sum(),
        n_identities: Some(parts.iter().map(|part| part.view.n_identities()).sum()),
        effect: String::new(),
        of: String::new(),
    });
    Ok(steps)
}
