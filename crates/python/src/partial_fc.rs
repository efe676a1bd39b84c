//! The head of `pfc.torch.PartialFC`: one rank's part of each step, over arrays that Python owns.
//!
//! Python gathers embeddings and labels, and adds up what the ranks know, with the user's own
//! `torch.distributed`; everything between is here. Arrays are (C, D) float32 weights, (C, N) float32
//! optimizer state, and (C,) uint32 stamps that say when each row last moved.

// G = global batch, D = embedding, C = rows of this rank, N = numbers of state a row.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray1,
    PyReadwriteArray2, ndarray::Array2,
};
use pfc_rows::{
    margin::{AngularMargin, ArcfaceGradient},
    optim::{AdamW, Dense, FIRST, Motion, Sgd, Stamp, UpdateRule},
    range::ClassRange,
    sampling::{Draw, Pprn, SampledRows, Sampler},
    softmax::{Batch, MarginSoftmax, Pass},
    store::{RowGradient, Rows, RowsMut},
};
use pyo3::prelude::*;

use crate::{failure::Failure, work::Threads};

/// Bytes of exponentials that are kept between the passes.
const KEPT_BYTES_MAX: usize = 1 << 30;

/// Weights, state and stamps, to be read.
type Arrays<'py> =
    (PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, f32>, PyReadonlyArray1<'py, Stamp>);

/// The same, to be moved.
type ArraysMut<'py> =
    (PyReadwriteArray2<'py, f32>, PyReadwriteArray2<'py, f32>, PyReadwriteArray1<'py, Stamp>);

/// One rank's head without its rows.
#[pyclass(module = "pfc._pfc", frozen)]
pub struct Head {
    softmax: MarginSoftmax,
    range: ClassRange,
    dim: usize,
    sampler: Pprn,
    threads: Threads,
    state: Mutex<State>,
}

/// What steps change.
struct State {
    /// Of dense updates.
    history: Option<Dense>,
    /// The stamp of a row that moves in the next step, less 1.
    now: Stamp,
    /// Memory of steps that are over.
    spare_slopes: Vec<f32>,
    spare_gradient: Vec<f32>,
}

/// A batch on its way forwards and back.
#[pyclass(module = "pfc._pfc", frozen)]
pub struct HeadPass {
    pass: Mutex<Option<Pass>>,
    /// When it went forwards: rows that have moved since have another gradient.
    stamp: Stamp,
}

/// The gradient by the rows of a rank, waiting for the optimizer.
#[pyclass(module = "pfc._pfc", frozen)]
pub struct HeadGradient {
    gradient: Mutex<RowGradient>,
}

/// How a row moves: `(lr, momentum, weight_decay)`, or `(lr, beta1, beta2, eps, weight_decay)`.
#[derive(FromPyObject)]
enum Optimizer {
    AdamW((f64, f64, f64, f64, f64)),
    Sgd((f64, f64, f64)),
}

#[pymethods]
impl Head {
    /// * `ranks`: this rank and how many there are
    /// * `sizes`: number of classes over all ranks, numbers of an embedding
    /// * `margin`: name and three numbers, as `margin` takes them
    /// * `loss`: scale and filter
    /// * `sampling`: share of the classes and seed
    /// * `threads`: 0 for one per core
    #[new]
    fn new(
        ranks: (usize, usize),
        sizes: (u64, usize),
        margin: (String, [f64; 3]),
        loss: (f64, f64),
        sampling: (f64, u64),
        is_dense: bool,
        threads: usize,
    ) -> PyResult<Head> {
        let ((rank, world), (classes, dim)) = (ranks, sizes);
        if rank >= world {
            let hint = "ranks run from 0 to world - 1";
            return Err(Failure::value(format!("rank {rank} of {world}"), hint).into());
        }
        let ((scale, filter), (sample_rate, seed)) = (loss, sampling);
        between("num_classes", classes as f64, 1.0, f64::from(u32::MAX))?;
        between("embedding_size", dim as f64, 1.0, 65_536.0)?;
        between("the scale s", scale, f64::MIN_POSITIVE, 1e4)?;
        between("interclass_filter", filter, 0.0, 1.0)?;
        between("sample_rate", sample_rate, 0.0, 1.0)?;
        let rows_per_step = (sample_rate * classes as f64).floor() as u64;
        let history = is_dense.then(|| Dense::new(0.0, 0.0));
        Ok(Head {
            softmax: MarginSoftmax {
                margin: angular(&margin.0, margin.1)?,
                scale,
                filter,
                kept_bytes_max: KEPT_BYTES_MAX,
            },
            range: ClassRange::of_rank(classes, rank, world),
            dim,
            sampler: Pprn::new(rows_per_step, seed),
            threads: Threads::new(threads),
            state: Mutex::new(State {
                history,
                now: FIRST,
                spare_slopes: Vec::new(),
                spare_gradient: Vec::new(),
            }),
        })
    }

    /// The first class of this rank.
    #[getter]
    fn first_class(&self) -> u64 {
        self.range.first()
    }

    /// Number of classes of this rank, C.
    #[getter]
    fn num_local(&self) -> usize {
        self.range.len()
    }

    /// The stamp of a row that has missed nothing.
    #[getter]
    fn stamp(&self) -> PyResult<Stamp> {
        Ok(self.state()?.stamp())
    }

    /// Begins again at a stamp, where updates are sparse; there the stamp counts the steps, from 1.
    fn set_stamp(&self, stamp: Stamp) -> PyResult<()> {
        self.state()?.now = stamp;
        Ok(())
    }

    /// The rows of this rank that a step draws.
    ///
    /// * `classes`: those of the global batch, ascending, each once
    fn draw<'py>(
        &self,
        py: Python<'py>,
        step: u64,
        classes: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let (mut sampler, range) = (self.sampler.clone(), self.range);
        let positives = ids(classes.as_slice()?)?;
        let draw = move || Ok(sampler.draw(&Draw { step, positives: &positives, range }));
        Ok(self.threads.released(py, draw)?.into_pyarray(py))
    }

    /// Begins a pass: normalises the batch and finds its positives among the drawn rows.
    fn begin(
        &self,
        py: Python<'_>,
        arrays: Arrays<'_>,
        embeddings: PyReadonlyArray2<'_, f32>,
        labels: PyReadonlyArray1<'_, i64>,
        step: u64,
        drawn: PyReadonlyArray1<'_, u32>,
    ) -> PyResult<HeadPass> {
        let mut state = self.state()?;
        let (embeddings_gd, labels_g) = (embeddings.as_slice()?, ids(labels.as_slice()?)?);
        let drawn = drawn.as_slice()?.to_vec();
        let slopes_sg = std::mem::take(&mut state.spare_slopes);
        let rows = self.rows(&arrays, state.history.as_ref())?;
        let pass = self.threads.released(py, || {
            let batch = Batch::new(embeddings_gd, labels_g);
            let drawn = SampledRows::check(drawn, self.range.len(), step)?;
            let drawn = (drawn, self.range);
            Ok(Pass::new(self.softmax, batch, drawn, &rows, (step, slopes_sg))?)
        })?;
        Ok(HeadPass { pass: Mutex::new(Some(pass)), stamp: state.stamp() })
    }

    /// The largest logit of each sample over the rows of this rank, (G,) float64, where `forward` needs
    /// that of all ranks; else nothing.
    fn largest<'py>(
        &self,
        py: Python<'py>,
        arrays: Arrays<'_>,
        pass: &HeadPass,
    ) -> PyResult<Option<Bound<'py, PyArray1<f64>>>> {
        if !self.softmax.needs_offsets(self.range.classes()) {
            return Ok(None);
        }
        let state = self.state()?;
        let rows = self.rows(&arrays, state.history.as_ref())?;
        let largest_g = self
            .threads
            .released(py, || Ok(pass.lock().as_ref().ok_or_else(is_over)?.largest_logits(&rows)))?;
        Ok(Some(largest_g.into_pyarray(py)))
    }

    /// Goes forwards. Returns what this rank knows of the samples, (2 G,) float64, for all ranks to add up.
    fn forward<'py>(
        &self,
        py: Python<'py>,
        arrays: Arrays<'_>,
        pass: &HeadPass,
        offsets: Option<Vec<f64>>,
        wants_gradient: bool,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let state = self.state()?;
        let rows = self.rows(&arrays, state.history.as_ref())?;
        let sums = self.threads.released(py, || {
            let mut pass = pass.lock();
            let pass = pass.as_mut().ok_or_else(is_over)?;
            pass.forward(&rows, offsets.as_deref(), wants_gradient);
            Ok(pass.sums())
        })?;
        Ok(sums.into_pyarray(py))
    }

    /// The gradient by the rows, and the sum of its squares.
    fn by_rows(
        &self,
        py: Python<'_>,
        arrays: Arrays<'_>,
        pass: &HeadPass,
        factor: f64,
    ) -> PyResult<(HeadGradient, f64)> {
        let mut state = self.state()?;
        if pass.stamp != state.stamp() {
            return Err(Failure::value(
                "the optimizer moved the centres between a loss and its backward pass",
                "call loss.backward() before opt.step()",
            )
            .into());
        }
        let memory = std::mem::take(&mut state.spare_gradient);
        let rows = self.rows(&arrays, state.history.as_ref())?;
        let (gradient, squares) = self.threads.released(py, || {
            Ok(pass.lock().as_ref().ok_or_else(is_over)?.by_rows(&rows, factor, memory))
        })?;
        Ok((HeadGradient { gradient: Mutex::new(gradient) }, squares))
    }

    /// `first` times `factor`, and `second`, added up; and the sum of the squares.
    fn sum(
        &self,
        py: Python<'_>,
        first: &HeadGradient,
        factor: f64,
        second: &HeadGradient,
    ) -> PyResult<(HeadGradient, f64)> {
        let (sum, squares) = self.threads.released(py, || {
            let sum = first.lock().sum(factor, &second.lock(), self.dim);
            let squares = sum.squares();
            Ok((sum, squares))
        })?;
        Ok((HeadGradient { gradient: Mutex::new(sum) }, squares))
    }

    /// Moves the rows of a gradient, and under dense updates puts off the step of all others.
    ///
    /// * `factor`: which the gradient is multiplied by
    fn step(
        &self,
        py: Python<'_>,
        mut arrays: ArraysMut<'_>,
        gradient: &HeadGradient,
        factor: f64,
        optimizer: Optimizer,
    ) -> PyResult<()> {
        let mut state = self.state()?;
        let motion = state.motion(&optimizer)?;
        let stamp = state.stamp() + 1;
        let rows = self.rows_mut(&mut arrays, state.history.as_ref())?;
        self.threads.released(py, || {
            rows.step(&gradient.lock(), factor, &motion, stamp);
            Ok(())
        })?;
        match (&mut state.history, motion) {
            (Some(history), Motion::Sgd(sgd)) => history.finish_step_of(&sgd),
            _ => state.now = stamp,
        }
        if state.history.as_ref().is_some_and(UpdateRule::must_catch_up) {
            drop(state);
            return self.catch_up(py, arrays);
        }
        Ok(())
    }

    /// Applies the updates that were put off to all rows. Takes time in proportion to their number.
    fn catch_up(&self, py: Python<'_>, mut arrays: ArraysMut<'_>) -> PyResult<()> {
        let mut state = self.state()?;
        let rows = self.rows_mut(&mut arrays, state.history.as_ref())?;
        self.threads.released(py, || {
            rows.catch_up();
            Ok(())
        })?;
        if let Some(history) = &mut state.history {
            history.caught_up();
        }
        Ok(())
    }

    /// Takes back memory of what is over, for the next step.
    #[pyo3(signature = (pass=None, gradient=None))]
    fn recycle(&self, pass: Option<&HeadPass>, gradient: Option<&HeadGradient>) -> PyResult<()> {
        let mut state = self.state()?;
        if let Some(pass) = pass.and_then(|pass| pass.lock().take()) {
            state.spare_slopes = pass.into_memory();
        }
        if let Some(gradient) = gradient {
            state.spare_gradient = std::mem::take(&mut gradient.lock().gradient_sd);
        }
        Ok(())
    }
}

