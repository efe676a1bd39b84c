//! Operators for libtorch whose forward and backward passes are written in Rust.
//!
//! `tch` has every operator of libtorch, but no way to add one. [`with_gradient`] gives a tensor that was
//! computed in any way its place in a recorded forward pass, and [`parallel_map`] shares work among the
//! threads of libtorch's own operators. A second pool of threads would compete with those, which
//! wait for their next operator without giving up their cores. [`lists`] has the operators on lists of
//! tensors, which `tch` leaves out, and [`package`] runs
//! graphs of operators that were compiled ahead of time.

mod ffi;
mod gradient;
pub mod lists;
pub mod package;
mod precision;
mod threads;

pub use gradient::{OutputGradient, with_gradient};
pub use precision::allow_tf32;
pub use threads::parallel_map;
