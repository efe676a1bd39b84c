//! Threads that decode, mirror and normalise ahead of the step.
//!
//! Each thread makes whole batches. A thread first takes an empty buffer and then the number of the
//! next step to make, so that the lowest number being made always has a buffer: with a fixed number
//! of buffers the queue is bounded and cannot lock up. What a batch holds is a function of its step.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use pfc_image::ImageSize;
use pfc_model::bytes::with_bytes_mut;
use pfc_shard::Place;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{
    plan::{StepPlan, mix},
    source::Source,
};
use crate::{
    config::{Config, OnError},
    error::LoadError,
};

/// The input of one step.
#[derive(Debug, PartialEq)]
pub struct Batch {
    /// `[B, 112, 112, 3]` in host memory, f32 and normalised, or u8 as decoded ([`LoaderSpec::as_bytes`]);
    /// pinned if it goes to a GPU, so that the copy can go on by itself.
    pub images: Tensor,
    /// `[B]`.
    pub labels: Vec<i64>,
    /// Images that could not be loaded and were replaced.
    pub replaced: Vec<Replaced>,
}

/// An image that could not be loaded and another one that was taken instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The row that cannot be loaded.
    pub row: u64,
    /// The row that was taken.
    pub by: u64,
    /// Why.
    pub reason: String,
}

impl Batch {
    /// An empty batch, which a loader thread fills.
    fn empty(spec: &LoaderSpec) -> Result<Batch, LoadError> {
        let n_images = spec.plan.images_of_rank(spec.rank, spec.world);
        let ImageSize { width, height } = ImageSize::FACE;
        let shape = [n_images as i64, height.into(), width.into(), 3];
        let kind = if spec.as_bytes { Kind::Uint8 } else { Kind::Float };
        let images = Tensor::f_empty(shape, (kind, Device::Cpu))
            .and_then(|images| match spec.device {
                Device::Cpu => Ok(images),
                device => images.f_pin_memory(device),
            })
            .map_err(|source| LoadError::Memory { n_images, source })?;
        let labels = Vec::with_capacity(n_images);
        Ok(Batch { images, labels, replaced: Vec::new() })
    }
}

/// How a [`Loader`] runs.
#[derive(Debug, Clone, Copy)]
pub struct LoaderSpec {
    /// What each step holds.
    pub plan: StepPlan,
    /// This rank.
    pub rank: usize,
    /// Number of ranks, which share the images of a step.
    pub world: usize,
    /// The first step to make.
    pub first_step: u64,
    /// Threads, at least 1.
    pub n_threads: usize,
    /// Batches made ahead, at least 1.
    pub n_ahead: usize,
    /// Whether the plan's mirroring is applied.
    pub mirror: bool,
    /// What an image that cannot be loaded does.
    pub on_error: OnError,
    /// Where the step computes.
    pub device: Device,
    /// Whether images stay bytes, which the step normalises where it computes: a quarter of what is
    /// copied to a GPU, and less work for the loader's threads. On a CPU the threads do it better.
    pub as_bytes: bool,
}

impl LoaderSpec {
    /// The loader of a rank, from the first step on.
    ///
    /// * `rank`, `world`: this rank and how many there are
    /// * `device`: where it computes
    pub fn of_run(
        config: &Config,
        plan: StepPlan,
        (rank, world): (usize, usize),
        device: Device,
    ) -> LoaderSpec {
        LoaderSpec {
            plan,
            rank,
            world,
            first_step: 0,
            n_threads: config.data.n_threads(device.is_cuda()),
            n_ahead: config.data.batches_ahead,
            mirror: config.data.mirror,
            on_error: config.data.on_error,
            device,
            as_bytes: device.is_cuda(),
        }
    }

    /// Batches in memory at a time: one is in the step's hands, the others are being filled or wait.
    fn n_buffers(&self) -> usize {
        self.n_ahead.max(self.n_threads) + 1
    }

    /// Bytes of the images of all batches that are in memory at a time.
    pub fn size_bytes(&self) -> u64 {
        let n_images = self.plan.images_of_rank(self.rank, self.world) * self.n_buffers();
        let number = if self.as_bytes { size_of::<u8>() } else { size_of::<f32>() };
        (n_images as u64).saturating_mul((ImageSize::FACE.rgb_bytes() * number) as u64)
    }
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
    pub fn start(source: impl Into<Source>, spec: LoaderSpec) -> Result<Loader, LoadError> {
        let source = source.into();
        let n_buffers = spec.n_buffers();
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
            let source = source.clone();
            let next = Arc::clone(&next);
            let (take_empty, give_ready) = (take_empty.clone(), give_ready.clone());
            let thread = std::thread::Builder::new().name(format!("loader {index}"));
            let work = move || make_batches(&source, spec, &next, &take_empty, &give_ready);
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
    source: &Source,
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
        let work = AssertUnwindSafe(|| fill(&mut batch, source, &spec, step, &mut rgb));
        let filled = catch_unwind(work).unwrap_or(Err(LoadError::Ended));
        if ready.send((step, filled.map(|()| batch))).is_err() {
            return;
        }
    }
}

fn fill(
    batch: &mut Batch,
    source: &Source,
    spec: &LoaderSpec,
    step: u64,
    rgb: &mut [u8],
) -> Result<(), LoadError> {
    let Batch { images, labels, replaced } = batch;
    labels.clear();
    replaced.clear();
    let epoch = spec.plan.epoch_of(step);
    with_bytes_mut(images, |bytes| {
        let each = rgb.len() * if spec.as_bytes { 1 } else { size_of::<f32>() };
        let images = bytes.chunks_exact_mut(each);
        for (Place { row, mirror, .. }, out) in
            spec.plan.places_of_rank(step, spec.rank, spec.world).zip(images)
        {
            let row = source.drawn(row, spec.plan.seed, epoch);
            let mirror = mirror && spec.mirror;
            let mut load = |row| match spec.as_bytes {
                true => source.load_bytes(row, mirror, out),
                false => source.load(row, mirror, rgb, bytemuck::cast_slice_mut(out)),
            };
            let label = match (load(row), spec.on_error) {
                (Ok(label), _) => label,
                (Err(error), OnError::Skip) if error.is_of_the_image() => {
                    let (label, by) = replace(row, source.len(), spec.plan.seed, load, &error)?;
                    replaced.push(Replaced { row, by, reason: error.in_one_line() });
                    label
                }
                (Err(error), _) => return Err(error),
            };
            labels.push(label);
        }
        Ok(())
    })
}

/// Rows that are tried in the place of one that cannot be loaded.
const TRIED_MAX: u64 = 100;

/// Loads another image, which row and seed alone decide, and gives its label and row.
fn replace(
    row: u64,
    n_rows: u64,
    seed: u64,
    mut load: impl FnMut(u64) -> Result<i64, LoadError>,
    first: &LoadError,
) -> Result<(i64, u64), LoadError> {
    for attempt in 1..=TRIED_MAX {
        let by = mix(mix(seed ^ mix(row)) ^ attempt) % n_rows;
        match load(by) {
            Ok(label) => return Ok((label, by)),
            Err(error) if error.is_of_the_image() => {}
            Err(error) => return Err(error),
        }
    }
    let source = Box::new(LoadError::Elsewhere(first.in_one_line()));
    Err(LoadError::NoneReadable { row, tried: TRIED_MAX, source })
}
