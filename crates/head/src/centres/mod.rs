//! Where the centres live: what a head asks of it.

// T = rows of one tile, D = embedding, G = global batch.

mod device;
pub(crate) mod file;
pub(crate) mod host;
mod memory;
pub(crate) mod row;

use std::ops::Range;

use tch::{Device, TchError, Tensor};

use super::{
    HeadError,
    config::HeadConfig,
    loss::{Negatives, TileCosines},
    optim::{Stamp, UpdateRule},
};
pub(crate) use device::{DeviceStep, Drawn, Figures, HandedOver, Reading};
pub use device::{DeviceStore, TieredStore};
pub use file::FileRecord;
pub use host::RowStore;
pub use row::RowLayout;

/// Rows of centres with their momentum.
///
/// Rows are counted from the start of the rank's range. Lists of rows are strictly ascending and
/// within [`CentreStore::n_rows`], which the head checks.
pub trait CentreStore: Send {
    /// Number of rows.
    fn n_rows(&self) -> usize;

    /// The device on which the tiles compute, and on which their inputs and outputs lie.
    fn device(&self) -> Device {
        Device::Cpu
    }

    /// What does the work on rows, for people; where a card is used, whether by the head's own kernels,
    /// and if not, why.
    fn operations(&self) -> &str {
        "operations of the CPU"
    }

    /// How a step's rows are to be cut into tiles. It depends on the configuration, the sizes and the kind
    /// of the device, and not on what else is in memory, as sums depend on it in their last bits.
    ///
    /// * `row_bytes`: what the exponentials of one row take
    fn tiling(&self, config: &HeadConfig, row_bytes: usize) -> Tiling {
        let _ = row_bytes;
        Tiling { tile_rows: config.tile_rows, kept_bytes: config.cache_mib << 20 }
    }

    /// Called once per step, before [`CentreStore::tiles`], with the rows that the step will use. The
    /// store sets room aside for those that are used for the first time.
    ///
    /// # Errors
    ///
    /// [`HeadError`] if there is no room for them, or the store holds another run; here and below
    /// also if the rows cannot be reached.
    fn prepare(&mut self, rows: &[u32]) -> Result<(), HeadError> {
        let _ = rows;
        Ok(())
    }

    /// Cuts `rows` into tiles of `tile_rows` rows, the last perhaps shorter, that threads can work
    /// on side by side.
    ///
    /// # Panics
    ///
    /// If [`CentreStore::prepare`] was not called with one of the rows before.
    fn tiles<'a>(&'a mut self, rows: &'a [u32], tile_rows: usize) -> Vec<Box<dyn CentreTile + 'a>>;

    /// Called with the rows that the next step will most likely use, so that the store can read them ahead.
    fn prefetch(&mut self, rows: &[u32]) {
        let _ = rows;
    }

    /// Whether [`CentreStore::prefetch`] does anything.
    fn wants_prefetch(&self) -> bool {
        false
    }

    /// Applies the updates that were put off to every row that a step has moved. For rows that no step
    /// has used they stay put off, which costs nothing.
    ///
    /// Returns false, and does nothing, where a checkpoint of this very step needs the rows as they
    /// are.
    ///
    /// # Errors
    ///
    /// As above.
    fn catch_up(&mut self, rule: &dyn UpdateRule) -> Result<bool, HeadError>;

    /// The stamps of a range of rows.
    ///
    /// # Errors
    ///
    /// As above.
    fn stamps(&self, rows: Range<usize>) -> Result<Vec<Stamp>, HeadError>;

    /// The stamps of any rows.
    ///
    /// # Errors
    ///
    /// As above.
    fn stamps_of(&self, rows: &[u32]) -> Result<Vec<Stamp>, HeadError>;

    /// Copies out weights and optimizer state of `rows` in f32, as of each row's own stamp.
    ///
    /// * `weight`: `rows.len() * D`
    /// * `state`: as many numbers a row as the optimizer keeps
    ///
    /// # Errors
    ///
    /// As above.
    fn export(
        &self,
        rows: Range<usize>,
        weight: &mut [f32],
        state: &mut [f32],
    ) -> Result<(), HeadError>;

