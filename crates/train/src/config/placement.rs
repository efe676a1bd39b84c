//! Where the centres of a run live, and what `head.centres = "auto"` becomes on a machine.

use std::path::PathBuf;

use pfc_cli::units::bytes;
use pfc_head::Placement;
use serde::{Deserialize, Serialize};
use tch::Device;

use super::Config;

/// Key `head.centres`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CentrePlace {
    /// On the GPU that the rank computes on if half of its free memory holds them, else in the memory
    /// of the host.
    #[default]
    Auto,
    /// [`Placement::Host`].
    Host,
    /// [`Placement::Device`].
    Device,
    /// [`Placement::File`].
    File(PathBuf),
}

impl CentrePlace {
    /// The place that was given. `auto` that nothing has settled yet counts as the host.
    pub fn placement(&self) -> Placement {
        match self {
            CentrePlace::Auto | CentrePlace::Host => Placement::Host,
            CentrePlace::Device => Placement::Device,
            CentrePlace::File(folder) => Placement::File(folder.clone()),
        }
    }
}

/// What one rank's device has to hold all centres of the rank in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceRoom {
    /// Bytes of the rank's centres and their optimizer state.
    pub(crate) needed: u64,
    /// Bytes that are free on the device; none where that is not known.
    pub(crate) free: Option<u64>,
}

impl DeviceRoom {
    /// The other half is for the network, its activations, and what a step holds of the head.
    fn is_enough(self) -> bool {
        self.free.is_some_and(|free| self.needed <= free / 2)
    }
}

impl Config {
    /// Puts a place in that of `head.centres = "auto"`: the device, where it is a GPU and every one of
    /// `rooms` is enough, else the host. All ranks choose alike, as they are given the rooms of all.
    ///
    /// Returns a sentence that says what was chosen and why; none on a CPU, where there is no choice, or
    /// where a place was given.
    pub(crate) fn settle_centres(
        &mut self,
        device: Device,
        rooms: &[DeviceRoom],
    ) -> Option<String> {
        if self.head.centres != CentrePlace::Auto {
            return None;
        }
        if !device.is_cuda() {
            self.head.centres = CentrePlace::Host;
            return None;
        }
        let tightest = |room: &&DeviceRoom| !room.is_enough();
        let (chosen, name, room) = match rooms.iter().find(tightest) {
            Some(room) => (CentrePlace::Host, "host", Some(room)),
            None => (CentrePlace::Device, "device", rooms.first()),
        };
        self.head.centres = chosen;
        let why = room.map_or_else(String::new, |room| why(*room));
        Some(format!("head.centres is \"{name}\", chosen because {why}"))
    }
}

fn why(room: DeviceRoom) -> String {
    let needed = bytes(room.needed);
    match room.free {
        None => "the free memory of a card is not known".to_owned(),
        Some(free) if room.is_enough() => {
            format!(
                "the {needed} of a rank's centres fit into half of the {} free on its card",
                bytes(free)
            )
        }
        Some(free) => {
            format!(
                "the {needed} of a rank's centres are more than half of the {} free on its card",
                bytes(free)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn settled(
        config: &str,
        device: Device,
        rooms: &[DeviceRoom],
    ) -> (CentrePlace, Option<String>) {
        let mut config: Config = toml::from_str(config).unwrap();
        let note = config.settle_centres(device, rooms);
        (config.head.centres, note)
    }

    #[test]
    fn centres_live_on_a_card_that_holds_them_in_half_of_its_free_memory() {
        let gpu = Device::Cuda(0);
        let room = |needed, free| DeviceRoom { needed: needed * GB, free: Some(free * GB) };
        let (centres, note) = settled("", gpu, &[room(40, 80), room(39, 80)]);
        assert_eq!(centres, CentrePlace::Device);
        let note = note.unwrap();
        assert!(
            note.starts_with("head.centres is \"device\", chosen because the 37.3 GiB"),
            "{note}"
        );
        // One rank that has no room decides for all.
        let (centres, note) = settled("", gpu, &[room(40, 80), room(41, 80)]);
        assert_eq!(centres, CentrePlace::Host);
        assert!(note.unwrap().contains("more than half"));
        let (centres, _) = settled("", gpu, &[DeviceRoom { needed: 1, free: None }]);
        assert_eq!(centres, CentrePlace::Host);
    }

    #[test]
    fn a_place_that_is_given_stays_and_a_processor_has_one_memory() {
        let none = [DeviceRoom { needed: u64::MAX, free: Some(0) }];
        for (given, centres) in [
            ("\"host\"", CentrePlace::Host),
            ("\"device\"", CentrePlace::Device),
            ("{ file = \"rows\" }", CentrePlace::File("rows".into())),
        ] {
            let config = format!("[head]\ncentres = {given}");
            assert_eq!(settled(&config, Device::Cuda(0), &none), (centres, None), "{given}");
        }
        assert_eq!(settled("", Device::Cpu, &none), (CentrePlace::Host, None));
    }
}
