//! Rows of class centres without tensors, for heads of any kind: those of `pfc-head`, whose products are
//! libtorch's, and that of the Python module, which links no libtorch.
//!
//! * [`range`], [`sampling`], [`rng`]: the classes of a rank, which of them a step draws, and random numbers
//!   that are a function of their key
//! * [`margin`], [`cross_entropy`]: what becomes of a positive's cosine, and what a sample costs
//! * [`row`], [`optim`]: the arithmetic on a row, and how rows move, lazily or at once
//! * [`product`], [`store`], [`softmax`]: matrix products, all rows of a rank in memory, and loss and gradients
//!   of a batch over them
//! * [`vectors`]: the processor's vector instructions
//!
//! Axes in names: G = global batch, D = numbers of an embedding, S = rows drawn on this rank, T = rows of one
//! tile of them, O = samples of the batch whose class is on this rank, C = classes of this rank.

pub mod cross_entropy;
pub mod margin;
pub mod optim;
pub mod product;
pub mod range;
pub mod rng;
pub mod row;
pub mod sampling;
pub mod softmax;
pub mod store;
mod vectors;

pub use vectors::vectors;
