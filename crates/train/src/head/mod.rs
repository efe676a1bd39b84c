//! The margin-softmax head of Partial FC (arXiv 2010.05222): class centres, loss and their update.
//!
//! A step takes the embeddings of a batch, draws the rows of centres that take part (all positives
//! and a share of the negatives), and does loss, gradients and the update of the centres at once;
//! no automatic differentiation is involved. Its work and memory follow the rows drawn, not the
//! number of classes.
//!
//! The pieces stand behind traits and know nothing of each other: which rows ([`Sampler`]), what
//! the positives' cosines become ([`MarginLoss`]), how rows move ([`UpdateRule`]), where they live
//! ([`CentreStore`]) and what ranks exchange ([`Communicator`]). With `s` the scale, `N` the global
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

mod adaface;
mod batch;
mod centre_folder;
mod comm;
mod config;
mod dense;
mod device;
mod elements;
mod error;
mod exponentials;
mod forward;
mod lane;
mod layout;
mod local_group;
mod loss;
mod margin;
mod memory;
mod places;
mod positives;
mod prefetch;
mod random;
mod range;
mod round;
mod row;
mod row_store;
mod row_tile;
mod sampled;
mod sampler;
mod saved;
mod segment;
mod segment_file;
mod snapshot;
mod softmax;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod timings;
mod update;
mod workers;

use std::sync::Arc;

use rayon::ThreadPool;
use tch::{Device, Tensor};

pub use centre_folder::FileRecord;
pub use comm::{CommError, Communicator, Solo};
pub use config::{ArcfaceGradient, HeadConfig, Margin, Optimizer, Placement, Precision, Update};
pub use device::DeviceStore;
pub use error::HeadError;
pub use exponentials::{Exponentials, Logits};
pub use layout::{RowLayout, Storage};
pub use local_group::LocalMember;
pub use margin::{MarginLoss, Target};
pub use range::ClassRange;
pub use row_store::RowStore;
pub use sampler::{Draw, Pprn, Sampler};
pub use saved::CentreReader;
pub use snapshot::{Column, RowPiece, RowPieces, Snapshot};
pub use state::SavedTensors;
pub use store::{CentreStore, CentreTile, DurableCentres, Pull, TileGradient};
pub use timings::Timings;
pub use update::{
    AdamW, Dense, Flow, Memory, Motion, RowAdagrad, Sgd, Sparse, Stamp, UNTOUCHED, UpdateRule, rule,
};

use batch::GlobalBatch;
use forward::Forward;
use positives::Positives;
use sampled::SampledRows;
use snapshot::Saving;
use softmax::TiledSoftmax;
use store::Centres;
use timings::timed;

/// Class centres with their momentum, and all that turns a batch of embeddings into a loss.
pub struct Head {
    config: HeadConfig,
    range: ClassRange,
    parts: Parts,
    /// The save that is under way.
    saving: Option<Saving>,
    workers: Arc<ThreadPool>,
}

