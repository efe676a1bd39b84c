//! Published memory and speed, and how far the model is from them.

use serde::Serialize;

use super::model::{Card, Scheme, Sizes};

/// A V100 with 32 GB on `NVLink`: 15.7 TFLOP/s in f32, 125 in fp16, 900 GB/s; about 40 GB/s reach
/// another card in a ring.
pub const V100: Card =
    Card { f32_tflops: 15.7, half_tflops: 125.0, memory_gbs: 900.0, wire_gbs: 40.0 };

/// MiB of everything but the head, R50 in fp16 with 128 images a rank: what is left of the published
/// Partial FC column when the head is taken off, 4,476 to 4,766 from row to row.
const R50_BASE_MIB: f64 = 4700.0;

/// Images/s and MiB a GPU of `arcface_torch/docs/speed_benchmark.md`: 8 V100, R50 in fp16, 128 images
/// a GPU, 512 wide, of July 2021 and so of the first version. Data parallel, model parallel, Partial
/// FC at 0.1; 0 where it did not run.
const ARCFACE_TORCH: [(f64, [f64; 3], [f64; 3]); 11] = [
    (125e3, [4681.0, 4824.0, 5004.0], [7358.0, 5306.0, 4868.0]),
    (250e3, [4047.0, 4521.0, 4976.0], [9940.0, 5826.0, 5004.0]),
    (500e3, [3087.0, 4013.0, 4900.0], [14220.0, 7114.0, 5202.0]),
    (1e6, [2090.0, 3449.0, 4803.0], [23708.0, 9966.0, 5620.0]),
    (1.4e6, [1672.0, 3043.0, 4738.0], [32252.0, 11178.0, 6056.0]),
    (2e6, [0.0, 2593.0, 4626.0], [0.0, 13978.0, 6472.0]),
    (4e6, [0.0, 1748.0, 4208.0], [0.0, 23238.0, 8284.0]),
    (5.5e6, [0.0, 1389.0, 3975.0], [0.0, 32188.0, 9854.0]),
    (8e6, [0.0, 0.0, 3565.0], [0.0, 0.0, 12310.0]),
    (16e6, [0.0, 0.0, 2679.0], [0.0, 0.0, 19950.0]),
    (29e6, [0.0, 0.0, 1855.0], [0.0, 0.0, 32324.0]),
];

/// Milliseconds of a step of that table without a head: its Partial FC column at no identities.
const R50_BASE_MS: f64 = 203.0;

/// The most identities that PLSC's static graph in pure fp16 fits on 8 V100 of 32 GB with 64 images a
/// GPU at 0.1, with R50 (release 2.2, section 9.2), at 32,298 MiB a GPU.
const PLSC_IDENTITIES: f64 = 92e6;
const PLSC_MIB: f64 = 32_298.0;
/// Everything but the head: half of the images of the table above take half of its activations.
const PLSC_BASE_MIB: f64 = R50_BASE_MIB / 2.0;

/// A prediction beside what was published.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Comparison {
    /// Where it was published.
    pub source: &'static str,
    /// What was trained how.
    pub scheme: Scheme,
    /// Identities.
    pub identities: f64,
    /// What was measured.
    pub quantity: Quantity,
    /// As published.
    pub published: f64,
    /// By the model.
    pub predicted: f64,
}

/// What a published figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// MiB of a GPU.
    MemoryMib,
    /// Milliseconds of a step.
    StepMs,
    /// Millions of identities that fit.
    IdentitiesM,
}

impl Comparison {
    /// The prediction's error as a share of the published figure.
    pub fn error(&self) -> f64 {
        self.predicted / self.published - 1.0
    }
}

/// Every published figure that the model speaks of.
pub fn comparisons() -> Vec<Comparison> {
    let schemes = [Scheme::DataParallel, Scheme::ModelParallel, Scheme::PfcV1];
    let mut all = Vec::new();
    for (identities, speeds, memories) in ARCFACE_TORCH {
        let sizes = Sizes { identities, ranks: 8.0, batch: 128.0, dim: 512.0, rate: 0.1 };
        for ((scheme, speed), memory) in schemes.into_iter().zip(speeds).zip(memories) {
            if memory == 0.0 {
                continue;
            }
            let source = "arcface_torch, 8 V100";
            let base = Comparison {
                source,
                scheme,
                identities,
                quantity: Quantity::MemoryMib,
                published: memory,
                predicted: R50_BASE_MIB + sizes.head_bytes(scheme) / MIB,
            };
            all.push(base);
            all.push(Comparison {
                quantity: Quantity::StepMs,
                published: 1024.0 / speed * 1e3,
                predicted: R50_BASE_MS + sizes.head_seconds(scheme, &V100) * 1e3,
                ..base
            });
        }
    }
    let sizes = Sizes { identities: 0.0, ranks: 8.0, batch: 64.0, dim: 512.0, rate: 0.1 };
    let room = (PLSC_MIB - PLSC_BASE_MIB) * MIB;
    all.push(Comparison {
        source: "PLSC 2.2, 8 V100",
        scheme: Scheme::PfcHalf,
        identities: PLSC_IDENTITIES,
        quantity: Quantity::IdentitiesM,
        published: PLSC_IDENTITIES / 1e6,
        predicted: sizes.identities_max(Scheme::PfcHalf, room) / 1e6,
    });
    all
}

const MIB: f64 = 1_048_576.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicted_memory_is_within_a_tenth_of_every_published_figure() {
        let all = comparisons();
        let of_memory = |c: &&Comparison| c.quantity != Quantity::StepMs;
        assert_eq!(all.iter().filter(of_memory).count(), 25);
        for comparison in all.iter().filter(of_memory) {
            assert!(comparison.error().abs() < 0.1, "{comparison:?}: {}", comparison.error());
        }
    }

    #[test]
    fn predicted_steps_are_within_an_eighth_of_every_published_one() {
        let of_time = |c: &Comparison| c.quantity == Quantity::StepMs;
        for comparison in comparisons().into_iter().filter(of_time) {
            assert!(comparison.error().abs() < 0.125, "{comparison:?}: {}", comparison.error());
        }
    }
}
