//! Fine-tuning: where the first weights come from, and centres carried over by identity.

// C = classes of a file, D = embedding, N = carried classes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use pfc_findings::{People, Reading, View};
use pfc_head::{ClassRange, Head, shards};
use pfc_model::{
    ModelError,
    checkpoint::{Checkpoint, Progress},
    weights,
};
use pfc_shard::{MANIFEST_FILE, hash::content_hash};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::{TrainError, config::BadValue, data::source::Source, step::Trainer};

const WEIGHT: &str = "centres.weight";
const STAMP: &str = "centres.stamp";

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
/// trained on it, [`TrainError::UnfinishedCentres`].
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

/// Copies the rows of known classes, a file of the checkpoint at a time. Returns how many.
fn carry(
    checkpoint: &Checkpoint,
    progress: &Progress,
    labels: &[Option<u32>],
    head: &mut Head,
    path: &Path,
) -> Result<usize, TrainError> {
    let mut state = head.state()?;
    let weight_cd = &mut state.iter_mut().find(|(name, _)| name == WEIGHT).expect("it is state").1;
    let (classes, world) = (progress.data.n_identities, progress.world_size.max(1) as usize);
    // Rows of the head and labels of then, by the rank that held these.
    let mut rows_of_rank: BTreeMap<usize, Vec<(i64, u64)>> = BTreeMap::new();
    for (row, label) in labels.iter().enumerate() {
        if let Some(label) = label.map(u64::from).filter(|&label| label < classes) {
            let rank = ClassRange::owner_of(label, classes, world);
            rows_of_rank.entry(rank).or_default().push((row as i64, label));
        }
    }
    let mut n_carried = 0;
    for (rank, rows) in rows_of_rank {
        let held = ClassRange::of_rank(classes, rank, world).ids();
        let mut file = checkpoint.file(&shards::name_of(rank, world))?;
        if file.names().any(|name| name == STAMP) {
            return Err(TrainError::UnfinishedCentres { path: path.to_path_buf() });
        }
        let from = |(row, label)| (row, (label - held.start) as i64);
        let (to, from): (Vec<i64>, Vec<i64>) = rows.into_iter().map(from).unzip();
        let found_cd = file.read(WEIGHT)?;
        let expected = [(held.end - held.start) as i64, weight_cd.size()[1]];
        if found_cd.size() != expected || found_cd.kind() != weight_cd.kind() {
            return Err(misfit(path, &found_cd, &expected).into());
        }
        let found_nd = found_cd.index_select(0, &Tensor::from_slice(&from));
        let _ = weight_cd.index_copy_(0, &Tensor::from_slice(&to), &found_nd);
        n_carried += to.len();
    }
    head.load_state(&state)?;
    Ok(n_carried)
}

/// That centres are of another shape or kind than the checkpoint's own manifest has it.
fn misfit(path: &Path, found: &Tensor, expected: &[i64]) -> ModelError {
    ModelError::TensorShape {
        origin: path.display().to_string(),
        key: format!("{WEIGHT} ({:?})", found.kind()),
        found: found.size(),
        expected: expected.to_vec(),
    }
}
