//! The centres of a checkpoint, whatever holds them.

use std::path::Path;

use pfc_head::{CentreReader, ClassRange, Placement, shards};
use pfc_model::checkpoint::{Checkpoint, Progress};
use serde::Deserialize;

use crate::{TrainError, config::Config};

/// The part of a trainer's record that says what its head was.
#[derive(Debug, Deserialize)]
struct Recorded {
    config: Config,
}

/// Opens the centres of a checkpoint that a run wrote.
///
/// * `path`: the checkpoint's, for errors
/// * `folder`: where its centres are in files, instead of where its configuration says
///
/// # Errors
///
/// [`TrainError::OtherRun`] if the checkpoint is not that of a run, [`TrainError::Model`] and
/// [`TrainError::Head`] if the centres cannot be read.
pub(crate) fn open(
    checkpoint: &Checkpoint,
    progress: &Progress,
    path: &Path,
    folder: Option<&Path>,
) -> Result<CentreReader<'static>, TrainError> {
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
    Ok(CentreReader::open(pieces, &config, folder.or(kept))?)
}
