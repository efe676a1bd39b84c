//! Process groups of libtorch's c10d: the engine that PyTorch itself runs on, without Python.
//!
//! A process learns its place from the environment ([`Rendezvous::from_env`]), joins the others
//! ([`ProcessGroup::join`]) and exchanges tensors with them: Gloo carries those in host memory, NCCL
//! those on CUDA devices. [`Reducer`] sums the gradients of a backward pass while it runs.
//!
//! Every rank of a group has to call the same operations in the same order. One that cannot go on
//! says so with [`ProcessGroup::abort`], and the others' operations then fail with its reason
//! within a second; one that dies ends them as soon as its connections close, and one that hangs
//! after the group's timeout. Any such failure is final for the group.

mod error;
mod ffi;
mod group;
pub mod local;
mod reducer;
mod rendezvous;
mod slurm;

pub use error::C10dError;
pub use group::{GroupOptions, Pending, ProcessGroup, Reduce, nccl_available};
pub use reducer::Reducer;
pub use rendezvous::Rendezvous;