#[pymethods]
impl HeadPass {
    /// The mean loss, given the sums of all ranks.
    fn join(&self, sums: PyReadonlyArray1<'_, f64>) -> PyResult<f64> {
        let sums = sums.as_slice()?;
        Ok(self.lock().as_mut().ok_or_else(is_over)?.join(sums))
    }

    /// Number of rows that take part.
    #[getter]
    fn num_rows(&self) -> PyResult<usize> {
        Ok(self.lock().as_ref().ok_or_else(is_over)?.n_rows())
    }

    /// This rank's part of the gradient by the embeddings, (G, D) float32, for all ranks to add up.
    fn by_embeddings<'py>(
        &self,
        py: Python<'py>,
        head: &Head,
        factor: f64,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let gradient_gd = head.threads.released(py, || {
            let gradient = self.lock().as_ref().ok_or_else(is_over)?.by_embeddings(factor);
            let shape = (gradient.len() / head.dim, head.dim);
            Array2::from_shape_vec(shape, gradient).map_err(|_| fault("a shape"))
        })?;
        Ok(gradient_gd.into_pyarray(py))
    }
}

impl HeadPass {
    fn lock(&self) -> MutexGuard<'_, Option<Pass>> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeadGradient {
    fn lock(&self) -> MutexGuard<'_, RowGradient> {
        self.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn stamp(&self) -> Stamp {
        self.history.as_ref().map_or(self.now, UpdateRule::stamp)
    }

