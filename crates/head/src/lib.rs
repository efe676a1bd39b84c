//! The margin-softmax head of Partial FC (arXiv 2010.05222): class centres, loss and their update.
//!
//! A step takes the embeddings of a batch, draws the rows of centres that take part (all positives
//! and a share of the negatives), and does loss, gradients and the update of the centres at once;
//! no automatic differentiation is involved. Its work and memory follow the rows drawn, not the
//! number of classes.
//!
//! The pieces stand behind traits and know nothing of each other: which rows ([`Sampler`]), what
//! cosines become ([`Loss`]), how rows move ([`UpdateRule`]), where they live
//! ([`CentreStore`]) and the collectives among ranks ([`Communicator`]). With `s` the scale, `N` the global
//! batch and `p` the softmax over the drawn rows of all ranks:
//!
//! ```text
//! logit_ij = s * cos_ij            j is not the class of sample i
//! logit_iy = s * psi(cos_iy)       psi from the margin loss
//! loss     = -1/N * sum_i ln max(p_iy, 1e-30)
//! d loss / d cos_ij = s / N * p_ij
//! d loss / d cos_iy = s / N * (p_iy - 1) * psi'(cos_iy)
//! ```
//!
//! Derivatives by cosines go through `torch.nn.functional.normalize` (least length 1e-12) on both
//! sides. Axes in the names of tensors: G = global batch, B = this rank's part of it, D = width of
//! an embedding, S = rows drawn on this rank, T = rows of one tile of them, C = classes.

mod batch;
mod centres;
mod comm;
mod config;
mod error;
mod footprint;
mod loss;
mod optim;
mod product;
mod snapshot;
mod softmax;
mod step;
#[cfg(test)]
mod tests;
mod timings;
mod traffic;
mod workers;

use std::sync::Arc;

use pfc_model::elements;
use pfc_rows::{range, rng, sampling};
use rayon::ThreadPool;
use snapshot::Saving;
use tch::{Device, Tensor};

pub use centres::{
    CentreStore, CentreTile, DeviceStore, FileRecord, PositiveGradient, RowLayout, RowStore,
    TieredStore, TileGradient, Tiling,
};
pub use comm::{CommError, Communicator, LocalMember, PendingRows, Solo};
pub use config::{
    ArcfaceGradient, CentreOptimizer, HeadConfig, Margin, Placement, ProductPrecision, Storage,
    Update,
};
pub use error::HeadError;
pub use footprint::Footprint;
pub use loss::{
    AngularMargin, Loss, Negatives, ParameterStep, SampleLoss, Shaped, Target, TileCosines,
};
pub use optim::{
    AdamW, Dense, Motion, RowAdagrad, Sgd, Sparse, Stamp, UNTOUCHED, UpdateHistory, UpdateMap,
    UpdateRule, rule,
};
pub use range::ClassRange;
pub use sampling::{BlockShare, Draw, DrawPlan, Pprn, SampleError, Sampler};
pub use snapshot::{CentreReader, Column, RowPiece, RowPieces, SavedTensors, Snapshot, shards};
pub use timings::Timings;
pub use traffic::Traffic;

/// Class centres with their momentum, and all that turns a batch of embeddings into a loss.
pub struct Head {
    config: HeadConfig,
    range: ClassRange,
    parts: Parts,
    /// The save that is under way.
    saving: Option<Saving>,
    /// The step that was begun last, until it is finished.
    begun: Option<step::Begun>,
    workers: Arc<ThreadPool>,
}

/// The exchangeable pieces of a head.
pub struct Parts {
    /// Chooses the classes that take part in a step.
    pub sampler: Box<dyn Sampler>,
    /// Turns cosines into a loss.
    pub loss: Box<dyn Loss>,
    /// Updates the centres.
    pub rule: Box<dyn UpdateRule>,
    /// Stores the centres of this rank.
    pub store: Box<dyn CentreStore>,
    /// Carries out the collectives between the ranks.
    pub comm: Box<dyn Communicator>,
}

