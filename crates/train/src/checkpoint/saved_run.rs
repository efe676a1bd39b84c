//! The checkpoint of a run, for commands that read it.

use std::path::Path;

use pfc_head::{CentreReader, ClassRange, Placement, shards};
use pfc_model::{
    Backbone,
    checkpoint::{BACKBONE, Checkpoint, Progress},
};
use serde::Deserialize;
use tch::{Device, Tensor};

use super::{OPTIMIZER, TRAINED};
use crate::{
    TrainError,
    config::{Config, TrainConfig},
    data::plan::StepPlan,
};

/// A checkpoint that a run wrote.
#[derive(Debug)]
pub(crate) struct SavedRun {
    checkpoint: Checkpoint,
    progress: Progress,
    config: Config,
}

/// The part of a trainer's record that says how the run was configured.
#[derive(Debug, Deserialize)]
struct Recorded {
    config: Config,
}

impl SavedRun {
    /// Opens a checkpoint folder.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if it cannot be read, and as [`SavedRun::of`].
    pub fn open(path: &Path) -> Result<SavedRun, TrainError> {
        SavedRun::of(Checkpoint::open(path)?, path)
    }

    /// Reads how the run of an open checkpoint was configured.
    ///
    /// * `path`: the checkpoint's, for errors
    ///
    /// # Errors
    ///
    /// [`TrainError::OtherRun`] if no run wrote it.
    pub fn of(checkpoint: Checkpoint, path: &Path) -> Result<SavedRun, TrainError> {
        let other = |key: &str, found: String, expected: &str| TrainError::OtherRun {
            path: path.to_path_buf(),
            key: key.to_owned(),
            found,
            expected: expected.to_owned(),
        };
        let Some(progress) = checkpoint.manifest().progress.clone() else {
            let key = "weights alone, and the centres";
            return Err(other(key, "of no run".to_owned(), "those of one"));
        };
        let Recorded { config } = Recorded::deserialize(&progress.trainer).map_err(|error| {
            let expected = "to know how its centres are kept";
            other("the configuration of a run", error.to_string(), expected)
        })?;
        Ok(SavedRun { checkpoint, progress, config })
    }

    /// How far the run was.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How it was configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its steps.
    pub fn plan(&self) -> StepPlan {
        let TrainConfig { batch_size, epochs, steps, seed, .. } = self.config.train;
        let n_images = self.progress.data.n_images;
        StepPlan { n_images, batch_size: batch_size as u64, epochs, steps, seed }
    }

    /// The network as it is trained, where the one that is measured may be a mean of such.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if it cannot be read.
    pub fn trained(&self) -> Result<Backbone, TrainError> {
        let name = if self.checkpoint.has(TRAINED) { TRAINED } else { BACKBONE };
        let tensors = self.checkpoint.tensors(name)?;
        let origin = self.checkpoint.path().join(name).display().to_string();
        let spec = self.checkpoint.manifest().backbone;
        Ok(Backbone::from_state_dict(&spec, Device::Cpu, &origin, &tensors)?)
    }

    /// What the optimizer remembers of the network's parameters, by name.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if it cannot be read.
    pub fn optimizer(&self) -> Result<Vec<(String, Tensor)>, TrainError> {
        Ok(self.checkpoint.tensors(OPTIMIZER)?)
    }

    /// Its centres.
    ///
    /// * `folder`: where centres in files are now, instead of where the configuration says
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] and [`TrainError::Head`] if they cannot be read.
    pub fn centres(&self, folder: Option<&Path>) -> Result<CentreReader<'static>, TrainError> {
        let n_identities = u32::try_from(self.progress.data.n_identities).unwrap_or(u32::MAX);
        let config = self.config.head_config(n_identities);
        let all = ClassRange::of_rank(n_identities.into(), 0, 1);
        let world = self.progress.world_size.max(1) as usize;
        let pieces = shards::open(|name| self.checkpoint.file(name), &all, world)?;
        let kept = match &config.centres {
            Placement::File(folder) => Some(folder.as_path()),
            Placement::Host | Placement::Device => None,
        };
        Ok(CentreReader::open(pieces, &config, folder.or(kept))?)
    }
}
