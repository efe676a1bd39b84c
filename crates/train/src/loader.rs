//! Threads that decode, mirror and normalise ahead of the step.
//!
//! Each thread makes whole batches. A thread first takes an empty buffer and then the number of the
//! next step to make, so that the lowest number being made always has a buffer: with a fixed number
//! of buffers the queue is bounded and cannot lock up. What a batch holds is a function of its step.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use pfc_findings::View;
use pfc_model::bytes::with_bytes_mut;
use pfc_shard::{
    ImageSize, Place, ShardError,
    decode::{DecodeError, decode_rgb},
    pixels::normalise,
};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

use crate::{
    config::{BadValue, require_path},
    plan::Plan,
};

/// Section `[data]`: what is trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A data set that `pfc-ingest pack` wrote.
    pub path: PathBuf,
    /// Whether the data set is read as it was packed; else decisions beside it are applied: rows that
    /// they leave out are not seen, and identities are those that they make.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub as_packed: bool,
    /// Threads that decode; 0 chooses. One thread decodes some ten thousand images a second.
    pub loader_threads: usize,
    /// Batches made ahead of the step, in memory.
    pub batches_ahead: usize,
    /// Mirror half of the images left to right, other ones each epoch.
    pub mirror: bool,
}

impl Default for DataConfig {
    fn default() -> DataConfig {
        DataConfig {
            path: PathBuf::new(),
            as_packed: false,
            loader_threads: 0,
            batches_ahead: 3,
            mirror: true,
        }
    }
}

impl DataConfig {
    /// Refuses what cannot load.
    ///
    /// # Errors
    ///
    /// [`BadValue`] for the first such value.
    pub fn validate(&self) -> Result<(), BadValue> {
        require_path("data.path", &self.path)?;
        let threads = self.loader_threads;
        let bound = "from 0 (chosen) to 1024";
        BadValue::unless(threads <= 1024, "data.loader_threads", threads, bound)?;
        let ahead = self.batches_ahead;
        let bound = "from 1 to 1024";
        BadValue::unless((1..=1024).contains(&ahead), "data.batches_ahead", ahead, bound)
    }

    /// Threads that decode, with 0 resolved: one beside a CPU, whose cores compute; several beside
    /// a GPU.
    pub fn n_threads(&self, on_gpu: bool) -> usize {
        match (self.loader_threads, on_gpu) {
            (0, false) => 1,
            (0, true) => std::thread::available_parallelism().map_or(1, usize::from).min(8),
            (n, _) => n,
        }
    }
}

/// The input of one step.
#[derive(Debug, PartialEq)]
pub struct Batch {
    /// `[B, 112, 112, 3]` f32, normalised, in host memory; pinned if it goes to a GPU, so that the
    /// copy can go on by itself.
    pub images: Tensor,
    /// `[B]`.
    pub labels: Vec<i64>,
}

impl Batch {
    /// One that is yet to be filled.
    fn empty(spec: &LoaderSpec) -> Result<Batch, LoadError> {
        let n_images = spec.plan.images_of_rank(spec.rank, spec.world);
        let ImageSize { width, height } = ImageSize::FACE;
        let shape = [n_images as i64, height.into(), width.into(), 3];
        let images = Tensor::f_empty(shape, (Kind::Float, Device::Cpu))
            .and_then(|images| match spec.device {
                Device::Cpu => Ok(images),
                device => images.f_pin_memory(device),
            })
            .map_err(|source| LoadError::Memory { n_images, source })?;
        Ok(Batch { images, labels: Vec::with_capacity(n_images) })
    }
}

/// An image that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The row cannot be read.
    #[error("row {row} of the data set cannot be read")]
    Row {
        /// The row.
        row: u64,
        /// Why.
        #[source]
        source: ShardError,
    },
    /// The image cannot be decoded.
    #[error("row {row} of the data set, `{face}`, cannot be decoded")]
    Image {
        /// The row.
        row: u64,
        /// Where the image came from.
        face: String,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// There is no memory for a batch.
    #[error("no memory for a batch of {n_images} images")]
    Memory {
        /// Images of this rank.
        n_images: usize,
        /// Why.
        #[source]
        source: TchError,
    },
    /// A thread cannot be started.
    #[error("a loader thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// The threads are gone.
    #[error("the loader threads have ended early")]
    Ended,
}

impl LoadError {
    /// The way out, for the causes that have a common one.
    pub fn hint(&self) -> Option<String> {
        match self {
            LoadError::Row { source, .. } => source.hint(),
            LoadError::Image { source, .. } => source.hint(),
            LoadError::Memory { .. } => Some(
                "lower `train.batch_size`, `data.batches_ahead` or `data.loader_threads`"
                    .to_owned(),
            ),
            LoadError::Thread(_) | LoadError::Ended => None,
        }
    }
}

/// How a [`Loader`] runs.
#[derive(Debug, Clone, Copy)]
pub struct LoaderSpec {
    /// What each step holds.
    pub plan: Plan,
    /// Whose part of it.
    pub rank: usize,
    /// How many share it.
    pub world: usize,
    /// The first step to make.
    pub first_step: u64,
    /// Threads, at least 1.
    pub n_threads: usize,
    /// Batches made ahead, at least 1.
    pub n_ahead: usize,
    /// Whether the plan's mirroring is applied.
    pub mirror: bool,
    /// Where the step computes.
    pub device: Device,
}

