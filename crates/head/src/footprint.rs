//! What the centres of a rank take, before there are any.

use crate::{
    ClassRange, HeadConfig, RowLayout,
    centres::file::{COPIES, ENTRY_BYTES},
    config::Placement,
    snapshot::save_bytes_max,
};

/// Bytes of one rank's centres once a run has touched as many as it is going to.
///
/// A centre that no step has drawn takes the 4 bytes of its place in a table, wherever the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Centres that the steps touch, as a rule: what of them is drawn at random is drawn evenly.
    pub touched: u64,
    /// Memory of the host for the centres, their optimizer state, where they lie and when they moved.
    pub memory: u64,
    /// Memory of the device, if they live there: all of them, from the start.
    pub device: u64,
    /// Memory of the host that a step takes beside it: what it keeps of the rows that it draws and, where the
    /// host takes them, the exponentials between its passes. Tiles that threads work on come on top.
    pub step: u64,
    /// Memory of the host that a save takes beside it.
    pub save: u64,
    /// Room on disk for the folder of the centres, all copies; 0 if they are not in files.
    pub files: u64,
    /// What a checkpoint holds of them; next to nothing if they are in files.
    pub checkpoint: u64,
}

/// Class and time of a row in a checkpoint.
const SAVED_ENTRY: u64 = 8 + 4;
/// Where a row lies.
const PLACE: u64 = 4;
/// When a row last moved.
const STAMP: u64 = 4;
/// A row that a step draws, and its place, in several orders.
const DRAWN: u64 = 64;

impl Footprint {
    /// Of the rank that owns `range`.
    ///
    /// * `n_steps`: of the whole run, which decide how many centres it touches
    /// * `batch`: images of a step over all ranks; the classes of these are always among the rows drawn
    #[must_use]
    pub fn of(config: &HeadConfig, range: ClassRange, n_steps: u64, batch: u64) -> Footprint {
        let layout = RowLayout::of_config(config);
        let k = config.margin.sub_centres() as u64;
        let n_rows = range.len() as u64 * k;
        let touched = touched(config, n_rows, n_steps, batch);
        let row = layout.size_bytes() as u64;
        let saved = (layout.weight_bytes() + layout.state_bytes()) as u64 + SAVED_ENTRY;
        let table = n_rows * PLACE;
        let drawn = (n_rows as f64 * share(config, batch)).round() as u64;
        let exponentials = match config.centres {
            Placement::Device => 0,
            Placement::Host | Placement::File(_) => {
                let all = drawn.saturating_mul(batch).saturating_mul(size_of::<f32>() as u64);
                all.min((config.cache_mib as u64) << 20)
            }
        };
        let step = drawn * DRAWN + exponentials;
        // Rows are copied once, and once more where some were put aside.
        let save = save_bytes_max(touched, row).min(2 * touched * row) + n_rows / 8;
        let in_memory = |memory: u64| Footprint {
            touched,
            memory,
            device: 0,
            step,
            save,
            files: 0,
            checkpoint: touched * saved,
        };
        match config.centres {
            Placement::Host => in_memory(touched * (row + ENTRY_BYTES) + table),
            Placement::Device => Footprint {
                device: n_rows * ((layout.weight_bytes() + layout.state_bytes()) as u64 + STAMP),
                ..in_memory(0)
            },
            Placement::File(_) => Footprint {
                touched,
                memory: table,
                device: 0,
                step,
                save: 0,
                files: touched * (COPIES as u64 * row + ENTRY_BYTES),
                checkpoint: 0,
            },
        }
    }
}

/// How many of `n_rows` are touched by so many steps, each of which draws the same share evenly.
fn touched(config: &HeadConfig, n_rows: u64, n_steps: u64, batch: u64) -> u64 {
    let left_alone = (1.0 - share(config, batch)).powf(n_steps as f64);
    (n_rows as f64 * (1.0 - left_alone)).round() as u64
}

/// The share of the classes that a step draws.
fn share(config: &HeadConfig, batch: u64) -> f64 {
    let classes = config.classes.max(1) as f64;
    (config.rows_per_step().max(batch) as f64 / classes).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CentreOptimizer, Storage, Update};

    fn all(config: &HeadConfig, n_steps: u64) -> Footprint {
        Footprint::of(config, ClassRange::of_rank(config.classes, 0, 1), n_steps, 128)
    }

    #[test]
    fn bytes_of_a_long_run_are_those_worked_by_hand() {
        let f32 = HeadConfig { sample_rate: 0.1, ..HeadConfig::new(1_000_000, 512) };
        let found = all(&f32, 100_000);
        assert_eq!(found.touched, 1_000_000);
        // 2,048 of weight and as much of momentum; 32 of entry and 4 of place.
        assert_eq!(found.memory, 4_132_000_000);
        // 64 of each of 100,000 rows, and their exponentials with 128 images.
        assert_eq!(found.step, 6_400_000 + 51_200_000);
        // A sixteenth of the rows, and a bit each.
        assert_eq!(found.save, 256_000_000 + 125_000);
        assert_eq!((found.files, found.checkpoint), (0, 4_108_000_000));
        let half = HeadConfig { weights: Storage::Bf16, state: Storage::Bf16, ..f32.clone() };
        assert_eq!(all(&half, 100_000).memory, 2_084_000_000);
        let row_wise = HeadConfig {
            weights: Storage::Bf16,
            update: Update::Sparse,
            optimizer: CentreOptimizer::RowAdagrad { eps: 1e-8 },
            ..f32.clone()
        };
        assert_eq!(all(&row_wise, 100_000).memory, 1_124_000_000);
        let in_files = HeadConfig { centres: Placement::File("centres".into()), ..half };
        let found = all(&in_files, 100_000);
        assert_eq!((found.memory, found.save, found.checkpoint), (4_000_000, 0, 0));
        assert_eq!(found.files, 1_000_000 * (3 * 2048 + 32));
        // The device knows when each last moved, in 4 bytes.
        let on_a_device = HeadConfig { centres: Placement::Device, ..f32 };
        let found = all(&on_a_device, 1);
        assert_eq!((found.memory, found.device, found.step), (0, 4_100_000_000, 6_400_000));
    }

    #[test]
    fn a_short_run_touches_what_its_steps_draw() {
        let config = HeadConfig { sample_rate: 0.1, ..HeadConfig::new(1_000_000, 512) };
        // Of the nine tenths that the first step leaves alone, the second draws a tenth.
        assert_eq!(all(&config, 1).touched, 100_000);
        assert_eq!(all(&config, 2).touched, 190_000);
        let positives = HeadConfig { sample_rate: 0.0, ..config };
        assert_eq!(all(&positives, 1).touched, 128);
        let second = ClassRange::of_rank(1_000_000, 1, 4);
        assert_eq!(Footprint::of(&positives, second, 1, 128).touched, 32);
    }
}
