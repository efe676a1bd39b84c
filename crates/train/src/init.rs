//! Fine-tuning: where the first weights come from, and centres carried over by identity.

use std::path::{Path, PathBuf};

use pfc_findings::{People, Reading, View};
use pfc_head::{ClassRange, Head};
use pfc_model::{
    ModelError,
    checkpoint::{Checkpoint, Progress},
    weights,
};
use pfc_shard::{MANIFEST_FILE, hash::content_hash};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::{TrainError, centres, config::BadValue, source::Source, step::Trainer};

/// Classes of the old data set whose centres are read at a time.
const CHUNK_CLASSES: u64 = 1 << 13;

/// Section `[init]`: what a run begins with. A run that is resumed has no use for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InitConfig {
    /// Weights of the backbone: a checkpoint, a state dict of PyTorch or safetensors; empty draws
    /// them.
    pub model: PathBuf,
    /// The data set that the checkpoint `model` was trained on. If it is given, the centres of
    /// identities that have a name in common come over; those of new identities are drawn, and those
    /// of identities that are gone are left out.
    pub data: PathBuf,
}

impl InitConfig {
    /// Refuses centres without a model.
    ///
    /// # Errors
    ///
    /// [`BadValue`].
    pub fn validate(&self) -> Result<(), BadValue> {
        let fits = self.carries_centres() <= !self.model.as_os_str().is_empty();
        let bound = "left out if there is no init.model";
        BadValue::unless(fits, "init.data", self.data.display(), bound)
    }

    /// Whether centres of another run are taken over.
    pub fn carries_centres(&self) -> bool {
        !self.data.as_os_str().is_empty()
    }
}

/// Puts the weights in their place, and says what was done; `None` if nothing was to be.
///
/// # Errors
///
/// [`TrainError::Model`] if the file cannot be read or is of another network,
/// [`TrainError::Shard`] for the old data set, [`TrainError::OtherRun`] if the checkpoint was not
/// trained on it, [`TrainError::Head`] if its centres cannot be read.
pub fn begin(
    config: &InitConfig,
    trainer: &mut Trainer,
    source: &Source,
) -> Result<Option<String>, TrainError> {
    if config.model.as_os_str().is_empty() {
        return Ok(None);
    }
    let origin = config.model.display().to_string();
    let loaded = weights::open(&config.model, Device::Cpu, None)?;
    let state = loaded.backbone.state_dict();
    trainer.backbone.load_state_dict(&origin, &state)?;
    if let Some(average) = &trainer.average {
        average.backbone().load_state_dict(&origin, &state)?;
    }
    if !config.carries_centres() {
        return Ok(Some(format!("the backbone begins with the weights of {origin}")));
    }
    let Some(dataset) = source.dataset() else {
        let bound = "left out with data.synthetic, whose people have no names";
        return Err(BadValue::new("init.data", config.data.display(), bound).into());
    };
    let checkpoint = Checkpoint::open(&config.model)?;
    let progress = checkpoint.manifest().progress.as_ref();
    // As the checkpoint was trained on it.
    let as_packed = progress.is_some_and(|progress| progress.data.decisions.is_none());
    let old = View::open(&config.data, Reading::from_switch(as_packed))?;
    let progress = progress_on(&checkpoint, &config.model, &config.data, &old)?;
    let range = trainer.head.range();
    let labels = old_labels(&range, dataset.people(), old.people());
    let n_carried = carry(&checkpoint, progress, &labels, &mut trainer.head, &config.model)?;
    Ok(Some(format!(
        "backbone and {n_carried} of {} centres of the first rank begin with those of {origin}",
        range.len()
    )))
}

/// The progress of a checkpoint that was trained on the data set at `data`.
fn progress_on<'a>(
    checkpoint: &'a Checkpoint,
    path: &Path,
    data: &Path,
    view: &View,
) -> Result<&'a Progress, TrainError> {
    let manifest = data.join(MANIFEST_FILE);
    let bytes = std::fs::read(&manifest).map_err(TrainError::io("read", &manifest))?;
    let expected = format!("{:032x}", content_hash(&bytes));
    let progress = checkpoint.manifest().progress.as_ref();
    let found = progress.map_or("none", |progress| progress.data.checksum.as_str());
    let decisions = view.decisions().map(|checksum| checksum.to_string());
    match progress {
        Some(progress) if found == expected && progress.data.decisions != decisions => {
            let text =
                |decisions: &Option<String>| decisions.as_deref().unwrap_or("none").to_owned();
            Err(TrainError::OtherRun {
                path: path.to_path_buf(),
                key: "decisions about init.data with checksum".to_owned(),
                found: text(&progress.data.decisions),
                expected: text(&decisions),
            })
        }
        Some(progress) if found == expected => Ok(progress),
        _ => Err(TrainError::OtherRun {
            path: path.to_path_buf(),
            key: "init.data with checksum".to_owned(),
            found: found.to_owned(),
            expected,
        }),
    }
}

/// The label that each class of `range` had in the old data set, if it was in there under any of its
/// names.
fn old_labels(range: &ClassRange, new: People<'_>, old: People<'_>) -> Vec<Option<u32>> {
    range.ids().map(|class| new.names(class as u32).find_map(|name| old.label_of(name))).collect()
}

/// Copies the centres of known classes, some thousand classes of then at a time. Returns how many.
fn carry(
    checkpoint: &Checkpoint,
    progress: &Progress,
    labels: &[Option<u32>],
    head: &mut Head,
    path: &Path,
) -> Result<usize, TrainError> {
    let mut reader = centres::open(checkpoint, progress, path, None)?;
    let (classes, dim) = (progress.data.n_identities, head.config().dim);
    if reader.dim() != dim {
        return Err(misfit(path, reader.dim(), dim).into());
    }
    // Labels of then and rows of the head, by the former.
    let mut known: Vec<(u64, u32)> = labels
        .iter()
        .enumerate()
        .filter_map(|(row, label)| Some((u64::from((*label)?), row as u32)))
        .filter(|(label, _)| *label < classes)
        .collect();
    known.sort_unstable();
    let chunks = known.chunk_by(|(a, _), (b, _)| a / CHUNK_CLASSES == b / CHUNK_CLASSES);
    for chunk in chunks {
        let (first, last) = (chunk[0].0, chunk[chunk.len() - 1].0);
        let found = reader.read(first..last + 1)?;
        let mut rows: Vec<(u32, &[f32])> = chunk
            .iter()
            .map(|(label, row)| (*row, &found[(label - first) as usize * dim..][..dim]))
            .collect();
        rows.sort_unstable_by_key(|(row, _)| *row);
        let weight: Vec<f32> = rows.iter().flat_map(|(_, weight)| *weight).copied().collect();
        let rows: Vec<u32> = rows.into_iter().map(|(row, _)| row).collect();
        head.set_centres(&rows, &weight)?;
    }
    Ok(known.len())
}

/// That centres are of another width than the head's.
fn misfit(path: &Path, found: usize, expected: usize) -> ModelError {
    ModelError::TensorShape {
        origin: path.display().to_string(),
        key: "centres.weight".to_owned(),
        found: vec![found as i64],
        expected: vec![expected as i64],
    }
}