/// Batches in the order of steps, made ahead by threads.
#[derive(Debug)]
pub struct Loader {
    ready: Option<Receiver<(u64, Result<Batch, LoadError>)>>,
    empty: Option<Sender<Batch>>,
    threads: Vec<JoinHandle<()>>,
    /// Batches that overtook the next one.
    early: BTreeMap<u64, Result<Batch, LoadError>>,
    next_step: u64,
    waited: Duration,
}

impl Loader {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// [`LoadError::Memory`] and [`LoadError::Thread`].
    pub fn start(dataset: Arc<View>, spec: LoaderSpec) -> Result<Loader, LoadError> {
        // One buffer is in the step's hands; the others are being filled or wait.
        let n_buffers = spec.n_ahead.max(spec.n_threads) + 1;
        let (empty, take_empty) = bounded(n_buffers);
        let (give_ready, ready) = bounded(n_buffers);
        for _ in 0..n_buffers {
            let _ = empty.send(Batch::empty(&spec)?);
        }
        let next = Arc::new(AtomicU64::new(spec.first_step));
        let mut loader = Loader {
            ready: Some(ready),
            empty: Some(empty),
            threads: Vec::with_capacity(spec.n_threads),
            early: BTreeMap::new(),
            next_step: spec.first_step,
            waited: Duration::ZERO,
        };
        for index in 0..spec.n_threads {
            let dataset = Arc::clone(&dataset);
            let next = Arc::clone(&next);
            let (take_empty, give_ready) = (take_empty.clone(), give_ready.clone());
            let thread = std::thread::Builder::new().name(format!("loader {index}"));
            let work = move || make_batches(&dataset, spec, &next, &take_empty, &give_ready);
            loader.threads.push(thread.spawn(work).map_err(LoadError::Thread)?);
        }
        Ok(loader)
    }

    /// The batch of the next step; waits if it is not ready. Give it back with
    /// [`recycle`](Loader::recycle).
    ///
    /// # Errors
    ///
    /// [`LoadError`] for the first image of the batch that cannot be loaded; past the last step,
    /// [`LoadError::Ended`].
    pub fn next_batch(&mut self) -> Result<Batch, LoadError> {
        let ready = self.ready.as_ref().ok_or(LoadError::Ended)?;
        let started = Instant::now();
        while !self.early.contains_key(&self.next_step) {
            let (step, batch) = ready.recv().map_err(|_| LoadError::Ended)?;
            self.early.insert(step, batch);
        }
        self.waited += started.elapsed();
        let batch = self.early.remove(&self.next_step).ok_or(LoadError::Ended)?;
        self.next_step += 1;
        batch
    }

    /// Gives a buffer back to be filled again, once nothing reads it any more.
    pub fn recycle(&self, batch: Batch) {
        if let Some(empty) = &self.empty {
            // The threads are gone after the last step.
            let _ = empty.try_send(batch);
        }
    }

    /// Time spent waiting in [`next_batch`](Loader::next_batch) since the last call of this.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing both ends wakes every thread, wherever it waits.
        drop(self.empty.take());
        drop(self.ready.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn make_batches(
    dataset: &View,
    spec: LoaderSpec,
    next: &AtomicU64,
    empty: &Receiver<Batch>,
    ready: &Sender<(u64, Result<Batch, LoadError>)>,
) {
    let mut rgb = vec![0; ImageSize::FACE.rgb_bytes()];
    while let Ok(mut batch) = empty.recv() {
        let step = next.fetch_add(1, Ordering::Relaxed);
        if step >= spec.plan.n_steps() {
            return;
        }
        // A panic in one thread would leave the others waiting for each other for ever.
        let work = AssertUnwindSafe(|| fill(&mut batch, dataset, &spec, step, &mut rgb));
        let filled = catch_unwind(work).unwrap_or(Err(LoadError::Ended));
        if ready.send((step, filled.map(|()| batch))).is_err() {
            return;
        }
    }
}

fn fill(
    batch: &mut Batch,
    dataset: &View,
    spec: &LoaderSpec,
    step: u64,
    rgb: &mut [u8],
) -> Result<(), LoadError> {
    let Batch { images, labels } = batch;
    labels.clear();
    with_bytes_mut(images, |bytes| {
        let images = bytemuck::cast_slice_mut(bytes).chunks_exact_mut(rgb.len());
        for (Place { row: place, mirror, .. }, out) in
            spec.plan.places_of_rank(step, spec.rank, spec.world).zip(images)
        {
            let row = dataset.row(place);
            let face = dataset.get(place).map_err(|source| LoadError::Row { row, source })?;
            decode_rgb(face.image, ImageSize::FACE, rgb).map_err(|source| LoadError::Image {
                row,
                face: face.source.to_owned(),
                source,
            })?;
            normalise(rgb, ImageSize::FACE.width.into(), mirror && spec.mirror, out);
            labels.push(face.label.into());
        }
        Ok(())
    })
}