/// What one step of the head gives back.
#[derive(Debug)]
pub struct HeadOutput {
    /// Mean loss over the global batch, the same on every rank.
    pub loss: f64,
    /// `[B, D]` f32, on the embeddings' device: the gradient of `loss` by this rank's embeddings.
    pub grad_embeddings_bd: Tensor,
    /// Mean cosine between an embedding and its own centre over the global batch, in `[-1, 1]`.
    pub mean_positive_cosine: f64,
    /// `[G]`, that cosine of each image of the global batch, the same on every rank. Empty where a device did the
    /// whole step, which hands over their mean alone.
    pub positive_cosines_g: Vec<f64>,
    /// Rows of centres that took part on this rank.
    pub rows_sampled: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// What [`Head::begin_step`] gives back: all but the figures, which may have to be waited for.
#[derive(Debug)]
pub struct BegunStep {
    /// As [`HeadOutput::grad_embeddings_bd`]. Where loss or embeddings are not finite, neither is it.
    pub grad_embeddings_bd: Tensor,
    /// As [`HeadOutput::rows_sampled`].
    pub rows_sampled: usize,
    /// As [`HeadOutput::timings`].
    pub timings: Timings,
}

/// What a step finds out, as [`Head::finish_step`] gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadFigures {
    /// As [`HeadOutput::loss`].
    pub loss: f64,
    /// As [`HeadOutput::mean_positive_cosine`].
    pub mean_positive_cosine: f64,
    /// As [`HeadOutput::positive_cosines_g`].
    pub positive_cosines_g: Vec<f64>,
}

impl Parts {
    /// The pieces that `config` names, with the centres of `comm`'s rank; those that are to be on a
    /// device are on the CPU.
    ///
    /// # Errors
    ///
    /// As [`Parts::on_device`].
    pub fn of_config(config: &HeadConfig, comm: Box<dyn Communicator>) -> Result<Parts, HeadError> {
        Parts::on_device(config, comm, Device::Cpu)
    }

    /// The same for a rank that computes on `device`.
    ///
    /// # Errors
    ///
    /// [`HeadError::Config`] if the configuration is out of bounds, and as [`RowStore::new`] and
    /// [`DeviceStore::new`].
    pub fn on_device(
        config: &HeadConfig,
        comm: Box<dyn Communicator>,
        device: Device,
    ) -> Result<Parts, HeadError> {
        config.validate()?;
        let range = ClassRange::of_rank(config.classes, comm.rank(), comm.world());
        let store: Box<dyn CentreStore> = match config.centres {
            Placement::Device => Box::new(DeviceStore::new(config, range, device)?),
            // A card multiplies faster than a processor, wherever the rows are.
            Placement::Host | Placement::File(_) if device.is_cuda() => {
                Box::new(TieredStore::new(config, range, device)?)
            }
            Placement::Host | Placement::File(_) => Box::new(RowStore::new(config, range)?),
        };
        Ok(Parts {
            sampler: Box::new(Pprn::new(config.rows_per_step(), config.seed)),
            loss: loss::of_config(config),
            rule: rule(config),
            store,
            comm,
        })
    }
}

impl Head {
    /// A head in a world of one rank, every centre at its initial value.
    ///
    /// # Errors
    ///
    /// As [`Parts::of_config`].
    pub fn new(config: &HeadConfig) -> Result<Head, HeadError> {
        Head::with_parts(config, Parts::of_config(config, Box::new(Solo))?)
    }

    /// A head made of `parts`, whose store holds the rows of its communicator's rank.
    ///
    /// # Errors
    ///
    /// [`HeadError::Config`] if the configuration is out of bounds, [`HeadError::Threads`] if no
    /// threads are to be had.
    ///
    /// # Panics
    ///
    /// If the store has another number of rows than the rank has classes.
    pub fn with_parts(config: &HeadConfig, parts: Parts) -> Result<Head, HeadError> {
        config.validate()?;
        let range = ClassRange::of_rank(config.classes, parts.comm.rank(), parts.comm.world());
        let n_centres = range.len() * config.margin.sub_centres();
        assert_eq!(parts.store.n_rows(), n_centres, "the store is not this rank's");
        let workers = Arc::new(workers::workers()?);
        Ok(Head { config: config.clone(), range, parts, saving: None, begun: None, workers })
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &HeadConfig {
        &self.config
    }

    /// What does the work on centres, for people; where a card is used, whether by the head's own kernels,
    /// and if not, why.
    #[must_use]
    pub fn operations(&self) -> &str {
        self.parts.store.operations()
    }

    /// The classes whose centres this rank holds.
    #[must_use]
    pub fn range(&self) -> ClassRange {
        self.range
    }

    /// The figures that the loss keeps over the steps, for a checkpoint; empty for most losses.
    #[must_use]
    pub fn loss_memory(&self) -> Vec<f64> {
        self.parts.loss.memory()
    }

    /// Restores what [`Head::loss_memory`] returned.
    pub fn recall_loss(&mut self, memory: &[f64]) {
        self.parts.loss.remember(memory);
    }
}
