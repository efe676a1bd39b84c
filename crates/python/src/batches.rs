//! Batches that threads make ahead of their use.
//!
//! Each thread makes whole batches. It first takes a permit and then the number of the next batch, so
//! that the lowest number being made always has a permit: the queue is bounded and cannot lock up.

use std::{
    collections::BTreeMap,
    mem, process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use numpy::{IntoPyArray, PyArray1, PyArray4, ndarray::Array4};
use pfc_findings::View;
use pyo3::{prelude::*, sync::MutexExt};

use crate::{
    failure::Failure,
    images::Form,
    order::Plan,
    work::{Stop, caught, no_threads},
};

/// Between two looks at whether Ctrl-C was pressed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Pixels of the images of a batch, in the layout that was asked for, and their labels.
type Batch = (Vec<u8>, Vec<i64>);

type Made = (u64, Result<Batch, Failure>);

/// An iterator over batches of a data set, as (images, labels), which threads decode ahead of their
/// use. `Dataset.batches` makes it.
///
/// images is an array of uint8 of shape (N, H, W, 3), or (N, 3, H, W) with layout="nchw"; labels is an
/// array of int64 of shape (N,). len() is the number of batches that are left. An exception is that of
/// its batch; the iterator ends with it.
#[pyclass(module = "pfc", frozen, name = "Batches")]
#[derive(Debug)]
pub struct Batches {
    form: Form,
    /// The process whose threads make the batches.
    process: u32,
    n_batches: u64,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    next: u64,
    /// Batches that overtook the next one.
    early: BTreeMap<u64, Result<Batch, Failure>>,
    permits: Sender<()>,
    made: Receiver<Made>,
    _threads: Threads,
}

/// Threads that are told to end when this is dropped: after the image that each is at.
#[derive(Debug, Default)]
struct Threads(Arc<Stop>);

/// What is read and how.
#[derive(Debug, Clone)]
pub struct Job {
    /// The data set.
    pub view: Arc<View>,
    /// The batches.
    pub plan: Plan,
    /// The arrays.
    pub form: Form,
    /// Whether images are mirrored as training does.
    pub mirror: bool,
}

impl Batches {
    /// Starts the threads.
    ///
    /// * `first`: the first batch to make
    /// * `n_ahead`: batches that wait to be taken, at most
    ///
    /// # Errors
    ///
    /// If the system grants no threads.
    pub fn start(job: &Job, first: u64, n_ahead: usize) -> Result<Batches, Failure> {
        let n_threads = job.form.threads.max(1);
        let n_permits = n_ahead.max(1) + n_threads - 1;
        let (permits, take_permit) = bounded(n_permits);
        let (give, made) = bounded(n_permits);
        (0..n_permits).for_each(|_| assert!(permits.send(()).is_ok(), "it has room for them"));
        let next = Arc::new(AtomicU64::new(first));
        let threads = Threads::default();
        for i in 0..n_threads {
            let (job, next, stop) = (job.clone(), Arc::clone(&next), Arc::clone(&threads.0));
            let (take_permit, give) = (take_permit.clone(), give.clone());
            let work = move || make_batches(&job, &next, &take_permit, &give, &stop);
            let builder = thread::Builder::new().name(format!("pfc batches {i}"));
            builder.spawn(work).map_err(|error| no_threads(&error))?;
        }
        let early = BTreeMap::new();
        let state = State { next: first, early, permits, made, _threads: threads };
        let (process, n_batches) = (process::id(), job.plan.n_batches());
        Ok(Batches { form: job.form, process, n_batches, state: Mutex::new(Some(state)) })
    }

    /// The next batch, if there is one.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        if self.process != process::id() {
            return Err(Failure::other(
                "these batches are made by threads of another process, from which this one was forked",
                "call Dataset.batches in the process that reads them",
            )
            .into());
        }
        let mut state = self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let Some(live) = state.as_mut().filter(|live| live.next < self.n_batches) else {
            *state = None;
            return Ok(None);
        };
        while !live.early.contains_key(&live.next) {
            let made = &live.made;
            match py.detach(|| made.recv_timeout(LOOK_EVERY)) {
                Ok((number, batch)) => drop(live.early.insert(number, batch)),
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => {
                    *state = None;
                    return Err(
                        Failure::other("the threads that decode have ended", "report it").into()
                    );
                }
            }
        }
        let batch = live.early.remove(&live.next);
        live.next += 1;
        // The threads are gone after the last batch.
        let _ = live.permits.try_send(());
        match batch {
            Some(Ok(batch)) => Ok(Some(batch)),
            Some(Err(failure)) => {
                *state = None;
                Err(failure.into())
            }
            None => Ok(None),
        }
    }
}

#[pymethods]
impl Batches {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        let state = self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let next = state.as_ref().map_or(self.n_batches, |live| live.next);
        self.n_batches.saturating_sub(next) as usize
    }

    #[allow(clippy::type_complexity)]
    fn __next__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(Bound<'py, PyArray4<u8>>, Bound<'py, PyArray1<i64>>)>> {
        let Some((pixels, labels)) = self.take(py)? else { return Ok(None) };
        let shape = self.form.layout.shape(labels.len(), self.form.size);
        let images = Array4::from_shape_vec(shape, pixels)
            .map_err(|_| Failure::other("internal error: a shape", "please report it"))?;
        Ok(Some((images.into_pyarray(py), labels.into_pyarray(py))))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // The locks of the queues may have been taken by a thread that a forked process does not have.
        if self.process != process::id() {
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            mem::forget(state.take());
        }
    }
}

fn make_batches(
    job: &Job,
    next: &AtomicU64,
    permits: &Receiver<()>,
    give: &Sender<Made>,
    stop: &Stop,
) {
    let n_batches = job.plan.n_batches();
    while permits.recv().is_ok() {
        let number = next.fetch_add(1, Relaxed);
        if number >= n_batches || give.send((number, caught(|| make(job, number, stop)))).is_err() {
            return;
        }
    }
}

fn make(job: &Job, number: u64, stop: &Stop) -> Result<Batch, Failure> {
    let Job { view, plan, form, mirror } = job;
    let images = plan.images(number);
    // The disk reads what comes next while this thread decodes.
    plan.images(number).for_each(|(image, _)| view.will_need(image as u64));
    let n_bytes = form.size.rgb_bytes();
    let mut pixels = vec![0; images.len() * n_bytes];
    let mut labels = Vec::with_capacity(images.len());
    let mut scratch = Vec::new();
    for ((image, is_mirrored), out) in images.zip(pixels.chunks_exact_mut(n_bytes)) {
        stop.check()?;
        labels.push(view.get(image as u64)?.label.into());
        form.put(&**view, image, is_mirrored && *mirror, &mut scratch, out)?;
    }
    Ok((pixels, labels))
}
