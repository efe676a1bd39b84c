//! The tensors of a network under their state-dict names.

use tch::{Device, Kind, TchError, Tensor};

use crate::{ModelError, init::Init};

/// One tensor of a network.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) tensor: Tensor,
    /// False for buffers and frozen parameters.
    pub(crate) trainable: bool,
}

/// Where a network's layers register their tensors, in state-dict order, while it is built.
#[derive(Debug)]
pub(crate) struct State {
    device: Device,
    start: Start,
    entries: Vec<Entry>,
}

/// What a network's tensors hold at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// First values, drawn from this seed.
    Seed(u64),
    /// Zeros, for weights that are loaded next.
    Zeros,
    /// Nothing: shapes without memory, to compare weights with before any is allocated.
    Shapes,
}

impl State {
    pub(crate) fn new(device: Device, start: Start) -> State {
        State { device, start, entries: Vec::new() }
    }

    /// A parameter that learns.
    pub(crate) fn parameter(&mut self, key: String, shape: &[i64], init: Init) -> Tensor {
        let tensor = self.initial(&key, shape, init).set_requires_grad(true);
        self.register(key, tensor, true)
    }

    /// A parameter or running statistic that does not learn by gradient.
    pub(crate) fn buffer(&mut self, key: String, shape: &[i64], init: Init) -> Tensor {
        let tensor = self.initial(&key, shape, init);
        self.register(key, tensor, false)
    }

    /// An int64 scalar that starts at 0, in the host's memory wherever the network is: counting there costs
    /// a device nothing, and every network counts a hundred times a pass.
    pub(crate) fn counter(&mut self, key: String) -> Tensor {
        let tensor = Tensor::zeros([0i64; 0], (Kind::Int64, Device::Cpu));
        self.register(key, tensor, false)
    }

    fn initial(&self, key: &str, shape: &[i64], init: Init) -> Tensor {
        let options = (Kind::Float, self.device);
        match self.start {
            Start::Zeros => self.laid_out(Tensor::zeros(shape, options)),
            Start::Shapes => Tensor::zeros([0i64; 0], options).expand(shape, false),
            Start::Seed(seed) => {
                let n = shape.iter().product::<i64>() as usize;
                let values = Tensor::from_slice(&init.values(seed, key, n)).view(shape);
                self.laid_out(values.to_device(self.device))
            }
        }
    }

    /// On a GPU, the kernels of convolutions as cuDNN multiplies them with images whose channels lie
    /// side by side: it would rearrange them in every step.
    fn laid_out(&self, tensor: Tensor) -> Tensor {
        if self.device.is_cuda() && tensor.dim() == 4 {
            return tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        }
        tensor
    }

    fn register(&mut self, key: String, tensor: Tensor, trainable: bool) -> Tensor {
        let handle = tensor.shallow_clone();
        self.entries.push(Entry { key, tensor, trainable });
        handle
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Everything but running statistics and counters.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Entry> {
        let statistics = ["running_mean", "running_var", "num_batches_tracked"];
        self.entries
            .iter()
            .filter(move |entry| !statistics.iter().any(|name| entry.key.ends_with(name)))
    }

    /// Copies `tensors` in, all or none. `origin` names their source in errors; numbers that are not
    /// finite are refused, and variances below 0.
    pub(crate) fn load<K: AsRef<str>>(
        &self,
        origin: &str,
        tensors: &[(K, Tensor)],
    ) -> Result<(), ModelError> {
        let sources = self.matched(origin, tensors)?;
        for (entry, source) in self.entries.iter().zip(&sources) {
            check_finite(origin, &entry.key, source)?;
            check_variance(origin, &entry.key, source)?;
        }
        tch::no_grad(|| {
            for (entry, source) in self.entries.iter().zip(sources) {
                // A second handle to the same storage: `copy_` needs it mutable, the network shares it.
                entry.tensor.shallow_clone().copy_(source);
            }
        });
        Ok(())
    }

    /// For each entry its tensor among `tensors`, checked.
    pub(crate) fn matched<'a, K: AsRef<str>>(
        &self,
        origin: &str,
        tensors: &'a [(K, Tensor)],
    ) -> Result<Vec<&'a Tensor>, ModelError> {
        let named = tensors.iter().map(|(key, tensor)| (key.as_ref(), tensor));
        let sources = self.paired(origin, named, Tensor::size)?;
        for (entry, source) in self.entries.iter().zip(&sources) {
            check_kind(origin, entry, source)?;
        }
        Ok(sources)
    }

    /// Compares keys and shapes alone.
    pub(crate) fn check_shapes(
        &self,
        origin: &str,
        shapes: &[(String, Vec<i64>)],
    ) -> Result<(), ModelError> {
        let named = shapes.iter().map(|(key, shape)| (key.as_str(), shape));
        self.paired(origin, named, Vec::clone).map(drop)
    }

    /// For each entry what has its key among `named`, all of which are used up and have its shape.
    fn paired<'a, T>(
        &self,
        origin: &str,
        named: impl Iterator<Item = (&'a str, &'a T)>,
        shape_of: impl Fn(&T) -> Vec<i64>,
    ) -> Result<Vec<&'a T>, ModelError> {
        let mut by_key: std::collections::BTreeMap<&str, &T> = named.collect();
        let mut sources = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let source = by_key.remove(entry.key.as_str());
            let expected = entry.tensor.size();
            let source = source.ok_or_else(|| ModelError::MissingTensor {
                origin: origin.to_owned(),
                key: entry.key.clone(),
                expected: expected.clone(),
            })?;
            let found = shape_of(source);
            if found != expected {
                let (origin, key) = (origin.to_owned(), entry.key.clone());
                return Err(ModelError::TensorShape { origin, key, found, expected });
            }
            sources.push(source);
        }
        match by_key.first_key_value() {
            None => Ok(sources),
            Some((key, source)) => Err(ModelError::UnexpectedTensor {
                origin: origin.to_owned(),
                key: (*key).to_owned(),
                found: shape_of(source),
            }),
        }
    }
}