    fn motion(&self, optimizer: &Optimizer) -> Result<Motion, Failure> {
        match *optimizer {
            Optimizer::Sgd((lr, momentum, weight_decay)) => {
                Ok(Motion::Sgd(Sgd { lr, momentum, weight_decay }))
            }
            Optimizer::AdamW(_) if self.history.is_some() => Err(Failure::value(
                "the centres move densely, which is exact for SGD alone",
                "make the head with update=\"sparse\", or give its parameters to torch.optim.SGD",
            )),
            Optimizer::AdamW((lr, beta1, beta2, eps, weight_decay)) => {
                // The number of this step, from 1, is the stamp before it.
                let correction = |beta: f64| 1.0 - beta.powf(f64::from(self.now));
                let (correction1, correction2) = (correction(beta1), correction(beta2));
                Ok(Motion::AdamW(AdamW {
                    lr,
                    beta1,
                    beta2,
                    eps,
                    weight_decay,
                    correction1,
                    correction2,
                }))
            }
        }
    }
}

impl Head {
    /// Not waited for: whoever holds it may be waiting for the interpreter's lock, which the caller has.
    fn state(&self) -> Result<MutexGuard<'_, State>, Failure> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Failure::value(
                "two threads use one head at the same time",
                "call forward, backward and opt.step() one after the other",
            )),
        }
    }

    fn rows<'a>(
        &self,
        (weight, state, stamps): &'a Arrays<'_>,
        history: Option<&'a Dense>,
    ) -> Result<Rows<'a>, PyErr> {
        let (weight_cd, state_cn) = (weight.as_slice()?, state.as_slice()?);
        let stamps_c = stamps.as_slice()?;
        self.check(weight_cd.len(), state_cn.len(), stamps_c.len())?;
        Ok(Rows { dim: self.dim, weight_cd, state_cn, stamps_c, history })
    }

    fn rows_mut<'a>(
        &self,
        (weight, state, stamps): &'a mut ArraysMut<'_>,
        history: Option<&'a Dense>,
    ) -> Result<RowsMut<'a>, PyErr> {
        let (weight_cd, state_cn) = (weight.as_slice_mut()?, state.as_slice_mut()?);
        let stamps_c = stamps.as_slice_mut()?;
        self.check(weight_cd.len(), state_cn.len(), stamps_c.len())?;
        Ok(RowsMut { dim: self.dim, weight_cd, state_cn, stamps_c, history })
    }

    /// Holds the Python half to its promises.
    fn check(&self, n_weight: usize, n_state: usize, n_stamps: usize) -> Result<(), Failure> {
        let n = self.range.len() * self.dim;
        let is_whole =
            n_weight == n && n_stamps == self.range.len() && n_state.is_multiple_of(n.max(1));
        is_whole.then_some(()).ok_or_else(|| fault("an array of the head"))
    }
}

