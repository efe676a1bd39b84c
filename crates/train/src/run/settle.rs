//! What the keys that are `auto` become on the machines of a run.

use pfc_head::{ClassRange, Footprint, HeadConfig, Placement};
use pfc_model::free_memory;

use crate::{
    TrainError,
    checkpoint::check_same_config,
    config::{Config, DeviceRoom},
    ranks::Ranks,
};

/// The configuration with a value in the place of each `auto`, the same on all ranks, and a sentence for
/// each that says what was chosen and why. A run's folder keeps these values: training follows from
/// them. Every rank calls it.
///
/// # Errors
///
/// [`TrainError::RanksDiffer`] where machines differ so that they choose differently,
/// [`TrainError::Ranks`], and [`TrainError::Value`] for a device that this machine lacks.
pub(crate) fn settle(
    config: &Config,
    n_identities: u32,
    ranks: &Ranks,
) -> Result<(Config, Vec<String>), TrainError> {
    let mut settled = config.clone();
    let device = config.train.device(ranks.local_rank())?;
    let head = HeadConfig { centres: Placement::Device, ..config.head_config(n_identities) };
    let range = ClassRange::of_rank(n_identities.into(), ranks.rank(), ranks.world());
    let needed = Footprint::of(&head, range, 0, 0).device;
    let rooms = ranks.gather(DeviceRoom { needed, free: free_memory(device) })?;
    let mut notes: Vec<String> = settled.settle_centres(device, &rooms).into_iter().collect();
    notes.extend(settled.settle_precision(device));
    check_same_config(&settled, ranks)?;
    Ok((settled, notes))
}
