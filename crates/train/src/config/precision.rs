//! What `precision = "auto"` becomes on this machine, and what a format costs that it emulates.

use pfc_head as head;
use pfc_model::{Bf16, Choice, Emulated, Precision, Work};
use tch::Device;

use super::Config;

impl Config {
    /// Puts a format in the place of each `auto`, once it is settled where the centres live: bf16 where `device` has instructions for it, else
    /// f32. Training follows from it, so a run's folder keeps the format and not `auto`.
    ///
    /// Returns a sentence for each of the keys `model.precision` and `head.precision` that was `auto`,
    /// and a warning for each that names a format which `device` emulates, with the factor by which
    /// that is slower, measured now. On a GPU another says whether f32 is rounded to TF32.
    pub fn settle_precision(&mut self, device: Device) -> Vec<String> {
        let bf16 = Bf16::of(device);
        let mut notes = Vec::new();
        self.model.precision = Choice::Given(match self.model.precision {
            Choice::Auto => {
                let chosen = if bf16.is_native() { Precision::Bf16 } else { Precision::F32 };
                notes.push(chosen_note("model.precision", chosen, &bf16));
                chosen
            }
            Choice::Given(given) => {
                notes.extend(cost_note("model.precision", given, Work::Convolution, device));
                given
            }
        });
        notes.extend(tf32_note(self.model.tf32, device));
        self.head.precision = Choice::Given(match self.head.precision {
            Choice::Auto => {
                let (chosen, name) = match bf16.is_native() {
                    true => (head::ProductPrecision::Bf16, Precision::Bf16),
                    false => (head::ProductPrecision::F32, Precision::F32),
                };
                notes.push(chosen_note("head.precision", name, &bf16));
                chosen
            }
            Choice::Given(given) => {
                let name = match given {
                    head::ProductPrecision::F32 => Precision::F32,
                    head::ProductPrecision::Bf16 => Precision::Bf16,
                };
                notes.extend(cost_note("head.precision", name, Work::Product, device));
                given
            }
        });
        notes
    }
}

fn chosen_note(key: &str, chosen: Precision, bf16: &Bf16) -> String {
    format!("{key} is {chosen}, chosen because {}", bf16.why())
}

/// What f32 means on a GPU; nothing is to be said of a CPU.
fn tf32_note(is_allowed: bool, device: Device) -> Option<String> {
    let meaning = match is_allowed {
        true => "f32 products and convolutions are rounded to the 10 bits of TF32",
        false => {
            "f32 keeps its 24 bits in products and convolutions; true is several times faster in f32"
        }
    };
    device.is_cuda().then(|| format!("model.tf32 is {is_allowed}: {meaning}"))
}

/// A warning if `device` emulates `given`.
fn cost_note(key: &str, given: Precision, work: Work, device: Device) -> Option<String> {
    let Emulated { why, factor } = Emulated::of(work, given, device)?;
    Some(format!(
        "warning: {key} is {given}, which is emulated here ({why}): {} takes {factor:.1} times as long \
         as in f32. `{key} = \"auto\"` chooses what is fast here",
        work.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_becomes_the_format_of_the_device_and_says_why() {
        let mut config = Config::default();
        let notes = config.settle_precision(Device::Cpu);
        let bf16 = Bf16::of(Device::Cpu);
        let name = if bf16.is_native() { "bf16" } else { "f32" };
        let because = format!("is {name}, chosen because {}", bf16.why());
        assert_eq!(
            notes,
            [format!("model.precision {because}"), format!("head.precision {because}")]
        );
        assert_eq!(config.settle_precision(Device::Cpu), Vec::<String>::new());
        assert!(config.to_toml().contains(&format!("precision = \"{name}\"")));
    }

    #[test]
    fn what_f32_means_is_said_on_a_gpu_alone() {
        let said = tf32_note(true, Device::Cuda(1)).unwrap();
        assert!(said.starts_with("model.tf32 is true: f32 products"), "{said}");
        let said = tf32_note(false, Device::Cuda(0)).unwrap();
        assert!(said.contains("f32 keeps its 24 bits"), "{said}");
        assert_eq!(tf32_note(true, Device::Cpu), None);
    }

    #[test]
    fn a_format_that_is_given_stays_and_costs_a_warning_only_where_it_is_emulated() {
        let mut config = Config::default();
        config.model.precision = Choice::Given(Precision::Bf16);
        config.head.precision = Choice::Given(head::ProductPrecision::F32);
        let notes = config.settle_precision(Device::Cpu);
        assert_eq!(config.model.precision, Choice::Given(Precision::Bf16));
        assert_eq!(config.head.precision, Choice::Given(head::ProductPrecision::F32));
        let expected = usize::from(!Bf16::of(Device::Cpu).is_native());
        assert_eq!(notes.len(), expected, "{notes:?}");
        assert!(notes.iter().all(|note| note.starts_with("warning: model.precision is bf16")));
    }
}
