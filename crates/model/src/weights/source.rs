//! Where the tensors of a network come from: out of a file, or made to go with those.

use tch::{Device, Kind, Tensor};

use crate::ModelError;

/// Key and shape of a tensor.
pub(super) type Shape = (String, Vec<i64>);

/// A tensor of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Weight {
    /// Its key in the network.
    pub(super) key: String,
    pub(super) shape: Vec<i64>,
    pub(super) source: Source,
}

/// Where its numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The tensor of this number in the file.
    File(usize),
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// The variance by which a normalisation with ε = 1e-5 divides by 1.
    UnitVariance,
    /// A convolution of one pixel that leaves every channel as it is.
    Identity,
    /// The number of batches that a normalisation has seen, which is 0.
    Counter,
}

impl Source {
    pub(super) fn file(self) -> Option<usize> {
        match self {
            Source::File(i) => Some(i),
            _ => None,
        }
    }
}

impl Weight {
    /// The tensor; `read` gives the file's.
    ///
    /// # Errors
    ///
    /// Those of `read`; [`ModelError::Memory`].
    pub(super) fn tensor(
        &self,
        read: &mut impl FnMut(usize) -> Result<Tensor, ModelError>,
    ) -> Result<Tensor, ModelError> {
        let options = (Kind::Float, Device::Cpu);
        let made = match self.source {
            Source::File(i) => return read(i),
            Source::Zeros => Tensor::f_zeros(&self.shape, options),
            Source::Ones => Tensor::f_ones(&self.shape, options),
            Source::UnitVariance => Tensor::f_full(&self.shape, 1.0 - 1e-5, options),
            Source::Identity => {
                Tensor::f_eye(self.shape[0], options).and_then(|eye| eye.f_view(&self.shape[..]))
            }
            Source::Counter => Tensor::f_zeros(&self.shape, (Kind::Int64, Device::Cpu)),
        };
        made.map_err(ModelError::torch("make a tensor"))
    }
}