fn angular(name: &str, [a, b, c]: [f64; 3]) -> Result<AngularMargin, Failure> {
    const PI: f64 = std::f64::consts::PI;
    match name {
        "cosface" => {
            between("the margin m", a, 0.0, 2.0)?;
            Ok(AngularMargin::Cosface { m: a })
        }
        "arcface" | "arcface straight through" => {
            between("the margin m", a, 0.0, PI)?;
            let gradient = match name {
                "arcface" => ArcfaceGradient::Exact,
                _ => ArcfaceGradient::StraightThrough,
            };
            Ok(AngularMargin::Arcface { m: a, gradient })
        }
        _ => {
            between("m1", a, f64::MIN_POSITIVE, 10.0)?;
            between("m2", b, 0.0, PI)?;
            between("m3", c, 0.0, 2.0)?;
            Ok(AngularMargin::Combined { m1: a, m2: b, m3: c })
        }
    }
}

fn ids(labels: &[i64]) -> Result<Vec<u64>, Failure> {
    labels.iter().map(|&label| u64::try_from(label).map_err(|_| fault("a label"))).collect()
}

fn between(name: &str, value: f64, least: f64, most: f64) -> Result<(), Failure> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let bounds = match least == f64::MIN_POSITIVE {
        true => format!("above 0 and at most {most}"),
        false => format!("from {least} to {most}"),
    };
    Err(Failure::value(format!("{name} is {value}"), format!("give a number {bounds}")))
}

fn is_over() -> Failure {
    Failure::value(
        "the backward pass of this loss has been run before",
        "call forward again for each backward pass",
    )
}

fn fault(what: &str) -> Failure {
    Failure::other(format!("internal error: {what}"), "this is a fault of pfc: please report it")
}