    /// Copies out touched rows in the formats that the store keeps them in.
    ///
    /// * `rows`: strictly ascending
    ///
    /// Returns `[rows, D]` and `[rows, n]`, f32 or bf16, on the CPU.
    ///
    /// # Errors
    ///
    /// As above.
    fn copy_out(&self, rows: &[u32]) -> Result<(Tensor, Tensor), HeadError>;

    /// Called before rows of a checkpoint of the time `now` are [imported](CentreStore::import).
    ///
    /// * `own_folder`: whether these come from the folder that the store has
    ///
    /// # Errors
    ///
    /// As above.
    fn begin_import(&mut self, now: Stamp, own_folder: bool) -> Result<(), HeadError> {
        let _ = (now, own_folder);
        Ok(())
    }

    /// Writes rows into the store, rounded to the nearest number where its formats are shorter. Each then
    /// has its own of `stamps`, none of which is [`UNTOUCHED`](super::UNTOUCHED).
    ///
    /// * `rows`: strictly ascending
    ///
    /// # Errors
    ///
    /// As above.
    fn import(
        &mut self,
        rows: &[u32],
        weight: &[f32],
        state: &[f32],
        stamps: &[Stamp],
    ) -> Result<(), HeadError>;

    /// The store itself, if its rows are in files and outlive the process.
    fn in_files(&mut self) -> Option<&mut RowStore> {
        None
    }

    /// The store itself, if it can do a whole step on its device.
    fn on_device(&mut self) -> Option<&mut DeviceStore> {
        None
    }
}

/// How a step's rows are cut into tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of a tile.
    pub tile_rows: usize,
    /// Bytes of exponentials that are kept between the two passes; tiles beyond are computed twice.
    pub kept_bytes: usize,
}

/// A few of a store's rows, in the hands of one thread.
///
/// A unit row is `w / max(|w|, 1e-12)`, as torch normalises.
pub trait CentreTile: Send {
    /// Number of rows T.
    fn n_rows(&self) -> usize;

    /// Normalises the rows, with the updates that were put off applied, and writes them as unit rows.
    ///
    /// * `unit_td`: `[T, D]`, contiguous, f32 or bf16
    ///
    /// # Errors
    ///
    /// [`HeadError`] if the rows cannot be reached, here and below.
    fn unit_rows(&mut self, rule: &dyn UpdateRule, unit_td: &mut Tensor) -> Result<(), HeadError>;

    /// Takes the exponentials of the tile's negatives, for losses that leave their cosines as they are.
    ///
    /// # Errors
    ///
    /// That of libtorch if memory runs out.
    fn exponentials(&mut self, cosines: &TileCosines<'_>) -> Result<Negatives, TchError> {
        cosines.exponentials()
    }

    /// Takes one step of the optimizer at learning rate `lr`: the gradient goes back through the
    /// normalisation of the rows, to which the updates that were put off are applied first.
    ///
    /// # Errors
    ///
    /// As above.
    fn update(
        &mut self,
        rule: &dyn UpdateRule,
        gradient: &TileGradient<'_>,
        lr: f64,
    ) -> Result<(), HeadError>;
}

/// The gradient of one tile of rows.
#[derive(Debug)]
pub struct TileGradient<'a> {
    /// `[T, D]`, f32 or bf16: by the unit rows, from their part as negatives.
    pub as_negatives_td: &'a Tensor,
    /// Their part as positives, in the order of the tile's rows.
    pub as_positives: &'a [PositiveGradient],
    /// `[G, D]` f32, the unit embeddings that the pulls name.
    pub unit_embeddings_gd: &'a Tensor,
}

/// What one sample adds to the gradient of its own centre: `slope` times its unit embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositiveGradient {
    /// Position of the centre in the tile.
    pub row: usize,
    /// Row of the global batch.
    pub sample: usize,
    /// Derivative of the loss by the cosine of the two.
    pub slope: f32,
}

/// A store together with the rule by which its rows move.
pub(super) struct Centres<'a> {
    pub store: &'a mut dyn CentreStore,
    pub rule: &'a dyn UpdateRule,
}