/// Refuses NaN and infinity, of which no network gives anything but more of them, and numbers of f64 that
/// are infinite as f32, which is what is kept.
///
/// * `origin`: names the file in errors
/// * `key`: names the tensor
///
/// # Errors
///
/// [`ModelError::NotFinite`]; [`ModelError::Memory`] if there is none for a mask of the tensor.
pub fn check_finite(origin: &str, key: &str, source: &Tensor) -> Result<(), ModelError> {
    if !source.is_floating_point() {
        return Ok(());
    }
    let n_bad = count(|| match source.kind() {
        Kind::Double => source.f_to_kind(Kind::Float)?.f_isfinite()?.f_logical_not(),
        _ => source.f_isfinite()?.f_logical_not(),
    })?;
    if n_bad == 0 {
        return Ok(());
    }
    let (origin, key) = (origin.to_owned(), key.to_owned());
    Err(ModelError::NotFinite { origin, key, n_bad, n: source.numel() as u64 })
}

/// Refuses NaN in a tensor of floating point.
pub(crate) fn check_not_nan(origin: &str, key: &str, source: &Tensor) -> Result<(), ModelError> {
    let n_bad = count(|| source.f_isnan())?;
    if n_bad == 0 {
        return Ok(());
    }
    let (origin, key) = (origin.to_owned(), key.to_owned());
    Err(ModelError::NotFinite { origin, key, n_bad, n: source.numel() as u64 })
}

/// The number of true elements of what `is_bad` gives.
fn count(is_bad: impl FnOnce() -> Result<Tensor, TchError>) -> Result<u64, ModelError> {
    let n_bad = tch::no_grad(|| is_bad()?.f_count_nonzero(None::<i64>));
    Ok(n_bad.map_err(ModelError::torch("check the weights"))?.int64_value(&[]) as u64)
}

/// Refuses variances below 0, of which a normalisation makes NaN.
fn check_variance(origin: &str, key: &str, source: &Tensor) -> Result<(), ModelError> {
    if !key.ends_with("running_var") || source.numel() == 0 {
        return Ok(());
    }
    let smallest =
        tch::no_grad(|| source.f_min()).map_err(ModelError::torch("check the weights"))?;
    let value = smallest.double_value(&[]);
    if value >= 0.0 {
        return Ok(());
    }
    let (origin, key) = (origin.to_owned(), key.to_owned());
    Err(ModelError::NegativeVariance { origin, key, value })
}

fn check_kind(origin: &str, entry: &Entry, source: &Tensor) -> Result<(), ModelError> {
    let is_counter = entry.tensor.kind() == Kind::Int64;
    let matches =
        if is_counter { source.kind() == Kind::Int64 } else { source.is_floating_point() };
    if matches {
        return Ok(());
    }
    Err(ModelError::TensorKind {
        origin: origin.to_owned(),
        key: entry.key.clone(),
        found: format!("{:?}", source.kind()),
        expected: if is_counter { "Int64".to_owned() } else { "a floating-point kind".to_owned() },
    })
}
