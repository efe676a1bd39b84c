//! What joining finished data sets takes, whatever makes their identities one.

use std::path::Path;

use pfc_findings::{DecisionLog, Run, State, View};
use pfc_shard::{Dataset, Permutation, Step};

use crate::{IngestError, clean::TOOL, lineage};

/// The data set at `dir`, its pages asked for, and what was decided about it.
///
/// # Errors
///
/// [`IngestError`] if it cannot be read.
pub fn read(dir: &Path, as_packed: bool) -> Result<(Dataset, State, Vec<Run>), IngestError> {
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
pub fn name<'a>(dir: &Path, taken: impl Iterator<Item = &'a str> + Clone) -> String {
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
pub fn check_sizes(
    (first_name, first): (&str, &View),
    (name, other): (&str, &View),
) -> Result<(), IngestError> {
    let [a, b] = [first, other].map(|view| view.manifest().image_size);
    if a == b {
        return Ok(());
    }
    Err(IngestError::Options {
        what: format!("{first_name} has images of {a}, {name} of {b}"),
        hint: "pack one of them again with the --size of the other".into(),
    })
}

/// The rows of all parts, and the random order in which they are written.
pub fn order(views: &[&View]) -> (u64, Permutation) {
    let total = views.iter().map(|view| view.len()).sum();
    let seed = views.first().map_or(0, |view| view.manifest().seed);
    (total, Permutation::new(total, seed))
}

/// The steps that made each part, and this one.
///
/// # Errors
///
/// As [`lineage::of`].
pub fn lineage<'a>(
    parts: impl Iterator<Item = (&'a str, &'a View, &'a [Run])> + Clone,
) -> Result<Vec<Step>, IngestError> {
    let mut steps = Vec::new();
    for (name, view, runs) in parts.clone() {
        for step in lineage::of(view.manifest(), runs)? {
            let of = match step.of.is_empty() {
                true => name.to_owned(),
                false => format!("{name}/{}", step.of),
            };
            steps.push(Step { of, ..step });
        }
    }
    steps.push(Step {
        command: "merge".into(),
        tool: TOOL.into(),
        arguments: parts.clone().map(|(name, ..)| name.to_owned()).collect(),
        rows: parts.clone().map(|(_, view, _)| view.len()).sum(),
        n_identities: Some(parts.map(|(_, view, _)| view.n_identities()).sum()),
        effect: String::new(),
        of: String::new(),
    });
    Ok(steps)
}
