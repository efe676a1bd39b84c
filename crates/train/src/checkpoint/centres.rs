//! Class centres, whatever holds them: the checkpoint of a run, with its rows in it or in files beside
//! it, or files of `arcface_torch`.

use std::{ops::Range, path::Path};

use pfc_head::{CentreReader, ClassRange, Placement, shards};
use pfc_model::{
    centres::CentreFiles,
    checkpoint::{Checkpoint, Progress},
};
use serde::Deserialize;

use crate::{TrainError, config::Config};

/// The matrix `[C, D]` of the class centres, up to date and not normalised, read some rows at a time.
pub(crate) enum Centres {
    /// Of a checkpoint that a run wrote.
    OfRun(Box<CentreReader<'static>>),
    /// Of `arcface_torch`, or as `pfc-train export --centres` writes them.
    OfFiles(CentreFiles),
}

/// The part of a trainer's record that says what its head was.
#[derive(Debug, Deserialize)]
struct Recorded {
    config: Config,
}

impl Centres {
    /// Opens the centres at a path: of a checkpoint folder, or of other files.
    ///
    /// * `folder`: where a run's centres in files are now, instead of where its configuration says
    ///
    /// # Errors
    ///
    /// As [`Centres::of_checkpoint`] and [`CentreFiles::open`].
    pub fn open(path: &Path, folder: Option<&Path>) -> Result<Centres, TrainError> {
        if !path.join(pfc_model::checkpoint::MANIFEST).exists() {
            return Ok(Centres::OfFiles(CentreFiles::open(path)?));
        }
        let checkpoint = Checkpoint::open(path)?;
        let Some(progress) = &checkpoint.manifest().progress else {
            return Err(TrainError::OtherRun {
                path: path.to_path_buf(),
                key: "weights alone, and the centres".to_owned(),
                found: "of no run".to_owned(),
                expected: "those of one".to_owned(),
            });
        };
        Centres::of_checkpoint(&checkpoint, progress, path, folder)
    }

    /// Opens the centres of a checkpoint that a run wrote.
    ///
    /// * `path`: the checkpoint's, for errors
    ///
    /// # Errors
    ///
    /// [`TrainError::OtherRun`] if the checkpoint is not that of a run, [`TrainError::Model`] and
    /// [`TrainError::Head`] if the centres cannot be read.
    pub fn of_checkpoint(
        checkpoint: &Checkpoint,
        progress: &Progress,
        path: &Path,
        folder: Option<&Path>,
    ) -> Result<Centres, TrainError> {
        let recorded =
            Recorded::deserialize(&progress.trainer).map_err(|error| TrainError::OtherRun {
                path: path.to_path_buf(),
                key: "the configuration of a run".to_owned(),
                found: error.to_string(),
                expected: "to know how its centres are kept".to_owned(),
            })?;
        let n_identities = u32::try_from(progress.data.n_identities).unwrap_or(u32::MAX);
        let config = recorded.config.head_config(n_identities);
        let all = ClassRange::of_rank(n_identities.into(), 0, 1);
        let pieces =
            shards::open(|name| checkpoint.file(name), &all, progress.world_size.max(1) as usize)?;
        let kept = match &config.centres {
            Placement::File(folder) => Some(folder.as_path()),
            Placement::Host | Placement::Device => None,
        };
        Ok(Centres::OfRun(Box::new(CentreReader::open(pieces, &config, folder.or(kept))?)))
    }

    /// Number of centres C: of classes, or of all their sub-centres.
    pub fn n_rows(&self) -> u64 {
        match self {
            Centres::OfRun(reader) => reader.n_centres(),
            Centres::OfFiles(files) => files.n_rows(),
        }
    }

    /// Numbers of a centre D.
    pub fn dim(&self) -> usize {
        match self {
            Centres::OfRun(reader) => reader.dim(),
            Centres::OfFiles(files) => files.dim(),
        }
    }

    /// Some rows, one after the other. Whoever reads all goes through them in order.
    ///
    /// # Errors
    ///
    /// [`TrainError::Head`] or [`TrainError::Model`] if they cannot be read, or are not those that were
    /// written.
    pub fn read(&mut self, rows: Range<u64>) -> Result<Vec<f32>, TrainError> {
        Ok(match self {
            Centres::OfRun(reader) => reader.read(rows)?,
            Centres::OfFiles(files) => files.read(rows)?,
        })
    }
}
