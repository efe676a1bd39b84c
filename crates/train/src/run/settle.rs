//! What the keys that are `auto` become on the machines of a run.

use pfc_head::{ClassRange, Footprint, HeadConfig, Placement};
use pfc_model::free_memory;
use tch::Device;

use super::room::Seat;
use crate::{
    TrainError,
    checkpoint::check_same_config,
    config::{Config, DeviceRoom},
    ranks::Ranks,
    step::compiled,
};

/// The configuration with a value in the place of each `auto`, the same on all ranks, and a sentence for
/// each that says what was chosen and why. A run's folder keeps these values: training follows from
/// them. Every rank calls it.
///
/// # Errors
///
/// [`TrainError::RanksDiffer`] where machines differ so that they choose differently,
/// [`TrainError::Ranks`], and [`TrainError::Value`] for a device that this machine lacks.
pub(super) fn settle(
    config: &Config,
    n_identities: u32,
    ranks: &Ranks,
) -> Result<(Config, Vec<String>), TrainError> {
    let seat = Seat::of(ranks);
    let rooms = ranks.gather(room(config, n_identities, seat)?)?;
    let (settled, notes) = settled(config, config.train.device(seat.local_rank)?, &rooms);
    check_same_config(&settled, ranks)?;
    Ok((settled, notes))
}

/// The same for ranks of this machine that are yet to be started.
///
/// # Errors
///
/// [`TrainError::Value`] for a device that this machine lacks.
pub(super) fn foresee(
    config: &Config,
    n_identities: u32,
    seats: &[Seat],
) -> Result<(Config, Vec<String>), TrainError> {
    let rooms = seats.iter().map(|seat| room(config, n_identities, *seat));
    let rooms = rooms.collect::<Result<Vec<DeviceRoom>, TrainError>>()?;
    Ok(settled(config, config.train.device(0)?, &rooms))
}

fn settled(config: &Config, device: Device, rooms: &[DeviceRoom]) -> (Config, Vec<String>) {
    let mut settled = config.clone();
    let mut notes: Vec<String> = settled.settle_centres(device, rooms).into_iter().collect();
    notes.extend(settled.settle_precision(device));
    notes.extend(compiled::note(&settled));
    (settled, notes)
}

/// What a rank's device has to hold its centres in.
fn room(config: &Config, n_identities: u32, seat: Seat) -> Result<DeviceRoom, TrainError> {
    let device = config.train.device(seat.local_rank)?;
    let head = HeadConfig { centres: Placement::Device, ..config.head_config(n_identities) };
    let range = ClassRange::of_rank(n_identities.into(), seat.rank, seat.world);
    Ok(DeviceRoom { needed: Footprint::of(&head, range, 0, 0).device, free: free_memory(device) })
}
