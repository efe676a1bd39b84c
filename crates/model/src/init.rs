//! First values of parameters: a function of (seed, key, position) and of nothing else.
//!
//! Every element is drawn by its own counter, so that a network's initial weights depend neither on
//! the order in which it is built nor on threads nor on the state of any other generator.

use std::f32::consts::TAU;

use pfc_random::{GOLDEN_GAMMA, mix};

/// How a tensor starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    /// Every element the same.
    Constant(f32),
    /// Normal with mean 0.
    Normal { std: f32 },
    /// Uniform in `[-bound, bound)`.
    Uniform { bound: f32 },
}

impl Init {
    /// `kaiming_normal_(mode="fan_out", nonlinearity="relu")` of PyTorch, whose fan-out ignores
    /// groups: `shape[0]` times the kernel's area.
    pub(crate) fn kaiming_fan_out(shape: &[i64]) -> Init {
        let fan_out = shape[0] * shape.iter().skip(2).product::<i64>();
        Init::Normal { std: (2.0 / fan_out as f64).sqrt() as f32 }
    }

    /// What PyTorch gives a fresh `Linear` or `Conv2d`, weight and bias alike.
    pub(crate) fn torch_default(fan_in: i64) -> Init {
        Init::Uniform { bound: (1.0 / (fan_in as f64).sqrt()) as f32 }
    }

    /// The `n` first values of the tensor `key`.
    pub(crate) fn values(self, seed: u64, key: &str, n: usize) -> Vec<f32> {
        let stream = Stream::new(seed, key);
        match self {
            Init::Constant(value) => vec![value; n],
            Init::Uniform { bound } => {
                (0..n).map(|i| bound * (2.0 * unit(stream.at(i as u64) >> 40) - 1.0)).collect()
            }
            Init::Normal { std } => {
                let mut values: Vec<f32> = (0..n.div_ceil(2))
                    .flat_map(|i| normal_pair(stream.at(i as u64), std))
                    .collect();
                values.truncate(n);
                values
            }
        }
    }
}

/// A counter-based generator: `at(i)` is the i-th draw, in any order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream(u64);

impl Stream {
    /// The stream of `name` under `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> Stream {
        // FNV-1a, then mixed with the seed: close names and close seeds give unrelated streams.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Stream(mix(hash ^ mix(seed)))
    }

    /// The i-th draw: SplitMix64.
    pub(crate) fn at(self, i: u64) -> u64 {
        mix(self.0.wrapping_add((i + 1).wrapping_mul(GOLDEN_GAMMA)))
    }
}

/// A 24-bit integer as a number in `[0, 1)`.
pub(crate) fn unit(bits: u64) -> f32 {
    bits as f32 * (1.0 / (1 << 24) as f32)
}

/// Two independent normal numbers from one draw (Box-Muller).
fn normal_pair(draw: u64, std: f32) -> [f32; 2] {
    // The radius takes 40 bits, so that tails reach beyond seven standard deviations.
    let uniform = ((draw >> 24) + 1) as f64 * (0.5_f64).powi(40);
    let radius = std * (-2.0 * uniform.ln()).sqrt() as f32;
    let (sin, cos) = (TAU * unit(draw & 0xFF_FFFF)).sin_cos();
    [radius * cos, radius * sin]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    #[test]
    fn normal_values_have_the_stated_deviation() {
        let values = Init::Normal { std: 0.1 }.values(7, "conv1.weight", 200_001);
        let (mean, std) = moments(&values);
        // Five standard errors of each estimate.
        assert!(mean.abs() < 5.0 * 0.1 / 447.0, "{mean}");
        assert!((std - 0.1).abs() < 5.0 * 0.1 / 632.0, "{std}");
        let beyond_two = values.iter().filter(|v| v.abs() > 0.2).count() as f64 / 200_001.0;
        assert!((beyond_two - 0.0455).abs() < 0.0025, "{beyond_two}");
    }

    #[test]
    fn uniform_values_fill_their_range() {
        let values = Init::Uniform { bound: 0.5 }.values(7, "fc.weight", 100_000);
        let (mean, std) = moments(&values);
        assert!(mean.abs() < 0.005, "{mean}");
        assert!((std - 0.5 / 3f64.sqrt()).abs() < 0.003, "{std}");
        assert!(values.iter().all(|v| (-0.5..0.5).contains(v)));
    }

    #[test]
    fn values_depend_on_seed_key_and_position_alone() {
        let init = Init::Normal { std: 1.0 };
        let values = init.values(1, "a", 10);
        assert_eq!(init.values(1, "a", 7), values[..7]);
        assert_ne!(init.values(2, "a", 10), values);
        assert_ne!(init.values(1, "b", 10), values);
    }

    #[test]
    fn fan_out_ignores_groups_as_pytorch_does() {
        // A depthwise 3x3 over 128 channels: sqrt(2 / (128 * 9)).
        let Init::Normal { std } = Init::kaiming_fan_out(&[128, 1, 3, 3]) else { panic!() };
        assert!((std - 0.041_666_67).abs() < 1e-7, "{std}");
    }
}