/// The exchangeable pieces of a head.
pub struct Parts {
    /// Draws the rows.
    pub sampler: Box<dyn Sampler>,
    /// Margins the positives.
    pub loss: Box<dyn MarginLoss>,
    /// Moves the rows.
    pub rule: Box<dyn UpdateRule>,
    /// Holds the rows of this rank.
    pub store: Box<dyn CentreStore>,
    /// Reaches the other ranks.
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
    /// Rows of centres that took part on this rank.
    pub rows_sampled: usize,
    /// Where the time went.
    pub timings: Timings,
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
            Placement::Host | Placement::File(_) => Box::new(RowStore::new(config, range)?),
        };
        Ok(Parts {
            sampler: Box::new(Pprn::new(config.rows_per_step(), config.seed)),
            loss: config.margin.loss(),
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
        assert_eq!(parts.store.n_rows(), range.len(), "the store is not this rank's");
        let workers = Arc::new(workers::workers()?);
        Ok(Head { config: config.clone(), range, parts, saving: None, workers })
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &HeadConfig {
        &self.config
    }

    /// The classes whose centres this rank holds.
    #[must_use]
    pub fn range(&self) -> ClassRange {
        self.range
    }

    /// What the loss has to remember beside the centres; nothing for most losses.
    #[must_use]
    pub fn loss_memory(&self) -> Vec<f64> {
        self.parts.loss.memory()
    }

    /// Takes over what [`Head::loss_memory`] gave.
    pub fn recall_loss(&mut self, memory: &[f64]) {
        self.parts.loss.remember(memory);
    }

    /// Loss and gradient of one batch, and one step of the centres.
    ///
    /// Every rank calls it with its part of the batch, which may be empty on some of them.
    ///
    /// * `embeddings_bd`: `[B, D]`, not normalised, any device; no gradient is recorded
    /// * `labels`: `[B]` global class ids
    /// * `step`: number of the step, which decides the rows drawn
    /// * `lr`: learning rate of the centres in this step
    ///
    /// # Errors
    ///
    /// Any [`HeadError`] about the batch, the sampler, the ranks or the loss; no centre was moved
    /// then. [`HeadError::Torch`] if memory runs out, perhaps halfway: go back to a checkpoint.
    pub fn step(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        lr: f64,
    ) -> Result<HeadOutput, HeadError> {
        let embeddings_bd = embeddings_bd.detach();
        let workers = Arc::clone(&self.workers);
        workers.install(move || self.step_on_worker(&embeddings_bd, labels, step, lr))
    }

    fn step_on_worker(
        &mut self,
        embeddings_bd: &Tensor,
        labels: &[i64],
        step: u64,
        lr: f64,
    ) -> Result<HeadOutput, HeadError> {
        let (config, range) = (&self.config, self.range);
        let Parts { sampler, loss, rule, store, comm } = &mut self.parts;
        let mut timings = Timings::default();
        let batch = timed(&mut timings.communication_ms, || {
            GlobalBatch::collect(embeddings_bd, labels, step, config, comm.as_mut())
        })?;
        loss.prepare(&batch.lengths());
        let rows = timed(&mut timings.sample_ms, || {
            sampler.draw(&Draw { step, positives: &batch.classes(), range })
        });
        let sampled = SampledRows::check(rows, range.len(), step)?;
        let rows = sampled.as_slice();
        if let Some(saving) = &mut self.saving
            && saving.before_step(rows, store.as_ref())?
        {
            self.saving = None;
        }
        store.prepare(rows)?;
        let mut centres = Centres { store: store.as_mut(), rule: rule.as_ref() };
        let positives = timed(&mut timings.gather_ms, || {
            Positives::find(&batch, &range, &sampled, step, loss.as_ref(), &mut centres)
        })?;
        let mut tiles = TiledSoftmax::new(config, centres, rows, &positives, &batch.unit_gd);
        let offsets_g = if TiledSoftmax::needs_offsets(config) {
            let mut largest_g = tiles.largest_logits()?;
            comm.all_reduce_max(&mut largest_g).map_err(HeadError::comm(step, "logits"))?;
            Some(largest_g)
        } else {
            None
        };
        let negatives = tiles.forward(offsets_g.as_deref())?;

        let parts = forward::Parts {
            sums_g: &negatives.sums_g,
            positives: &positives,
            offsets_g: offsets_g.as_deref(),
            scale: config.scale,
            n_rows: rows.len(),
            classes: config.log_q.then_some(config.classes),
        };
        let forward =
            timed(&mut timings.communication_ms, || Forward::collect(&parts, step, comm.as_mut()))?;
        let derivatives = forward.derivatives(&positives, config.scale);
        let parts_gd = derivatives.by_unit_embeddings(&negatives.weighted_rows_gd, &positives);
        let grad_unit_bd = timed(&mut timings.communication_ms, || {
            comm.reduce_scatter_rows(&parts_gd, &batch.rows_of_rank)
                .map_err(HeadError::comm(step, "gradients"))
        })?;

        let mut tile_timings = tiles.backward(&derivatives, lr)?;
        tile_timings /= rayon::current_num_threads() as f64;
        timings += tile_timings;
        rule.finish_step(lr);
        if store.wants_prefetch() {
            store.prefetch(&sampler.likely(step + 1, range));
        }
        if rule.must_catch_up() {
            self.catch_up()?;
        }
        Ok(HeadOutput {
            loss: forward.loss,
            grad_embeddings_bd: batch
                .before_normalisation(&grad_unit_bd)
                .to_device(embeddings_bd.device()),
            mean_positive_cosine: forward.mean_positive_cosine,
            rows_sampled: rows.len(),
            timings,
        })
    }
}
